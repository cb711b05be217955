"""`lightning-prune compress`: from a checkpoint and a target to a smaller model, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.cli import build
from lightning_prune.cli.completion import words
from lightning_prune.cli.compressed import Compressed
from lightning_prune.cost import compare, count
from lightning_prune.coupling.example import with_batch
from lightning_prune.pruning.target import CostTarget, Found
from lightning_prune.shrink import rebuild
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import MLP, digits_cnn

from .conftest import SHORT, Command, Said

AT_ONCE = ("pruner/schedule=one_shot", "pruner.schedule.step=0", "trainer.accelerator=cpu")


def compress(command: Command, recipe: str, target: str, *words: str, file: str = "dense.pt") -> Said:
    return command("compress", file, "-cn", recipe, target, "hydra.run.dir=small", *AT_ONCE, *SHORT, *words)


def saved(recipe: str) -> Classifier:
    torch.manual_seed(0)
    task = Classifier(digits_cnn() if recipe == "digits_cnn" else MLP([64, 128, 64, 10]))
    torch.save(task.state_dict(), "dense.pt")
    return task


@pytest.mark.parametrize(
    ("recipe", "target"),
    [("digits_cnn", "macs=0.5"), pytest.param("digits_mlp", "parameters=0.4", marks=pytest.mark.slow)],
)
def test_a_checkpoint_comes_out_smaller_by_the_target(command: Command, recipe: str, target: str) -> None:
    dense = saved(recipe)
    said = compress(command, recipe, target, "pruner/scope=uniform", "batch=16")
    assert (said.status, said.err) == (0, "")
    facts = json.loads(Path("small/compressed.json").read_text(encoding="utf-8"))
    kind, _, value = target.partition("=")
    small = rebuild(Classifier(dense.net), json.loads(Path("small/shrunk.json").read_text(encoding="utf-8")))
    small.load_state_dict(torch.load("small/model.pt", weights_only=True))
    x = torch.randn(16, *dense.example_input_array.shape[1:])  # pyright: ignore
    costs = count(small, x), facts["cost"]["dense"]
    assert 0.9 * float(value) < getattr(costs[0], kind) / costs[1][kind] == facts["share"] <= float(value)
    assert facts["met"]
    assert facts["target"] == {kind: float(value)}
    assert facts["after"]["test/accuracy"] > facts["before"]["test/accuracy"]  # untrained before
    assert facts["after"] == pytest.approx(
        json.loads(Path("small/report.json").read_text(encoding="utf-8"))["test"], rel=1e-4
    )
    assert f"{target} asked for, {kind}=0." in said.out
    assert "batch of 16 on cpu with" in said.out
    assert "missed" not in said.out
    assert {"config.yaml", "report.json", "report.png", "metrics.csv"} <= {
        path.name for path in Path("small").iterdir()
    }


def test_a_speed_up_is_met_where_a_forward_takes_what_its_macs_say(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a loaded machine is no test, so the multiply-adds stand in for it."""
    from lightning_prune.pruning import target

    monkeypatch.setattr(target, "latency", lambda models, x, _: [1e-3 * count(model, x).macs for model in models])
    saved("digits_mlp")
    said = compress(command, "digits_mlp", "speedup=2", "pruner/scope=uniform")
    assert (said.status, said.err) == (0, "")
    facts = json.loads(Path("small/compressed.json").read_text(encoding="utf-8"))
    assert 2 <= facts["cost"]["measured_speedup"] < 2.2
    assert "speedup=2 asked for, speedup=2" in said.out


def test_a_lightning_checkpoint_with_hyper_parameters_will_do(command: Command) -> None:
    task = saved("digits_mlp")
    content = {"state_dict": task.state_dict(), "hyper_parameters": {"lr": 0.1, "sizes": [64, 128]}, "epoch": 3}
    torch.save(content, "epoch=3-step=9.ckpt")
    said = compress(command, "digits_mlp", "macs=0.5", file="epoch=3-step=9.ckpt")
    assert (said.status, said.err) == (0, "")
    assert (
        json.loads(Path("small/report.json").read_text(encoding="utf-8"))["started_from"]["file"]
        == "epoch=3-step=9.ckpt"
    )


