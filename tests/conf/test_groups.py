"""Every option of every group of conf/pruner: its YAML is its constructor, key by key, and every key has an effect."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

import lightning_prune
from lightning_prune.cli.arguments import folder

PRUNER = folder("conf") / "pruner"
OPTIONS = {str(f.relative_to(PRUNER).with_suffix("")): f for f in sorted(PRUNER.glob("*/*.yaml")) if f.stem != "none"}
SET_BY_THE_PRUNER = {
    "schedule": {"shares"},
    "criterion": {"memory", "step", "name", "sparsity", "norm", "total", "place"},
    "regularizer": {"moment"},
    "reconstruction": {"memory", "name", "sparsity"},
}


def build(values: dict[str, Any]) -> Any:
    return instantiate(OmegaConf.create(values), _convert_="all")


def load(file: Path) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def another(value: Any) -> Any:
    """A legal value that differs: of the same kind, larger for ints, nearer to 0 for shares."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.1
    if value == ["channel", "head"]:
        return ["head"]
    other = {"avg": "max", "max": "min", "val/accuracy": "val/f1", "pruning": "mine", "uniform": "normal"}
    return other[value] if isinstance(value, str) else {"weight": 0.5} if isinstance(value, dict) else ["weight"]


TIMES = {"table": "times.json", "batch": 3, "threads": 3, "speedup": 3.0}
SHARES = {"mean": 0.3, "reference": 0.5}
LEGAL = {"window": 7, "zeta": 2.0, "b_at_start": 2.0, "layout": {"weight": "in out"}, **SHARES, **TIMES}
"""Key -> another value, where the rule above makes none that is legal."""

KEYS = [(option, key) for option, file in OPTIONS.items() for key in load(file) if key != "_target_"]


def test_one_yaml_for_each_python_file() -> None:
    package = Path(inspect.getfile(lightning_prune)).parent
    for noun in (
        "schedule",
        "criterion",
        "pattern",
        "scope",
        "selection",
        "regularizer",
        "gate",
        "mask_regularizer",
        "budget",
        "reconstruction",
        "regrowth",
    ):
        ideas = {file.stem for file in (package / noun).glob("*.py")} - {"__init__", "protocol"}
        options = {file.stem for file in (PRUNER / noun).glob("*.yaml")} - {"none"}
        assert options == ideas, noun


@pytest.mark.parametrize("option", OPTIONS)
def test_instantiates(option: str) -> None:
    values = load(OPTIONS[option])
    assert isinstance(build(values), get_class(values["_target_"]))


@pytest.mark.parametrize("option", OPTIONS)
def test_holds_every_argument_with_its_default(option: str) -> None:
    values = load(OPTIONS[option])
    parameters = inspect.signature(get_class(values.pop("_target_"))).parameters
    assert set(values) == set(parameters) - SET_BY_THE_PRUNER.get(option.split("/")[0], set())
    for key, parameter in parameters.items():
        if key in values and parameter.default is not parameter.empty and not option.startswith("targets"):
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            default = {} if repr(default) == "<factory>" else default  # of a mapping
            assert values[key] == default, key


@pytest.mark.parametrize(("option", "key"), KEYS)
def test_g25_every_key_has_an_effect(option: str, key: str) -> None:
    values = load(OPTIONS[option])
    changed = build(values | {key: LEGAL.get(key) or another(values[key])})
    assert getattr(changed, key) != getattr(build(values), key)


@pytest.mark.parametrize("option", OPTIONS)
def test_g25_an_unknown_key_is_an_error(option: str) -> None:
    with pytest.raises(Exception, match="unexpected keyword argument"):
        build(load(OPTIONS[option]) | {"unknown": 1})
