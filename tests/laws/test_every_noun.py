"""One noun, one folder, one Hydra group: what is in the one is in the other, frozen and equal by value."""

import importlib
import pkgutil
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.helpers import CONF, ideas

NOUNS = ["schedule", "criterion", "pattern", "scope", "selection", "regularizer", "gate", "mask_regularizer"]
SET_BY_THE_PRUNER = {
    "criterion": {"memory", "step", "name", "sparsity", "norm"},
    "regularizer": {"moment"},
}


def every_idea() -> list[Any]:
    return [pytest.param(noun, *case.values, id=f"{noun}-{case.id}") for noun in NOUNS for case in ideas(noun)]


@pytest.mark.parametrize("noun", NOUNS)
def test_G25_every_idea_has_a_yaml_of_the_same_name(noun: str) -> None:
    package = importlib.import_module(f"lightning_prune.{noun}")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
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
