"""Every case with every tool, as a table for the documentation.

`python -m tests.peers.table` prints it; `--write` puts it into docs/comparison.md.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from . import units, weights
from .tools import TOOLS, Tool

Case = Callable[[Tool, Path], None]

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
BEGIN, END = "<!-- begin: python -m tests.peers.table --write -->", "<!-- end -->"


def asks(tool: Tool, case: Case) -> bool:
    """Return whether the tool has what the case is about."""
    if case in units.CASES:
        return tool.take_out is not None
    of_default = (
        weights.default_amount,
        weights.norms_and_biases,
        weights.late_layers,
        weights.bare_parameters,
        weights.two_fits,
        weights.evaluated,
    )
    return (tool.default if case in of_default else tool.once) is not None


def outcome(tool: Tool, case: Case) -> str:
    """Return "yes", "no", or a dash where the tool has no such thing."""
    if not asks(tool, case):
        return "–"
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            case(tool, Path(folder))
        except Exception:  # whatever a tool does with it
            return "no"
    return "yes"


def table(tools: Sequence[Tool] = TOOLS) -> str:
    """Return a table in Markdown: a line a case, a column a tool."""
    head = ["", *(tool.title for tool in tools)]
    lines = [head, ["---"] * len(head)]
    for case in (*weights.CASES, *units.CASES):
        lines.append([(case.__doc__ or "").strip(), *(outcome(tool, case) for tool in tools)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def between(page: str) -> tuple[str, str, str]:
    """Return what stands before the table, the table and what stands behind it."""
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before + BEGIN, inside.strip(), END + after


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    made = table()
    if "--write" in sys.argv[1:]:
        before, _, after = between(PAGE.read_text(encoding="utf-8"))
        PAGE.write_text(f"{before}\n\n{made}\n\n{after}", encoding="utf-8")
    sys.stdout.write(made + "\n")
