"""G19: report, logged numbers, progress bar and a fresh count of the saved file agree."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from lightning_prune import Pruner, PruningCallback
from lightning_prune.regularizer import L1
from tests.guarantees.helpers import RAMP, UPDATES, Net, Units, fit, logged, ramp
from tests.guarantees.whole_units import channels, prunable


@pytest.mark.parametrize("tag", ["", "main"])
def test_G19_report_logs_and_a_count_of_the_saved_file_agree(tag: str, tmp_path: Path) -> None:
    callback = PruningCallback(Pruner(RAMP), tag=tag)
    save = ModelCheckpoint(tmp_path / "files", "{step}", every_n_train_steps=1, save_top_k=-1)
    model = Net()
    run = fit(model, callback, save, max_steps=20, logger=CSVLogger(tmp_path, "", ""))
    run.save_checkpoint(tmp_path / "end.ckpt")
    prefix = f"pruning/{tag}/" if tag else "pruning/"
    names = ["net.0.weight", "net.3.weight"]
    sparsities = logged(tmp_path, f"{prefix}sparsity")
    assert tuple(sparsities) == UPDATES
    for step in UPDATES:
        checkpoint = torch.load(tmp_path / "files" / f"step={step}.ckpt", weights_only=True)
        weights, state = checkpoint["state_dict"], checkpoint["callbacks"][callback.state_key]
        counted = {n: int((weights[n] == 0).sum()) for n in names}
        assert sparsities[step] == sum(counted.values()) / 256
        assert sparsities[step] == round(RAMP.sparsity(step) * 256) / 256
        assert math.isclose(logged(tmp_path, f"{prefix}target_sparsity")[step], RAMP.sparsity(step))
        for n in names:
            assert logged(tmp_path, f"{prefix}sparsity/{n}")[step] == counted[n] / weights[n].numel()
            assert logged(tmp_path, f"{prefix}threshold/{n}")[step] == state["thresholds"][n]
            assert state["masks"][n]["pruned"] == counted[n]
    before = [0, *[sparsities[step] for step in UPDATES]]
    changed = [after - earlier for earlier, after in pairwise(before)]
    assert list(logged(tmp_path, f"{prefix}changed").values()) == pytest.approx(changed)
    assert callback.report is not None
    end = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]
    assert callback.report.zeros == sum(int((end[n] == 0).sum()) for n in names) == 205
    assert callback.report.sparsity == sparsities[13] == callback.report.scalars()["sparsity"]
    assert callback.report.to_dict()["sparsity"] == callback.report.sparsity
    assert {w.name: w.zeros for w in callback.report.weights} == {n: int((end[n] == 0).sum()) for n in names}
    assert callback.report.parameters == sum(p.numel() for p in model.parameters())


def test_G19_the_progress_bar_shows_the_sparsity_that_is() -> None:
    shown: list[tuple[int, float]] = []
    model = Net()
    model.after_batch.append(
        lambda run: shown.append((run.global_step, float(run.progress_bar_metrics.get("sparsity", -1.0))))
    )
    fit(model, ramp(), max_steps=20)
    assert [step for step, _ in shown] == list(range(1, 21))
    for step, value in shown:
        last = max((u for u in UPDATES if u <= step), default=None)
        asked = 0.0 if last is None else RAMP.sparsity(last)
        assert value == pytest.approx(round(asked * 256) / 256, abs=1e-6)


def test_G19_without_a_logger_nothing_is_missed() -> None:
    callback = ramp(regularizer=L1(0.02))
    fit(Net(), callback, max_steps=20, logger=False)
    assert callback.report is not None
    assert "205" in callback.report.table()


def test_G19_report_state_and_file_agree(tmp_path: Path) -> None:
    model, callback = Units(), channels()
    run = fit(model, callback, max_steps=20)
    run.save_checkpoint(tmp_path / "end.ckpt")
    assert callback.report is not None
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    zeros = {w.name: int((saved["state_dict"][w.name] == 0).sum()) for w in callback.report.weights}
    assert zeros == {w.name: w.zeros for w in callback.report.weights}
    assert callback.report.scalars()["sparsity"] == sum(zeros.values()) / callback.report.size
    assert callback.report.size == sum(p.numel() for p in prunable(model).values())
    state = saved["callbacks"][callback.state_key]
    assert state["stripped"]
    assert not any(isinstance(value, Tensor) for value in state.values())