REFUSED = {
    "out of reach": (("macs=0.0001",), "macs=0.0001 cannot be met: macs=0.00"),
    "two targets": (("macs=0.5", "speedup=2"), "macs=0.5 and speedup=2: give exactly one of"),
    "no target": ((), "no target: give exactly one of"),
    "a share above 1": (("macs=2",), "macs=2: it is the share that may stay"),
    "a slow-down": (("speedup=0.5",), "speedup=0.5: a speed-up is a number above 1"),
    "no number": (("speedup=fast",), "speedup=fast must be a number"),
    "half an example": (("macs=0.5", "batch=1.5"), "batch=1.5 must be a whole number"),
    "a sparsity": (("macs=0.5", "pruner.schedule.final_sparsity=0.3"), "the target decides it, so leave it out"),
    "weights": (("macs=0.5", "weights=a.pt"), "CHECKPOINT stands for it"),
    "a sweep": (("macs=0.5", "-m"), "-m: this command takes -cn"),
    "masks that are learned": (("macs=0.5", "pruner=learned"), "digits_mlp learns its masks"),
    "zeros that are held": (("macs=0.5", "pruner/schedule=hold"), "has no final_sparsity"),
    "a budget that each run measures": (
        ("speedup=2", "pruner/budget=latency"),
        "its budget is measured anew by each run",
    ),
    "another task": (("macs=0.5", "task.net.sizes=[64,32,10]"), "weights=dense.pt: Error(s) in loading"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_line_before_training(command: Command, case: str) -> None:
    words, error = REFUSED[case]
    saved("digits_mlp")
    said = command("compress", "dense.pt", "-cn", "digits_mlp", "hydra.run.dir=small", *words)
    assert said.status == 1
    assert error in said.err
    assert said.err.count("\n") == 1
    assert not Path("small").exists()


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (("-cn", "digits_mlp", "macs=0.5"), "which checkpoint? Name it first"),
        (("macs=0.5", "-cn", "digits_mlp"), "which checkpoint? Name it first"),
        ((), "which checkpoint? Name it first"),
        (("gone.pt", "-cn", "digits_mlp", "macs=0.5"), "gone.pt: there is no such checkpoint"),
        (("dense.pt", "-cn", "digits_cnn_iterative", "macs=0.5"), "prunes in rounds"),
    ],
)
def test_what_is_missing_is_said(command: Command, argv: tuple[str, ...], error: str) -> None:
    saved("digits_cnn")
    said = command("compress", *argv)
    assert (said.status, said.out) == (1, "")
    assert error in said.err
    assert said.err.count("\n") == 1


def test_a_file_that_is_no_checkpoint_is_one_line(command: Command) -> None:
    Path("dense.pt").write_text("not one", encoding="utf-8")
    said = compress(command, "digits_mlp", "macs=0.5")
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert "dense.pt is no checkpoint of torch" in said.err


def result(target: CostTarget, share: float, expected: float) -> Compressed:
    task = Classifier(MLP([64, 8, 10]))
    return Compressed(target, Found(0.5, expected), share, compare(task, task, None, 1), ({}, {}), 2)


@pytest.mark.parametrize(
    ("target", "share", "expected", "remedy"),
    [
        (CostTarget("macs", 0.5), 0.55, 0.5, "macs=0.55, where macs=0.5 was asked for.* ask for macs=0.455"),
        (CostTarget("parameters", 0.4), 0.3, 0.4, "more went than had to; ask for parameters=0.533.*scope=uniform"),
        (CostTarget("speedup", 2), 0.6, 0.5, "speedup=1.67, where speedup=2 was asked for; ask for speedup=2.4,"),
    ],
)
def test_a_miss_is_one_line_with_the_remedy(target: CostTarget, share: float, expected: float, remedy: str) -> None:
    import re

    missed = result(target, share, expected)
    assert missed.missed is not None
    assert re.search(remedy, missed.missed)
    assert missed.table().endswith(missed.missed)


@pytest.mark.parametrize("share", [0.51, 0.5, 0.49])
def test_what_is_near_is_no_miss(share: float) -> None:
    assert result(CostTarget("macs", 0.5), share, 0.5).missed is None


def test_a_batch_repeats_the_examples_that_there_are() -> None:
    x = torch.arange(6.0).view(2, 3)
    made: Any = with_batch({"x": x, "scale": torch.tensor(2.0), "pair": (x, torch.ones(5))}, 5)
    assert torch.equal(made["x"], x[[0, 1, 0, 1, 0]])
    assert made["scale"] == 2.0
    assert [len(each) for each in made["pair"]] == [5, 5]


def test_validation_stands_in_where_there_is_no_test(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_prune import families
    from lightning_prune.cli.compressed import evaluated
    from lightning_prune.tasks.data.digits import Digits

    task, data = Classifier(MLP([64, 8, 10])), Digits(batch_size=32)
    monkeypatch.setattr(type(task), "test_step", families.default().LightningModule.test_step)
    config: Any = build.OmegaConf.create({"trainer": {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"}})
    parts: Any = type("Parts", (), {"task": task, "data": data})
    assert "val/accuracy" in evaluated(config, parts)


def test_help_and_tab(command: Command) -> None:
    said = command("compress", "--help")
    assert said.status == 0
    assert all(word in said.out for word in ("macs=0.5", "parameters=0.4", "speedup=2", "batch=N", "digits_cnn"))
    assert words("lightning-prune compr") == ["compress"]
    assert words("lightning-prune compress dense.pt -cn fashion_lenet5_l") == ["fashion_lenet5_l0"]
    assert words("lightning-prune compress dense.pt -cn digits_mlp pruner/sco") == ["pruner/scope="]
