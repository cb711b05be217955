"""A picture on a page: an SVG in the page's own colours, what a pointer or a key finds in it, and its numbers."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

INK, SOFT, GRID, PAPER = "#010101", "#010102", "#010103", "#010104"
SERIES = tuple(f"#0102{number:02x}" for number in range(1, 9))
"""Stand for colours of the page, which are others in the dark."""
DASHES: tuple[Any, ...] = ("solid", (0, (6, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))
_VARIABLES = {INK: "--ink", SOFT: "--soft", GRID: "--grid", PAPER: "--paper"} | {
    color: f"--c{number}" for number, color in enumerate(SERIES, 1)
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_COLOR = re.compile("|".join(_VARIABLES))
_FAMILY = re.compile(r"""(font:[^;]*?\dpx)[^;]*|font-family:[^;]*;?""")


@dataclass(frozen=True)
class Table:
    """The numbers of a picture.

    Attributes:
        head: what its columns are.
        rows: as text, of that length.
        note: what stands below.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Stop:
    """A place in a picture where a pointer or a key finds something.

    Attributes:
        x: from the left, in units of the picture.
        y: from above.
        text: what is there.
    """

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Entry:
    """A line of a legend: the number of a colour from 1 on, that of a dash, what has them, and whether it is a dot."""

    color: int
    dash: int
    label: str
    dot: bool = False


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        title: what it shows.
        told: the same for people who do not see it.
        svg: the picture.
        size: width and height, in its units.
        stops: what can be found in it.
        along: whether a pointer finds the stop that is nearest to the left or right, wherever it is in height.
        legend: what is what.
        table: its numbers.
        aloud: whether `told` says no more than the picture does to those who see it.
    """

    title: str
    told: str
    svg: str
    size: tuple[float, float]
    stops: Sequence[Stop] = ()
    along: bool = True
    legend: Sequence[Entry] = ()
    table: Table | None = None
    aloud: bool = False

    @property
    def points(self) -> list[tuple[float, float, str]]:
        """The stops as plain values."""
        return [(stop.x, stop.y, stop.text) for stop in self.stops]


@dataclass
class Canvas:
    """What is drawn on, of matplotlib: its `axis`, and where its points are in the picture."""

    figure: Any
    axis: Any
    size: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the axis is, from the left and from above, in units of the picture."""
        across, up = self.axis.transData.transform((x, y))
        return round(float(across), 1), round(self.size[1] - float(up), 1)

    def svg(self) -> str:
        """Return the picture, in the page's colours, without names that another picture may have."""
        stream = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # text stays text: the reader's fonts have it
            self.figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
        return _of_the_page(stream.getvalue().decode())


def canvas(width: float, height: float, margins: tuple[float, float, float, float]) -> Canvas:
    """Return something to draw on, within `drawing`.

    Args:
        width: in units of the picture; text is 11 of these high.
        height: in the same.
        margins: left, right, below and above, in the same.
    """
    from matplotlib.figure import Figure as Drawing

    left, right, below, above = margins
    figure = Drawing(figsize=(width / 72, height / 72), dpi=72)
    axis = figure.add_axes((left / width, below / height, 1 - (left + right) / width, 1 - (below + above) / height))
    axis.set_axisbelow(True)
    return Canvas(figure, axis, (width, height))


@contextmanager
def drawing() -> Generator[None, None, None]:
    """Have all pictures drawn alike, whatever the user's own settings are."""
    from matplotlib import rc_context

    style: Any = {
        "font.size": 11,
        "axes.labelsize": 11,
        "axes.edgecolor": GRID,
        "axes.labelcolor": SOFT,
        "axes.facecolor": "none",
        "axes.linewidth": 1,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "grid.color": GRID,
        "grid.linewidth": 1,
        "text.color": INK,
        "text.parse_math": False,
        "axes.unicode_minus": True,
        "axes.formatter.use_mathtext": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "lightning-prune",
    }
    with rc_context(style):
        yield


def _of_the_page(text: str) -> str:
    """Return an SVG with the page's variables for colours, and its font; only what is referred to keeps a name."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style") or (
                child.tag == f"{{{_SVG}}}defs" and not len([c for c in child if not c.tag.endswith("style")])
            ):
                parent.remove(child)
    for node in list(root.iter()):
        style = node.get("style")
        if style:
            style = _COLOR.sub(lambda found: f"var({_VARIABLES[found.group()]})", style)
            style = _FAMILY.sub(lambda found: f"{found.group(1)} var(--font)" if found.group(1) else "", style)
            node.set("style", style)
    _unroll(root)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", "plot")
    root.set("aria-hidden", "true")
    root.set("focusable", "false")
    return ElementTree.tostring(root, encoding="unicode")


def _unroll(root: ElementTree.Element) -> None:
    """Take all names away, and what needs them: clips, since nothing is drawn outside of its axis."""
    for node in root.iter():
        for name in ("id", "clip-path"):
            node.attrib.pop(name, None)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}defs", f"{{{_SVG}}}use"):
                parent.remove(child)
