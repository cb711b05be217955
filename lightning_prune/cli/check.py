"""Every key of a config against the constructor that it goes to, before anything is built."""

from __future__ import annotations

import inspect
import pydoc
import types
import typing
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from lightning_prune.cli.errors import UserError, near

_SIMPLE = (int, float, str, bool, type(None))


def check(config: DictConfig) -> None:
    """Look at every `_target_` below a config.

    Raises:
        UserError: a key that its constructor does not take, or a plain value where it says it takes another type.
    """
    if not isinstance(config.seed, int) or config.seed < 0:
        raise UserError(f"seed={config.seed} must be an int of at least 0")
    for path, node in _targets(config, ""):
        _check_node(path, node)


def _targets(node: DictConfig | ListConfig, path: str) -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, DictConfig) and isinstance(node.get("_target_"), str):
        yield path, node
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        child = node[key]
        if isinstance(child, (DictConfig, ListConfig)):
            yield from _targets(child, f"{path}.{key}".lstrip("."))


def _check_node(path: str, node: DictConfig) -> None:
    try:
        target: Any = pydoc.locate(node["_target_"])
        parameters = inspect.signature(target).parameters
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # not importable, builtin, or hints that name what is not there: building it will tell
        return
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in node:
        name = str(key)
        if name.startswith("_") and name.endswith("_"):
            continue
        if name in parameters:
            _check_value(f"{path}.{name}", node[key], hints.get(name, Any))
        elif not open_ended:
            meant = near(name, parameters)
            takes = f"it takes {', '.join(parameters) or 'nothing'}; '~{path}.{name}' leaves the key out"
            hint = f"did you mean {' or '.join(meant)}?" if meant else takes
            raise UserError(f"unknown key '{path}.{name}': {node['_target_']} has no such argument; {hint}")


def _check_value(path: str, value: Any, hint: Any) -> None:
    kinds = _kinds(hint)
    if not kinds or not isinstance(value, _SIMPLE):
        return
    if isinstance(value, kinds) or (isinstance(value, int) and float in kinds):
        return
    names = ["null" if kind is type(None) else kind.__name__ for kind in kinds]
    raise UserError(f"{path}={value!r} must be of type {' or '.join(names)}")


def _kinds(hint: Any) -> tuple[type, ...]:
    """Return the plain types that a hint allows; none if it allows anything else."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [_kinds(inner) for inner in typing.get_args(hint)]
        return tuple(kind for inner in kinds for kind in inner) if all(kinds) else ()
    if typing.get_origin(hint) is typing.Literal:
        return tuple({type(value) for value in typing.get_args(hint)})
    return (hint,) if hint in _SIMPLE else ()
