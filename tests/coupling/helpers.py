"""What the tests of shrinking share: a model pruned to half, how near answers must come, and a step of training."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import call, tensors
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot

TOLERANCE = 1e-4


def pruned(model: nn.Module, example: Any) -> Pruner:
    """Return the pruner that has zeroed half of the weights of whole channels and heads."""
    pruner = Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=example))
    pruner.attach(model)
    pruner.after_step(0)
    pruner.strip()
    return pruner


def assert_trains(model: nn.Module, example: Any) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    outputs: list[Tensor] = list(tensors(call(model, example)))
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    optimizer.step()
    after = dict(model.named_parameters())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(p.isfinite().all() and p.shape == before[name].shape for name, p in after.items())
