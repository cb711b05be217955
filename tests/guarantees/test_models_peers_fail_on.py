"""Models that other pruning libraries get wrong, by the list at the end of the guarantees."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.scope import Uniform
from lightning_prune.targets import Targets
from tests.guarantees.helpers import (
    RAMP,
    Net,
    assert_plain,
    bits,
    differences,
    fit,
    ramp,
    sparsity,
    zeros,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*nearly nothing is left")  # of layers as small as these


class Attention(nn.Module):
    """A user's buffers may be called what a mask would be called."""

    attn_mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Parameter(torch.randn(12, 16) / 4)
        self.register_buffer("attn_mask", torch.ones(8, 16))
        self.out = nn.Linear(16, 4)
        self.out.register_buffer("weight_mask", torch.full((4, 16), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.out((x @ self.attn) * self.attn_mask)


def test_a_users_buffer_named_like_a_mask_is_left_alone() -> None:
    model = Net(net=Attention())
    during: list[bool] = []

    def look(_: pl.Trainer) -> None:
        net: Any = model.net
        during.append(torch.equal(net.attn_mask, torch.ones(8, 16)) and bool((net.out.weight_mask == 2).all()))

    model.after_batch.append(look)
    fit(model, ramp(), max_steps=20)
    assert during == [True] * 20
    assert {"net.attn_mask", "net.out.weight_mask"} <= set(model.state_dict())
    assert sparsity(model) == 205 / 256


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNN | nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.rnn = kind(3, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.view(8, 4, 3))[0][:, -1])


class Attending(nn.Module):
    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, kdim=width, vdim=width, batch_first=True, add_bias_kv=True)
        self.norm = nn.LayerNorm(12)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        keys = x[None, :, : self.attention.kdim]
        return self.out(self.norm(self.attention(x[None], keys, keys)[0]))[0]


class Convolving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.ConvTranspose1d(4, 6, 2), nn.InstanceNorm1d(6, affine=True)
        )
        self.position = nn.Parameter(torch.zeros(1, 12))
        self.out = nn.Linear(66, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers((x + self.position)[:, None]).flatten(1))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(12, 9) / 4)
        self.rest = nn.ParameterList([nn.Parameter(torch.randn(9, 7) / 4), nn.Parameter(torch.randn(7, 4) / 4)])
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.first).relu() @ self.rest[0] @ self.rest[1] * self.scale


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.back, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.back.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.back(self.into(x).relu()))


MODELS: dict[str, tuple[Any, set[str]]] = {
    "LSTM": (lambda: Recurrent(nn.LSTM), {"bias"}),
    "GRU": (lambda: Recurrent(nn.GRU), {"bias"}),
    "RNN": (lambda: Recurrent(nn.RNN), {"bias"}),
    "MultiheadAttention": (Attending, {"bias", "norm"}),
    "MultiheadAttention with keys of another width": (lambda: Attending(5), {"bias", "norm"}),
    "norms and convolutions": (Convolving, {"bias", "norm", "position"}),
    "bare parameters": (Bare, {"scale"}),
    "tied": (Tied, {"bias"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_peers_fail_on_end_at_the_exact_sparsity(name: str, tmp_path: Path) -> None:
    make, whole = MODELS[name]
    torch.manual_seed(0)
    model = Net(net=make())
    ids = [id(p) for p in model.parameters()]
    keys = list(model.state_dict())
    callback = ramp()
    copies: list[Net] = []
    model.after_batch.append(lambda run: copies.append(copy.deepcopy(model)) if run.global_step == 7 else None)
    run = fit(model, callback, max_steps=20)
    run.save_checkpoint(tmp_path / "end.ckpt")
    report = callback.report
    assert report is not None
    assert report.zeros == round(0.8 * report.size)
    for skipped, reason in report.skipped.items():
        assert any(word in reason or word in skipped for word in whole), (skipped, reason)
    named = dict(model.named_parameters())
    assert report.zeros == sum(int((named[w.name] == 0).sum()) for w in report.weights)
    assert [id(p) for p in model.parameters()] == ids
    fresh = Net(net=make())
    fresh.load_state_dict(torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"], strict=True)
    assert list(fresh.state_dict()) == keys
    assert differences(bits(model), bits(fresh)) == []
    assert len(copies) == 1
    assert_plain(model, callback=callback)


def test_two_weights_of_a_recurrent_layer_are_ranked_together() -> None:
    torch.manual_seed(0)
    model = Net(net=Recurrent(nn.LSTM))
    callback = ramp(scope=Uniform())
    fit(model, callback, max_steps=20)
    rnn = dict(model.net.rnn.named_parameters())
    for layer in ("l0", "l0_reverse", "l1", "l1_reverse"):
        pair = [rnn[f"weight_ih_{layer}"], rnn[f"weight_hh_{layer}"]]
        both = sum(int((p == 0).sum()) for p in pair)
        assert both == round(0.8 * sum(p.numel() for p in pair))
        assert any(int((p == 0).sum()) != round(0.8 * p.numel()) for p in pair)


def test_layers_made_in_configure_model_are_pruned() -> None:
    class Late(Net):
        def configure_model(self) -> None:
            if isinstance(self.net, nn.Identity):
                self.net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))

    model = Late(net=nn.Identity())
    fit(model, ramp(), max_steps=20)
    assert sparsity(model) == 205 / 256


def test_a_lazy_layer_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"net\.weight.*run one batch through the lazy module"):
        fit(
            Net(lambda _: torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1), net=nn.LazyLinear(4)),
            ramp(),
            max_steps=20,
        )


def test_embeddings_on_request_and_sparse_gradients() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(40, 6, sparse=True)
            self.out = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.table((x * 10).long().abs() % 40).mean(1))

    callback = PruningCallback(Pruner(RAMP, targets=Targets(include=("table",))))
    model = Net(lambda p: torch.optim.SGD(p, 0.1), net=Words())
    back: list[bool] = []

    def look(_: pl.Trainer) -> None:
        back.extend(bool((w.parameter.detach()[~w.mask] != 0).any()) for w in callback.pruner.masks.values())

    model.after_batch.append(look)
    fit(model, callback, max_steps=20)
    assert zeros(model)["net.table.weight"] == round(0.8 * 240)
    assert not any(back)
