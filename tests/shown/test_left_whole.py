"""What is left whole is said in a few lines, whatever the size of the model; the report itself has all of it."""

from __future__ import annotations

import copy
import logging

import pytest
from torch import nn

from lightning_prune import Pruner, Targets
from lightning_prune.report import Report
from lightning_prune.schedule import OneShot


def of(skipped: dict[str, str]) -> Report:
    return Report([], skipped, 0.0, 0.5, 100, None)


def test_few_names_are_all_shown() -> None:
    assert of({"a.bias": "bias", "b.bias": "bias", "n.weight": "norm"}).left_whole() == [
        "left whole, bias: a.bias, b.bias",
        "left whole, norm: n.weight",
    ]


def test_many_names_of_a_reason_are_counted() -> None:
    report = of({f"layers.{i}.bias": "bias" for i in range(1204)})
    (line,) = report.left_whole()
    assert line == "left whole, bias: layers.0.bias, layers.1.bias, layers.2.bias, layers.3.bias and 1,200 more"
    assert len(report.skipped) == 1204


def test_reasons_that_differ_in_names_alone_are_one() -> None:
    follows = {f"teacher.{i}.weight": f"follows student.{i}.weight" for i in range(9)}
    reads = {f"stem.{i}.weight": f"m.stages.{i}.down normalises over its channels" for i in range(2)}
    assert of(follows | reads).left_whole(names=2) == [
        "left whole, follows ...: teacher.0.weight, teacher.1.weight and 7 more",
        "left whole, ... normalises over its channels: stem.0.weight, stem.1.weight",
    ]


def test_many_reasons_are_counted() -> None:
    report = of({f"p{i}": f"reason number {i}" for i in range(12)} | {"q": "reason number 11"})
    assert len(report.left_whole()) == 9
    assert report.left_whole()[-1] == "left whole for 4 other reasons: 5 (report.skipped)"


class Momentum(nn.Module):
    """A student of forty layers and its teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(*(m for _ in range(40) for m in (nn.Linear(8, 8), nn.LayerNorm(8))))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)


def test_a_plan_of_a_deep_net_with_its_teacher_is_short(caplog: pytest.LogCaptureFixture) -> None:
    pruner = Pruner(OneShot(0.5, 0), targets=Targets(follow={"teacher": "student"}))
    pruner.attach(Momentum())
    plan = pruner.report().plan()
    whole = [line for line in plan.splitlines() if line.startswith("left whole")]
    assert 2 <= len(whole) <= 6
    assert sum(map(len, whole)) < 1000
    assert "teacher.0.weight" in plan
    with caplog.at_level(logging.INFO, logger="lightning_prune"):
        pruner.after_step(0)
        pruner.strip()
    assert [record.getMessage() for record in caplog.records] == ["pruning: 2560 values, 50.00 % zeros"]
