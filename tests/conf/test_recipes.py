"""Every recipe composes, builds, and names all that its constructors take."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class

from lightning_prune.cli import build
from lightning_prune.cli.arguments import recipes

from .conftest import Compose

RECIPES = recipes()
NOT_FOR_A_COMMAND_LINE = {"optimizer"}
STRUCTURED = {
    "cifar10_resnet20": 0.71,
    "cifar10_resnet56": 0.5,
    "cifar10_vgg16": 0.75,
    "fashion_lenet5_channels": 0.5,
    "mnist_mlp_units": 0.8,
    "shakespeare_lstm_units": 0.5,
    "shakespeare_transformer": 0.5,
}
"""Recipe -> share of the weights that go with the units; each has a full form, RECIPE_full, for a GPU."""

IN_ROUNDS = {"digits_cnn_iterative": 5, "cifar10_resnet20_iterative": 5}
"""Recipe -> rounds."""

LEARNED = {"mnist_mlp_learned", "fashion_lenet5_l0", "cifar10_alexnet_dense", "cifar10_alexnet_dense_full"}
"""Recipes with learned masks, which find their own sparsity."""

OTHERS = {
    "criteria_compare_cifar10": 0.5,
    "criteria_compare_units": 0.8,
    "digits_cnn_dynamic": 0.5,
    "mnist_lenet300_thresholds": 0.98,
    "mnist_lenet300_budget": 0.0,
}
"""Recipe -> share of the weights, where it is not .9."""


def test_these_recipes_are_there() -> None:
    assert set(RECIPES) >= {
        *("digits_mlp", "digits_cnn", "mnist_lenet300", "mnist_lenet5", "fashion_lenet5", "shakespeare_lstm"),
        *IN_ROUNDS,
        *STRUCTURED,
        *LEARNED,
        *OTHERS,
        *(f"{recipe}_full" for recipe in STRUCTURED),
    }
    assert all(RECIPES.values()), "a recipe's first line says what it is"


@pytest.mark.parametrize("recipe", RECIPES)
def test_builds(composed: Compose, recipe: str) -> None:
    parts = build.parts(composed(recipe))
    assert sum(p.numel() for p in parts.task.parameters()) > 0
    if recipe in IN_ROUNDS:
        assert parts.rounds.maximum_rounds == IN_ROUNDS[recipe]
        return
    if recipe in LEARNED:
        assert parts.prune.pruner.schedule is None
        return
    expected = (STRUCTURED | OTHERS).get(recipe.removesuffix("_full"), 0.9)
    assert parts.prune.pruner.schedule.final_sparsity == expected


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_network_brings_an_example_that_it_takes(composed: Compose, recipe: str) -> None:
    task = build.parts(composed(recipe)).task
    example = task.example_input_array
    assert isinstance(example, torch.Tensor)
    assert len(example) == 2
    assert len(task.eval()(example)) == 2
    assert not [name for name in task.state_dict() if "example" in name]


@pytest.mark.parametrize("recipe", STRUCTURED)
def test_a_full_form_differs_in_size_alone(composed: Compose, recipe: str) -> None:
    short, full = composed(recipe), composed(f"{recipe}_full")
    assert full.trainer.max_epochs > short.trainer.max_epochs
    assert full.pruner == short.pruner
    assert set(full.task) == set(short.task)
    assert full.task.net["_target_"] == short.task.net["_target_"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_names_every_argument(composed: Compose, recipe: str) -> None:
    config = composed(recipe)
    for node in (config.task, config.data):
        arguments = inspect.signature(get_class(node["_target_"])).parameters
        assert set(node) - {"_target_"} - NOT_FOR_A_COMMAND_LINE == set(arguments) - NOT_FOR_A_COMMAND_LINE


@pytest.mark.parametrize("recipe", [name for name in RECIPES if not name.startswith("digits")])
def test_data_root_follows_the_environment(
    composed: Compose, recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LIGHTNING_PRUNE_DATA", str(tmp_path))
    assert composed(recipe).data.root == str(tmp_path)
