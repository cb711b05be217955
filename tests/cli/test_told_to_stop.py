"""SIGTERM in the last batch of a fit or of its test, which Lightning takes and goes on: the run ends, and the sweep."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.tasks.classifier import Classifier

from .conftest import SHORT, Command

LAST = {"training_step": 35, "test_step": 0}
"""Of 36 steps; of a test that is one batch."""


@pytest.mark.parametrize("stage", LAST)
@pytest.mark.parametrize("sweep", [False, True], ids=["a run", "a sweep"])
def test_the_last_batch_is_no_place_to_miss_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, stage: str, sweep: bool
) -> None:
    seen = iter(range(10**6))
    before = getattr(Classifier, stage)

    @functools.wraps(before)
    def told(task: Any, *args: Any) -> Any:
        if next(seen) == LAST[stage]:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(task, *args)

    monkeypatch.setattr(Classifier, stage, told)
    where = ["-m", "seed=0,1", "hydra.sweep.dir=runs"] if sweep else ["hydra.run.dir=runs/0"]
    said = command("train", *where, "-cn", "digits_mlp", *SHORT, "data.batch_size=1000", "trainer.max_epochs=18")
    assert said.status == 130, said.err
    assert [path.name for path in Path("runs").iterdir() if path.is_dir()] == ["0"]
    report = json.loads(Path("runs/0/report.json").read_text(encoding="utf-8"))
    assert report["interrupted"] is (stage == "training_step")
    assert report["steps"] == 36
    if sweep:
        assert "stopped before the end" in said.out


@pytest.mark.parametrize("stage", LAST)
def test_rounds_end_too(command: Command, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    before = getattr(Classifier, stage)
    seen: list[str] = []

    @functools.wraps(before)
    def told(task: Any, *args: Any) -> Any:
        seen.append(stage)
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(task, *args)

    monkeypatch.setattr(Classifier, stage, told)
    one = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "data.batch_size=1000", "first=null"]
    said = command("train", "-cn", "digits_cnn_iterative", "hydra.run.dir=runs/0", *one)
    assert said.status == 130, said.err
    assert len(seen) == 1
    assert "interrupted in round" in said.out
