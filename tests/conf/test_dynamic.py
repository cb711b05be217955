"""conf/pruner/dynamic.yaml: its YAML is the constructor of `DynamicGates`, and every key has an effect."""

from __future__ import annotations

import inspect

import pytest

from lightning_prune.cli import build
from lightning_prune.dynamic import DynamicGates
from lightning_prune.schedule import Geometric, Polynomial

from .conftest import Compose

RECIPE = "digits_cnn_dynamic"
CHANGES = {
    "pruner.strength": ("0.5", 0.5),
    "pruner.lr": ("0.02", 0.02),
    "pruner.seed": ("3", 3),
    "pruner.name": ("mine", "mine"),
}


def gates(composed: Compose, *overrides: str) -> DynamicGates:
    made = build.parts(composed(RECIPE, *overrides)).prune.pruner
    assert isinstance(made, DynamicGates)
    return made


def test_names_every_argument_and_holds_the_defaults(composed: Compose) -> None:
    assert set(composed(RECIPE).pruner) - {"_target_"} == set(inspect.signature(DynamicGates).parameters)
    made, default = gates(composed), DynamicGates(Polynomial(0.5, 0.05, 0.4, 0.004))
    for key in inspect.signature(DynamicGates).parameters:
        assert getattr(made, key) == getattr(default, key), key


@pytest.mark.parametrize("key", CHANGES)
def test_g25_every_key_has_an_effect(composed: Compose, key: str) -> None:
    text, value = CHANGES[key]
    assert getattr(gates(composed, f"{key}={text}"), key.rpartition(".")[2]) == value


def test_g25_every_noun_has_an_effect_and_the_seed_is_the_runs(composed: Compose) -> None:
    made = gates(composed, "pruner/schedule=geometric", "pruner.targets.exclude=[net.0]", "seed=7")
    assert isinstance(made.schedule, Geometric)
    assert made.targets.exclude == ("net.0",)
    assert made.seed == 7
