"""Several runs beside each other: figures in one table, curves in one picture, and what tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_prune.page import words
from lightning_prune.page.charts import Line, lines
from lightning_prune.page.figure import Figure, Table
from lightning_prune.page.part import Part
from lightning_prune.page.run import Run
from lightning_prune.page.story import facts
from lightning_prune.page.words import is_share

_MOST = 32
"""So many colours and dashes there are."""
_NO_MATTER = ("callbacks.checkpoint", "resume", "ckpt_path", "logger.", "defaults", "trainer.enable_")


def beside(runs: Sequence[Run]) -> Part:
    """Return what several runs look like beside each other."""
    figures: list[Figure] = []
    name, points = "pruning/sparsity", [run.curves.get("pruning/sparsity", []) for run in runs]
    if any(points):
        drawn = _lines(runs, name, 100.0, True)
        told = f"The sparsity of {len(drawn)} runs."
        figures.append(
            lines(
                "Sparsity over steps", told, drawn, words.hundredths, "zeros among prunable weights, %", within=(0, 104)
            )
        )
    metric = _shared_metric(runs)
    if metric:
        share = is_share(metric)
        drawn = _lines(runs, metric, 100.0 if share else 1.0, False)
        show: Callable[[float], str] = words.hundredths if share else words.number
        title = f"{metric.replace('/', ' ').capitalize()} over steps"
        unit = metric.rpartition("/")[2] + (", %" if share else "")
        figures.append(lines(title, f"The {metric} of {len(drawn)} runs.", drawn, show, unit))
    notes = [f"Pictures show the first {_MOST} of {len(runs)} runs."] if len(runs) > _MOST else []
    return Part(figures, [_figures(runs), *_differing(runs)], notes=notes)


def _lines(runs: Sequence[Run], metric: str, scale: float, held: bool) -> list[Line]:
    found: list[Line] = []
    for number, run in enumerate(runs[:_MOST]):
        points = [(step, scale * value) for step, value in run.curves.get(metric, [])]
        if points:
            found.append(Line(run.name, points, held, 1 + number % 8, number // 8 if len(runs) > 8 else number % 4))
    return found


def _shared_metric(runs: Sequence[Run]) -> str | None:
    """Return the metric over steps that most runs have, an accuracy of validation first."""
    names = [name for run in runs for name in run.curves if name.startswith("val/")]
    by_number = sorted(dict.fromkeys(names), key=lambda name: (not is_share(name), -names.count(name)))
    return by_number[0] if by_number else None


def _figures(runs: Sequence[Run]) -> Table:
    found = [{fact.name.removesuffix(" left"): fact for fact in facts(run)} for run in runs]
    columns = list(dict.fromkeys(name for each in found for name in each))
    rows = [
        [run.name, *(each[name].value if name in each else "" for name in columns), _state(run)]
        for run, each in zip(runs, found, strict=True)
    ]
    return Table(["run", *columns, "state"], rows)


def _state(run: Run) -> str:
    return run.state if run.state != "unfinished" else "not finished"


def _differing(runs: Sequence[Run]) -> list[Table]:
    keys = dict.fromkeys(key for run in runs for key in run.keys if not key.startswith(_NO_MATTER))
    differ = [key for key in keys if len({repr(run.keys.get(key)) for run in runs}) > 1]
    if not differ:
        return []
    rows = [[key, *("" if (v := run.keys.get(key)) is None else str(v) for run in runs)] for key in differ]
    return [Table(["config", *(run.name for run in runs)], rows, "Keys with other values alone.")]
