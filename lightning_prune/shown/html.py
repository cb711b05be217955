"""A table for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(rows: Sequence[Sequence[str]], lines: Iterable[str] = ()) -> str:
    """Return rows as an HTML table, the first as its head, the first column flush left.

    Args:
        rows: of equal length, as text.
        lines: what stands below.
    """
    head, *body = rows
    table = "".join(f"<tr>{_cells('td', row)}</tr>" for row in body)
    below = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return f"<div><table><thead><tr>{_cells('th', head)}</tr></thead><tbody>{table}</tbody></table>{below}</div>"


def _cells(tag: str, row: Sequence[str]) -> str:
    aligned = ["left", *["right"] * (len(row) - 1)]
    made = [f"<{tag} style='text-align:{to}'>{escape(c)}</{tag}>" for c, to in zip(row, aligned, strict=True)]
    return "".join(made)
