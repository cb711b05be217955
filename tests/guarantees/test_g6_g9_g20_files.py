"""G6, G9, G20: what leaves a run: the outputs stay, the zeros are in every export, and nothing grows."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Net, bits, copied, differences, draw, fit, ramp, zeros
from tests.helpers import tensors_of

# G9


def mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    return nn.Sequential(nn.Unflatten(0, (1, -1)), layer, nn.Flatten(0, 1), nn.Linear(12, 4))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 5, 3), nn.GroupNorm(1, 5), nn.ReLU(), nn.Flatten(), nn.Linear(50, 4)
    )


def outputs(net: nn.Module) -> list[Tensor]:
    """Outputs for random inputs while training and in evaluation; the state is as before afterwards."""
    state, training, found = bits(net), net.training, list[Tensor]()
    with torch.random.fork_rng(), torch.no_grad():
        for mode in (True, False):
            for seed in range(3):
                torch.manual_seed(seed)
                found.append(net.train(mode)(draw(seed, next(net.parameters()))[0]).clone())
    net.load_state_dict(state)
    net.train(training)
    return found


class Masked(Checkpoint):
    """Keeps the outputs at the end of training, with the masks on. As a `Checkpoint` it comes after all others."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.outputs: list[Tensor] = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.pruning.pruner.attached
        self.outputs = outputs(pl_module.get_submodule("net"))


@pytest.mark.parametrize("make", [mixed, encoder, convolutions], ids=lambda make: make.__name__)
def test_G9_stripping_changes_no_bit_of_any_output(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, callback = Net(net=make()), ramp()
    masked = Masked(callback)
    fit(model, callback, masked, max_steps=20)
    assert not callback.pruner.attached
    assert len(masked.outputs) == 6
    assert differences(masked.outputs, outputs(model.net)) == []


# G6


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


# G20


def in_tensors(saved: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(saved))


def test_G20_a_stripped_checkpoint_is_as_small_as_a_dense_one(tmp_path: Path) -> None:
    """Beyond the dense one it holds only names and numbers; one from the middle of a run, a byte a weight more."""

    def wide() -> Net:
        return Net(net=nn.Sequential(nn.Linear(12, 400), nn.ReLU(), nn.Linear(400, 400), nn.Linear(400, 4)))

    def saved(name: str, *callbacks: pl.Callback) -> Path:
        torch.manual_seed(0)
        save = ModelCheckpoint(tmp_path, f"{name}-middle", every_n_train_steps=4, enable_version_counter=False)
        model = wide()
        run = fit(model, *callbacks, save, max_steps=4)
        run.save_checkpoint(tmp_path / f"{name}.ckpt")
        return tmp_path / f"{name}.ckpt"

    files = {"dense": saved("dense"), "pruned": saved("pruned", PruningCallback(OneShot(0.9, 2)))}
    ends = {name: torch.load(file, weights_only=True) for name, file in files.items()}
    prunable = 400 * (12 + 400 + 4)
    weights = Net(net=wide().net)
    weights.load_state_dict(ends["pruned"]["state_dict"])
    assert sum(zeros(weights).values()) == round(0.9 * prunable)
    assert in_tensors(ends["pruned"]) == in_tensors(ends["dense"])
    assert files["pruned"].stat().st_size <= files["dense"].stat().st_size + 2048
    middle = [torch.load(tmp_path / f"{name}-middle.ckpt", weights_only=True) for name in ("pruned", "dense")]
    assert in_tensors(middle[0]) - in_tensors(middle[1]) == prunable
