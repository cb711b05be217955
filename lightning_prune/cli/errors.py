"""One line for people from an exception, where it is the user's to mend."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_EXTRAS = {
    "hydra": "hydra",
    "omegaconf": "hydra",
    "matplotlib": "hydra",
    "jinja2": "hydra",
    "safetensors": "hydra",
    "sklearn": "hydra",
    "pytorch_lightning": "hydra",
    "lightning_utilities": "hydra",
    "torchmetrics": "hydra",
    "wandb": "wandb",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "torchao": "int8",
}
_PLUGINS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray", "optuna": "optuna"}
"""Option of a group of Hydra's -> the extra that brings it."""
_CHECKED = ("lightning_prune.", "pytorch_lightning.", "lightning_fabric.", "lightning.", "torch.optim.")
"""Modules whose errors are about what they were given."""


class UserError(Exception):
    """What the user did not mean, and what to do about it: one line."""


def explain(error: BaseException) -> str | None:
    """Return one line that says what to do, or None where the traceback is what helps."""
    if isinstance(error, UserError):
        return one_line(str(error))
    for cause in _chain(error):
        if isinstance(cause, ModuleNotFoundError) and (cause.name or "").partition(".")[0] in _EXTRAS:
            top = str(cause.name).partition(".")[0]
            return f"{top} is not installed: pip install 'lightning-prune[{_EXTRAS[top]}]'"
    line = _of_hydra(error) if "hydra" in sys.modules else None
    if line is None and (isinstance(error, OSError) or _is_check(error)):
        line = str(error)
    return None if line is None else one_line(line)


def one_line(text: str) -> str:
    """Return the text with all white space as single blanks, and other control characters escaped."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Return a text that a file has brought with its control characters escaped: a terminal must not act on them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def message(error: BaseException) -> str:
    """Return what an exception says, or its name if it says nothing."""
    return one_line(str(error)) or type(error).__name__


def near(name: str, known: Iterable[str], number: int = 2) -> list[str]:
    """Return the known names that `name` may have been meant for, the likeliest first."""
    names = list(dict.fromkeys(known))
    last = name.rpartition(".")[2]
    same = [other for other in names if other.endswith(f".{name}")]
    alike = difflib.get_close_matches(name, names, n=number, cutoff=0.7)
    ends = {other: other.rpartition(".")[2] for other in names}
    by_end = [o for e in difflib.get_close_matches(last, ends.values(), cutoff=0.8) for o in names if ends[o] == e]
    return list(dict.fromkeys([*same, *alike, *by_end]))[:number]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _is_check(error: BaseException) -> bool:
    """Whether a module that checks what it is given raised this about it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__")) + "." if trace is not None else ""
    misconfigured = type(error).__name__ == "MisconfigurationException"
    if module.startswith("lightning_prune."):
        return isinstance(error, (ValueError, RuntimeError)) or misconfigured
    misfit = isinstance(error, RuntimeError) and str(error).startswith("Error(s) in loading state_dict")
    checks = (ValueError, TypeError) if not module.startswith("torch.") else ValueError
    return misfit or misconfigured or (module.startswith(_CHECKED) and isinstance(error, checks))


def _of_hydra(error: BaseException) -> str | None:
    from hydra.errors import (
        ConfigCompositionException,
        HydraException,
        InstantiationException,
        MissingConfigException,
        OverrideParseException,
    )
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, InstantiationException):
        return _of_target(error)
    if isinstance(error, MissingConfigException):
        return _of_option(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: write key=value, and quote special characters: 'key=\"a,b\"'"
    if isinstance(error, ConfigCompositionException):
        return _of_key(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key or 'a key'} is not set: name a recipe that sets it, or set it on the command line"
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {error.msg or error}".partition("\n")[0] if error.full_key else str(error)
    if isinstance(error, YAMLError):
        return f"a config file is no valid YAML: {error}"
    return str(error) if isinstance(error, HydraException) else None


def _of_target(error: Any) -> str:
    """A constructor's complaint: which key, and what it said."""
    first, *rest = str(error).split("\n")
    key = next((line.split(":", 1)[1].strip() for line in rest if line.startswith("full_key:")), "")
    if first.startswith("Error locating target"):
        from lightning_prune.cli.here import why_not_found

        target = first.partition("'")[2].partition("'")[0]
        missing = why_not_found(target)
        if missing is not None:
            return f"{f'{key}.' if key else ''}_target_={target}: {missing}"
    first = first.partition(", set env var")[0].removesuffix(":")
    causes = [cause for cause in _chain(error) if type(cause) is not type(error)]
    said = message(causes[-1]) if causes else ""
    what = said if first.startswith("Error in call to target") else ": ".join(part for part in (first, said) if part)
    return f"{key.removeprefix('prune.') if key.startswith('prune.pruner') else key}: {what}" if key else what


def _of_option(error: Any) -> str:
    """An option that a group does not have."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if group in ("hydra/launcher", "hydra/sweeper") and option in _PLUGINS:
        return f"{group}={option} is not installed: pip install 'lightning-prune[{_PLUGINS[option]}]'"
    if not error.options:
        return str(error).partition("\n")[0]
    return f"{group} has no {option!r}; there are {', '.join(sorted(error.options))}"


def _of_key(error: Any) -> str:
    """A key that is not there, with near matches."""
    from omegaconf import Container
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    text = str(error)
    key = text.partition("'")[2].partition("'")[0]
    cause = error.__cause__
    parent = getattr(cause, "parent_node", None)
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and isinstance(parent, Container):
        known = list(_keys(parent._get_root()))  # pyright: ignore[reportPrivateUsage]
        if "/" in key:
            meant = [name.replace(".", "/") for name in near(key.replace("/", "."), known, number=1)]
            return f"unknown group {key!r}" + (f": did you mean {meant[0]}?" if meant else "")
        above = key.rpartition(".")[0]
        siblings = [f"{above}.{name}" for name in [*parent, *_takes(parent)]] if above in known else []
        meant = near(key, siblings or known)
        hint = (
            f"did you mean {' or '.join(meant)}?"
            if meant
            else f"there are {', '.join(dict.fromkeys(siblings or parent)) or 'none'}"
        )
        return f"unknown key {key!r}: {hint} (+{key}=... adds a new one)"
    if cause is not None:
        return f"{text.partition(chr(10))[0]} {message(cause)}"
    return text.partition("To append")[0]


def _takes(node: Any) -> tuple[str, ...]:
    """Return what the constructor of a config's node takes."""
    from lightning_prune.cli.constructor_keys import taken

    return taken(node.get("_target_")) if hasattr(node, "get") and node.get("_target_") else ()


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig, OmegaConf

    for key in node:
        name = f"{prefix}{key}"
        if name == "hydra":
            continue
        yield name
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        child = node[key]
        if isinstance(child, DictConfig):
            yield from _keys(child, f"{name}.")
