"""`lightning-prune compare`: accuracy and loss against sparsity, for any set of runs."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.curves import Curve, Curves, deviation, group, mean
from lightning_prune.cli.errors import UserError, printable
from lightning_prune.cli.runs import Run, Unfit, find
from lightning_prune.cli.sweep import from_here
from lightning_prune.report import columns, percent

_SHOWN = 6
_NAMED = 10
_HEAD = ("curve", "folder", "seed", "final_sparsity", "sparsity")


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune compare",
        description="Draw the metrics of runs against their sparsity. Runs that differ in sparsity and seed alone form "
        "a curve, named by what tells it from the others; of several seeds the table has mean ± standard deviation, "
        "the picture their mean with a band from the least to the most. Writes compare.csv, with every run, and "
        "compare.png. Runs that are unfinished, interrupted or damaged are named and left out; where none is "
        "left, the exit status is 1. Files are read as plain values; nothing in them is run.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="a run, or a folder with runs below it")
    parser.add_argument(
        "--out", type=Path, help="the folder to write into; by default, the one that all the runs share"
    )
    parser.add_argument("--title", help="stands above the picture")
    parser.add_argument("--wandb", action="store_true", help="log table and picture as a run of wandb, offline")
    parser.add_argument("--json", action="store_true", help="print JSON, a row a run, in place of tables")
    options = parser.parse_args(argv)
    runs, left_out = find(options.folders)
    _say_left_out(left_out, len(runs) + len(left_out), sys.stderr if options.json else sys.stdout)
    if not runs:
        raise UserError(f"none of the {len(left_out)} runs is finished: there is nothing to compare")

    from lightning_prune.cli.curves_picture import save_picture

    curves = group(runs)
    out: Path = options.out or Path(os.path.commonpath([run.folder.absolute().parent for run in runs]))
    out.mkdir(parents=True, exist_ok=True)
    table = _rows(curves)
    if not options.json:
        print(_text(curves))
    files = {
        "table": _save_table(table, out / "compare.csv"),
        "picture": save_picture(curves, out / "compare.png", options.title or _title(runs)),
    }
    if options.wandb:
        files["wandb"] = _log(table, files["picture"], out)
    if options.json:
        print(as_json({"runs": table, "files": {name: str(file) for name, file in files.items()}}))
        return 0
    for name, file in files.items():
        print(f"{name:<8} {from_here(file)}")
    return 0


def _say_left_out(left_out: Mapping[Path, Unfit], runs: int, to: TextIO) -> None:
    """Name the runs that cannot be compared, and count them by reason."""
    named: Counter[str] = Counter()
    for folder, reason in left_out.items():
        named[reason.word] += 1
        if named[reason.word] <= _NAMED:
            print(f"left out: {printable(str(from_here(folder)))}: {printable(str(reason))}", file=to)
    if left_out:
        words = ", ".join(f"{number} {word}" for word, number in named.most_common())
        print(f"{len(left_out)} of {runs} runs left out: {words}\n", file=to)


def _text(curves: Curves) -> str:
    """Return a table for each metric, curves by sparsities."""
    tables = [_table(curves, metric) for metric in curves.metrics]
    lines: list[str] = []
    if curves.along:
        more = f" and {len(curves.along) - _SHOWN} more" if len(curves.along) > _SHOWN else ""
        lines.append(f"along with {', '.join(curves.keys)} differ: {', '.join(curves.along[:_SHOWN])}{more}\n")
    return "\n\n".join(tables) + "\n\n" + "\n".join(lines)


def _table(curves: Curves, metric: str) -> str:
    is_share = metric.endswith("accuracy")
    rows = [(f"{metric}{', %' if is_share else ''}", *(_short(sparsity) for sparsity in curves.sparsities))]
    for curve in curves.curves:
        cells = [_cell(curve, metric, sparsity, is_share) for sparsity in curves.sparsities]
        if any(cells):
            rows.append((curve.label + _seeds(curve), *cells))
    return columns(rows, rules={1})


def _cell(curve: Curve, metric: str, sparsity: float, is_share: bool) -> str:
    values = [run.metrics[metric] for run in curve.runs.get(sparsity, ()) if metric in run.metrics]
    if not values:
        return ""
    said = f"{100 * mean(values):.2f}" if is_share else f"{mean(values):.4g}"
    if len(values) == 1:
        return said
    return f"{said} ± {100 * deviation(values):.2f}" if is_share else f"{said} ± {deviation(values):.2g}"


def _short(sparsity: float) -> str:
    return percent(sparsity).replace(".00 %", " %")


def _seeds(curve: Curve) -> str:
    counts = {len(runs) for runs in curve.runs.values()}
    if counts == {1}:
        return ""
    return f" (mean of {'-'.join(str(n) for n in sorted({min(counts), max(counts)}))})"


def _title(runs: Sequence[Run]) -> str:
    """Return what all runs share of recipe and data."""
    shared = [{run.config.get(key) for run in runs} for key in ("recipe", "data._target_")]
    names = [str(next(iter(values))).rpartition(".")[2] for values in shared if len(values) == 1]
    return ", ".join(names) or f"{len(runs)} runs"


def _rows(curves: Curves) -> list[dict[str, Any]]:
    """Return one row for each run."""
    return [
        dict(zip(_HEAD, (curve.label, str(run.folder), run.seed, sparsity, run.sparsity), strict=True))
        | {name: run.metrics.get(name) for name in curves.metrics}
        for curve in curves.curves
        for sparsity, runs in curve.runs.items()
        for run in runs
    ]


def _save_table(rows: Sequence[dict[str, Any]], file: Path) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file


def _log(rows: Sequence[dict[str, Any]], picture: Path, out: Path) -> Path:
    """Log table and picture as a run of wandb, offline unless WANDB_MODE says otherwise; return its folder."""
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    settings = wandb.Settings(silent=mode == "offline")
    names: dict[str, Any] = {"project": "lightning-prune", "job_type": "compare", "name": "compare"}
    with wandb.init(**names, dir=out, mode=mode, settings=settings) as run:
        table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
        run.log({"compare/runs": table, "compare/picture": wandb.Image(str(picture))})
        return Path(run.dir).parent
