"""Make states/: what a pruner's state was in its version 1, with the weights beside it.

Made once, by the code before version 2 (`python -m tests.golden.make_states` at the project's root): do not make them
again, the files must stay what that code wrote. Version 1 held every mask as a bool tensor of its weight's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune import LearnedMasks, Pruner
from lightning_prune.criterion import SecondOrderDelta
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial

FOLDER = Path(__file__).with_name("states")
STEPS, SO_FAR = 12, 7
SCHEDULE = Polynomial(0.75, 2, 10, 2)


def units() -> Channel:
    return Channel(example_inputs=torch.zeros(2, 6))


KINDS: dict[str, Callable[[], Any]] = {
    "plain": lambda: Pruner(SCHEDULE),
    "units": lambda: Pruner(SCHEDULE, pattern=units()),
    "memory": lambda: Pruner(SCHEDULE, SecondOrderDelta(0.5)),
    "reversible": lambda: Pruner(SCHEDULE, reversible=True),
    "learned": lambda: LearnedMasks(SCHEDULE, pattern=units()),
    "learned_finished": lambda: LearnedMasks(Polynomial(0.5, 0, 6, 2), pattern=units()),
}


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def train(model: nn.Module, pruner: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Train from one step to another."""
    for step in steps:
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(step + 1, [optimizer])


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind, make in KINDS.items():
        model, pruner = net(), make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        pruner.attach(model, STEPS)
        train(model, pruner, optimizer, range(SO_FAR))
        assert pruner.state_dict()["version"] == 1, "these are made by the code of version 1 alone"
        torch.save({"model": model.state_dict(), "pruner": pruner.state_dict()}, FOLDER / f"{kind}.pt")


if __name__ == "__main__":
    main()
