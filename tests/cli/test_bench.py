"""`lightning-prune bench`: a run's model beside the dense one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.cost import count
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import MLP, digits_cnn

from .conftest import SHORT, Command


def bench(command: Command, *words: str) -> dict[str, Any]:
    said = command("bench", "run", "--json", *words)
    assert (said.status, said.err) == (0, "")
    return json.loads(said.out)


def test_each_batch_on_each_number_of_threads(command: Command) -> None:
    assert command("train", "-cn", "digits_mlp", "hydra.run.dir=run", *SHORT).status == 0
    before, threads = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}, torch.get_num_threads()
    facts = bench(command, "--batches", "1,5", "--threads", "1")
    assert [(t["threads"], t["batch"]) for t in facts["timings"]] == [(1, 1), (1, 5)]
    for t in facts["timings"]:
        assert t["dense_ms"] > 0
        assert t["per_second"] == pytest.approx(1e3 * t["batch"] / t["ms"])
        assert t["speedup"] == pytest.approx(t["dense_ms"] / t["ms"])
    cost = count(Classifier(MLP((64, 128, 64, 10))), torch.ones(1, 64))
    for part in ("dense", "model"):
        assert (facts[part]["parameters"], facts[part]["macs"]) == (cost.parameters, cost.macs) == (17226, 17024)
    assert torch.get_num_threads() == threads
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before
    assert "zeros alone make nothing faster" in command("bench", "run", "--batches", "2", "--threads", "1").out
    said = command("bench", "run", "--weights", "nothing.pt")
    assert (said.status, said.err) == (1, "lightning-prune: weights=nothing.pt: there is no such file\n")
    for wrong in ("0", "1,x"):
        with pytest.raises(SystemExit, match="2"):
            command("bench", "run", "--batches", wrong)


@pytest.mark.slow
@pytest.mark.parametrize("shrink", ["true", "false"])
def test_a_smaller_model_is_timed_in_its_shapes(command: Command, shrink: str) -> None:
    words = ("pruner/pattern=channel", "pruner.schedule.final_sparsity=0.6", f"prune.shrink={shrink}", *SHORT)
    assert command("train", "-cn", "digits_cnn", "hydra.run.dir=run", *words).status == 0
    more: tuple[str, ...] = ()
    if shrink == "false":
        assert command("shrink", "run").status == 0
        more = ("--weights", "run/shrunk/model.safetensors")
    facts = bench(command, "--batches", "4", "--threads", "1", *more)
    dense = count(Classifier(digits_cnn()), torch.ones(1, 1, 8, 8))
    assert (facts["dense"]["parameters"], facts["dense"]["macs"]) == (dense.parameters, dense.macs)
    assert facts["model"]["macs"] < 0.6 * dense.macs
    assert facts["model"]["file_bytes"] < facts["dense"]["file_bytes"]
    timings = bench(command, "--batches", "1,2", "--threads", "1,2", *more)["timings"]
    assert [(t["threads"], t["batch"]) for t in timings] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert "zeros alone" not in command("bench", "run", "--batches", "1", "--threads", "1", *more).out
