"""While masks are learned, the hard masks of now are to be seen on the modules, and nowhere after the end."""

from __future__ import annotations

import torch
from torch import nn

from lightning_prune import LearnedMasks
from lightning_prune.gate import Sigmoid
from lightning_prune.pattern import Element
from lightning_prune.schedule import Polynomial


def test_weight_mask_is_that_of_the_latest_update() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    masks = LearnedMasks(Polynomial(0.5, 0, 10, 2), Sigmoid(), None, Element())
    masks.attach(model, 20)
    seen: list[int] = []
    for step in range(1, 8):
        model(torch.randn(4, 6)).square().mean().backward()
        masks.before_step()
        if masks.after_step(step):
            for name, layer in (("0.weight", model[0]), ("2.weight", model[2])):
                assert layer.weight_mask is masks.masks[name].mask
                assert layer.weight_threshold is masks.masks[name].threshold
            seen.append(int((~model[0].weight_mask).sum()))  # pyright: ignore[reportOperatorIssue]
            masked = model[0].weight[~model[0].weight_mask]  # pyright: ignore[reportOperatorIssue, reportIndexIssue]
            assert not seen[-1] or bool((masked != 0).any())  # shown, and not in the weight yet
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3
    masks.strip()
    assert not any(hasattr(layer, "weight_mask") or hasattr(layer, "weight_threshold") for layer in model)
