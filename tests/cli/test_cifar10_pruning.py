"""The older system's CIFAR-10 command lines, as they stand, on small files in the place of the photographs."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_prune.hparams import Contrib
from lightning_prune.scope import Uniform
from lightning_prune.selection import Histogram
from lightning_prune.tasks.data import cifar10

from .conftest import Command

LINE = (
    "train -cn cifar10_pruning pruning_hparams=name=cifar10_pruning,begin_pruning_step=10000,end_pruning_step=100000,"
    "target_sparsity=0.9,sparsity_function_begin_step=10000,sparsity_function_end_step=100000"
)
SHORTENED = LINE.replace("0000,", "0,").replace("100000", "100") + ",threshold_decay=0.0,pruning_frequency=30"
LAYERS = ("conv1", "conv2", "dense1", "dense2", "linear")


@pytest.fixture
def data(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Eight images a file, published under the sums that they have."""
    folder = tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in cifar10.SHA256:
        rows = generator.integers(0, 256, (8, cifar10.ROW), dtype=np.uint8)
        rows[:, 0] %= 10
        (folder / name).write_bytes(rows.tobytes())
        monkeypatch.setitem(cifar10.SHA256, name, hashlib.sha256(rows.tobytes()).hexdigest())
    monkeypatch.setenv("LIGHTNING_PRUNE_DATA", str(tmp_path / "data"))
    return folder


def test_the_line_as_it_stands_plans_the_run_of_the_example(command: Command, data: Path) -> None:
    said = command(*shlex.split(LINE.replace("train", "plan", 1)))
    assert (said.status, said.err) == (0, "")
    assert "1,067,584" in said.out
    assert all(f"net.{layer}.weight" in said.out for layer in LAYERS)
    assert "90.00 %" in said.out

    from lightning_prune.cli import arguments, build, compose

    with compose.composed(arguments.read(shlex.split(LINE)[1:])) as config:
        assert (config.trainer.max_steps, config.data.batch_size) == (150_000, 128)
        pruner = build.parts(config).prune.pruner
    assert pruner.schedule == Contrib(0.9, 10_000, 100_000, 10, 10_000, 100_000)
    assert [pruner.schedule.sparsity(step) for step in (10_000, 20_000, 55_000, 100_000)] == pytest.approx(
        [0, 0.267901, 0.7875, 0.9], abs=1e-6
    )
    with compose.composed(arguments.read(["-cn", "cifar10_pruning"])) as config:
        plain = build.parts(config).prune.pruner
    assert (plain.scope, plain.selection, plain.reversible) == (Uniform(), Histogram(255, 0.9), True)
    assert (plain.scope, plain.selection, plain.reversible) == (pruner.scope, pruner.selection, pruner.reversible)
    assert [plain.schedule.sparsity(step) for step in (20_000, 55_000)] == pytest.approx([0.267901, 0.7875], abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:cifar10_pruning. reached a sparsity")  # a histogram does not keep to the number
def test_train_and_eval_with_summaries_by_layer(command: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("trainer.max_steps=104", "data.batch_size=4", "data.validation=8", "hydra.run.dir=run", "logger=both")
    said = command(*shlex.split(SHORTENED), *words)
    assert said.status == 0, said.err
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    assert report["steps"] == 104
    assert report["sparsity"] == pytest.approx(0.9, abs=0.05)
    assert "cifar10_pruning: " in said.out

    found = json.loads(command("eval", "run", "--json").out)
    assert found["metrics"] == pytest.approx(report["test"], abs=1e-5)
    assert found["zeros"] == report["zeros"]
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert "averaging_state" in content

    events = EventAccumulator("run/tensorboard")
    events.Reload()
    scalars: Any = events.Tags()["scalars"]
    tags = set(scalars)
    keys = {f"pruning/{what}/net.{layer}.weight" for what in ("sparsity", "threshold") for layer in LAYERS}
    assert tags >= keys
    steps = [event.step for event in events.Scalars("pruning/sparsity/net.dense1.weight")]
    assert steps == [30, 60, 90]
    assert events.Scalars("pruning/threshold/net.dense1.weight")[-1].value > 0
    known = json.loads(Path("run/loggers.json").read_text(encoding="utf-8"))
    assert known["wandb"]["name"].startswith("cifar10_pruning ")
    logged = next(Path("run/wandb").glob("offline-run-*/*.wandb")).read_bytes()  # offline, all there is
    assert all(key.encode() in logged for key in keys)
