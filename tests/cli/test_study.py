"""The study of weights and units, in small: one dense run, pruned one-shot, and beside it pruned while it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.tasks.data.digits import Digits

from .conftest import SHORT, Command

SIZES = (64, 40, 40, 20, 20, 10)
SPARSITIES = (0, 0.5)


def digits(batch_size: int, seed: int, **_: Any) -> Digits:
    """Return the digits, for what MNIST takes."""
    return Digits(batch_size=batch_size, seed=seed)


@pytest.fixture
def study(command: Command) -> Command:
    Path("mine/weight_vs_unit/dataset").mkdir(parents=True)
    Path("mine/weight_vs_unit/dataset/digits.yaml").write_text(
        "# @package _global_\ndataset: digits\ndata: {_target_: tests.cli.test_study.digits}\n", encoding="utf-8"
    )
    sizes = f"task.net.sizes=[{','.join(map(str, SIZES))}]"
    words = ("train", "-m", "-cn", "weight_vs_unit", "--config-dir=mine", "hydra.sweep.dir=study", sizes, *SHORT)
    values = f"sparsity={','.join(map(str, SPARSITIES))}"
    assert command(*words, "weight_vs_unit/dataset=digits", values).status == 0
    return command


def model(method: str, unit: str, sparsity: float) -> dict[str, torch.Tensor]:
    return torch.load(folder(method, unit, sparsity) / "model.pt", weights_only=True)


def report(method: str, unit: str, sparsity: float) -> dict[str, Any]:
    return json.loads((folder(method, unit, sparsity) / "report.json").read_text(encoding="utf-8"))


def folder(method: str, unit: str, sparsity: float) -> Path:
    return Path("study/digits/seed0") / method / unit / str(sparsity)


@pytest.mark.slow
def test_the_study_prunes_as_the_original_did(study: Command) -> None:
    dense = model("gradual", "weights", 0)
    for sparsity in SPARSITIES:
        weights, units = model("one_shot", "weights", sparsity), model("one_shot", "units", sparsity)
        for layer, size in zip(range(0, 8, 2), SIZES[1:], strict=False):
            name, bias = f"net.layers.{layer}.weight", f"net.layers.{layer}.bias"
            drop = round(sparsity * dense[name].numel())
            smallest = dense[name].abs().flatten().argsort(stable=True)[:drop]
            expected = dense[name].clone()
            expected.view(-1)[smallest] = 0
            assert torch.equal(weights[name], expected)
            assert torch.equal(weights[bias], dense[bias])

            dead = dense[name].norm(dim=1).argsort()[: round(sparsity * size)]
            expected, silent = dense[name].clone(), dense[bias].clone()
            expected[dead], silent[dead] = 0, 0
            assert torch.equal(units[name], expected)
            assert torch.equal(units[bias], silent)
        for pruned in (weights, units):
            assert torch.equal(pruned["net.layers.8.weight"], dense["net.layers.8.weight"])
            assert torch.equal(pruned["net.layers.8.bias"], dense["net.layers.8.bias"])
    assert report("one_shot", "units", 0)["test"] == report("gradual", "weights", 0)["test"]

    gradual = model("gradual", "units", 0.5)
    for layer, size in zip(range(0, 8, 2), SIZES[1:], strict=False):
        dead = (gradual[f"net.layers.{layer}.weight"] == 0).all(1)
        assert int(dead.sum()) == size // 2
        assert torch.equal(gradual[f"net.layers.{layer}.bias"] == 0, dead)

    said = study("compare", "study/digits", "--out=drawn")
    assert said.status == 0
    for curve in ("weights, one_shot", "units, one_shot", "weights, gradual", "units, gradual"):
        assert said.out.count(curve) == 2, "accuracy and loss"
    assert "along with unit, method differ: pruner.pattern, pruner.schedule, pruner.criterion" in said.out
    assert Path("drawn/compare.png").read_bytes()[1:4] == b"PNG"
