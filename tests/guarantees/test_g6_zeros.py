"""G6: pruned weights are zero at every boundary: each step, validation, every file, averages and exports."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.schedule import OneShot
from tests.guarantees.averages import AVERAGES, ORDERS, averaged, ema, masks_in, off_mask, swa
from tests.guarantees.helpers import Net, copied, differences, draw, fit, momentum, raise_at, ramp, sparsity, zeros
from tests.guarantees.spies import Spy, by_step

SWA_WARNS = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")


@SWA_WARNS
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
    files = by_step(tmp_path)
    assert len(files) >= 20
    copies: list[int] = []
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        masks = masks_in(checkpoint, callback.state_key)
        checkpoint["callbacks"].pop(callback.state_key)
        checkpoint.pop("optimizer_states")
        assert off_mask(checkpoint, masks) == []
        copies.append(sum("net.0.weight" in d for d in _dicts(checkpoint)))
    assert set(copies) == ({1} if average == "none" else {2})
    asked = round(0.8 * 256) / 256
    assert sparsity(model) == asked
    assert callback.report is not None
    assert callback.report.sparsity == asked
    plain = Net(norm=norm)
    plain.load_state_dict(torch.load(tmp_path / "after_fit.ckpt", weights_only=True)["state_dict"], strict=True)
    assert zeros(plain) == zeros(model)


def _dicts(saved: dict[str, Any]) -> list[dict[str, Any]]:
    return [saved, *(d for value in saved.values() if isinstance(value, dict) for d in _dicts(value))]


@SWA_WARNS
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


@SWA_WARNS
@pytest.mark.filterwarnings("ignore:.*fit.ckpt_path:UserWarning")
@pytest.mark.parametrize("average", ["ema", "swa", "none"])
def test_G6_zeros_in_a_file_written_on_an_exception(average: str, tmp_path: Path) -> None:
    callback = ramp()
    model = Net(momentum)
    model.in_step.append(raise_at(14))
    save = OnExceptionCheckpoint(tmp_path, "broken")
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, *averaged(average, "average_first", callback), save, batches=5, max_epochs=4)
    checkpoint = torch.load(tmp_path / "broken.ckpt", weights_only=True)
    masks = masks_in(checkpoint, callback.state_key)
    checkpoint["callbacks"].pop(callback.state_key)
    checkpoint.pop("optimizer_states")
    assert sum(int((~m).sum()) for m in masks.values()) == round(0.8 * 256)
    assert off_mask(checkpoint, masks) == []


def test_G6_an_average_over_a_compiled_part_is_masked_in_files_too(tmp_path: Path) -> None:
    callback = ramp()
    model = Net(momentum)
    model.net = torch.compile(model.net, backend="eager")
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=14, save_top_k=-1)
    fit(model, callback, ema(), save, batches=5, max_epochs=3)
    checkpoint = torch.load(tmp_path / "step=14.ckpt", weights_only=True)
    masks = masks_in(checkpoint, callback.state_key)
    assert all(name.startswith("net._orig_mod.") for name in masks)
    assert set(masks) <= set(checkpoint["state_dict"])
    assert off_mask({"a": checkpoint["state_dict"], "b": checkpoint["current_model_state"]}, masks) == []


@SWA_WARNS
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


# Exports


def through_torch_export(net: nn.Module, _: Path) -> dict[str, Any]:
    """Also runs the exported program against the network."""
    x = draw(0, next(net.parameters()))[0]
    training = net.training
    program = torch.export.export(net.eval(), (x,))
    assert torch.equal(program.module()(x), net(x))
    net.train(training)
    return dict(program.state_dict)


def through_safetensors(net: nn.Module, folder: Path) -> dict[str, Any]:
    save_file(net.state_dict(), folder / "net.safetensors")
    return load_file(folder / "net.safetensors")


def through_torch_save(net: nn.Module, folder: Path) -> dict[str, Any]:
    torch.save(net.state_dict(), folder / "net.pt")
    return torch.load(folder / "net.pt", weights_only=True)


def through_a_whole_module(net: nn.Module, _: Path) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False).state_dict()


EXPORTS = [through_torch_export, through_safetensors, through_torch_save, through_a_whole_module]


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.__name__)
def test_G6_an_export_holds_the_zeros_during_the_fit_and_after_it(
    export: Callable[[nn.Module, Path], dict[str, Any]], tmp_path: Path
) -> None:
    model, callback = Net(), ramp()
    found: list[dict[str, Any]] = []
    masks: list[dict[str, Tensor]] = []

    def look(run: pl.Trainer) -> None:
        if run.global_step in (10, 20):
            found.append(copied(export(model.net, tmp_path)))
            masks.append({name.removeprefix("net."): weight.mask for name, weight in callback.pruner.masks.items()})

    model.after_batch.append(look)
    fit(model, callback, max_steps=20)
    found.append(export(model.net, tmp_path))
    for exported, kept in zip(found, [*masks, masks[-1]], strict=True):
        assert set(exported) == set(model.net.state_dict())
        assert all(torch.equal(exported[name] == 0, ~mask) for name, mask in kept.items())
    assert sum(int((~mask).sum()) for mask in masks[-1].values()) == 205
    assert differences(dict(model.net.state_dict()), {name: found[-1][name] for name in model.net.state_dict()}) == []


def test_G6_the_stripped_module_needs_this_library_no_more() -> None:
    model = Net()
    fit(model, ramp(), max_steps=20)
    assert b"lightning_prune" not in pickle.dumps(model.net)
