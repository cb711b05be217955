"""Masks, thresholds and weights on the simulated device are those of the CPU, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_prune.criterion import NormScale, NormTaylor
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer
from lightning_prune.pattern import Channel, Element, Row
from tests.device.runs import trained
from tests.device.simulated import DEVICE, simulated
from tests.helpers import criteria_without_norm, ideas, patterns, same

CPU = torch.device("cpu")
CHANNEL = Channel(example_inputs=torch.zeros(1, 4, 3, 3))


def each(noun: str, cases: list[Any], **more: Any) -> list[Any]:
    """Return the arguments of a pruner for each idea of a noun."""
    name = "-".join(["", *map(str, more)])
    return [pytest.param({noun: case.values[0]} | more, id=f"{case.id}{name}") for case in cases]


TABLE = [
    *each("criterion", criteria_without_norm()),
    *each("criterion", criteria_without_norm(), pattern=CHANNEL),
    *each("pattern", patterns()),
    *each("scope", ideas("scope"), pattern=Row()),
    *each("scope", ideas("scope"), pattern=CHANNEL),
    *each("selection", ideas("selection")),
    *each("selection", ideas("selection"), pattern=Row(), reversible=True),
    *each("regularizer", [case for case in ideas("regularizer") if case.id != "norm_l1"]),
    *each("regularizer", ideas("regularizer"), pattern=CHANNEL),
    pytest.param({"criterion": NormScale(), "pattern": CHANNEL}, id="norm_scale-pattern"),
    pytest.param({"criterion": NormTaylor(), "pattern": CHANNEL}, id="norm_taylor-pattern"),
    pytest.param({"reversible": True}, id="reversible"),
]


@pytest.mark.parametrize("chosen", TABLE)
def test_what_is_left_is_that_of_the_cpu_to_the_bit(chosen: dict[str, Any]) -> None:
    expected = trained(CPU, **chosen)
    with simulated():
        found = trained(DEVICE, **chosen)
    assert same(found, expected)
    assert any(mask["pruned"] for mask in expected[0]["masks"].values())


@pytest.mark.parametrize("pattern", [CHANNEL, Element()], ids=["units", "weights"])
def test_learned_masks_that_draw_the_same_are_those_of_the_cpu(pattern: Any) -> None:
    expected = trained(CPU, pruner=LearnedMasks(pattern=pattern, mask_regularizer=Binarizer(0.5)))
    with simulated(same_draws=True):
        found = trained(DEVICE, pruner=LearnedMasks(pattern=pattern, mask_regularizer=Binarizer(0.5)))
    assert same(found, expected)
