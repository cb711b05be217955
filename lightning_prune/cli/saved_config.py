"""The config that a run leaves behind, such that running it again repeats the run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

_SHOWN = 3


def to_yaml(config: DictConfig) -> str:
    """Return the config with values in place of references, as a primary config of its own.

    Two kinds of reference stay: to a whole section (`prune.pruner` to `pruner`), or editing the section would have no
    effect; and to the run folder, which is another one next time. That a run is resumed is said anew each time.
    """
    values = {"defaults": ["run_folder", "_self_"], **_values(config)} | (
        {"resume": False} if "resume" in config else {}
    )
    return OmegaConf.to_yaml(OmegaConf.create(values))


def _values(node: DictConfig | ListConfig) -> Any:
    if isinstance(node, ListConfig):
        return [_value(node, i) for i in range(len(node))]
    return {key: _value(node, key) for key in node}


def _value(parent: DictConfig | ListConfig, key: Any) -> Any:
    raw = OmegaConf.to_container(parent, resolve=False)[key]  # pyright: ignore
    value = parent[key]
    if isinstance(value, (DictConfig, ListConfig)):
        return raw if OmegaConf.is_interpolation(parent, key) else _values(value)
    return raw if OmegaConf.is_interpolation(parent, key) and "hydra:runtime." in str(raw) else value


def flat(text: str) -> dict[str, Any]:
    """Return a saved config as dotted key -> value; references stay as they are, and lists are values."""
    return dict(_flat(OmegaConf.to_container(OmegaConf.create(text), resolve=False), ""))


def differing(before: str, now: str, may: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which two saved configs differ, with both values; None stands for a key that is not there.

    Args:
        before: a config as text.
        now: another one, whose keys come first.
        may: keys that do not count.
    """
    one, other = flat(before), flat(now)
    found = {key: (one.get(key), other.get(key)) for key in other | one}
    return {key: pair for key, pair in found.items() if pair[0] != pair[1] and key not in may}


def named(keys: Collection[str]) -> str:
    """Return keys for people: the first few, and how many more there are."""
    more = f" and {len(keys) - _SHOWN} more keys" if len(keys) > _SHOWN else ""
    return ", ".join(list(keys)[:_SHOWN]) + more


def _flat(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}".lstrip("."))
    else:
        yield prefix, node
