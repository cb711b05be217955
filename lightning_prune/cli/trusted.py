"""What may be built of a run that is only read: nothing is imported and nothing called but ours, or what is trusted.

A run's config names classes. `train` and `plan` build whatever they are told to; commands that read a run build its
model, and the folder may come from anywhere. So Hydra does not compose such a config, every reference in it is resolved
beforehand, and every `_target_` is looked at before anything is imported.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune.cli.errors import UserError, printable
from lightning_prune.cli.here import located, why_not_found

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_TRAINERS = ("pytorch_lightning.Trainer", "lightning.pytorch.Trainer", "lightning.Trainer")
_NOT_OURS_TO_BUILD = ("lightning_prune.cli", "lightning_prune.__main__")
_NEVER = {*sys.stdlib_module_names, "hydra", "numpy", "omegaconf", "torch"}
"""What no prefix may begin with: it holds functions that run what they are given."""
_RUN_FOLDER = "${hydra:runtime.output_dir}"


@dataclass(frozen=True)
class Trust:
    """The modules whose classes and functions may be built beside ours.

    Args:
        prefixes: dotted names; each stands for itself and all below it.

    Raises:
        UserError: a prefix is no dotted name, or would let a config call anything at all.
    """

    prefixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for prefix in self.prefixes:
            if not _DOTTED.fullmatch(prefix):
                raise UserError(f"--trust={printable(prefix)}: give the dotted name of a module, such as mypackage")
            if prefix.partition(".")[0] in _NEVER:
                raise UserError(
                    f"--trust={prefix} would let a config run anything at all: name the package of your model"
                )

    def check(self, run: Path, key: str, target: Any) -> None:
        """Raise UserError unless the config of a run may have this `_target_` called. Imports what is trusted alone."""
        said = f"{run}: {printable(key)}._target_={printable(str(target))}"
        if not isinstance(target, str) or not _DOTTED.fullmatch(target):
            raise UserError(f"{said} must be the dotted name of a class")
        if target in _TRAINERS and key == "trainer":
            return
        top = target.partition(".")[0]
        if not (_is_ours(target) or _below(target, ("torch.nn", "torch.optim")) or _below(target, self.prefixes)):
            remedy = "it is no class of a model or of data"
            if top not in _NEVER and top != "lightning_prune":
                remedy = f"if you trust that package, add --trust {top}"
            raise UserError(f"{said} is not called: a run that is read gets our own classes and PyTorch's; {remedy}")
        try:
            found = located(target)
        except ImportError as error:
            raise UserError(f"{said}: {why_not_found(target) or error}") from error
        reason = self._refused(found)
        if reason is not None:
            raise UserError(f"{said} is not called: {reason}")

    def _refused(self, found: Any) -> str | None:
        """Return why something of a trusted name may not be called all the same, None if it may."""
        if not (inspect.isclass(found) or inspect.isfunction(found)):
            return "it is neither a class nor a function"
        home = f"{found.__module__}.{found.__qualname__}"
        if _below(home, self.prefixes):
            return None
        if _is_ours(home):
            return None if inspect.isclass(found) or _makes_a_part(found) else "that function makes no part of a model"
        if _below(home, ("torch.nn", "torch.optim")):
            return None if inspect.isclass(found) and issubclass(found, _kinds()) else "it is no module or optimizer"
        return f"it is {home}, which is not what its name says"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--trust` to the options of a command that builds what a run's config names, and say what it builds."""
    parser.add_argument(
        *("--trust", "--trusted"),
        action="append",
        default=[],
        metavar="PREFIX",
        help="a package whose classes the run's config may name, such as your own; several with commas or again. Of "
        "other packages than this one and torch.nn and torch.optim nothing is imported or called",
    )


def given(options: argparse.Namespace) -> Trust:
    """Return what `--trust` says. Raises UserError for a prefix that cannot be trusted."""
    return Trust(tuple(part.strip() for text in options.trust for part in text.split(",") if part.strip()))


def config_of(run: Path, sections: Sequence[str], trust: Trust) -> Any:
    """Return the config that a run has left, as far as it is needed, without references and with trusted classes alone.

    Args:
        run: the run's folder.
        sections: the keys to return, null where there are none; `seed` comes with them, `ckpt_path` and `weights` are
            null.
        trust: what its classes may be.

    Raises:
        UserError: there is no such config, it was not written by a run, or it names a class that is not trusted.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run} is no run's folder: there is no config.yaml in it")
    try:
        raw = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text") from error
    if not isinstance(raw, dict) or raw.get("defaults") != ["run_folder", "_self_"]:
        raise UserError(f"{file} was not left by a run: those begin with defaults: [run_folder, _self_]")
    config = OmegaConf.create(_with_folder({str(key): value for key, value in raw.items()}, run))
    try:
        plain = {key: _plain(config, key) for key in ("seed", *sections)}
    except OmegaConfBaseException as error:
        raise UserError(f"{file}: {str(error).partition(chr(10))[0]}") from error
    for key, node in _nodes(plain, ""):
        if isinstance(node, str) and "${" in node:
            raise UserError(f"{file}: {printable(key)}={printable(node)} refers to something after it was resolved")
        if isinstance(node, dict) and "_target_" in node:
            trust.check(run, key, node["_target_"])
    return OmegaConf.create({**plain, "ckpt_path": None, "weights": None})


def _plain(config: Any, key: str) -> Any:
    from omegaconf import OmegaConf

    value = config.get(key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _with_folder(node: Any, run: Path) -> Any:
    """Return the values with the run's folder in place of Hydra's word for it."""
    if isinstance(node, dict):
        return {key: _with_folder(value, run) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_folder(value, run) for value in node]
    return node.replace(_RUN_FOLDER, str(run)) if isinstance(node, str) else node


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield all values below a value, with their dotted keys; keys that are strings count as values too."""
    yield path, node
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        if isinstance(key, str):
            yield path, key
        yield from _nodes(value, f"{path}.{key}".lstrip("."))


def _below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _is_ours(name: str) -> bool:
    return _below(name, ("lightning_prune",)) and not _below(name, _NOT_OURS_TO_BUILD)


def _kinds() -> tuple[type, ...]:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    return nn.Module, Optimizer, LRScheduler


def _makes_a_part(function: Any) -> bool:
    """Whether one of our recipes' functions says that it returns a model, an example input or an optimizer."""
    from torch import Tensor

    made = typing.get_type_hints(function).get("return")
    recipes = _below(function.__module__, ("lightning_prune.tasks",))
    return recipes and inspect.isclass(made) and issubclass(made, (*_kinds(), Tensor))
