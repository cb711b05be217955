"""A figure that notebooks show by themselves, and what pictures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BLUE, ORANGE, GREEN, GREY = "#3465a4", "#dd7711", "#4e9a06", "#888888"
LAYERS = 40
"""More bars than this cannot be read: the largest are shown then."""


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure, in inches. It belongs to no window, so that none needs to be closed.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import io

    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png")
            return stream.getvalue()

    return Picture(figsize=(width, height), layout="constrained", dpi=110)


def height_of(bars: int) -> float:
    """Return the height in inches of a figure with so many bars, one below the other."""
    return max(4.2, 1.4 + 0.24 * min(bars, LAYERS))


def largest(names: Sequence[str], sizes: Sequence[int]) -> list[int]:
    """Return which are shown, by position in their order: all, or the largest where they are too many."""
    by_size = sorted(range(len(names)), key=lambda i: -sizes[i])[:LAYERS]
    return sorted(by_size)


def shorten(name: str) -> str:
    """Return a name that fits beside an axis."""
    return name if len(name) <= 34 else f"...{name[-31:]}"


def draw_shares(
    axis: Any, names: Sequence[str], shares: Sequence[float], sizes: Sequence[int], whole: float, title: str
) -> None:
    """Draw a bar a name from 0 to 100 %, with its share and its size, and a line for the whole.

    Args:
        axis: of matplotlib.
        names: from above to below.
        shares: from 0 to 1, such as sparsities.
        sizes: what they are shares of.
        whole: the share of all together.
        title: stands above.
    """
    shown = largest(names, sizes)
    places = range(len(shown))
    axis.barh(places, [100] * len(shown), color="#eeeeee", height=0.72)
    axis.barh(places, [100 * shares[i] for i in shown], color=BLUE, height=0.72)
    for place, i in enumerate(shown):
        inside = shares[i] > 0.5
        at = {"x": 1.5 if inside else 100 * shares[i] + 1.5, "color": "white" if inside else "black"}
        axis.text(y=place, s=f"{100 * shares[i]:.1f} %  of {sizes[i]:,}", va="center", fontsize=8, **at)
    axis.axvline(100 * whole, color=ORANGE, linewidth=1.4, label=f"all: {100 * whole:.2f} %")
    axis.set_yticks(places, [shorten(names[i]) for i in shown], fontsize=8)
    axis.invert_yaxis()
    left_out = len(names) - len(shown)
    axis.set(title=title + (f" ({left_out} smaller ones left out)" if left_out else ""), xlabel="zeros, %")
    axis.set_xlim(0, 100)
    axis.legend(loc="upper left", bbox_to_anchor=(0.0, -0.06), frameon=False, fontsize=9)


def plain_spines(*axes: Any) -> None:
    """Leave out the lines above and at the right."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
