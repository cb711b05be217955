"""conf/pruner/rounds.yaml: its YAML is the constructor of `PruningRounds`, and every key has an effect."""

from __future__ import annotations

import inspect

import pytest
from omegaconf import OmegaConf

from lightning_prune.cli import build
from lightning_prune.cli.errors import UserError
from lightning_prune.rounds import PruningRounds

from .conftest import Compose

RECIPE = "digits_cnn_iterative"
CHANGES = {
    "pruner.factor": ("0.6", 0.6),
    "pruner.maximum_rounds": ("7", 7),
    "pruner.maximum_share": ("0.5", 0.5),
    "pruner.layers": ("[0,net]", [0, "net"]),
    "+pruner.bins": ("{16: 1.0, 32: 0.9}", {16: 1.0, 32: 0.9}),
    "pruner.tolerance": ("0.001", 0.001),
    "pruner.seed": ("3", 3),
}


def test_names_every_argument(composed: Compose) -> None:
    config = composed(RECIPE)
    assert set(config.pruner) - {"_target_"} == set(inspect.signature(PruningRounds).parameters)


def test_holds_the_constructors_defaults(composed: Compose) -> None:
    rounds = build.parts(composed(RECIPE, "pruner.factor=0.8", "pruner.maximum_rounds=null", "pruner.seed=null")).rounds
    default = PruningRounds()
    assert rounds == PruningRounds(layers=[], targets=rounds.targets)
    assert rounds.targets == default.targets


@pytest.mark.parametrize("key", CHANGES)
def test_g25_every_key_has_an_effect(composed: Compose, key: str) -> None:
    text, value = CHANGES[key]
    assert getattr(build.parts(composed(RECIPE, f"{key}={text}")).rounds, key.rpartition(".")[2]) == value


def test_g25_every_noun_has_an_effect(composed: Compose) -> None:
    overrides = ("pruner/criterion=random", "pruner.criterion.seed=4", "pruner.pattern.multiple=8")
    rounds = build.parts(composed(RECIPE, *overrides, "pruner.targets.exclude=[net.0]")).rounds
    said = f"{rounds.criterion} {rounds.pattern.multiple} {rounds.targets.exclude}"
    assert said == "Random(seed=4, step=0, name='') 8 ('net.0',)"


def test_a_schedule_is_named_by_its_target(composed: Compose) -> None:
    target = "pruner.schedule={_target_: hydra.utils.get_method, path: math.pow}"
    assert build.parts(composed(RECIPE, "pruner.factor=0.5", target)).rounds.factor_of(2) == 0.25


def test_the_seed_is_the_runs(composed: Compose) -> None:
    assert build.parts(composed(RECIPE, "seed=7")).rounds.seed == 7


@pytest.mark.parametrize("override", ["pruning_hparams=name=mine", "prune={_target_: lightning_prune.PruningCallback}"])
def test_what_has_no_effect_beside_rounds_is_an_error(composed: Compose, override: str) -> None:
    with pytest.raises(UserError, match=f"{override.partition('=')[0]} has no effect beside rounds"):
        build.parts(composed(RECIPE, override))


def test_first_has_an_effect_with_rounds_alone(composed: Compose) -> None:
    with pytest.raises(UserError, match="first has an effect only with rounds"):
        build.parts(composed("digits_cnn", "first={max_epochs: 3}"))


def test_a_run_without_prune_is_told_how_to_be_dense(composed: Compose) -> None:
    with pytest.raises(UserError, match="prune is null and so is rounds: for a dense run"):
        build.parts(composed("digits_cnn", "prune=null"))


def test_other_commands_say_that_they_do_not_know_rounds(composed: Compose) -> None:
    parts = build.parts(composed(RECIPE))
    with pytest.raises(UserError, match="the recipe prunes in rounds"):
        _ = parts.prune
    assert OmegaConf.is_config(composed(RECIPE).rounds)
