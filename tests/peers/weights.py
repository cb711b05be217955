"""What a user of a Lightning run may expect of pruning. A case raises where a tool does not keep to its first line."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging
from torch import Tensor, nn

from tests.guarantees.helpers import Batches, Net, fit, raise_at

from .tools import BATCHES, Tool, sparsity, weights_of

HALF = 0.5
NEAR = 0.01


def _fit(model: Net, *callbacks: pl.Callback, epochs: int = 3, ckpt: Path | None = None) -> pl.Trainer:
    return fit(model, *callbacks, batches=BATCHES, ckpt=ckpt, max_epochs=epochs)


def _saved(folder: Path) -> dict[str, Tensor]:
    """The model's state in the checkpoint there."""
    return torch.load(next(folder.glob("*.ckpt")), weights_only=True)["state_dict"]


def _after_two_epochs(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, every_n_epochs=2, save_top_k=-1)


def default_amount(tool: Tool, folder: Path) -> None:
    """Asked for half, half of the weights are zero at the end"""
    assert tool.default
    model = Net()
    _fit(model, tool.default(HALF))
    assert abs(sparsity(model) - HALF) < NEAR, sparsity(model)


def norms_and_biases(tool: Tool, folder: Path) -> None:
    """Norms and biases are left whole unless asked for"""
    assert tool.default
    model = Net()
    _fit(model, tool.default(HALF))
    whole = [p for p in model.parameters() if p.dim() < 2]
    assert all(int((p == 0).sum()) < p.numel() / 4 for p in whole)


def resumed(tool: Tool, folder: Path) -> None:
    """A run that goes on from a checkpoint is as sparse at its end as one that was not stopped"""
    assert tool.once
    model = Net()
    _fit(model, tool.once(HALF, model), _after_two_epochs(folder), epochs=2)
    again = Net()
    _fit(again, tool.once(HALF, again), ckpt=next(folder.glob("*.ckpt")), epochs=4)
    assert abs(sparsity(again) - HALF) < NEAR, sparsity(again)


def plain_checkpoint(tool: Tool, folder: Path) -> None:
    """A checkpoint of a run under way loads into the plain model, zeros in place"""
    assert tool.once
    model = Net()
    _fit(model, tool.once(HALF, model), _after_two_epochs(folder), epochs=2)
    plain = Net()
    plain.load_state_dict(_saved(folder))
    assert abs(sparsity(plain) - HALF) < NEAR


def plain_while_training(tool: Tool, folder: Path) -> None:
    """`state_dict()` keeps its keys while training"""
    assert tool.once
    model = Net()
    keys = list(model.state_dict())
    seen: list[list[str]] = []
    model.after_batch.append(lambda _: seen.append(list(model.state_dict())))
    _fit(model, tool.once(HALF, model))
    assert all(each == keys for each in seen)


def copied(tool: Tool, folder: Path) -> None:
    """The model can be copied in the middle of a run"""
    assert tool.once
    model = Net()
    copies: list[Net] = []
    model.after_batch.append(
        lambda run: copies.append(copy.deepcopy(model)) if run.global_step == 2 * BATCHES else None
    )
    _fit(model, tool.once(HALF, model))


def dense_loaded(tool: Tool, folder: Path) -> None:
    """Dense weights loaded in the middle of a run are pruned, too"""
    assert tool.once
    model, dense = Net(), Net(seed=3)

    def load(run: pl.Trainer) -> None:
        if run.global_step == 2 * BATCHES:
            model.load_state_dict(dense.state_dict())

    model.in_step.append(load)
    _fit(model, tool.once(HALF, model))
    assert abs(sparsity(model) - HALF) < NEAR


def averaged(tool: Tool, folder: Path) -> None:
    """Averages of weights (SWA) are as sparse as the weights"""
    assert tool.once
    model = Net()
    average = StochasticWeightAveraging(1e-3, swa_epoch_start=1, annealing_epochs=1)
    _fit(model, tool.once(HALF, model), average, epochs=4)
    assert abs(sparsity(model) - HALF) < NEAR, sparsity(model)


def failed(tool: Tool, folder: Path) -> None:
    """A run that ends with an error leaves a plain model"""
    assert tool.once
    model = Net()
    keys = list(model.state_dict())
    model.in_step.append(raise_at(2 * BATCHES))
    with pytest.raises(RuntimeError, match="on purpose"):
        _fit(model, tool.once(HALF, model))
    assert list(model.state_dict()) == keys
    assert not any(module._forward_pre_hooks for module in model.modules())


