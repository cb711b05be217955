"""One noun, one folder, one Hydra group: what is in the one is in the other, listed, frozen and equal by value."""

import importlib
import inspect
import math
import pkgutil
import re
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any, get_type_hints

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.helpers import CONF, ideas

NOUNS = [
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
]
SET_BY_THE_PRUNER = {
    "schedule": {"shares"},
    "criterion": {"memory", "step", "name", "sparsity", "norm", "total", "place"},
    "regularizer": {"moment"},
    "reconstruction": {"memory", "name", "sparsity"},
}


def every_idea() -> list[Any]:
    return [pytest.param(noun, *case.values, id=f"{noun}-{case.id}") for noun in NOUNS for case in ideas(noun)]


LINE = re.compile(r"^from \.(\w+) import (\w+) as \2(?:  # (.+))?$", re.MULTILINE)
"""How a noun lists an idea: its file, its class, and what it is in a few words."""


def modules_of(noun: str) -> tuple[ModuleType, set[str]]:
    """Return a noun's package, and the names of the files that hold its ideas."""
    package = importlib.import_module(f"lightning_prune.{noun}")
    return package, {module.name for module in pkgutil.iter_modules(package.__path__)} - {"protocol"}


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_says_what_it_is_and_lists_every_idea_with_a_line(noun: str) -> None:
    package, modules = modules_of(noun)
    lines = LINE.findall(inspect.getsource(package))
    said = {module: (name, words) for module, name, words in lines if module != "protocol"}
    assert set(said) == modules
    for module, (name, words) in said.items():
        idea = getattr(package, name)
        assert idea is getattr(importlib.import_module(f"lightning_prune.{noun}.{module}"), name)
        assert inspect.getdoc(idea), f"{name} has no docstring"
        assert words, f"nothing is said of {name} where {noun}/__init__.py lists it"
    contracts = {name for module, name, _ in lines if module == "protocol"}
    protocol = importlib.import_module(f"lightning_prune.{noun}.protocol")
    own = {name for name, value in vars(protocol).items() if getattr(value, "__module__", "") == protocol.__name__}
    assert contracts == own, "the noun hands on its Protocol and the records that it is asked with"
    page = inspect.getdoc(package)
    assert page
    assert "Asked " in page or "asks " in page, "when is it asked?"
    assert "To write one: " in page
    assert len(page.splitlines()) <= 20


@pytest.mark.parametrize("noun", NOUNS)
def test_G25_every_idea_has_a_yaml_of_the_same_name(noun: str) -> None:
    _, modules = modules_of(noun)
    for name in modules:
        config: Any = OmegaConf.load(CONF / noun / f"{name}.yaml")
        assert config._target_.rpartition(".")[0] == f"lightning_prune.{noun}.{name}"
        target = importlib.import_module(f"lightning_prune.{noun}.{name}")
        own = {field.name for field in fields(getattr(target, config._target_.rpartition(".")[2])) if field.init}
        absent = own - set(config) - SET_BY_THE_PRUNER.get(noun, set[str]())
        assert not absent, f"{name}.yaml does not say {absent}"
    assert {path.stem for path in (CONF / noun).glob("*.yaml")} - modules <= {"none"}


@pytest.mark.parametrize(("noun", "idea"), every_idea())
def test_an_idea_is_a_frozen_value(noun: str, idea: Any) -> None:
    assert is_dataclass(idea)
    assert vars(type(idea))["__dataclass_params__"].frozen
    assert type(idea).__bases__ == (object,)
    config = next(path for path in (CONF / noun).glob("*.yaml") if path.stem == type(idea).__module__.split(".")[-1])
    again = instantiate(OmegaConf.load(config), _convert_="all")
    assert again == idea
    assert repr(again) == repr(idea)


@pytest.mark.parametrize(("noun", "idea"), every_idea())
def test_what_is_no_number_is_refused_by_the_name_of_the_argument(noun: str, idea: Any) -> None:
    hints = get_type_hints(type(idea))
    for field in fields(idea):
        if not field.init or field.name in SET_BY_THE_PRUNER.get(noun, set[str]()):
            continue
        hint = str(hints[field.name]) if not isinstance(hints[field.name], type) else hints[field.name].__name__
        wrong: list[Any] = ["no", 2] if hint == "bool" else ["half", math.nan, [0.5], -7.5]
        for value in wrong if re.fullmatch(r"bool|(int|float)( \| (int|float|None))*", hint) else ():
            if value == -7.5 and field.name in ("gamma", "reference"):
                continue
            with pytest.raises(ValueError, match=rf"\b{field.name}="):
                replace(idea, **{field.name: value})
