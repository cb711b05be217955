"""The pictures of the documents, drawn by the package itself: `python docs/pictures.py` writes docs/images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.pattern import Block, Column, Element, NofM, Pattern, Row
from lightning_prune.schedule import Geometric, Iterative, OneShot, Polynomial, Schedule

IMAGES = Path(__file__).parent / "images"
STEPS = 1000
SCHEDULES: dict[str, Schedule] = {
    "Polynomial": Polynomial(0.9, 0.05, 0.4, 0.004),
    "Polynomial(power=1)": Polynomial(0.9, 0.05, 0.4, 0.004, power=1),
    "Geometric": Geometric(0.9, 0.05, 0.4, 0.004),
    "Iterative(rounds=4)": Iterative(0.9, 0.05, 0.4, rounds=4),
    "OneShot": OneShot(0.9, 0.2),
}
PATTERNS: dict[str, Pattern] = {
    "Element()": Element(),
    "Block(2, 4)": Block(2, 4),
    "NofM(2, 4)": NofM(2, 4),
    "Row()": Row(),
    "Column()": Column(),
}


def curve(schedule: Any) -> list[float]:
    """Return the sparsity after each step."""
    resolved = schedule.resolve(STEPS)
    updates = [resolved.last_update(step) for step in range(STEPS + 1)]
    return [0.0 if step is None else resolved.sparsity(step) for step in updates]


def zeros(pattern: Any) -> Any:
    """Return the mask of a small weight, half pruned."""
    layer = nn.Linear(24, 16, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(16, 24, generator=torch.Generator().manual_seed(0)))
    pruner = Pruner(OneShot(0.5, 0), pattern=pattern)
    pruner.attach(layer)
    pruner.after_step(0)
    return (layer.weight != 0).numpy()


def save(figure: Any, name: str) -> None:
    """Write a picture that is the same each time, without a date."""
    figure.savefig(IMAGES / name, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    """Draw both."""
    IMAGES.mkdir(exist_ok=True)
    plt.switch_backend("svg")
    mpl.rcParams.update({"svg.hashsalt": "lightning-prune", "font.size": 8, "svg.fonttype": "none"})
    shares = [100 * step / STEPS for step in range(STEPS + 1)]
    figure, axis = plt.subplots(figsize=(6, 2.6))
    for name, schedule in SCHEDULES.items():
        axis.plot(shares, curve(schedule), label=name, drawstyle="steps-post")
    axis.set(xlabel="% of the run", ylabel="sparsity", xlim=(0, 60), ylim=(0, 1))
    axis.legend(loc="lower right", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    save(figure, "schedules.svg")

    figure, axes = plt.subplots(1, len(PATTERNS), figsize=(8, 1.6))
    for axis, (name, pattern) in zip(axes, PATTERNS.items(), strict=True):
        axis.imshow(zeros(pattern), cmap="Blues", vmin=-0.2, vmax=1.4, interpolation="nearest")
        axis.set_title(name, fontsize=8)
        axis.set(xticks=[], yticks=[])
    axes[0].set(xlabel="inputs", ylabel="outputs")
    save(figure, "patterns.svg")


if __name__ == "__main__":
    main()
