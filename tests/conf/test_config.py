"""conf/config.yaml: what every recipe has, and that each of its keys has an effect."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from lightning_prune.cli import build

from .conftest import Compose

TRAINER = {
    "max_epochs=3": lambda t: t.max_epochs,
    "max_steps=7": lambda t: t.max_steps,
    "accelerator=cpu": None,  # as auto, where there is no other
    "devices=2": lambda t: t.num_devices,
    "strategy=ddp": lambda t: type(t.strategy),
    "precision=bf16-mixed": lambda t: t.precision,
    "accumulate_grad_batches=4": lambda t: t.accumulate_grad_batches,
    "gradient_clip_val=0.5": lambda t: t.gradient_clip_val,
    "limit_train_batches=5": lambda t: t.limit_train_batches,
    "log_every_n_steps=3": lambda t: t.log_every_n_steps,
    "deterministic=true": lambda t: torch.are_deterministic_algorithms_enabled(),
    "enable_progress_bar=false": lambda t: t.progress_bar_callback is None,
    "enable_model_summary=true": lambda t: [type(callback).__name__ for callback in t.callbacks],
}


@pytest.fixture
def deterministic_as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it with deterministic
    yield
    torch.use_deterministic_algorithms(False)


def made(config: Any) -> Trainer:
    return build._make(config, "trainer", logger=False, enable_checkpointing=False)


def test_trainer_holds_no_other_keys(composed: Compose) -> None:
    assert {"_target_"} | {change.split("=")[0] for change in TRAINER} == set(composed("digits_mlp").trainer)


@pytest.mark.parametrize("change", [change for change, read in TRAINER.items() if read])
@pytest.mark.usefixtures("deterministic_as_before")
def test_g25_every_key_of_the_trainer_has_an_effect(composed: Compose, change: str) -> None:
    read: Any = TRAINER[change]
    plain = read(made(composed("digits_mlp", "trainer.accelerator=cpu")))
    assert read(made(composed("digits_mlp", "trainer.accelerator=cpu", f"trainer.{change}"))) != plain


def test_g25_every_key_of_prune_has_an_effect(composed: Compose) -> None:
    config = composed("digits_mlp", "prune.rewind=7", "prune.tag=mine", "prune.pruner=0.3", "prune.shrink=true")
    assert set(config.prune) == {"_target_", "pruner", "shrink", "rewind", "tag"}
    prune = build.parts(config).prune
    assert (prune.tag, getattr(prune.rewind, "to", None), prune.pruner.schedule.final_sparsity) == ("mine", 7, 0.3)


def test_rewind_takes_the_word_init(composed: Compose) -> None:
    assert getattr(build.parts(composed("digits_mlp", "prune.rewind=init")).prune.rewind, "to", None) == "init"


def test_g25_every_key_of_the_pruner_has_an_effect(composed: Compose) -> None:
    config = composed("digits_mlp", "pruner.reversible=true", "pruner.name=mine")
    nouns = {"schedule", "criterion", "pattern", "scope", "selection", "targets", "regularizer", "budget"}
    nouns |= {"reconstruction", "regrowth"}
    assert set(config.pruner) == {"_target_", "reversible", "name", *nouns}
    pruner = build.parts(config).prune.pruner
    assert (pruner.reversible, pruner.name) == (True, "mine")


def test_g25_the_seed_decides_about_weights_and_order(composed: Compose) -> None:
    one, two = (build.parts(composed("digits_mlp", f"seed={seed}")) for seed in (1, 2))
    assert not torch.equal(next(one.task.parameters()), next(two.task.parameters()))
    assert (getattr(one.data, "seed", None), getattr(two.data, "seed", None)) == (1, 2)


def test_groups_of_the_same_noun_compose_on_the_command_line(composed: Compose) -> None:
    overrides = ("pruner/schedule=geometric", "pruner.schedule.final_sparsity=0.98", "pruner/pattern=n_of_m")
    pruner = build.parts(composed("digits_mlp", *overrides, "pruner/regularizer=l1")).prune.pruner
    said = (f"{pruner.schedule}"[:35], f"{pruner.pattern}", f"{pruner.regularizer}")
    assert said == ("Geometric(final_sparsity=0.98, begi", "NofM(n=2, m=4)", "L1(strength=1e-05)")


def test_the_default_is_that_of_the_callback(composed: Compose) -> None:
    from lightning_prune import PruningCallback

    assert repr(build.parts(composed("digits_mlp")).prune.pruner) == repr(PruningCallback(0.9).pruner)
