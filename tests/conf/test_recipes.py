"""Every recipe composes, builds, and names all that its constructors take."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class

from lightning_prune.cli import build
from lightning_prune.cli.arguments import recipes

from .conftest import Compose

RECIPES = recipes()
NOT_FOR_A_COMMAND_LINE = {"optimizer"}


def test_these_recipes_are_there() -> None:
    assert set(RECIPES) >= {
        *("digits_mlp", "digits_cnn", "mnist_lenet300", "mnist_lenet5", "fashion_lenet5", "shakespeare_lstm")
    }
    assert all(RECIPES.values()), "a recipe's first line says what it is"


@pytest.mark.parametrize("recipe", RECIPES)
def test_builds(composed: Compose, recipe: str) -> None:
    parts = build.parts(composed(recipe))
    assert sum(p.numel() for p in parts.task.parameters()) > 0
    assert parts.prune.pruner.schedule.final_sparsity == 0.9


@pytest.mark.parametrize("recipe", RECIPES)
def test_names_every_argument(composed: Compose, recipe: str) -> None:
    config = composed(recipe)
    for node in (config.task, config.data):
        arguments = inspect.signature(get_class(node["_target_"])).parameters
        assert set(node) - {"_target_"} == set(arguments) - NOT_FOR_A_COMMAND_LINE


@pytest.mark.parametrize("recipe", [name for name in RECIPES if not name.startswith("digits")])
def test_data_root_follows_the_environment(
    composed: Compose, recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIGHTNING_PRUNE_DATA", str(tmp_path))
    assert composed(recipe).data.root == str(tmp_path)
