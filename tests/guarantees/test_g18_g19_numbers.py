"""G18, G19: the regularizer's gradient is the hand-computed one, and all numbers that are told agree."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from lightning_prune import Pruner, PruningCallback
from lightning_prune.regularizer import L1, L2, NearThreshold, Regularizer
from lightning_prune.targets import Targets
from tests.guarantees.helpers import RAMP, UPDATES, Net, bits, differences, fit, ramp

STRENGTH = 0.02

Slope = Callable[[Tensor, float], Tensor]
SLOPES: dict[str, tuple[Regularizer, Slope, Slope]] = {
    "l1": (L1(STRENGTH), lambda w, t: w.sign(), lambda w, t: w.abs()),
    "l2": (L2(STRENGTH), lambda w, t: 2 * w, lambda w, t: w * w),
    "near": (
        NearThreshold(STRENGTH, reach=2.0),
        lambda w, t: w.sign() * (w.abs() < 2 * t),
        lambda w, t: w.abs().clamp(max=2 * t),
    ),
}


def sgd(parameters: Any, fused: bool = False) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, fused=fused)


class Before(pl.Callback):
    """Notes the gradients of the loss alone; as a user's callback it comes before the pruning callback."""

    def __init__(self, regularizer: str, callback: PruningCallback) -> None:
        self.slope, self.value = SLOPES[regularizer][1:]
        self.callback = callback
        self.expected: list[dict[str, Tensor]] = []
        self.penalties: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        scale = 1.0
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and optimizer.defaults.get("fused"):
            scale = scaler.get_scale()
        grads = {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None}
        penalty = 0.0
        for name, weight in self.callback.pruner.masks.items():
            values, threshold = weight.parameter.detach(), float(weight.threshold)
            penalty += STRENGTH * float(self.value(values.double(), threshold).sum())
            grads[name] += (STRENGTH * scale) * self.slope(values, threshold)
            grads[name][~weight.mask] = 0.0
        self.expected.append(grads)
        self.penalties.append(penalty)


