"""Learned masks of hidden states and of heads act where the recurrence and the attention read them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_prune.gate import Sigmoid
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets
from tests.learned.helpers import attached, factors_of, on


class Recurrent(nn.Module):
    """A layer, two of an LSTM, another layer, the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.lstm(self.embed(x))[0]).relu())


class Attention(nn.Module):
    """Self-attention of three heads between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention, self.head = nn.Linear(4, 12), nn.MultiheadAttention(12, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def test_hidden_states_are_masked_where_the_recurrence_reads_them() -> None:
    torch.manual_seed(0)
    model = Recurrent().train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(2, 3, 4), gate=Sigmoid(b=5.0))
    x = torch.randn(9, 3, 4)
    out = model(x)
    found = factors_of(on(masks))
    shapes = {name: tuple(m.shape) for name, m in found.items()}
    assert shapes == {
        "embed.weight": (9, 6),
        "lstm.weight_ih_l0": (1, 5),
        "hidden.weight": (9, 7),
    }
    states = found["lstm.weight_ih_l0"]  # both layers have the same units
    with torch.no_grad():
        for name in ("weight_hh_l0", "weight_ih_l1", "weight_hh_l1"):
            twin.lstm.get_parameter(name).mul_(states)
    read = twin.lstm(twin.embed(x) * found["embed.weight"][:, None])[0] * states
    assert torch.allclose(out, twin.head(twin.hidden(read).relu() * found["hidden.weight"][:, None]), atol=1e-6)
    out.square().sum().backward()
    assert all(v.grad is not None and bool(v.grad.any()) for v in on(masks).logits.values)
    assert not {"weight_hh_l0", "weight_ih_l1", "weight_hh_l1"} & set(vars(model.lstm))


def test_packed_sequences_have_one_draw_an_example_too() -> None:
    class Packed(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            lengths = torch.arange(len(x)) % 3 + 1
            rows = pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.hidden(pad_packed_sequence(self.lstm(rows)[0], batch_first=True)[0]).relu())

    torch.manual_seed(0)
    model = Packed().train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(4, 3, 4))
    x = torch.randn(9, 3, 4)
    out = model(x)
    found = factors_of(on(masks))
    assert {name: m.shape for name, m in found.items()} == {"embed.weight": (9, 6), "hidden.weight": (9, 7)}
    assert "lstm.weight_ih_l0" in masks.report().skipped
    lengths = torch.arange(9) % 3 + 1
    read = twin.embed(x) * found["embed.weight"][:, None]
    rows = pack_padded_sequence(read, lengths, batch_first=True, enforce_sorted=False)
    states = pad_packed_sequence(twin.lstm(rows)[0], batch_first=True)[0]
    assert torch.allclose(out, twin.head(twin.hidden(states).relu() * found["hidden.weight"][:, None]), atol=1e-6)
    model.eval()
    evaluated = model(x)
    masks.strip()
    assert torch.allclose(evaluated, model(x), atol=1e-6)
    smaller: Any = shrink(model, torch.zeros(4, 3, 4)).model
    assert torch.allclose(evaluated, smaller(x), atol=1e-6)
    assert smaller.lstm.input_size < 6


def test_readers_that_differ_on_which_dimension_is_the_batch_share_one_draw() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.gru, self.head = nn.Linear(4, 6), nn.GRU(6, 5), nn.Linear(6, 3)
            self.out = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            return self.out(torch.cat([self.gru(x)[0], self.head(x)], -1))

    model = TimeFirst().train()
    masks = attached(model, torch.zeros(3, 2, 4))
    model(torch.randn(5, 7, 4))
    assert factors_of(on(masks))["embed.weight"].shape == (1, 6)


def test_heads_are_masked_where_the_output_layer_of_attention_reads_them() -> None:
    torch.manual_seed(0)
    model = Attention().train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(5, 2, 4), gate=Sigmoid(b=5.0), targets=Targets(include=("attention",)))
    x = torch.randn(5, 2, 4)
    out = model(x)
    (heads,) = (m for m in factors_of(on(masks)).values() if m.shape == (1, 3))
    with torch.no_grad():
        twin.attention.out_proj.weight.mul_(heads.repeat_interleave(4, dim=1))
    assert torch.allclose(out, twin(x), atol=1e-6)
    out.square().sum().backward()
    assert all(v.grad is not None and bool(v.grad.any()) for v in on(masks).logits.values)
    assert isinstance(model.attention.out_proj.weight, nn.Parameter)
