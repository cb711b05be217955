"""G6, G7: pruned weights are zero at every boundary, and nothing brings one back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, OnExceptionCheckpoint, StochasticWeightAveraging
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import PruningCallback
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import MakeOptimizer, Net, adamw, fit, momentum, ramp, sparsity, zeros

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning", "ignore:.*fit.ckpt_path:UserWarning")

SGD, ADAM = torch.optim.SGD, torch.optim.AdamW
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "momentum": momentum,
    "nesterov": lambda p: SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd_foreach": lambda p: SGD(p, 0.05, momentum=0.9, foreach=True),
    "sgd_fused": lambda p: SGD(p, 0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "adamw": adamw,
    "adamw_foreach": lambda p: ADAM(p, 0.01, foreach=True),
    "adamw_fused": lambda p: ADAM(p, 0.01, fused=True),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01),
    "radam": lambda p: torch.optim.RAdam(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.05),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.01),
    "asgd": lambda p: torch.optim.ASGD(p, 0.05),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "groups": lambda p: _groups(list(p)),
}


def _groups(parameters: list[nn.Parameter]) -> Optimizer:
    wide = [p for p in parameters if p.dim() > 1]
    thin = [p for p in parameters if p.dim() < 2]
    return ADAM([{"params": wide, "weight_decay": 0.5}, {"params": thin, "lr": 0.1, "weight_decay": 0.0}], lr=0.02)


class Spy(Checkpoint):
    """Look at pruned entries after every step of every optimizer, after the pruning callback's own hook."""

    def __init__(self, callback: PruningCallback) -> None:
        self.callback = callback
        self.late: list[int] = []
        self.early: list[int] = []

    def alive(self) -> int:
        """How many pruned entries are not zero."""
        if not self.callback.pruner.attached:
            return 0
        masks = self.callback.pruner.masks
        return sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks.values())

    def watched(self, make: MakeOptimizer) -> MakeOptimizer:
        """The optimizer with a hook that comes before the pruning callback's."""

        def made(parameters: Any) -> Optimizer:
            optimizer = make(parameters)
            optimizer.register_step_post_hook(lambda *_: self.early.append(self.alive()))
            return optimizer

        return made

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self.late.append(self.alive()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_G7_no_optimizer_brings_a_weight_back(name: str) -> None:
    callback = ramp()
    spy = Spy(callback)
    model = Net(spy.watched(OPTIMIZERS[name]))
    fit(model, callback, spy, max_steps=50)
    assert spy.late == [0] * 50
    assert spy.early == [0] * 50  # gradients and moments are zero, so the step itself moves nothing
    assert sparsity(model) == round(0.8 * 256) / 256


def test_G7_without_the_callback_momentum_brings_weights_back() -> None:
    model = Net(momentum)
    pruned: list[Tensor] = []

    def prune_once(trainer: pl.Trainer) -> None:
        weight = model.net[0].weight.data
        if trainer.global_step == 5:
            pruned.append(weight.abs() < 0.2)
            weight.masked_fill_(pruned[0], 0.0)

    model.after_batch.append(prune_once)
    fit(model, max_steps=6)
    assert (model.net[0].weight.detach()[pruned[0]] != 0).any()


def test_G7_lbfgs_whose_step_reads_no_moments_is_masked_after_it() -> None:
    callback = ramp()
    spy = Spy(callback)
    model = Net(spy.watched(lambda p: torch.optim.LBFGS(p, 0.1, max_iter=4)), norm=False)
    fit(model, callback, spy, max_steps=16)
    assert spy.late == [0] * 16
    assert sparsity(model) == round(0.8 * 256) / 256


# Averages


def ema() -> pl.Callback:
    return EMAWeightAveraging(decay=0.7)


def swa() -> pl.Callback:
    return StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1)


def averaging() -> pl.Callback:
    return WeightAveraging()


AVERAGES = {"ema": ema, "swa": swa, "mean": averaging, "none": None}
ORDERS = ["average_first", "pruning_first"]


def averaged(average: str, order: str, callback: pl.Callback) -> list[pl.Callback]:
    make = AVERAGES[average]
    both = [callback] if make is None else [make(), callback]
    return both if order == "average_first" else both[::-1]


def off_mask(saved: Any, masks: dict[str, Tensor]) -> list[str]:
    """Every path in nested dicts that ends in a masked weight's name and is not zero where it was pruned."""
    found: list[str] = []
    for key, value in saved.items():
        if isinstance(value, dict):
            found += [f"{key}/{path}" for path in off_mask(value, masks)]
        elif isinstance(value, Tensor) and key in masks and value.is_floating_point():
            found += [key] if bool((value[~masks[key]] != 0).any()) else []
    return found


