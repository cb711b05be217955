"""A run with learned masks, and other thresholds on what it learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_prune.shrink import load_shrunk
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import digits_cnn

from .conftest import SHORT, Command

LEARNED = ("train", "-cn", "digits_cnn", "hydra.run.dir=run", "pruner=learned", "pruner.lr=0.05")


@pytest.mark.slow
def test_a_sweep_needs_no_training_and_extracts_what_it_shows(command: Command) -> None:
    said = command(*LEARNED, "prune.shrink=true", *SHORT)
    assert said.status == 0, said.err
    assert "run/learned.pt" in said.out
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    said = command("threshold-sweep", "run", "--thresholds", "0,0.5,0.8", "--extract", "0.8")
    assert (said.status, said.err) == (0, "")
    points = {
        point["threshold"]: point for point in json.loads(Path("run/threshold_sweep.json").read_text(encoding="utf-8"))
    }
    assert list(points) == [0.0, 0.5, 0.8]
    assert points[0.0]["parameters"] == report["shrink"]["parameters"][0]  # a p above 0 keeps all
    assert points[0.5]["parameters"] == report["shrink"]["parameters"][1]  # the T of the run
    assert points[0.5]["metrics"]["test/accuracy"] == pytest.approx(report["test"]["test/accuracy"])
    assert points[0.8]["parameters"] < points[0.5]["parameters"] < points[0.0]["parameters"]
    assert points[0.8]["macs"] < points[0.5]["macs"] < points[0.0]["macs"]
    assert Path("run/threshold_sweep.png").stat().st_size > 10_000

    model = load_shrunk(Classifier(digits_cnn()), "run/extracted")
    assert sum(p.numel() for p in model.parameters()) == points[0.8]["parameters"]
    assert torch.isfinite(model(torch.randn(3, 1, 8, 8))).all()


@pytest.mark.slow
def test_a_schedule_leaves_no_choice_of_a_threshold(command: Command) -> None:
    said = command(
        *LEARNED,
        "pruner/schedule=polynomial",
        "pruner.schedule.final_sparsity=0.5",
        "pruner.mask_regularizer.tau=null",
        *SHORT,
    )
    assert said.status == 0, said.err
    assert json.loads(Path("run/report.json").read_text(encoding="utf-8"))["sparsity"] == pytest.approx(0.5, abs=0.01)
    said = command("threshold-sweep", "run")
    assert (said.status, said.out) == (1, "")
    assert "learned.pt is missing: train with pruner=learned and pruner/schedule=none" in said.err


@pytest.mark.slow
def test_masks_on_single_weights_are_swept_too(command: Command) -> None:
    assert command(*LEARNED, "pruner/pattern=element", *SHORT).status == 0
    said = command("threshold-sweep", "run", "--thresholds", "0.5")
    assert (said.status, said.err) == (0, "")
    assert "0.5" in said.out


def test_thresholds_that_are_none(command: Command) -> None:
    Path("run").mkdir()
    for name in ("config.yaml", "learned.pt"):
        Path("run", name).touch()
    said = command("threshold-sweep", "run", "--extract", "1.5")
    assert (said.status, said.out) == (1, "")
    assert "--extract=1.5" in said.err
    with pytest.raises(SystemExit, match="2"):
        command("threshold-sweep", "run", "--thresholds", "0.5,2")


@pytest.mark.slow
def test_plan_shows_the_units_of_learned_masks(command: Command) -> None:
    said = command("plan", "-cn", "digits_cnn", "pruner=learned")
    assert said.status == 0, said.err
    rows = {line.split()[0]: line.split()[-1] for line in said.out.splitlines() if line}
    assert rows["net.7.weight"] == rows["all"] == "learned"
    assert "asked for" not in said.out.replace("no sparsity is asked for", "")


def test_a_regularizer_that_needs_a_schedule_is_refused_by_name(command: Command) -> None:
    said = command(*LEARNED, "pruner.mask_regularizer.tau=null", *SHORT)
    assert said.status == 1
    assert "follows a schedule, and there is none" in said.err
    assert not Path("run").exists()