class Stepped(Net):
    """Notes the gradients that the optimizer steps on: after the pruning callback, and after clipping."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self.stepped: list[dict[str, Tensor]] = []

    def configure_gradient_clipping(self, *args: Any, **options: Any) -> None:
        super().configure_gradient_clipping(*args, **options)
        self.stepped.append({n: p.grad.clone() for n, p in self.named_parameters() if p.grad is not None})


def clip_norm(grads: dict[str, Tensor]) -> None:
    norm = torch.stack([g.float().norm() for g in grads.values()]).norm()
    for grad in grads.values():
        grad.mul_((0.05 / (norm + 1e-6)).clamp(max=1.0))


def clip_value(grads: dict[str, Tensor]) -> None:
    for grad in grads.values():
        grad.clamp_(-0.01, 0.01)


def scaled() -> dict[str, Any]:
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))]}


WAYS: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "plain": ({}, None, False),
    "accumulated": ({"accumulate_grad_batches": 4}, None, False),
    "clipped by norm": ({"gradient_clip_val": 0.05}, clip_norm, False),
    "clipped by value": ({"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, clip_value, False),
    "accumulated and clipped": ({"accumulate_grad_batches": 3, "gradient_clip_val": 0.05}, clip_norm, False),
    "bf16-mixed": ({"precision": "bf16-mixed"}, None, False),
    "bf16-mixed accumulated": ({"precision": "bf16-mixed", "accumulate_grad_batches": 4}, None, False),
    "64-true": ({"precision": "64-true"}, None, False),
    "scaled": (scaled(), None, False),
    "scaled, clipped": (scaled() | {"gradient_clip_val": 0.05}, clip_norm, False),
    "scaled, fused": (scaled(), None, True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("regularizer", SLOPES)
def test_G18_the_gradient_is_that_of_the_loss_and_the_hand_computed_one(regularizer: str, way: str) -> None:
    options, clip, fused = WAYS[way]
    callback = ramp(regularizer=SLOPES[regularizer][0])
    before, model = Before(regularizer, callback), Stepped(lambda p: sgd(p, fused))
    fit(model, before, callback, max_steps=20, **options)
    assert len(before.expected) == len(model.stepped) == 20
    for expected, stepped in zip(before.expected, model.stepped, strict=True):
        if clip:
            clip(expected)
        assert list(expected) == list(stepped)
        for name, grad in expected.items():
            torch.testing.assert_close(stepped[name], grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_G18_the_weights_are_those_of_a_run_with_the_term_in_its_loss(accumulate: int) -> None:
    class InLoss(Net):
        def loss(self, seed: int) -> Tensor:
            return super().loss(seed) + STRENGTH * sum((p * p).sum() for p in self.parameters() if p.dim() > 1)

    ours, theirs = Net(sgd), InLoss(sgd)
    options: dict[str, Any] = {"batches": 8, "max_steps": 20, "accumulate_grad_batches": accumulate}
    fit(ours, ramp(regularizer=L2(STRENGTH)), **options)
    fit(theirs, ramp(), **options)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*less than:UserWarning")
@pytest.mark.parametrize("fused", [False, True])
def test_G18_a_loss_scaler_does_not_change_what_is_stepped(fused: bool) -> None:
    plain, with_scaler = Net(sgd), Net(lambda p: sgd(p, fused))
    fit(plain, ramp(regularizer=L1(STRENGTH)), fast_dev_run=3, precision="bf16-mixed")
    options = scaled()
    options["plugins"][0].autocast_context_manager = lambda: torch.autocast("cpu", torch.bfloat16)
    fit(with_scaler, ramp(regularizer=L1(STRENGTH)), fast_dev_run=3, **options)
    for a, b in zip(plain.parameters(), with_scaler.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*training_step. returned .None:UserWarning")
def test_G18_a_batch_without_a_loss_moves_nothing() -> None:
    class Skips(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx % 2 else loss

    model = Skips(sgd, norm=False)
    states: list[dict[str, Tensor]] = []
    model.in_step.append(lambda _: states.append(bits(model)))
    fit(model, PruningCallback(Pruner(RAMP, regularizer=L1(STRENGTH))), max_steps=3 * 6)
    assert differences(states[1], states[2]) == []
    assert differences(states[0], states[1]) != []


def test_G18_a_frozen_weight_is_left_alone() -> None:
    pruner = Pruner(RAMP, regularizer=L1(STRENGTH), targets=Targets(include=(r"net\.[03]\.weight",)))
    model = Net(norm=False)
    weight = model.net[0].weight
    weight.requires_grad_(False)
    before = weight.detach().clone()
    fit(model, PruningCallback(pruner), max_steps=20)
    kept = weight != 0
    assert torch.equal(weight[kept], before[kept])
    assert int(kept.sum()) < 192


# G19


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(folder: Path, key: str) -> dict[int, float]:
    """Step -> value of every row that has the key."""
    return {int(row["step"]): float(row[key]) for row in rows(folder) if row.get(key)}


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("regularizer", SLOPES)
def test_G18_the_value_is_logged_at_updates_and_every_n_steps(regularizer: str, every: int, tmp_path: Path) -> None:
    callback = ramp(regularizer=SLOPES[regularizer][0])
    before = Before(regularizer, callback)
    fit(Net(), before, callback, max_steps=20, logger=CSVLogger(tmp_path, "", ""), log_every_n_steps=every)
    values = logged(tmp_path, "pruning/regularizer")
    assert set(values) == set(UPDATES) | set(range(every, 21, every))
    assert values == {step: pytest.approx(before.penalties[step - 1], rel=1e-5) for step in values}


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
            assert int((~state["masks"][n]).sum()) == counted[n]
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
    callback = ramp(regularizer=L1(STRENGTH))
    fit(Net(), callback, max_steps=20, logger=False)
    assert callback.report is not None
    assert "205" in callback.report.table()
