"""`glob(*)` over a noun: the options that go together with the rest of the config."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig, open_dict

from lightning_prune.cli import compose
from lightning_prune.cli.errors import UserError, explain, message, one_line

_LENGTH = 1_000_000
"""Steps of the run that a pruner is tried with."""


def fitting(
    config: DictConfig, loader: ConfigLoader, job_overrides: Sequence[Sequence[str]]
) -> list[DictConfig | None]:
    """Return the composed config of each run, None for those that are left out; these are named, with the reason.

    Left out are options of a `glob(...)` over a noun: `none`, and those that cannot be built with the rest of their
    run while others can. Where none can, the fault is elsewhere: all run, and say so.

    Raises:
        UserError: nothing is left.
    """
    nouns = _globbed(config, loader)
    if not nouns:
        return [loader.load_sweep_config(config, list(overrides)) for overrides in job_overrides]
    composed: list[DictConfig | None] = []
    reasons: list[str | None] = []
    for overrides in job_overrides:
        found, reason = _tried(config, loader, overrides, nouns)
        composed.append(found)
        reasons.append(reason)
    others = [tuple(word for word in each if word.partition("=")[0] not in nouns) for each in job_overrides]
    works = {rest for rest, reason in zip(others, reasons, strict=True) if reason is None}
    common = set.intersection(*(set(each) for each in job_overrides))
    left_out: dict[str, str] = {}
    for i, overrides in enumerate(job_overrides):
        reason = reasons[i]
        if reason is None:
            continue
        if others[i] not in works and not _nones(overrides, nouns):
            composed[i] = composed[i] or loader.load_sweep_config(config, list(overrides))
            continue
        composed[i] = None
        left_out[" ".join(word for word in overrides if word not in common) or " ".join(overrides)] = reason
    _say(left_out, len(job_overrides))
    if not any(each is not None for each in composed):
        raise UserError(f"glob(...) leaves no run: {next(iter(left_out.values()), 'there are no options')}")
    return composed


def _globbed(config: DictConfig, loader: ConfigLoader) -> set[str]:
    """Return the groups of the pruner that a sweep takes by `glob(...)`."""
    params = config.hydra.sweeper.get("params") or {}
    words = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    found = {o.get_key_element(): o for o in OverridesParser.create(config_loader=loader).parse_overrides(words)}
    return {
        key
        for key, override in found.items()
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP and key.startswith("pruner/")
    }


def _nones(overrides: Sequence[str], nouns: set[str]) -> list[str]:
    return [word for word in overrides if word.partition("=")[0] in nouns and word.endswith("=none")]


def _tried(
    config: DictConfig, loader: ConfigLoader, overrides: Sequence[str], nouns: set[str]
) -> tuple[DictConfig | None, str | None]:
    """Return the config of a run, and why it cannot be built; None if it can."""
    nothing = _nones(overrides, nouns)
    if nothing:
        return None, f"{nothing[0]} is no {nothing[0].partition('=')[0].rpartition('/')[2]}"
    try:
        found = loader.load_sweep_config(config, list(overrides))
    except Exception as error:
        return None, explain(error) or one_line(message(error))
    try:
        _build(found)
    except Exception as error:
        return found, explain(error) or one_line(f"{type(error).__name__}: {message(error)}")
    return found, None


def _build(config: DictConfig) -> None:
    """Build what a run is made of, and try its pruner on its network. Raises what does not go together."""
    from lightning_prune.cli import family
    from lightning_prune.cli.quiet import quiet

    with _current(config) as ours, quiet():
        family.begin(ours)
        from lightning_prune.cli import build

        parts = build.parts(ours)
        if ours.get("rounds") is not None:
            parts.rounds.plan(parts.task)
            return
        parts.prune.pruner.attach(parts.task, _LENGTH, trial=True)


@contextmanager
def _current(config: DictConfig) -> Generator[DictConfig, None, None]:
    """Let `${hydra:...}` be of this run, and give its config without Hydra's own part."""
    ours = copy.deepcopy(config)
    with open_dict(config):
        config.hydra.job.num, config.hydra.job.id = 0, "0"
    with open_dict(ours):
        del ours["hydra"]
    with compose.known(config):
        yield ours


def _say(left_out: dict[str, str], all_: int) -> None:
    """Name what is left out, before anything starts."""
    if not left_out:
        return
    print(f"left out, {len(left_out)} of {all_} runs of glob(...):")
    by_reason: dict[str, list[str]] = {}
    for overrides, reason in left_out.items():
        by_reason.setdefault(reason, []).append(overrides)
    for reason, each in by_reason.items():
        more = f" and {len(each) - 3} more" if len(each) > 3 else ""
        print(f"  {', '.join(each[:3])}{more}: {reason}")
    print()
