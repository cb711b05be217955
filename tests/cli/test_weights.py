"""`weights=FILE`: a run that starts with the weights of another one, to train or only to prune them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import MLP

from .conftest import SHORT, Command, Said

ONE_SHOT = ("trainer.max_steps=0", "pruner/schedule=one_shot", "pruner.schedule.step=0")


def train(command: Command, folder: str, *overrides: str) -> Said:
    return command("train", "-cn", "digits_mlp", f"hydra.run.dir={folder}", *SHORT, *overrides)


def model(folder: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(folder) / "model.pt", weights_only=True)


def test_prunes_a_trained_model_without_training_it(command: Command) -> None:
    train(command, "dense", "pruner.schedule.final_sparsity=0")
    torch.save({"state_dict": model("dense"), "epoch": 3}, "dense/end.ckpt")
    for number, file in enumerate(("dense/model.pt", "dense/end.ckpt")):
        said = train(command, f"pruned{number}", f"weights={file}", *ONE_SHOT)
        assert (said.status, said.err) == (0, "")
        dense, pruned = model("dense"), model(f"pruned{number}")
        every = torch.cat([weight.abs().flatten() for weight in dense.values() if weight.dim() >= 2])
        boundary = every.sort().values[round(0.9 * len(every))]
        for name, weight in dense.items():
            kept = weight.abs() >= boundary if weight.dim() >= 2 else torch.ones_like(weight, dtype=torch.bool)
            assert torch.equal(pruned[name], weight * kept), name
        report = json.loads(Path(f"pruned{number}/report.json").read_text(encoding="utf-8"))
        assert (report["steps"], report["step"]) == (0, 0)
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        assert report["started_from"] == {"file": file, "sha256": digest}


@pytest.mark.slow
def test_trains_on_from_them(command: Command) -> None:
    train(command, "dense", "pruner.schedule.final_sparsity=0")
    train(command, "on", "pruner.schedule.final_sparsity=0", "weights=dense/model.pt", "task.lr=1e-9", "seed=1")
    before, after = model("dense"), model("on")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_sweep_does_a_run_again_when_its_weights_are_others(command: Command) -> None:
    words = ("train", "-m", "-cn", "digits_mlp", "hydra.sweep.dir=sweep", "weights=dense/model.pt", *SHORT, *ONE_SHOT)
    train(command, "dense", "pruner.schedule.final_sparsity=0")
    command(*words)
    assert "sweep/0: finished already" in command(*words).out
    Path("dense/config.yaml").unlink()
    train(command, "dense", "pruner.schedule.final_sparsity=0", "seed=1")
    assert "sweep/0: done again, the weights that it starts with are others now" in command(*words).out


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (("weights=gone.pt",), "weights=gone.pt: there is no such file"),
        (("weights=dense/model.pt", "task.net.sizes=[64,32,10]"), "weights=dense/model.pt: Error(s) in loading"),
        (("weights=dense/model.pt", "ckpt_path=dense/model.pt"), "drop weights=dense/model.pt"),
        (("weights=dense/config.yaml",), "is no checkpoint of torch"),
        (("trainer.max_steps=0", "pruner/schedule=one_shot", "pruner.schedule.step=7"), "step=7 is at or past the end"),
    ],
)
def test_errors_are_one_line(command: Command, overrides: tuple[str, ...], error: str) -> None:
    train(command, "dense")
    said = train(command, "run", *overrides)
    assert said.status == 1
    assert error in said.err
    assert said.err.count("\n") == 1
    assert not Path("run").exists()


class Foreign:
    """A class that only its own code can load."""


NET = {"net.layers.0.weight", "net.layers.0.bias"}
FOREIGN: dict[str, tuple[Any, str]] = {
    "objects": ({"state_dict": {}, "x": Foreign()}, "Foreign); loading that could run code, so it is not loaded"),
    "a list": ([torch.ones(2)], "it holds a list, not the state_dict of a model"),
    "a tensor": (torch.ones(2), "it holds a Tensor, not the state_dict"),
    "no tensor": ({"epoch": 3}, "there is no tensor in it"),
    "another model": (
        {f"layer{n}.weight": torch.ones(2, 2) for n in range(5)},
        "none of its 5 tensors is one of Classifier: it has layer0.weight, layer1.weight, layer2.weight and 2 more, "
        "the model net.layers.",
    ),
    "a smaller one": (
        {"state_dict": {name: torch.ones(2) for name in NET}},
        "Error(s) in loading state_dict for Classifier: Missing key(s)",
    ),
    "with more": ({name: torch.ones(2) for name in NET} | {"extra\x1b[2J": torch.ones(1)}, "extra\\x1b[2J"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_told_what_it_is(command: Command, case: str) -> None:
    content, words = FOREIGN[case]
    torch.save(content, "foreign.pt")
    said = train(command, "run", "weights=foreign.pt")
    assert said.status == 1
    assert said.err.startswith("lightning-prune: weights=foreign.pt: ")
    assert words in said.err
    assert "inspect" not in said.err
    assert said.err.count("\n") == 1


def test_weights_under_another_key_are_found(command: Command) -> None:
    task = Classifier(MLP([64, 64, 32, 10]))
    torch.save({"ema": {}, "model": task.state_dict()}, "foreign.pt")
    said = train(command, "run", "weights=foreign.pt", "task.net.sizes=[64,64,32,10]")
    assert "weights=foreign.pt: the weights lie under the key 'model'" in said.err


def test_plan_knows_a_run_of_no_steps(command: Command) -> None:
    said = command("plan", "-cn", "digits_mlp", *ONE_SHOT)
    assert said.status == 0
    assert "1 update of 0 steps, at step 0" in said.out


@pytest.mark.slow
def test_a_sparse_model_is_fine_tuned_with_its_zeros_held(command: Command) -> None:
    train(command, "sparse", "pruner.schedule.final_sparsity=0.8")
    hold = ("pruner/schedule=hold", "weights=sparse/model.pt")
    planned = command("plan", "-cn", "digits_mlp", *SHORT, *hold)
    assert "weights at zero, 80.00 %: they are held, and no more are pruned" in planned.out
    said = train(command, "held", *hold)
    assert (said.status, said.err) == (0, "")
    before, after = model("sparse"), model("held")
    assert all(torch.equal(before[n] == 0, after[n] == 0) for n in before if before[n].dim() >= 2)
    assert any(not torch.equal(before[n], after[n]) for n in before)
    report = json.loads(Path("held/report.json").read_text(encoding="utf-8"))
    assert report["sparsity"] == report["final_sparsity"] == pytest.approx(0.8, abs=1e-4)


def test_holding_the_zeros_of_a_dense_model_is_refused_before_training(command: Command) -> None:
    said = train(command, "run", "pruner/schedule=hold")
    assert said.status == 1
    assert "Hold() found nothing that is zero in net.layers.0.weight" in said.err
    assert not Path("run").exists()
