"""Learned thresholds in a fit: exact at every step, the same in evaluation, in files, in copies and at the end."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_prune.callbacks import PruningCallback
from lightning_prune.gate import SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import MeanProbability
from lightning_prune.pattern import Element
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, adamw, fit
from tests.learned.helpers import engine, on, outputs

HALF = Polynomial(0.5, 0, 24, 12, initial_sparsity=0.5)


def masks_with(
    start: float = 1e-4, schedule: Any = None, mask_regularizer: Any = None, lr: float = 0.01
) -> LearnedMasks:
    return LearnedMasks(schedule, SoftThreshold(start), mask_regularizer, Element(), lr=lr)


def callback_with(**ideas: Any) -> PruningCallback:
    return PruningCallback(masks_with(**ideas))


def test_G3_the_budget_is_kept_between_updates_too() -> None:
    model, callback = Net(adamw), callback_with(schedule=HALF, lr=0.1)
    counts: list[int] = []

    def look(trainer: Any) -> None:
        report = callback.pruner.report()
        alive = sum(int((f != 0).sum()) for f in factors(engine(callback)))
        assert report.zeros == report.size - alive
        counts.append(report.zeros)

    def factors(masks: LearnedMasks) -> list[Tensor]:
        here = on(masks)
        return [here.settled(number) for number in range(len(here._hard.keeps))]

    model.after_batch.append(look)
    with pytest.warns(UserWarning, match="end_step=24"):
        fit(model, callback, max_steps=17)
    assert callback.report is not None
    assert counts[1:] == [128] * (len(counts) - 1)
    assert callback.report.zeros == 128 == sum(int((w == 0).sum()) for w in (model.net[0].weight, model.net[3].weight))


def test_weights_of_exactly_0_go_first() -> None:
    model = Net(adamw)
    with torch.no_grad():
        small = model.net[0].weight.abs() < 0.1
        model.net[0].weight[small] = 0.0
        model.net[3].weight.fill_(0.25)
    callback = callback_with(schedule=Polynomial(0.8, 0, 12, 3))
    fit(model, callback, max_epochs=4)
    assert callback.report is not None
    assert callback.report.zeros == round(0.8 * 256)
    assert bool((model.net[0].weight[small] == 0).all())


def test_before_the_window_nothing_is_masked() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    x = torch.randn(5, 6)
    plain = model(x)
    masks = masks_with(0.2, Polynomial(0.5, 50, 100, 10))
    masks.attach(model, 200)
    masks.after_step(20)
    assert torch.equal(model.train()(x), plain)
    assert torch.equal(model.eval()(x), plain)
    assert masks.strip().zeros == 0
    assert torch.equal(model(x), plain)


def test_a_file_with_an_average_holds_the_model_that_was_validated(tmp_path: Path) -> None:
    model = Net(adamw)
    callback = callback_with(start=0.1, mask_regularizer=MeanProbability(0.1), lr=0.05)
    found: dict[int, Tensor] = {}

    class Look(pl.Callback):
        def on_validation_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
        ) -> None:
            found[trainer.global_step] = outputs(pl_module)

    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, monitor="val_loss")
    fit(model, callback, EMAWeightAveraging(decay=0.9), Look(), saving, max_epochs=3, val=1)
    files = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(files) == 3
    for file in files:
        plain = Net(adamw).eval()
        plain.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
        assert torch.allclose(outputs(plain), found[int(file.stem.split("=")[1])], atol=1e-6)


def test_a_copy_is_masked_by_its_own_weights_and_after_the_strip_as_well() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    masks = masks_with(0.1)
    masks.attach(model, 10)
    other, x = copy.deepcopy(model), torch.randn(5, 6)
    with torch.no_grad():
        for weight in (other[0].weight, other[2].weight):
            weight.mul_(3.0)
    by_hand = copy.deepcopy(model)
    found = other(x)
    masks.strip()
    assert torch.equal(other(x), found)
    with torch.no_grad():
        keeps = [model[0].weight != 0, model[2].weight != 0]
        hard = [
            w.sign() * (w.abs() - 0.1).relu() * keep
            for w, keep in zip((other[0].weight, other[2].weight), keeps, strict=True)
        ]
        hidden = torch.tanh(nn.functional.linear(x, hard[0], by_hand[0].bias))
        assert torch.allclose(found, nn.functional.linear(hidden, hard[1], by_hand[2].bias), atol=1e-6)


def test_G29_a_layer_below_its_threshold_keeps_its_largest_weight_and_the_report_says_so() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    masks = masks_with(9.0)
    masks.attach(model, 10)
    largest = model[0].weight.detach().abs().argmax()
    assert masks.report().zeros == masks.report().size - 2 == masks.strip().zeros
    assert model[0].weight.flatten().nonzero().flatten().tolist() == [int(largest)]
    assert "nearly nothing is left of 0.weight (1 of 48)" in masks.report().table()


def test_probabilities_of_a_stripped_state_are_those_of_the_end() -> None:
    model, callback = Net(adamw), callback_with(schedule=HALF)
    fit(model, callback, max_epochs=4)
    again = masks_with(schedule=HALF)
    again.load_state_dict(engine(callback).state_dict())
    again.attach(model, 24)
    for name, p in again.probabilities().items():
        assert torch.equal(p, (model.get_parameter(name) != 0).flatten().float())
    assert on(again).undecided() == 0.0


def test_activation_checkpointing_of_several_forwards() -> None:
    def grads(again: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).train()
        masks = masks_with(0.1)
        masks.attach(model, 10)
        for x in torch.randn(2, 5, 6).requires_grad_():
            out: Any = checkpoint(model, x, use_reentrant=False) if again else model(x)
            out.square().sum().backward()
        return [v.grad for v in on(masks).logits.values if v.grad is not None]

    for one, other in zip(grads(False), grads(True), strict=True):
        assert torch.allclose(one, other)
