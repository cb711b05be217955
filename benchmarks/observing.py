"""A training step that a criterion looks at, beside the same step outside of its window.

python benchmarks/observing.py [repeats [how a model's name begins]]
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from nets import NETS, OPTIMIZERS
from step import our_step
from timing import Contender, Time, in_turn, machine, table

from lightning_prune import Pruner
from lightning_prune.criterion import OBS, ActivationTaylor, APoZ, Fisher, Inbound, OutputVariance, Taylor, Wanda
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import OneShot

CRITERIA = (Taylor(), Fisher(), OBS(), Wanda(), Inbound(), OutputVariance(), APoZ(), ActivationTaylor())


def contender(net: str, criterion: Any, seen: bool) -> Contender:
    """Return a step in the window before an update, or before that window."""
    make, batch = NETS[net]
    torch.manual_seed(0)
    x, model = batch(), make()
    units = criterion.observes in ("activation", "saliency")
    pruner = Pruner(OneShot(0.9, 10**6), criterion, Channel(example_inputs=x[:2]) if units else Element())
    pruner.attach(model, 10**6 + 1)
    pruner.update(10**6 - 1 if seen else 1)
    step = our_step(model, OPTIMIZERS["AdamW, fused"](model), x, pruner)
    pruner.update = lambda *_: False  # pyright: ignore[reportAttributeAccessIssue]  # stay where it is
    return Contender(step)


def row(net: str, criterion: Any, repeats: int) -> list[str]:
    times: dict[str, Time] = in_turn(
        {"outside": contender(net, criterion, False), "seen": contender(net, criterion, True)}, repeats, warm_up=5
    )
    outside, seen = times.values()
    return [net, type(criterion).__name__, f"{1e3 * outside.wall:.2f}", f"{1e3 * seen.wall:.2f}", seen.over(outside)]


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    begins = sys.argv[2] if len(sys.argv) > 2 else ""
    rows: list[list[str]] = []
    for net in NETS:
        for criterion in CRITERIA if net.startswith(begins) else ():
            try:
                rows.append(row(net, criterion, repeats))
            except ValueError as error:
                rows.append([net, type(criterion).__name__, "", "", str(error)[:60]])
    print(machine())
    print(table(["model", "criterion", "outside, ms", "in the window, ms", "ratio"], rows))


if __name__ == "__main__":
    main()
