"""What the tests of learned masks share: callbacks with them, small models, and a look at logits, draws and masks."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.gate import HardConcrete, Sigmoid
from lightning_prune.learned import LearnedMasks
from lightning_prune.learned.learning import Learning
from lightning_prune.mask_regularizer import Binarizer, ExpectedSparsity, MeanProbability
from lightning_prune.pattern import Channel, Element
from tests.guarantees.helpers import RAMP, draw

STEERED: dict[str, Any] = {"schedule": RAMP, "mask_regularizer": Binarizer(None)}
WAYS: dict[str, dict[str, Any]] = {
    "free": {},
    "steered": STEERED,
    "hard concrete": {"gate": HardConcrete(), "mask_regularizer": MeanProbability(1.0)},
    "loss alone": {"mask_regularizer": None},
    "annealed": {"gate": Sigmoid(b_at_start=5.0, start="normal")},
    "expected": {"schedule": RAMP, "gate": HardConcrete(), "mask_regularizer": ExpectedSparsity(5.0)},
}


def learned(**ideas: Any) -> PruningCallback:
    """Return the callback with learned masks, which a binarizer pushes apart unless `ideas` says otherwise."""
    given: dict[str, Any] = {"lr": 0.1, "mask_regularizer": Binarizer(0.5)} | ideas
    return PruningCallback(LearnedMasks(**given))


def engine(callback: PruningCallback) -> LearnedMasks:
    """Return the callback's masks as what they are."""
    return cast(Any, callback.pruner)


def outputs(model: nn.Module) -> Tensor:
    """Return what the net of a Lightning module answers to a batch that is always the same."""
    with torch.no_grad():
        return cast(Any, model).net(draw(99, torch.zeros(1), size=16)[0])


def perceptron(activation: nn.Module) -> nn.Sequential:
    """Return a net with groups of 8 and 5 units; between the second and its reader stand a norm and an activation."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def attached(model: nn.Module, example: Any, **ideas: Any) -> LearnedMasks:
    """Return masks of whole units that are on the model."""
    masks = LearnedMasks(pattern=Channel(example_inputs=example), **ideas)
    masks.attach(model, 100)
    return masks


def attached_to_weights(model: nn.Module, **ideas: Any) -> LearnedMasks:
    """Return masks of single weights that are on the model."""
    masks = LearnedMasks(pattern=Element(), **ideas)
    masks.attach(model, 100)
    return masks


def on(masks: LearnedMasks) -> Learning:
    """Return what masks know while they are on a model."""
    model = masks._model
    assert model is not None
    return model


def logits_of(masks: LearnedMasks) -> list[Tensor]:
    """Return the logits as they are now."""
    return [v.detach().clone() for v in on(masks).logits.values]


def scattered(masks: LearnedMasks) -> None:
    """Move the logits about, so that some units or weights are masked."""
    here = on(masks)
    with torch.no_grad():
        for number, logits in enumerate(here.logits.values):
            logits += torch.randn(logits.shape, generator=torch.Generator().manual_seed(number))
    here._hard.outdate()


def uniforms_of(here: Learning) -> list[Tensor]:
    """Return the uniform numbers of the latest draw, a tensor for each group or weight."""
    return [next(iter(draws.values()))[0] for draws in here.logits._uniform]


def factors_of(here: Learning) -> dict[str, Tensor]:
    """Return the masks of the latest draw by group, each of the batch that was asked for."""
    named = zip(here._sites.names, here.logits.values, uniforms_of(here), strict=True)
    return {name: here.logits.gates[0].sample(v, u, 0.0) for name, v, u in named}
