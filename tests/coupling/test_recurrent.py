"""Recurrent layers whose states are read in ways of their own: what cannot be coupled is left whole and named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_prune.coupling.example import answer, distance
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import shrink


class LastState(nn.Module):
    """Reads the last state of an LSTM, of packed sequences or not."""

    def __init__(self, packed: bool = False, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.packed = packed
        self.embed, self.lstm = nn.Linear(4, 6), nn.LSTM(6, 8, batch_first=True, **options)
        self.hidden, self.head = nn.Linear(options.get("proj_size") or 8, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).relu()
        lengths = torch.arange(len(x)) % 3 + 1
        read: Any = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False) if self.packed else x
        return self.head(self.hidden(self.lstm(read)[1][0][-1]).relu())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({}, False),
        ({"num_layers": 2}, False),
        ({"bidirectional": True}, True),
        ({"num_layers": 2, "bidirectional": True}, True),
        ({"proj_size": 5}, True),
    ],
)
def test_what_can_be_coupled_is_and_the_rest_is_named(options: dict[str, Any], whole: bool, packed: bool) -> None:
    model, example = LastState(packed, **options).eval(), torch.randn(4, 3, 4)
    pruner = Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=example))
    pruner.attach(model, 10)
    groups = {weight.name for weight in pruner.report().weights}
    assert {"embed.weight", "hidden.weight"} <= groups
    pruner.update(0)
    pruner.strip()
    assert pruner.report().zeros > 0
    smaller: Any = shrink(model, example).model
    for inputs in (example, torch.randn(7, 3, 4)):
        assert distance(answer(model, inputs), answer(smaller, inputs))[1] <= 1e-5
    assert smaller.lstm.input_size < 6
    assert (smaller.lstm.hidden_size == 8) == whole
    if whole:
        assert "lstm.weight_hh_l0" in pruner.report().skipped


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_weights_are_put_into_one_piece_of_memory_after_units_went(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, list[tuple[int, ...]]]] = []

    def flatten(layer: Any) -> None:
        seen.append((layer.input_size, layer.hidden_size, [tuple(w.shape) for w in layer._flat_weights]))

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.rnn, self.head = nn.Linear(4, 6), kind(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.embed(x).relu())[0])

    model, x = Reads(), torch.randn(3, 5, 4)
    pruner = Pruner(OneShot(0.6, 0), pattern=Channel(example_inputs=x))
    pruner.attach(model, 1)
    pruner.update(0)
    pruner.strip()
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", flatten)
    smaller: Any = shrink(model, x).model
    inputs, hidden, shapes = seen[-1]  # what cuDNN is told, and the weights there are by then
    gates = 4 if kind is nn.LSTM else 3
    assert (inputs, hidden) == (smaller.embed.out_features, smaller.head.in_features)
    assert inputs * hidden < 6 * 8
    assert shapes[:2] == [(gates * hidden, inputs), (gates * hidden, hidden)]
