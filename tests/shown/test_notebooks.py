"""What a notebook shows of a callback and its reports: tables, DataFrames, pictures."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ET
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import PruningCallback
from lightning_prune.cost import compare
from lightning_prune.report import Report, WeightReport
from lightning_prune.rounds import History
from lightning_prune.rounds.record import Round
from lightning_prune.shown import html_table
from tests.guarantees.helpers import RAMP, Net, fit

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def callback() -> PruningCallback:
    fitted = PruningCallback(RAMP)
    fit(Net(), fitted, max_steps=20)
    return fitted


def cells(html: str) -> list[list[str]]:
    return [[cell.text or "" for cell in row] for row in ET.fromstring(html).iter("tr")]


def test_a_report_is_the_table_that_is_printed(callback: PruningCallback) -> None:
    assert callback.report is not None
    rows = cells(callback.report._repr_html_())
    printed = [line for line in callback.report.table().splitlines() if not line.startswith("---")]
    assert ["".join(row).replace(" ", "") for row in rows] == [line.replace(" ", "") for line in printed[: len(rows)]]
    frame = callback.report.to_pandas()
    assert list(frame.index) == [weight.name for weight in callback.report.weights]
    assert int(frame["zeros"].sum()) == callback.report.zeros
    assert frame["sparsity"].tolist() == [weight.sparsity for weight in callback.report.weights]


def test_names_are_no_markup() -> None:
    html = html_table([("weight", "n"), ("<b>&", "1")], ["a < b"])
    assert cells(html) == [["weight", "n"], ["<b>&", "1"]]
    assert "&lt;b&gt;&amp;" in html
    assert "a &lt; b" in html


def test_a_callback_shows_its_pruner_and_its_report(callback: PruningCallback) -> None:
    new = PruningCallback(0.7)
    assert "no fit yet" in new._repr_html_()
    assert "final_sparsity=0.7" in new._repr_html_()
    for ask in (new.to_pandas, new.plot):
        with pytest.raises(RuntimeError, match="there is no report yet"):
            ask()
    assert "net.0.weight" in callback._repr_html_()
    assert len(callback.to_pandas()) == 2


def test_a_callback_shows_the_numbers_of_now_while_it_prunes() -> None:
    callback, seen = PruningCallback(RAMP), list[str]()
    model = Net()
    model.after_batch.append(lambda run: seen.append(callback._repr_html_()) if run.global_step == 9 else None)
    fit(model, callback, max_steps=20)
    assert callback.report is not None
    assert "all prunable" in seen[0]
    assert seen[0] != callback._repr_html_()


def smaller_than_dense() -> Any:
    dense = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return compare(dense, nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), torch.zeros(2, 6), repeats=2)


def rounds() -> History:
    one = Round(0, None, {"a.weight": (8, 8)}, 100, 200, {"val/accuracy": 0.9})
    two = Round(1, 0.5, {"a.weight": (8, 4)}, 50, 100, {"val/accuracy": 0.8})
    return History({}, (one, two), "two rounds were asked for")


def test_costs() -> None:
    report = smaller_than_dense()
    rows = cells(report._repr_html_())
    assert rows[0] == ["", "dense", "smaller", "times less"]
    assert rows[1] == ["parameters", "163", "43", "3.79"]
    assert "measured" in report._repr_html_()
    frame = report.to_pandas()
    assert frame["parameters"].tolist() == [112, 51]
    assert frame["smaller_parameters"].tolist() == [28, 15]


def test_rounds() -> None:
    frame = rounds().to_pandas()
    assert frame["units"].tolist() == [8, 4]
    assert frame["val/accuracy"].tolist() == [0.9, 0.8]
    assert cells(rounds()._repr_html_())[2] == ["1", "0.5", "4", "50", "100", "0.8000"]
    assert "two rounds were asked for" in rounds()._repr_html_()


def test_every_picture_shows_itself(callback: PruningCallback) -> None:
    many = Report([WeightReport(f"w{i}", (4,), 4 + i, 2, 0.0, None) for i in range(60)], {}, 0.5, 0.5, 600, 3)
    for shown in (callback, smaller_than_dense(), rounds(), many):
        figure = shown.plot()
        assert figure._repr_png_().startswith(PNG)
        assert figure.axes
    labels = [label.get_text() for label in many.plot().axes[0].get_yticklabels()]
    assert labels == [f"w{i}" for i in range(20, 60)]


def test_without_pandas_it_says_what_to_install(callback: PruningCallback, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        callback.to_pandas()
