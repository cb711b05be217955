"""One exact global update at two sizes, against one read pass over the weights and Lightning's ModelPruning.

python benchmarks/update.py [repeats [millions of weights: 25 or 100 [repeats of ModelPruning]]]

Without a size both are measured: 100 million weights take some 2 GB of memory, 6 GB with ModelPruning, which 0 repeats
leave out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from pytorch_lightning.callbacks import ModelPruning
from resnet50 import resnet50_weights
from stairs import Stairs
from timing import Contender, Time, in_turn, machine, table
from torch import nn

from lightning_prune import Pruner

STEPS = ((0.0, 0.03), (0.0, 0.5), (0.0, 0.9), (0.029, 0.03), (0.49, 0.5), (0.89, 0.9))
"""Sparsity before and after the update that is timed; a first update starts from the dense model."""


def layers_of_4096(layers: int = 6) -> nn.ModuleList:
    """Return square linear layers, 16.8 million weights each: 100.7 million."""
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(4096, 4096, bias=False) for _ in range(layers))


SIZES: dict[str, tuple[Callable[[], nn.ModuleList], int, int]] = {
    "25": (resnet50_weights, 40, 2),
    "100": (layers_of_4096, 10, 1),
}
"""Millions of weights: the model, how often ours is measured, and how often the peer."""


class Ours:
    """The update as the callback calls it: rank, write masks, set weights to zero."""

    def __init__(self, model: nn.Module, before: float, after: float) -> None:
        self.weights = [p for p in model.parameters() if p.dim() > 1]
        self.dense = [w.detach().clone() for w in self.weights]
        self.pruner = Pruner(Stairs((before, after)))
        self.pruner.attach(model)
        self.pruner.update(0)
        self.state = self.pruner.state_dict()
        self.before = [w.detach().clone() for w in self.weights]

    def prepare(self) -> None:
        """Go back to the masks and weights before."""
        with torch.no_grad():
            for weight, before in zip(self.weights, self.before, strict=True):
                weight.copy_(before)
        self.pruner.load_state_dict(self.state)

    def run(self) -> None:
        assert self.pruner.update(1)

    def check(self, after: float) -> None:
        """See that exactly as many are zero as asked for, and that the others are the largest, floors aside."""
        gone = [w.detach() == 0 for w in self.weights]
        assert sum(int(g.sum()) for g in gone) == round(after * sum(g.numel() for g in gone))
        largest = max(float(d[g].abs().max()) for d, g in zip(self.dense, gone, strict=True) if bool(g.any()))
        for dense, g in zip(self.dense, gone, strict=True):
            floor = max(1, math.ceil(0.001 * g.numel() - 1e-9))
            assert int((~g).sum()) == floor or float(dense[~g].abs().min()) >= largest


class Peer:
    """ModelPruning's update, on a model of its own."""

    def __init__(self, make: Callable[[], nn.ModuleList], before: float, after: float) -> None:
        self.make = make
        self.before, self.share = before, (after - before) / (1 - before)  # it takes a share of what is left

    def prepare(self) -> None:
        pairs = [(layer, "weight") for layer in self.make()]
        self.callback = ModelPruning("l1_unstructured", pairs, use_global_unstructured=True)
        if self.before:
            self.callback.apply_pruning(self.before)

    def run(self) -> None:
        self.callback.apply_pruning(self.share)


def measure(make: Callable[[], nn.ModuleList], before: float, after: float, repeats: int) -> dict[str, Time]:
    """Return the times of a read pass and of our update."""
    ours = Ours(make(), before, after)
    reads = Contender(lambda: [w.sum() for w in ours.dense])
    times = in_turn({"read": reads, "ours": Contender(ours.run, ours.prepare)}, repeats, warm_up=3)
    ours.check(after)
    return times


def measure_peer(make: Callable[[], nn.ModuleList], before: float, after: float, repeats: int) -> dict[str, Time]:
    """Return the time of the peer's update; nothing where it is left out."""
    peer = Peer(make, before, after)
    return in_turn({"peer": Contender(peer.run, peer.prepare)}, repeats, warm_up=0) if repeats else {}


def row(before: float, after: float, times: dict[str, Time]) -> list[str]:
    read, ours, peer = times["read"], times["ours"], times.get("peer")
    return [
        f"{100 * before:g} -> {100 * after:g} %",
        *(f"{1e3 * t.wall:.1f}" for t in (read, ours)),
        "left out" if peer is None else f"{1e3 * peer.wall:.1f}",
        ours.over(read),
        "left out" if peer is None else peer.over(ours),
    ]


HEAD = ["sparsity", "read pass, ms", "update, ms", "ModelPruning, ms", "update / read pass", "ModelPruning / update"]


def main() -> None:
    asked = sys.argv[1:]
    print(machine())
    for size in asked[1:2] or SIZES:
        make, ours, peers = SIZES[size]
        ours, peers = int(asked[0]) if asked else ours, int(asked[2]) if len(asked) > 2 else peers
        weights = sum(p.numel() for p in make().parameters() if p.dim() > 1)
        rows = [row(*step, measure(make, *step, ours) | measure_peer(make, *step, peers)) for step in STEPS]
        print(f"\n{weights / 1e6:.1f} million weights\n\n{table(HEAD, rows)}", flush=True)
    print("ratios by the clock, in brackets of the time of all cores")


if __name__ == "__main__":
    main()