def buffers(tool: Tool, folder: Path) -> None:
    """A buffer of the user's whose name ends in `_mask` is saved in checkpoints"""
    assert tool.once

    class Masked(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(12, 16), nn.Linear(16, 4)
            self.register_buffer("attn_mask", torch.ones(16))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.into(x) * self.attn_mask)

    model = Net(net=Masked())
    _fit(model, tool.once(HALF, model), _after_two_epochs(folder), epochs=2)
    assert "net.attn_mask" in _saved(folder)


def late_layers(tool: Tool, folder: Path) -> None:
    """Layers made in `configure_model` are pruned by the default call"""
    assert tool.default

    class Late(Net):
        def configure_model(self) -> None:
            if isinstance(self.net, nn.Identity):
                self.net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))

    model = Late(net=nn.Identity())
    _fit(model, tool.default(HALF), epochs=1)
    assert abs(sparsity(model) - HALF) < NEAR, sparsity(model)


def bare_parameters(tool: Tool, folder: Path) -> None:
    """Weights that are bare parameters are pruned by the default call"""
    assert tool.default

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Parameter(torch.randn(12, 16) / 4), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out((x @ self.into).relu())

    model = Net(net=Bare())
    _fit(model, tool.default(HALF), epochs=1)
    assert int((model.net.into == 0).sum()) > 0


def _used(net: type[nn.Module], tool: Tool) -> None:
    """Fit, and see after each batch that the forward computes with the masked weights that the model shows."""
    assert tool.once
    model, plain = Net(net=net()), net()
    used: list[bool] = []

    def look(run: pl.Trainer) -> None:
        if run.global_step <= BATCHES + 1:
            return
        x = torch.randn(8, 12)
        with torch.no_grad():
            outputs = model.net(x)  # first: what hooks compute anew is shown as it is used
            for name, parameter in plain.named_parameters():
                owner, _, key = name.rpartition(".")
                parameter.copy_(getattr(model.net.get_submodule(owner), key))
            used.append(torch.allclose(outputs, plain(x), atol=1e-5) and abs(sparsity(plain) - HALF) < NEAR)

    model.after_batch.append(look)
    _fit(model, tool.once(HALF, model))
    assert abs(sparsity(model) - HALF) < NEAR, sparsity(model)
    assert all(used)


def recurrent(tool: Tool, folder: Path) -> None:
    """The zeros of an LSTM are those that it computes with"""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x.view(8, 4, 3))[0][:, -1])

    _used(Recurrent, tool)


def attention(tool: Tool, folder: Path) -> None:
    """The zeros of an `nn.MultiheadAttention` are those that it computes with"""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.out = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.attention(x[None], x[None], x[None], need_weights=False)[0])[0]

    _used(Attending, tool)


def tied(tool: Tool, folder: Path) -> None:
    """Weights that are tied stay tied"""
    assert tool.once

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.back, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
            self.back.weight = self.into.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.back(self.into(x).relu()))

    model = Net(net=Tied())
    _fit(model, tool.once(HALF, model))
    assert model.net.into.weight is model.net.back.weight
    assert abs(sparsity(model) - HALF) < NEAR, sparsity(model)


def two_fits(tool: Tool, folder: Path) -> None:
    """One callback object prunes the models of two fits"""
    assert tool.default
    callback = tool.default(HALF)
    _fit(Net(), callback, epochs=1)
    model = Net(seed=1)
    _fit(model, callback, epochs=1)
    assert abs(sparsity(model) - HALF) < NEAR, sparsity(model)


def evaluated(tool: Tool, folder: Path) -> None:
    """Evaluating after the fit changes no weight"""
    assert tool.default
    model = Net()
    run = _fit(model, tool.default(HALF))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run.validate(model, Batches(1), verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def gone_stay_gone(tool: Tool, folder: Path) -> None:
    """The weights that the optimizer holds are zero where they are pruned, after every step"""
    assert tool.once
    model = Net()
    shares: list[float] = []

    def look(run: pl.Trainer) -> None:
        if run.global_step > BATCHES:
            shares.append(sparsity(model))

    model.after_batch.append(look)
    _fit(model, tool.once(HALF, model))
    assert weights_of(model)
    assert all(abs(share - HALF) < NEAR for share in shares), shares


CASES = (
    default_amount,
    norms_and_biases,
    late_layers,
    bare_parameters,
    two_fits,
    evaluated,
    resumed,
    plain_checkpoint,
    plain_while_training,
    gone_stay_gone,
    copied,
    dense_loaded,
    averaged,
    failed,
    buffers,
    recurrent,
    attention,
    tied,
)
