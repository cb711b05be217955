"""A training step that is no update, at 90 % sparsity: beside a dense step and beside torch.nn.utils.prune.

python benchmarks/step.py [repeats [how a model.s name begins]]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from nets import NETS, OPTIMIZERS
from timing import Contender, Time, in_turn, machine, table
from torch import Tensor, nn
from torch.nn.utils import prune

from lightning_prune import Pruner
from lightning_prune.schedule import OneShot

Step = Callable[[], None]


def dense_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> Step:
    """Return a plain training step."""

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    return step


def our_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor, pruner: Pruner) -> Step:
    """Return a step with the verbs that the callback calls in it."""

    def step() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.stepped(optimizer)
        pruner.update(1)

    return step


def contenders(net: str, optimizer: str) -> dict[str, Contender]:
    """Return the three steps on equal models, two of them with equal masks."""
    make, batch = NETS[net]
    torch.manual_seed(0)
    x, dense, ours, peer = batch(), make(), make(), make()
    ours.load_state_dict(dense.state_dict())
    peer.load_state_dict(dense.state_dict())
    pruner = Pruner(OneShot(0.9, 0))
    pruner.attach(ours)
    assert pruner.update(0)
    for name, weight in pruner.masks.items():
        path, _, attribute = name.rpartition(".")
        prune.custom_from_mask(peer.get_submodule(path), attribute, weight.mask)
    make_optimizer = OPTIMIZERS[optimizer]
    return {
        "dense": Contender(dense_step(dense, make_optimizer(dense), x)),
        "ours": Contender(our_step(ours, make_optimizer(ours), x, pruner)),
        "torch.nn.utils.prune": Contender(dense_step(peer, make_optimizer(peer), x)),
    }


def row(net: str, optimizer: str, times: dict[str, Time]) -> list[str]:
    dense, ours, peer = times.values()
    return [net, optimizer, *(f"{1e3 * t.wall:.2f}" for t in times.values()), ours.over(dense), peer.over(dense)]


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rows = [
        row(net, optimizer, in_turn(contenders(net, optimizer), repeats, warm_up=10))
        for net in NETS
        if net.startswith(sys.argv[2] if len(sys.argv) > 2 else "")
        for optimizer in OPTIMIZERS
    ]
    print(machine())
    head = ["model", "optimizer", "dense, ms", "ours, ms", "utils.prune, ms", "ours / dense", "utils.prune / dense"]
    print(table(head, rows))
    print("ratios by the clock, in brackets of the time of all cores")


if __name__ == "__main__":
    main()
