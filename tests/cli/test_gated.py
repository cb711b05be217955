"""Dynamic gates from the command line: planned, trained, counted in the test, looked at, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_prune.dynamic import put_gates
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import digits_cnn

from .conftest import SHORT, Command

RECIPE = ("-cn", "digits_cnn_dynamic")


def test_a_plan_says_what_goes_and_what_an_example_takes(command: Command) -> None:
    said = command("plan", *RECIPE)
    assert (said.status, said.err) == (0, "")
    assert "net.3.weight        64              50.00 %" in said.out
    assert "in the end, MACs an example: 1,790,464 dense, 459,040 at most, 6,176 of them for the predictors" in said.out
    plan = json.loads(command("plan", *RECIPE, "--json").out)
    assert plan["updates"][-1]["sparsity"] == 0.5
    assert plan["prunable"] == 160


@pytest.mark.slow
def test_a_run_keeps_its_gates_and_counts_them_in_its_test(command: Command) -> None:
    said = command("train", *RECIPE, "hydra.run.dir=run", "trainer.accelerator=cpu", *SHORT)
    assert said.status == 0, said.err
    assert "in the test, MACs an example: 1,790,464 dense" in said.out
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    assert report["sparsity"] == 0.5
    assert report["macs"]["examples"] == 300
    assert report["macs"]["total"] <= report["dynamic"]["macs"]["total"] == 459_040
    assert "gates, by example: no weight is zero for it" in command("inspect", "run/checkpoints/last.ckpt").out
    state = torch.load("run/model.pt", weights_only=True)
    task = put_gates(Classifier(digits_cnn()), state)
    task.load_state_dict(state)

    more = ("weights=run/model.pt", "hydra.run.dir=more", "pruner.schedule.final_sparsity=0.75")
    said = command("train", *RECIPE, *more, "trainer.accelerator=cpu", *SHORT)
    assert said.status == 0, said.err
    assert json.loads(Path("more/report.json").read_text(encoding="utf-8"))["sparsity"] == 0.75
