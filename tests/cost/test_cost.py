"""Costs against what one gets by hand, and two models side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_prune.cost import Cost, CostReport, LayerCost, compare, count, latency


class Attention(nn.Module):
    """Two heads of four."""

    def __init__(self, kv_heads: int = 2) -> None:
        super().__init__()
        self.kv_heads = kv_heads
        self.query, self.key_value = nn.Linear(8, 8), nn.Linear(8, 2 * 4 * kv_heads)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.query(x).unflatten(-1, (2, 4)).transpose(1, 2)
        keys, values = self.key_value(x).unflatten(-1, (self.kv_heads, 8)).transpose(1, 2).chunk(2, dim=-1)
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=self.kv_heads == 1)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.tensor([5, 3])
        return self.lstm(input=pack_padded_sequence(x, lengths, batch_first=True))[0].data


class Reused(nn.Module):
    """One layer under two names, called three times, and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.again = nn.Sequential(self.first, nn.ReLU(), self.first)
        self.bare = nn.Parameter(torch.ones(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.first(x)) @ self.bare


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix @ x


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)


ATTENTION = 2 * 5 * (3 * 8 * 8 + 8 * 8) + 2 * (2 * 2 * 5 * 5 * 4)
"""Two sequences of five: three projections and one back; two heads of four, queries by keys and shares by values."""

BY_HAND: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "linear": (lambda: nn.Linear(7, 5), (3, 7), 3 * 7 * 5),
    "linear on a sequence": (lambda: nn.Linear(7, 5, bias=False), (3, 4, 7), 3 * 4 * 7 * 5),
    "linear on one row": (lambda: nn.Linear(7, 5), (7,), 7 * 5),
    "matrix by vector": (Vector, (4,), 3 * 4),
    "conv": (lambda: nn.Conv2d(3, 6, 3, padding=1), (2, 3, 8, 8), 2 * 8 * 8 * 6 * 3 * 9),
    "conv with stride": (lambda: nn.Conv2d(3, 6, 3, stride=2), (1, 3, 9, 9), 4 * 4 * 6 * 3 * 9),
    "conv in groups": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (1, 4, 8, 8), 4 * 4 * 6 * 2 * 9),
    "depthwise conv": (lambda: nn.Conv2d(4, 4, 3, groups=4), (1, 4, 5, 5), 3 * 3 * 4 * 9),
    "transposed conv": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (1, 3, 5, 5), 5 * 5 * 3 * 4 * 9),
    "conv in one dimension": (lambda: nn.Conv1d(3, 4, 5), (2, 3, 9), 2 * 5 * 4 * 3 * 5),
    "batch norm": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 4), 0),
    "lstm": (lambda: nn.LSTM(4, 8, batch_first=True), (2, 5, 4), 2 * 5 * 4 * 8 * (4 + 8)),
    "lstm, time first": (lambda: nn.LSTM(4, 8), (5, 2, 4), 2 * 5 * 4 * 8 * (4 + 8)),
    "lstm of two layers": (lambda: nn.LSTM(4, 8, 2), (5, 2, 4), 2 * 5 * 4 * 8 * (4 + 8 + 8 + 8)),
    "lstm both ways": (lambda: nn.LSTM(4, 8, bidirectional=True), (5, 2, 4), 2 * 2 * 5 * 4 * 8 * (4 + 8)),
    "packed lstm": (Packed, (2, 5, 4), (5 + 3) * 4 * 8 * (4 + 8)),
    "gru": (lambda: nn.GRU(4, 8, batch_first=True), (2, 5, 4), 2 * 5 * 3 * 8 * (4 + 8)),
    "rnn": (lambda: nn.RNN(4, 8, batch_first=True), (2, 5, 4), 2 * 5 * 8 * (4 + 8)),
    "lstm cell": (lambda: nn.LSTMCell(4, 8), (2, 4), 2 * 4 * 8 * (4 + 8)),
    "attention": (Attention, (2, 5, 8), 2 * 5 * 3 * 8 * 8 + 2 * (2 * 2 * 5 * 5 * 4)),
    "attention with shared keys": (lambda: Attention(1), (2, 5, 8), 2 * 5 * 2 * 8 * 8 + 2 * (2 * 2 * 5 * 5 * 4)),
    "transformer encoder": (encoder, (2, 5, 8), 2 * (ATTENTION + 2 * 5 * 2 * 8 * 16)),
    "a layer used thrice": (Reused, (1, 6), 3 * 6 * 6 + 6 * 2),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", BY_HAND)
