"""G27: two callbacks with rules and tags of their own live side by side; claims that overlap are an error."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import Random
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.guarantees.helpers import RAMP, Net, assert_plain, bits, differences, fit, zeros


def first(**options: Any) -> PruningCallback:
    return PruningCallback(Pruner(RAMP, targets=Targets(include=(r"net\.0\.weight",))), tag="first", **options)


def second(**options: Any) -> PruningCallback:
    targets = Targets(exclude=(r"net\.0",))
    return PruningCallback(Pruner(Polynomial(0.25, 5, 11, 2), Random(), targets=targets), tag="second", **options)


def test_G27_each_keeps_to_its_rule_schedule_log_and_state(tmp_path: Path) -> None:
    one, two, model = first(), second(), Net()
    seen: list[tuple[int, int, int]] = []

    def look(run: pl.Trainer) -> None:
        seen.append((run.global_step, zeros(model)["net.0.weight"], zeros(model)["net.3.weight"]))

    model.after_batch.append(look)
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=14)
    run = fit(model, one, two, save, max_steps=20, logger=CSVLogger(tmp_path, "", ""))
    for step, in_first, in_second in seen:
        updates = [(one, in_first, 192), (two, in_second, 64)]
        for callback, count, size in updates:
            last = callback.pruner.resolved_schedule.last_update(step)
            asked = 0.0 if last is None else callback.pruner.resolved_schedule.sparsity(last)
            assert count == round(asked * size)
    assert one.report is not None
    assert two.report is not None
    assert [w.name for w in one.report.weights] == ["net.0.weight"]
    assert [w.name for w in two.report.weights] == ["net.3.weight"]
    assert_plain(model, *run.optimizers, callback=one)
    with (tmp_path / "metrics.csv").open() as file:
        last_row: dict[str, str] = {}
        for row in csv.DictReader(file):
            last_row |= {k: v for k, v in row.items() if v}
    assert float(last_row["pruning/first/sparsity"]) == one.report.sparsity
    assert float(last_row["pruning/second/sparsity"]) == two.report.sparsity == 0.25
    states = torch.load(tmp_path / "step=14.ckpt", weights_only=True)["callbacks"]
    assert list(states[one.state_key]["masks"]) == ["net.0.weight"]
    assert list(states[two.state_key]["masks"]) == ["net.3.weight"]


@pytest.mark.parametrize("order", [1, -1], ids=["first_second", "second_first"])
def test_G27_a_checkpoint_gives_each_its_own_masks(order: int, tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=10, save_top_k=-1)
    model, resumed = Net(), Net()
    fit(model, first(), second(), save, max_steps=20)
    callbacks = [first(), second()][::order]
    with pytest.warns(UserWarning, match="callbacks used to create"):
        fit(resumed, *callbacks, max_steps=20, ckpt=tmp_path / "step=10.ckpt")
    assert zeros(resumed) == zeros(model)
    assert differences(bits(resumed), bits(model)) == []


def test_G27_overlapping_claims_are_an_error_that_names_the_weight() -> None:
    model, one = Net(), first()
    both = PruningCallback(Pruner(OneShot(0.5, 3)), tag="all")
    steps: list[int] = []
    model.in_step.append(lambda run: steps.append(run.global_step))
    with pytest.raises(ValueError, match=r"'first'.*'all'.*both prune net\.0\.weight: .*Targets"):
        fit(model, one, both, max_steps=20)
    assert steps == []
    assert_plain(model, callback=one)
    assert_plain(model, callback=both)


def test_G27_a_tied_weight_claimed_under_two_names_is_an_overlap() -> None:
    net = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 4))
    net[2].weight = net[0].weight
    one = PruningCallback(Pruner(RAMP, targets=Targets(include=(r"net\.0\.weight",))), tag="a")
    two = PruningCallback(Pruner(RAMP, targets=Targets(include=(r"net\.2\.weight",))), tag="b")
    with pytest.raises(ValueError, match=r"both prune net\.0\.weight"):
        fit(Net(net=net), one, two, max_steps=20)


def test_G27_one_pruner_in_two_callbacks_is_an_error() -> None:
    pruner = Pruner(RAMP)
    with pytest.raises(ValueError, match="both prune"):
        fit(Net(), PruningCallback(pruner, tag="a"), PruningCallback(pruner, tag="b"), max_steps=20)


@pytest.mark.parametrize("tag", ["", "same"])
def test_G27_the_same_tag_twice_is_an_error(tag: str) -> None:
    one = PruningCallback(Pruner(RAMP, targets=Targets(include=(r"net\.0\.weight",))), tag=tag)
    two = PruningCallback(Pruner(RAMP, targets=Targets(include=(r"net\.3\.weight",))), tag=tag)
    with pytest.raises((ValueError, RuntimeError), match="state_key"):
        fit(Net(), one, two, max_steps=20)


def test_G27_both_rewind_and_neither_disturbs_the_others_zeros() -> None:
    one, two, model = first(rewind=0), second(rewind=0), Net()
    back: list[int] = []

    def look(_: pl.Trainer) -> None:
        for callback in (one, two):
            masks = callback.pruner.masks.values()
            back.append(sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks))

    model.after_batch.append(look)
    fit(model, one, two, max_steps=20)
    assert set(back) == {0}
    assert zeros(model) == {"net.0.weight": round(0.8 * 192), "net.3.weight": 16}
