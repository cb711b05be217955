"""From runs to a page: Jinja's templates, with everything escaped that a run's files have brought."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_prune.page.beside import beside
from lightning_prune.page.figure import drawing
from lightning_prune.page.part import Part
from lightning_prune.page.run import Run, read_run
from lightning_prune.page.sections import SECTIONS
from lightning_prune.page.story import facts, sentence

PAGE = "report.html"
IN_FULL = 4
"""So many runs are shown in full; of more there is what stands beside each other."""


def report_page(*folders: Path | str, out: Path | str | None = None, title: str = "") -> Path:
    """Write one HTML page about a run, or several side by side, and return its path.

    The page needs no network and no other file.

    Args:
        folders: of runs, as `lightning-prune train` leaves them: finished, interrupted or neither.
        out: the page's path; None for `report.html` in the run's folder, or in the one that all runs share.
        title: stands above; "" for the recipe's name, or the number of runs.

    Raises:
        ValueError: no folder is given.
        FileNotFoundError: one is no run's folder.
        ModuleNotFoundError: Jinja or matplotlib is not installed.
    """
    if not folders:
        raise ValueError("report_page() needs the folder of a run")
    paths = [Path(folder) for folder in folders]
    runs = [read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    file = Path(out) if out is not None else _shared(paths) / PAGE
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_text(_page(runs, title), encoding="utf-8")
    os.replace(unfinished, file)
    return file


def _page(runs: Sequence[Run], title: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lightning_prune.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    full = runs if len(runs) <= IN_FULL else ()
    several = len(runs) > 1
    with drawing():
        made = [(section, [section.of(run) for run in full]) for section in SECTIONS]
        together = beside(runs) if several else Part()
    sections: list[dict[str, Any]] = [
        {"key": section.key, "title": section.title, "parts": parts} for section, parts in made if any(parts)
    ]
    shown = title or (f"{len(runs)} runs side by side" if several else runs[0].name)
    return environment.get_template("page.html").render(
        title=shown,
        runs=[{"name": run.name, "sentence": sentence(run), "facts": facts(run), "state": run.state} for run in runs],
        beside=together,
        sections=sections,
        left_out=len(runs) if several and not full else 0,
        most=IN_FULL,
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each of several runs, its path from what all share; "" for a single run."""
    if len(folders) == 1:
        return [""]
    shared = _shared(folders)
    return [str(folder.absolute().relative_to(shared)) for folder in folders]


def _shared(folders: Sequence[Path]) -> Path:
    if len(folders) == 1:
        return folders[0]
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
