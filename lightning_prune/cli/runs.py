"""The runs below some folders, as their config.yaml and report.json tell of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_prune import saved
from lightning_prune.cli import outputs, saved_config
from lightning_prune.cli.errors import UserError, message, printable


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        config: dotted key -> value.
        sparsity: the share of zeros among prunable weights.
        final_sparsity: the share that was asked for.
        metrics: of the test, or where there was none, the last ones of validation.
    """

    folder: Path
    config: Mapping[str, Any]
    sparsity: float
    final_sparsity: float
    metrics: Mapping[str, float]

    @property
    def seed(self) -> int:
        """The seed."""
        return self.config["seed"]


class Unfit(Exception):  # noqa: N818 - no error
    """Why a run cannot be compared: in a word, and in full."""

    def __init__(self, word: str, why: str) -> None:
        super().__init__(why)
        self.word = word


def find(folders: Iterable[Path]) -> tuple[list[Run], dict[Path, Unfit]]:
    """Return the finished runs below some folders, each once, and why others are left out.

    Raises:
        UserError: a folder is not there, or holds no run.
    """
    runs: dict[Path, Run] = {}
    left_out: dict[Path, Unfit] = {}
    for one in below(folders):
        try:
            runs[one] = _read(one)
        except Unfit as reason:
            left_out[one] = reason
    return list(runs.values()), left_out


def below(folders: Iterable[Path]) -> list[Path]:
    """Return the folders of all runs in some folders, finished or not, each once.

    Raises:
        UserError: a folder is not there, or holds no run.
    """
    every: dict[Path, Path] = {}
    for folder in folders:
        found = _below(folder)
        if not found:
            kind = "it is a file; name the folder of a run" if folder.is_file() else "there is no such folder"
            what = "there is no run in it" if folder.is_dir() else kind
            raise UserError(f"{folder}: {what}")
        for one in found:
            every.setdefault(one.resolve(), one)
    return list(every.values())


def _below(folder: Path) -> list[Path]:
    """Return the runs in a folder, or the folder itself if it is one."""
    if _is_run(folder):
        return [folder]
    return sorted({file.parent for file in folder.rglob("config.yaml") if _is_run(file.parent)}, key=_natural)


def _is_run(folder: Path) -> bool:
    """Whether a run has left its config here; the configs of recipes do not begin like that."""
    file = folder / "config.yaml"
    try:
        return file.is_file() and file.read_text(errors="replace").startswith("defaults:\n- run_folder\n")
    except OSError:  # it is not to be read: a run or not, it must not stop the others
        return False


def _natural(folder: Path) -> list[tuple[float, str]]:
    """Order names that are numbers by their value."""
    return [(float(part), "") if part.isdigit() else (float("inf"), part) for part in folder.parts]


def _read(folder: Path) -> Run:
    file = folder / "report.json"
    if not file.is_file():
        raise Unfit("unfinished", "failed or unfinished: it has no report.json")
    try:
        report = saved.load_json(file)
        config = saved_config.flat((folder / "config.yaml").read_text(encoding="utf-8"))
        saved.integer("config.yaml: seed", saved.at("config.yaml", config, "seed"))
        interrupted = saved.boolean("interrupted", saved.at("report.json", report, "interrupted"))
        sparsity = saved.number("sparsity", saved.at("report.json", report, "sparsity"), 0.0, 1.0)
        final = saved.number("final_sparsity", saved.at("report.json", report, "final_sparsity"), 0.0, 1.0)
        tested = saved.mapping("test", saved.at("report.json", report, "test"))
        curves = {} if tested or interrupted else outputs.read_metrics(folder)
        metrics: dict[str, Any] = tested or {n: values[-1][1] for n, values in curves.items() if n.startswith("val/")}
        finite = {printable(name): _finite(name, value) for name, value in metrics.items()}
    except Unfit:
        raise
    except Exception as error:  # whatever is wrong with a file of this run must not stop the others
        raise Unfit("damaged", f"its report or config cannot be read: {message(error)}") from error
    if interrupted:
        raise Unfit("interrupted", f"interrupted after {printable(str(report.get('steps')))} steps")
    if not finite:
        raise Unfit("without metrics", "it has no metrics of a test or of validation")
    shown = {printable(key): printable(value) if isinstance(value, str) else value for key, value in config.items()}
    return Run(folder, shown, sparsity, final, finite)


def _finite(name: str, value: Any) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        raise Unfit("diverged", f"its {printable(name)} is {value}, so its training has diverged")
    return saved.number(f"test[{name!r}]", value)
