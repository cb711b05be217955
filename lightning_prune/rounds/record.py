"""What rounds of pruning leave behind: a record of each, as a table, as JSON, and as files to go on from."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning_prune import saved
from lightning_prune.report import columns, percent
from lightning_prune.rounds.picture import figure
from lightning_prune.shown import frame, html_table

VERSION = 1
FILE, FOLDER = "rounds.json", "rounds"


@dataclass(frozen=True)
class Round:
    """One round: what was taken out, and what the model was like after fine-tuning.

    Attributes:
        number: 1 for the first; 0 is the model before any pruning.
        factor: the share of its units that each group was to keep, where no bin says otherwise; None in round 0.
        units: group -> how many units it had and has.
        parameters: entries of all parameters.
        macs: multiply-adds of one forward of the example inputs.
        metrics: the trainer's, after fine-tuning, and those of a test.
    """

    number: int
    factor: float | None
    units: Mapping[str, tuple[int, int]]
    parameters: int
    macs: int
    metrics: Mapping[str, float]

    @property
    def left(self) -> dict[str, int]:
        """Group -> how many units it has after the round."""
        return {name: after for name, (_, after) in self.units.items()}


@dataclass(frozen=True)
class History:
    """The rounds of one model.

    Attributes:
        settings: what the rounds were made with, but for when to stop.
        rounds: those that are finished, from round 0 on.
        stopped: why there is no further round, in words; "" while there may be.
    """

    settings: Mapping[str, Any]
    rounds: tuple[Round, ...] = ()
    stopped: str = ""

    @property
    def left(self) -> dict[str, int]:
        """Group -> how many units it has now."""
        return self.rounds[-1].left

    @property
    def share(self) -> float:
        """The share of the units that is gone."""
        return share_gone(self.rounds[0].left, self.left)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics after the last round."""
        return self.rounds[-1].metrics

    def then(self, finished: Round) -> History:
        """Return the history with one more round."""
        return replace(self, rounds=(*self.rounds, finished))

    def table(self) -> str:
        """Return a table for people: rounds one below the other, then units by group, then why it ended."""
        rows = self._rows()
        first = self.rounds[0].left
        groups = [("", "units of", "before", "after", "removed")]
        for index, (name, after) in enumerate(self.left.items()):
            removed = percent(1 - after / first[name])
            groups.append((str(index), name, f"{first[name]:,}", f"{after:,}", removed))
        return f"{columns(rows, rules={1})}\n\n{columns(groups, rules={1})}\n{self.stopped}".rstrip()

    def _rows(self) -> list[tuple[str, ...]]:
        names = [name for name in self.metrics if not name.startswith("train")]
        rows = [("round", "factor", "units", "parameters", "MACs", *names)]
        for each in self.rounds:
            factor = "" if each.factor is None else f"{each.factor:g}"
            numbers = [f"{each.metrics[name]:.4f}" if name in each.metrics else "" for name in names]
            units = sum(each.left.values())
            rows.append((str(each.number), factor, f"{units:,}", f"{each.parameters:,}", f"{each.macs:,}", *numbers))
        return rows

    def _repr_html_(self) -> str:
        return html_table(self._rows(), [self.stopped])

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`, a row a round. Raises ModuleNotFoundError without pandas."""
        records = [
            {"round": r.number, "factor": r.factor, "units": sum(r.left.values())}
            | {"parameters": r.parameters, "macs": r.macs, **r.metrics}
            for r in self.rounds
        ]
        return frame(records, "round")

    def plot(self, title: str = "") -> Any:
        """Return a matplotlib figure: accuracy, size and units. Raises ModuleNotFoundError without matplotlib."""
        return figure(self, title)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return {
            "version": VERSION,
            "settings": dict(self.settings),
            "rounds": [asdict(each) for each in self.rounds],
            "stopped": self.stopped,
        }


def said(value: Any) -> Any:
    """Return a value as JSON can hold it and another process would say it: without tensors and addresses."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): said(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [said(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {field.name: said(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"is": type(value).__qualname__} | values
    return getattr(value, "__qualname__", type(value).__qualname__)


def share_gone(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Return the share of the units that is gone."""
    return 1.0 - sum(after.values()) / sum(before.values())


def save(history: History, folder: Path) -> None:
    """Write `rounds.json` at once or not at all."""
    unfinished = folder / f".{FILE}.unfinished"
    unfinished.write_text(json.dumps(history.to_dict(), indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / FILE)


def load(folder: Path, settings: Mapping[str, Any]) -> History:
    """Return the rounds finished in a folder; none if it holds none.

    Raises:
        ValueError: they were made with other settings, or by a newer version, or the record is damaged.
    """
    if not (folder / FILE).is_file():
        return History(settings)
    found = saved.load_json(folder / FILE)
    if found.get("version") != VERSION:
        raise ValueError(f"{folder / FILE} has version {found.get('version')!r}, this lightning_prune reads {VERSION}")
    where = str(folder / FILE)
    before = saved.mapping(f"{where}: settings", saved.at(where, found, "settings"))
    now: Mapping[str, Any] = json.loads(json.dumps(settings))
    differ = [key for key in {**now, **before} if now.get(key) != before.get(key)]
    if differ:
        said = ", ".join(f"{key}={before.get(key)!r}, not {now.get(key)!r}" for key in differ)
        raise ValueError(f"{folder} holds rounds made with {said}: choose another folder")
    rounds = [_round(f"{where}: rounds[{n}]", n, values) for n, values in enumerate(_rounds(where, found))]
    return History(settings, tuple(rounds))


def folder_of(folder: Path, number: int) -> Path:
    """Return where a round's model lies."""
    return folder / FOLDER / str(number)


def finished(folder: Path) -> int:
    """Return how many rounds are finished in a folder, round 0 among them."""
    file = folder / FILE
    return len(_rounds(str(file), saved.load_json(file))) if file.is_file() else 0


def _rounds(where: str, found: Mapping[str, Any]) -> list[Any]:
    return saved.sequence(f"{where}: rounds", saved.at(where, found, "rounds"))


def _round(where: str, number: int, values: Any) -> Round:
    """Return a round as it was written. Raises ValueError if it is damaged."""
    found = saved.mapping(where, values)

    def at(key: str) -> Any:
        return saved.at(where, found, key)

    units: dict[str, tuple[int, int]] = {}
    for name, pair in saved.mapping(f"{where}.units", at("units")).items():
        before, after = _pair(f"{where}.units[{name!r}]", pair)
        units[name] = before, saved.integer(f"{where}.units[{name!r}]: after", after, 1, before)
    metrics = saved.mapping(f"{where}.metrics", at("metrics"))
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):  # NaN is a metric of a run that diverged
            raise ValueError(f"{where}.metrics[{name!r}] is {value!r}; it must be a number")
    factor = at("factor")
    return Round(
        number=saved.integer(f"{where}.number", at("number"), number, number),
        factor=None if factor is None else saved.number(f"{where}.factor", factor, 0.0, 1.0),
        units=units,
        parameters=saved.integer(f"{where}.parameters", at("parameters")),
        macs=saved.integer(f"{where}.macs", at("macs")),
        metrics=metrics,
    )


def _pair(where: str, value: Any) -> tuple[int, Any]:
    pair = saved.sequence(where, value)
    if len(pair) != 2:
        raise ValueError(f"{where} has {len(pair)} numbers; it must have two, before and after")
    return saved.integer(f"{where}: before", pair[0], 1), pair[1]
