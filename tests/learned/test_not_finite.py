"""A loss that diverges is an error that names the weight, and the masks come off; a loss scaler may skip steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.gate import HardConcrete, SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer, MeanProbability
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, Units, adamw, assert_plain, fit

SHORT = Polynomial(0.5, 0, 6, 3)
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "weights": (Net, {"pattern": Element()}),
    "weights by a schedule": (Net, {"pattern": Element(), "schedule": SHORT, "mask_regularizer": Binarizer(None)}),
    "units": (Units, {"gate": HardConcrete(), "mask_regularizer": MeanProbability(1.0)}),
    "units by a schedule": (Units, {"schedule": SHORT, "mask_regularizer": Binarizer(None)}),
    "thresholds": (Net, {"pattern": Element(), "gate": SoftThreshold(), "mask_regularizer": None, "schedule": SHORT}),
    "weights alone": (Net, {"pattern": Element(), "train": "weights", "schedule": SHORT, "mask_regularizer": None}),
    "masks alone": (Net, {"pattern": Element(), "train": "masks"}),
}


def diverges_at(model: Net, step: int) -> Net:
    """Have the loss be NaN from a step on."""
    plain = model.loss

    def loss(seed: int) -> Tensor:
        return plain(seed) * (float("nan") if model.global_step >= step else 1.0)

    model.loss = loss  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [0, 4, 11])
def test_G13_G24_a_diverged_loss_is_an_error_that_names_a_weight_and_the_masks_come_off(way: str, step: int) -> None:
    net, ideas = WAYS[way]
    model, callback = diverges_at(net(adamw), step), PruningCallback(LearnedMasks(**ideas))
    with pytest.raises(ValueError, match=r"'net\.[\w.]+' is not finite.*look for a diverged loss"):
        fit(model, callback, max_steps=12, batches=12)
    assert_plain(model, callback=callback)


def test_G24_in_plain_torch_the_masks_are_off_after_the_error_at_the_end() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    for gate in (HardConcrete(), SoftThreshold()):
        masks = LearnedMasks(Polynomial(0.5, 0, 6, 3), gate, None, Element())
        masks.attach(model, 10)
        masks.after_step(0)
        masks.after_step(1)
        with torch.no_grad():
            model[2].weight[0, 0] = float("inf")
        with pytest.raises(ValueError, match=r"the weight '2\.weight' is not finite"):
            masks.strip()
        assert not masks.attached
        assert_plain(model)
        with torch.no_grad():
            model[2].weight[0, 0] = 1.0


def test_a_step_that_a_loss_scaler_skips_is_no_error() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    masks = LearnedMasks(pattern=Channel(example_inputs=torch.zeros(1, 6)))
    masks.attach(model, 10)
    before = [value.detach().clone() for value in masks._on_model.logits.values]
    model.train()
    (model(torch.randn(4, 6)).sum() * float("inf")).backward()
    masks.before_step(grad_scale=2.0**16)
    assert all(torch.equal(a, b) for a, b in zip(before, masks._on_model.logits.values, strict=True))
    model(torch.randn(4, 6)).sum().mul(float("nan")).backward()
    with pytest.raises(ValueError, match=r"the gradient of the learned mask of '0\.weight' is not finite"):
        masks.before_step()
