"""What learned masks have learned, at a glance: probabilities over time by layer, the share undecided, the masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

_LAYERS = 12
"""More layers than this cannot be read."""


def figure(history: Sequence[Mapping[str, Any]], probabilities: Mapping[str, Tensor], title: str = "") -> Any:
    """Return a matplotlib figure.

    Args:
        history: for each update its step, the share `undecided`, and for each layer the `counts` of its probabilities
            in bins of equal width from 0 to 1.
        probabilities: those of now, by layer.
        title: stands above all.
    """
    from matplotlib.figure import Figure

    names = sorted(probabilities, key=lambda name: -len(probabilities[name]))[:_LAYERS]
    shown = [name for name in probabilities if name in names]
    down = len(shown)
    made = Figure(figsize=(11, 1.9 * down + 2.2), layout="constrained", dpi=110)
    grid = made.add_gridspec(down + 1, 2, width_ratios=[3, 1])
    for row, name in enumerate(shown):
        _over_time(made.add_subplot(grid[row, 0]), name, history)
        _as_image(made.add_subplot(grid[row, 1]), probabilities[name])
    _undecided(made.add_subplot(grid[down, :]), history)
    if title:
        made.suptitle(title, fontsize=13, fontweight="bold")
    return made


def _over_time(axis: Any, name: str, history: Sequence[Mapping[str, Any]]) -> None:
    steps = [each["step"] for each in history]
    counts = np.array([each["counts"][name] for each in history], dtype=float).reshape(len(history), -1)
    if len(steps) > 1:
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        edges = np.linspace(0, 1, counts.shape[1] + 1)
        axis.pcolormesh(_edges(steps), edges, np.sqrt(shares.T), cmap="Blues", vmin=0, vmax=1, rasterized=True)
    axis.set_ylabel("p", fontsize=9)
    axis.set_title(f"{name}: probabilities over steps", fontsize=9)
    axis.tick_params(labelsize=8)


def _edges(steps: Sequence[int]) -> Any:
    middle = [(one + other) / 2 for one, other in pairwise(steps)]
    return np.array([steps[0], *middle, steps[-1]], dtype=float)


def _as_image(axis: Any, p: Tensor) -> None:
    across = max(1, math.ceil(math.sqrt(2 * len(p))))
    cells = np.full(across * math.ceil(len(p) / across), np.nan)
    cells[: len(p)] = p.detach().float().cpu().numpy()
    axis.imshow(cells.reshape(-1, across), cmap="Greys", vmin=0, vmax=1, aspect="equal")
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{int((p > 0.5).sum()):,} of {len(p):,} units with p > .5", fontsize=9)


def _undecided(axis: Any, history: Sequence[Mapping[str, Any]]) -> None:
    axis.plot([each["step"] for each in history], [100 * each["undecided"] for each in history], color="#dd7711")
    last = f": {100 * history[-1]['undecided']:.2f} % at the end" if history else ""
    axis.set_title(f"undecided units, .05 < p < .95{last}", fontsize=9)
    axis.set(xlabel="step", ylabel="%")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
