"""Learned masks that cannot be are refused before training, and what cannot be masked is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.gate import Sigmoid, SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer, ExpectedSparsity, MeanProbability
from lightning_prune.pattern import Block, Channel, Element
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.targets import Targets
from tests.guarantees.helpers import Units, fit
from tests.learned.helpers import attached, learned


def test_G14_what_cannot_be_masked_is_named() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.hidden = nn.Linear(4, 6), nn.Linear(6, 6)
            self.again, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
            self.again.weight = self.hidden.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.again(self.hidden(self.embed(x)).relu()).relu())

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.tied, self.last = nn.Linear(4, 4), Tied(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.tied(self.first(x).relu()).relu())

    masks = attached(Both(), torch.zeros(2, 4))
    skipped = masks.report().skipped
    assert "is tied: several layers read with it" in skipped["tied.embed.weight"]
    assert set(masks.probabilities()) == {"first.weight", "tied.head.weight"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_share": 1.5}, "task_share=1.5"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"train": "all"}, "train='all'"),
        ({"pattern": None}, "pattern=None"),
        ({"gate": Sigmoid}, "gate="),
        ({"schedule": 0.5}, "schedule=0.5"),
        ({"mask_regularizer": Binarizer(None)}, "follows a schedule"),
        ({"mask_regularizer": ExpectedSparsity()}, "follows a schedule"),
        ({"mask_regularizer": 3}, "mask_regularizer=3"),
        ({"targets": Targets(sparsity={"0": 0.5})}, "sparsity"),
    ],
)
def test_G13_arguments_that_mean_nothing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnedMasks(**arguments)


def test_G13_a_model_without_units_is_refused_and_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    masks = LearnedMasks(pattern=Channel(example_inputs=torch.zeros(2, 4)), mask_regularizer=MeanProbability(0.1))
    with pytest.raises(ValueError, match="no units that can be removed"):
        masks.attach(model, 10)
    assert not masks.attached
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_G13_a_window_past_the_end_and_a_rewind_are_refused() -> None:
    with pytest.raises(ValueError, match="begin_step=90"):
        fit(Units(), learned(schedule=OneShot(0.5, 90), mask_regularizer=None), max_epochs=1)
    with pytest.raises(ValueError, match="rewind"):
        PruningCallback(LearnedMasks(), rewind=3)


def test_G13_patterns_that_have_no_learned_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pattern=Block"):
        LearnedMasks(pattern=Block(2, 2))
    with pytest.raises(ValueError, match=r"needs pattern=Element"):
        LearnedMasks(gate=SoftThreshold())
    with pytest.raises(ValueError, match="pattern="):
        LearnedMasks(pattern=Uniform())  # type: ignore[arg-type]
    LearnedMasks(Polynomial(0.5, 0, 10, 1), pattern=Element())
