"""A short run in plain PyTorch on either device, and what it leaves, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_prune import Pruner
from lightning_prune.schedule import Polynomial

RAMP = Polynomial(0.6, begin_step=1, end_step=2, pruning_frequency=1, initial_sparsity=0.55)


def net() -> nn.Sequential:
    """Return a net of convolutions with norms behind them and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 9, 8),
    )


def batch(step: int, device: torch.device) -> Tensor:
    """Return the inputs of a step."""
    return torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(step)).to(device)


def trained(device: torch.device, steps: int = 2, pruner: Any = None, **ideas: Any) -> Any:
    """Return the state of a pruner after so many steps, and that of the model it is taken off."""
    model = net().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = pruner or Pruner(RAMP, **ideas)
    pruner.attach(model, 10)
    for step in range(steps):
        optimizer.zero_grad()
        model(batch(step, device)).square().mean().backward()
        pruner.before_step()
        optimizer.step()
        pruner.after_step(step + 1, [optimizer])
    state = brought(pruner.state_dict())
    pruner.strip()
    return state, brought(dict(model.state_dict()))


def brought(values: Any) -> Any:
    """Return nested values with copies of their tensors on the CPU."""
    return tree_map(lambda value: value.detach().cpu() if isinstance(value, Tensor) else value, values)