def test_macs_are_those_by_hand(name: str, frozen: bool) -> None:
    make, shape, macs = BY_HAND[name]
    assert count(make().requires_grad_(not frozen), torch.randn(shape)).macs == macs


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_macs_of_projections() -> None:
    lstm = nn.LSTM(4, 8, 2, bidirectional=True, proj_size=3)
    by_layer = [2 * 2 * 5 * (4 * 8 * (inputs + 3) + 3 * 8) for inputs in (4, 2 * 3)]
    assert count(lstm, torch.randn(5, 2, 4)).macs == sum(by_layer)


def test_layers_hold_what_is_theirs() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 2 * 2, 3))
    cost = count(net, torch.randn(1, 1, 4, 4))
    assert list(cost.layers) == [
        LayerCost("0", "Conv2d", 2 * 9 + 2, 4 * (2 * 9 + 2), 2 * 2 * 2 * 9),
        LayerCost("1", "BatchNorm2d", 2 + 2, 4 * (4 * 2) + 8, 0),  # two running statistics, and a count in int64
        LayerCost("4", "Linear", 8 * 3 + 3, 4 * (8 * 3 + 3), 8 * 3),
    ]
    assert (cost.parameters, cost.macs) == (51, 96)


def test_a_layer_of_two_names_counts_once_and_all_its_calls_do() -> None:
    assert list(count(Reused(), torch.randn(1, 6)).layers) == [
        LayerCost("", "Reused", 12, 48, 12),
        LayerCost("first", "Linear", 42, 168, 3 * 36),
    ]


def test_tied_weights_count_once() -> None:
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    net[1].weight = net[0].weight
    assert [(v.parameters, v.bytes, v.macs) for v in count(net, torch.tensor([1, 2])).layers] == [
        (40, 160, 0),
        (0, 0, 2 * 40),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_file_bytes_are_those_of_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(50, 70), nn.BatchNorm1d(70), nn.Linear(70, 9)).to(dtype)
    torch.save(net.state_dict(), tmp_path / "archive.pt")
    assert count(net, torch.randn(2, 50, dtype=dtype)).file_bytes == (tmp_path / "archive.pt").stat().st_size


def test_the_model_stays_as_it_is() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    net[2].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    compare(net, net, torch.randn(3, 4, generator=torch.Generator()), repeats=1)
    assert [module.training for module in net] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled() == fast
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in net.modules()]
    assert not any(hooks)


def test_hooks_are_gone_after_an_error() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2)).train()
    with pytest.raises(RuntimeError):
        count(net, torch.randn(3, 4))
    assert net.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


class Product(nn.Module):
    example_input_array = (torch.ones(2, 3), torch.ones(3, 4))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left @ right


@pytest.mark.parametrize(
    "inputs", [None, [torch.ones(2, 3), torch.ones(3, 4)], {"right": torch.ones(3, 4), "left": torch.ones(2, 3)}]
)
def test_inputs_come_by_place_by_name_or_from_the_module(inputs: Any) -> None:
    assert count(Product(), inputs).macs == 2 * 3 * 4


def test_without_inputs_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no example inputs"):
        count(nn.Linear(2, 2))


class Nap(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.calls = seconds, 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.calls += 1
        time.sleep(self.seconds)
        return x


def test_latency_tells_fast_from_slow_and_gives_each_its_turn() -> None:
    slow, fast = Nap(0.008), Nap(0.002)
    slow_ms, fast_ms = latency((slow, fast), torch.ones(1), repeats=5)
    assert slow_ms >= 8
    assert slow_ms > fast_ms >= 2
    assert slow.calls == fast.calls
    assert slow.training


def test_latency_needs_a_repeat() -> None:
    with pytest.raises(ValueError, match="repeats=0"):
        latency([Nap(0)], torch.ones(1), repeats=0)


def sizes(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 4))


