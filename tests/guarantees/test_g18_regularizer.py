"""G18: the regularizer's gradient is the hand-computed one: accumulated, scaled, clipped, in mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from lightning_prune import Pruner, PruningCallback
from lightning_prune.regularizer import L1, L2, NearThreshold, Regularizer
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets
from tests.guarantees.helpers import RAMP, UPDATES, Net, Units, bits, differences, fit, logged, ramp
from tests.guarantees.whole_units import channels, prunable

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


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("regularizer", SLOPES)
def test_G18_the_value_is_logged_at_updates_and_every_n_steps(regularizer: str, every: int, tmp_path: Path) -> None:
    callback = ramp(regularizer=SLOPES[regularizer][0])
    before = Before(regularizer, callback)
    fit(Net(), before, callback, max_steps=20, logger=CSVLogger(tmp_path, "", ""), log_every_n_steps=every)
    values = logged(tmp_path, "pruning/regularizer")
    assert set(values) == set(UPDATES) | set(range(every, 21, every))
    assert values == {step: pytest.approx(before.penalties[step - 1], rel=1e-5) for step in values}


def test_a_regularizer_draws_weights_and_neither_biases_nor_norms() -> None:
    grads: list[dict[str, dict[str, Tensor]]] = []
    for strength in (0.0, 0.1):
        model, callback = Units(), channels(regularizer=L1(strength), schedule=OneShot(0.5, 15))
        found: dict[str, dict[str, Tensor]] = {}

        class Look(pl.Callback):
            def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
                if trainer.global_step == 1 and not found:  # noqa: B023
                    found["g"] = {n: p.grad.clone() for n, p in pl_module.named_parameters()}  # noqa: B023

        fit(model, callback, Look(), max_steps=20)
        grads.append(found)
    names = {w for w in grads[0]["g"] if not torch.equal(grads[0]["g"][w], grads[1]["g"][w])}
    assert names == set(prunable(Units()))
