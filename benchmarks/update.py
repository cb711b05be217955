"""One exact global update at ResNet-50's size, against one read pass over the weights and Lightning's ModelPruning.

python benchmarks/update.py [repeats]
"""

from __future__ import annotations

import math
import sys

import torch
from pytorch_lightning.callbacks import ModelPruning
from resnet50 import resnet50_weights
from stairs import Stairs
from timing import Contender, Time, in_turn, machine, table
from torch import nn

from lightning_prune import Pruner

STEPS = ((0.0, 0.03), (0.0, 0.5), (0.0, 0.9), (0.029, 0.03), (0.49, 0.5), (0.89, 0.9))
"""Sparsity before and after the update that is timed; a first update starts from the dense model."""


class Ours:
    """The update as the callback calls it: rank, write masks, set weights to zero."""

    def __init__(self, model: nn.Module, before: float, after: float) -> None:
        self.weights = [p for p in model.parameters() if p.dim() > 1]
        self.dense = [w.detach().clone() for w in self.weights]
        self.pruner = Pruner(Stairs((before, after)))
        self.pruner.attach(model)
        self.pruner.update(0)
        self.state = self.pruner.state_dict()

    def prepare(self) -> None:
        """Go back to the masks before, on weights that an optimizer has moved."""
        with torch.no_grad():
            for weight, dense in zip(self.weights, self.dense, strict=True):
                weight.copy_(dense)
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

    def __init__(self, before: float, after: float) -> None:
        self.before, self.share = before, (after - before) / (1 - before)  # it takes a share of what is left

    def prepare(self) -> None:
        pairs = [(layer, "weight") for layer in resnet50_weights()]
        self.callback = ModelPruning("l1_unstructured", pairs, use_global_unstructured=True)
        if self.before:
            self.callback.apply_pruning(self.before)

    def run(self) -> None:
        self.callback.apply_pruning(self.share)


def measure(before: float, after: float, repeats: int) -> dict[str, Time]:
    """Return the times of a read pass, of our update and of the peer's."""
    model = resnet50_weights()
    ours = Ours(model, before, after)
    reads = Contender(lambda: [w.sum() for w in ours.dense])
    times = in_turn({"read": reads, "ours": Contender(ours.run, ours.prepare)}, repeats, warm_up=3)
    ours.check(after)
    peer = Peer(before, after)
    return times | in_turn({"peer": Contender(peer.run, peer.prepare)}, repeats=2, warm_up=0)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    rows: list[list[str]] = []
    for before, after in STEPS:
        t = measure(before, after, repeats)
        rows.append(
            [
                f"{100 * before:g} -> {100 * after:g} %",
                *(f"{1e3 * t[name].wall:.1f}" for name in ("read", "ours", "peer")),
                t["ours"].over(t["read"]),
                t["peer"].over(t["ours"]),
            ]
        )
    print(machine())
    head = [
        "sparsity",
        "read pass, ms",
        "update, ms",
        "ModelPruning, ms",
        "update / read pass",
        "ModelPruning / update",
    ]
    print(table(head, rows))
    print("ratios by the clock, in brackets of the time of all cores")


if __name__ == "__main__":
    main()