def test_compare_puts_two_models_side_by_side() -> None:
    report = compare(sizes(40), sizes(10), torch.randn(2, 8), repeats=2)
    assert (report.dense.macs, report.smaller.macs, report.predicted_speedup) == (2 * 480, 2 * 120, 4.0)
    assert report.measured_speedup == report.dense_ms / report.smaller_ms
    numbers = report.scalars()
    assert (numbers["dense/parameters"], numbers["smaller/parameters"]) == (524, 134)
    assert numbers["smaller/latency_ms"] == report.smaller_ms
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["predicted_speedup"] == 4.0
    assert [layer["name"] for layer in facts["smaller"]["layers"]] == ["0", "2"]


def test_tables_show_layers_and_the_whole() -> None:
    report = CostReport(
        Cost([LayerCost("a", "Linear", 20, 80, 2000), LayerCost("b", "Linear", 5, 20, 10)], 1500),
        Cost([LayerCost("a", "Linear", 10, 40, 500), LayerCost("c", "Linear", 1, 4, 2)], 1000),
        4.0,
        2.0,
        30,
        "cpu with 1 thread",
    )
    lines = report.table().splitlines()
    assert lines[2].split() == ["a", "20", "10", "2,000", "500", "4.00"]
    assert lines[3].split() == ["b", "5", "gone", "10", "gone"]
    assert lines[4].split() == ["c", "none", "1", "none", "2"]
    assert "file, bytes  1,500    1,000        1.50" in lines
    assert "latency, ms  4.000    2.000        2.00" in lines
    assert lines[-1].startswith(
        "speed-up: 4.00 predicted from MACs, 2.00 measured (30 forwards, in turn, on cpu with 1 thread)"
    )
    assert "was the machine busy?" not in lines[-1]
    assert report.dense.table().splitlines()[-2].split() == ["all", "25", "100", "2,010"]


@pytest.mark.parametrize(("dense_ms", "doubted"), [(7.9, True), (2.1, False)])
def test_a_speed_up_that_macs_do_not_explain_is_doubted(dense_ms: float, doubted: bool) -> None:
    dense, smaller = (Cost([LayerCost("a", "Linear", 1, 4, macs)], 10) for macs in (400, 100))
    said = CostReport(dense, smaller, dense_ms, 0.5, 30, "cpu").table().splitlines()[-1]
    assert said.endswith("lightning-prune bench measures again") is doubted


def test_a_model_without_products_has_no_bound_on_its_speed_up() -> None:
    none = Cost([LayerCost("a", "Embedding", 1, 4, 0)], 10)
    report = CostReport(Cost([LayerCost("a", "Linear", 1, 4, 1)], 10), none, 1.0, 1.0, 1, "cpu")
    assert report.predicted_speedup == float("inf")
    assert report.to_dict()["predicted_speedup"] is None
    assert CostReport(none, none, 1.0, 1.0, 1, "cpu").predicted_speedup == 1.0


class Probe(nn.Module):
    """A query of its own, spread over the batch, asks the tokens (SigLIP); `nn.MultiheadAttention` is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.probe, self.attention = nn.Parameter(torch.ones(1, 1, 8)), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.probe.expand(len(x), -1, -1), x, x)[0]


class ClassToken(nn.Module):
    """A token spread over the batch is given to a module beside the others (CaiT, PiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.ones(1, 1, 8)), nn.Linear(8, 3)
        self.token.requires_grad_(True)
        self.layer.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.token.expand(len(x), -1, -1)) + x[..., :3]


@pytest.mark.parametrize(
    ("model", "macs"),
    # projections of 2 queries, 10 keys and 10 values, 2 x 2 heads x 5 x (4 + 4), and the output of 2 queries
    [(Probe(), 64 * (2 + 10 + 10) + 2 * 2 * 5 * (4 + 4) + 64 * 2), (ClassToken(), 2 * 8 * 3)],
    ids=["probe", "class_token"],
)
def test_a_parameter_that_is_spread_over_the_batch(model: nn.Module, macs: int) -> None:
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert count(model, torch.randn(2, 5, 8)).macs == macs
    assert before == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
