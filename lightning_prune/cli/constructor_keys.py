"""Keys that a recipe does not name and the constructor takes: they may be set without a `+`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from lightning_prune import families
from lightning_prune.cli import family
from lightning_prune.cli.here import located

T = TypeVar("T")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def taken(target: Any) -> tuple[str, ...]:
    """Return the names of the arguments of the class or function that a dotted name stands for; nothing is called.

    What a constructor takes as **kwargs has no names. Of what cannot be found there are none.
    """
    try:
        named = family.named({"_target_": target}, families.default())["_target_"]
        parameters = inspect.signature(located(named)).parameters.values()
    except Exception:  # not there, no signature, or an error of the module's own: building it will tell
        return ()
    return tuple(parameter.name for parameter in parameters if parameter.kind in _NAMED)


def adding_missing(words: Sequence[str], compose: Callable[[tuple[str, ...]], T]) -> T:
    """Return what comes of composing a config with overrides, where keys that constructors take may be missing in it.

    Args:
        words: the overrides.
        compose: composes with the overrides it is given, and fails before it has changed anything.

    Raises:
        ConfigCompositionException: of a key that no constructor takes, among others.
    """
    added = tuple(words)
    while True:
        try:
            return compose(added)
        except ConfigCompositionException as error:
            key = _missing(added, error)
            if key is None:
                raise
        added = tuple(f"++{word}" if word.partition("=")[0] == key else word for word in added)


def one_of_each(words: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of one run of a sweep, without Hydra's options and without what only sweepers can read."""
    found: list[str] = []
    for word in words:
        with suppress(HydraException):
            override = OverridesParser.create().parse_override(word)
            if override.is_sweep_override():
                first = next(override.sweep_string_iterator()) if override.is_discrete_sweep() else "null"
                word = f"{override.get_key_element()}={first}"
            found.append(word)
    return tuple(found)


def as_added(words: Sequence[str], run: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a sweep with the keys added that were added for one of its runs."""
    keys = {word.partition("=")[0] for word in run if word.startswith("++")}
    return tuple(f"++{word}" if f"++{word.partition('=')[0]}" in keys else word for word in words)


def _missing(words: Sequence[str], error: ConfigCompositionException) -> str | None:
    """Return the key that a config does not have and its constructor takes; None if that is not what failed.

    Imports the user's modules of task and data, and the one that holds the constructor.
    """
    cause = error.__cause__
    if not isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return None
    key = str(error).partition("'")[2].partition("'")[0]
    above, _, name = key.rpartition(".")
    node = cause.parent_node
    if cause.full_key != key or not isinstance(node, DictConfig):
        return None
    root = node._get_root()  # pyright: ignore[reportPrivateUsage]
    if isinstance(root, DictConfig):
        family.begin(root)  # the user's own package of Lightning is to be the first
    return key if name in taken(_last(words, f"{above}._target_") or node.get("_target_")) else None


def _last(words: Sequence[str], key: str) -> str | None:
    """Return what the last of the overrides sets a key to."""
    values = [match[1] for word in words if (match := re.fullmatch(rf"\+{{0,2}}{re.escape(key)}=(.+)", word))]
    return values[-1] if values else None
