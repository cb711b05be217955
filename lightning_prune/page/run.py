"""What a run's folder tells, finished or not, and what it does not tell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lightning_prune import saved
from lightning_prune.page.details import DETAILS, Details, read_details
from lightning_prune.page.metrics import Curves, read_metrics
from lightning_prune.report import WeightReport


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: where it lies.
        name: what it is called on the page.
        state: how far it came.
        config: its config as text, "" where there is none.
        keys: dotted key -> value of it.
        report: what `report.json` holds, empty where there is none.
        layers: the prunable weights.
        rounds: where it prunes in rounds, what each came to.
        curves: its metrics over steps.
        details: what was seen of its weights.
        missing: what the page cannot show, and why.
    """

    folder: Path
    name: str
    state: Literal["finished", "interrupted", "unfinished"]
    config: str
    keys: Mapping[str, Any]
    report: Mapping[str, Any]
    layers: tuple[WeightReport, ...]
    rounds: tuple[Mapping[str, Any], ...]
    curves: Curves
    details: Details
    missing: tuple[str, ...]

    @property
    def command(self) -> str:
        """What repeats it, to the bit on the same machine."""
        return f"lightning-prune train --config-dir {shlex.quote(str(_from_here(self.folder)))} -cn config"

    @property
    def gated(self) -> bool:
        """Whether gates leave channels out of each example, and nothing becomes zero."""
        return any(key.endswith("_target_") and str(v).endswith(".DynamicGates") for key, v in self.keys.items())

    @property
    def tested(self) -> Mapping[str, float]:
        """The metrics of its test; without one the last of its validation."""
        test = {name: value for name, value in (self.report.get("test") or {}).items() if _is_number(value)}
        return test or {name: found[-1][1] for name, found in self.curves.items() if name.startswith("val/")}


def read_run(folder: Path, name: str = "") -> Run:
    """Return what a folder tells of its run.

    Args:
        folder: the run's.
        name: what it is called; "" for its recipe.

    Raises:
        FileNotFoundError: there is no `config.yaml` in it, so that it is no run's folder.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        what = "there is no config.yaml in it" if folder.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"{folder} is no run's folder: {what}")
    missing: list[str] = []
    config = file.read_text(encoding="utf-8", errors="replace")
    keys = _or_missing(missing, "config.yaml", dict[str, Any](), lambda: _flat(config))
    report, layers, rounds = _or_missing(missing, "report.json", ({}, (), ()), lambda: _report(folder))
    curves = _or_missing(missing, "metrics.csv", Curves(), lambda: read_metrics(folder))
    details = _or_missing(missing, DETAILS, Details(), lambda: read_details(folder))
    state = "unfinished" if not report else "interrupted" if report.get("interrupted") else "finished"
    run = Run(
        folder,
        name or str(keys.get("recipe") or folder.name),
        state,
        config,
        keys,
        report,
        layers,
        rounds,
        curves,
        details,
        (),
    )
    return replace(run, missing=(*missing, *_absent(run, missing), *details.notes))


def _absent(run: Run, said: list[str]) -> list[str]:
    """Return what is not there, a line each, without what is named already."""
    damaged = " ".join(said)
    found: list[str] = []
    if not (run.folder / "report.json").is_file():
        found.append(
            "report.json: the run has not come to an end, or failed, so nothing is known of what was pruned, "
            "what it costs and how it tests"
        )
    if run.rounds:
        return [*found, "in rounds, weights and masks are not looked at one by one, and forwards are not timed"]
    if not run.curves and "metrics.csv" not in damaged:
        found.append("metrics.csv: the run had no CSV logger, or no step yet, so there is nothing over steps")
    if not (run.folder / DETAILS).is_file():
        found.append(f"{DETAILS}: the run is of an earlier version, so weights and masks cannot be shown")
    elif not any(weight.after for weight in run.details.weights.values()) and DETAILS not in damaged:
        found.append("weights after pruning and masks: the run has not come that far")
    return found


def _or_missing(missing: list[str], file: str, empty: Any, read: Any) -> Any:
    try:
        return read()
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        missing.append(f"{file}: it cannot be read: {' '.join(str(error).split())[:200]}")
        return empty


def _report(folder: Path) -> tuple[dict[str, Any], tuple[WeightReport, ...], tuple[Mapping[str, Any], ...]]:
    if not (folder / "report.json").is_file():
        return {}, (), ()
    report = saved.load_json(folder / "report.json")
    rounds = tuple(saved.mapping("rounds", each) for each in saved.sequence("rounds", report.get("rounds") or []))
    layers = tuple(_layer(each) for each in saved.sequence("weights", report.get("weights") or []))
    saved.number("sparsity", saved.at("report.json", report, "sparsity"), 0.0, 1.0)
    saved.number("final_sparsity", saved.at("report.json", report, "final_sparsity"), 0.0, 1.0)
    return report, layers, rounds


def _layer(found: Any) -> WeightReport:
    values = saved.mapping("weights", found)
    return WeightReport(
        saved.text("name", values.get("name")),
        tuple(saved.integer("shape", size) for size in saved.sequence("shape", values.get("shape"))),
        saved.integer("size", values.get("size")),
        saved.integer("zeros", values.get("zeros")),
        saved.number("threshold", values.get("threshold")),
        None,
    )


def _flat(text: str) -> dict[str, Any]:
    """Return a config as dotted key -> value."""
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    flat: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", found)]
    while waiting:
        key, node = waiting.pop()
        if isinstance(node, dict) and node:
            waiting += [(f"{key}.{name}".lstrip("."), value) for name, value in reversed(list(node.items()))]
        else:
            flat[key] = node
    return flat


def _from_here(path: Path) -> Path:
    whole, here = path.absolute(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