@pytest.mark.parametrize("norm", [True, False], ids=["batch_norm", "no_norm"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("average", AVERAGES)
def test_G6_zeros_in_every_step_validation_file_and_in_the_end(
    average: str, order: str, norm: bool, tmp_path: Path
) -> None:
    callback = ramp()
    spy = Spy(callback)
    model = Net(spy.watched(momentum), norm=norm)
    in_validation: list[int] = []
    in_forward: list[int] = []
    model.in_validation.append(lambda _: in_validation.append(spy.alive()))
    model.in_step.append(lambda _: in_forward.append(spy.alive()))
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    run = fit(model, *averaged(average, order, callback), spy, save, batches=5, val=2, max_epochs=4)
    run.save_checkpoint(tmp_path / "after_fit.ckpt")

    assert set(spy.early + spy.late) == {0}
    assert len(spy.early) >= 20
    assert set(in_validation) == {0}
    assert len(in_validation) >= 8
    assert set(in_forward) == {0}
    files = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(files) >= 20
    copies = 0
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        pruning = checkpoint["callbacks"].pop(callback.state_key)
        checkpoint.pop("optimizer_states")
        assert off_mask(checkpoint, pruning["masks"]) == []
        copies = sum("net.0.weight" in d for d in _dicts(checkpoint))
    assert copies == (1 if average == "none" else 2)
    asked = round(0.8 * 256) / 256
    assert sparsity(model) == asked
    assert callback.report is not None
    assert callback.report.sparsity == asked
    plain = Net(norm=norm)
    plain.load_state_dict(torch.load(tmp_path / "after_fit.ckpt", weights_only=True)["state_dict"], strict=True)
    assert zeros(plain) == zeros(model)


def _dicts(saved: dict[str, Any]) -> list[dict[str, Any]]:
    return [saved, *(d for value in saved.values() if isinstance(value, dict) for d in _dicts(value))]


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_G6_an_average_left_alone_is_not_zero(average: str) -> None:
    made = AVERAGES[average]
    assert made is not None
    callback = ramp()
    other: Any = made()
    model = Net(momentum)
    seen: list[bool] = []

    def look(trainer: pl.Trainer) -> None:
        own = dict(other._average_model.named_parameters())
        masks = {n.removeprefix("module."): p for n, p in own.items()}
        for name, weight in callback.pruner.masks.items():
            seen.append(bool((masks[name].detach()[~weight.mask] != 0).any()))

    model.after_batch.append(look)
    fit(model, callback, other, batches=5, max_epochs=4)
    assert any(seen)


@pytest.mark.parametrize("average", ["ema", "swa", "none"])
def test_G6_zeros_in_a_file_written_on_an_exception(average: str, tmp_path: Path) -> None:
    callback = ramp()
    model = Net(momentum)
    model.in_step.append(lambda t: _fail() if t.global_step == 14 else None)
    save = OnExceptionCheckpoint(tmp_path, "broken")
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, *averaged(average, "average_first", callback), save, batches=5, max_epochs=4)
    checkpoint = torch.load(tmp_path / "broken.ckpt", weights_only=True)
    masks = checkpoint["callbacks"].pop(callback.state_key)["masks"]
    checkpoint.pop("optimizer_states")
    assert sum(int((~m).sum()) for m in masks.values()) == round(0.8 * 256)
    assert off_mask(checkpoint, masks) == []


def _fail() -> None:
    raise RuntimeError("on purpose")


def test_G6_an_average_over_a_compiled_part_is_masked_in_files_too(tmp_path: Path) -> None:
    callback = ramp()
    model = Net(momentum)
    model.net = torch.compile(model.net, backend="eager")
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=14, save_top_k=-1)
    fit(model, callback, ema(), save, batches=5, max_epochs=3)
    checkpoint = torch.load(tmp_path / "step=14.ckpt", weights_only=True)
    masks = {f"net._orig_mod.{n[4:]}": m for n, m in checkpoint["callbacks"][callback.state_key]["masks"].items()}
    assert set(masks) <= set(checkpoint["state_dict"])
    assert off_mask({"a": checkpoint["state_dict"], "b": checkpoint["current_model_state"]}, masks) == []


def test_G6_batch_norm_statistics_of_an_swa_model_come_from_pruned_weights() -> None:
    """SWA spends an epoch of forwards with its average to renew the statistics; nothing is saved or validated here."""
    callback = ramp()
    spy = Spy(callback)
    model = Net(momentum)
    in_forward: list[int] = []
    model.in_step.append(lambda _: in_forward.append(spy.alive()))
    fit(model, callback, swa(), batches=5, max_epochs=4)
    assert in_forward == [0] * 25


def test_G6_a_weight_pruned_in_the_last_step_is_zero_in_the_last_file(tmp_path: Path) -> None:
    callback = PruningCallback(OneShot(0.5, 11))
    save = ModelCheckpoint(tmp_path, "last", monitor=None)
    model = Net()
    fit(model, callback, save, batches=6, max_epochs=2)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert sum(int((saved[n] == 0).sum()) for n in zeros(model)) == 128
