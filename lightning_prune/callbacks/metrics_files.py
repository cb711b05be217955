"""The files of a `CSVLogger`, kept beside a checkpoint and put back when a run goes on from it.

Lightning's logger deletes the file that it finds, and while it writes a wider header the file is not whole. So a copy
is kept, made before the checkpoint and thus with at least as many rows as were there then; the checkpoint says how
many.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_prune import saved


def keep(loggers: Sequence[Any], folder: Path) -> list[dict[str, Any]]:
    """Copy the files, each whole at any moment, and return of each how many rows it has, and which columns."""
    states: list[dict[str, Any]] = []
    for number, (logger, writer) in enumerate(_writers(loggers)):
        logger.save()
        text = _read(Path(writer.metrics_file_path))
        write_whole(folder / _name(number), text)
        rows = max(0, len(text.splitlines()) - 1)
        states.append({"rows": rows, "columns": list(writer.metrics_keys)})
    return states


def put_back(loggers: Sequence[Any], folder: Path, states: Sequence[dict[str, Any]]) -> None:
    """Let the files be what they were. Warns of one whose copy is gone, or has lost rows."""
    for number, ((_, writer), state) in enumerate(zip(_writers(loggers), states, strict=False)):
        columns: list[str] = state["columns"]
        kept = list(csv.DictReader(io.StringIO(_read(folder / _name(number)))))[: state["rows"]]
        if len(kept) < state["rows"]:
            rank_zero_warn(
                f"{folder / _name(number)} holds {len(kept)} of the {state['rows']} rows that were logged when the "
                f"checkpoint was written: {writer.metrics_file_path} begins without the others"
            )
        if kept:
            text = io.StringIO(newline="")
            table = csv.DictWriter(text, columns, extrasaction="ignore")
            table.writeheader()
            table.writerows(kept)
            write_whole(Path(writer.metrics_file_path), text.getvalue())
            writer.metrics_keys = columns


def checked(states: Any) -> list[dict[str, Any]]:
    """Return what a file holds. Raises ValueError, which names the field, if `keep` has not made it."""
    found = [saved.mapping(f"metrics[{n}]", state) for n, state in enumerate(saved.sequence("metrics", states))]
    for n, state in enumerate(found):
        saved.integer(f"metrics[{n}]: rows", saved.at(f"metrics[{n}]", state, "rows"))
        for name in saved.sequence(f"metrics[{n}]: columns", saved.at(f"metrics[{n}]", state, "columns")):
            saved.text(f"metrics[{n}]: a column", name)
    return found


def write_whole(file: Path, text: str) -> None:
    """Write a file that is never there in part: it takes its place in one move."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(text.encode())
    os.replace(new, file)


def _writers(loggers: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the loggers that write such files, with what writes them."""
    for logger in loggers:
        if any(kind.__name__ == "CSVLogger" for kind in type(logger).__mro__):  # of either of Lightning's packages
            yield logger, logger.experiment


def _name(number: int) -> str:
    return f"metrics-{number}.csv" if number else "metrics.csv"


def _read(file: Path) -> str:
    return file.read_bytes().decode() if file.is_file() else ""
