"""CSR layers answer as dense ones do, and are taken where the timer says that they are faster, with the figures."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.export import CsrLinear, load_compact, load_csr, save_csr, to_csr
from lightning_prune.export.in_turns import in_turns

Calls = Sequence[Callable[[], object]]


def says(*pairs: tuple[float, float]) -> Callable[[Calls], list[float]]:
    """Return a timer that runs what it is given, and says these times in turn; the last ones from then on."""
    left = list(pairs)

    def timer(calls: Calls) -> list[float]:
        assert len(calls) == 2
        for call in calls:
            call()
        return list(left.pop(0) if len(left) > 1 else left[0])

    return timer


FASTER, SLOWER = says((2.0, 1.0)), says((1.0, 1.7))


def sparse_(net: nn.Module, sparsity: float = 0.9) -> nn.Module:
    """Set a share of the entries of each weight of a linear layer to zero."""
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.weight[torch.rand(layer.weight.shape, generator=generator) < sparsity] = 0.0
    return net


def net() -> nn.Module:
    torch.manual_seed(0)
    return sparse_(
        nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 20, bias=False), nn.ReLU(), nn.Linear(20, 4))
    )


@pytest.mark.parametrize("shape", [(12,), (1, 12), (5, 12), (3, 2, 12), (1, 1, 12), (0, 12)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_answers_as_the_dense_one(shape: tuple[int, ...], bias: bool, dtype: torch.dtype) -> None:
    layer: Any = sparse_(nn.Linear(12, 7, bias=bias)).to(dtype)
    made = CsrLinear.of(layer)
    x = torch.randn(shape, dtype=dtype)
    assert made.weight.layout == torch.sparse_csr
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            found, expected = made(x), layer(x)
            torch.testing.assert_close(found, expected)
            assert found.is_contiguous()
            strided = torch.randn(12, 6, dtype=dtype).t()
            torch.testing.assert_close(made(strided), layer(strided))


def test_every_layer_that_is_faster_is_converted() -> None:
    dense, x = net(), torch.randn(6, 12)
    before = copy.deepcopy(dense.state_dict())
    result = to_csr(dense, x, timer=FASTER)
    assert result.converted == ["0", "2", "4"]
    assert [type(result.model.get_submodule(name)) for name in result.converted] == [CsrLinear] * 3
    assert list(result.model.state_dict()) == list(before)
    torch.testing.assert_close(result.model(x), dense(x))
    assert (result.batch, result.dense_ms, result.csr_ms, result.gains) == (6, 2.0, 1.0, True)
    assert dense.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert all(parameter.requires_grad for parameter in dense.parameters())
    lines = result.table().splitlines()
    assert lines[2].endswith("converted, 2.00 times as fast")
    assert lines[-2].endswith("2.00 times as fast")
    assert "batches of 6" in lines[-1]


def test_each_layer_is_decided_by_its_own_figures_and_says_them() -> None:
    timer = says((1.0, 0.5), (1.0, 1.7), (1.0, 0.97), (9.0, 8.0))
    result = to_csr(net(), torch.randn(6, 12), batch=64, timer=timer)
    assert result.converted == ["0"]
    sparsity = f"{100 * result.layers[1].sparsity:.2f}"
    assert result.layers[1].reason == f"CSR takes 1.7 times as long at {sparsity} %, batch 64"
    assert result.layers[2].reason == "CSR takes 0.97 times as long at 95.00 %, batch 64, which may be noise"
    assert (result.layers[1].dense_ms, result.layers[1].csr_ms) == (1.0, 1.7)
    assert (result.dense_ms, result.csr_ms) == (9.0, 8.0)


def test_where_nothing_gains_the_copy_is_dense_and_the_table_says_why() -> None:
    result = to_csr(net(), torch.randn(6, 12), timer=SLOWER)
    assert (result.converted, result.gains, result.dense_ms) == ([], False, None)
    assert [type(layer) for layer in result.model.children()] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert result.table().count("CSR takes 1.7 times as long") == 3
    assert not to_csr(net(), torch.randn(6, 12), timer=says((2, 1), (2, 1), (2, 1), (1, 1))).gains


class Looks(nn.Module):
    """Looks at the weight of a layer itself, as the fast path of nn.TransformerEncoderLayer does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + x @ self.first.weight[:, :12].t().contiguous())


class Various(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(9, 12), nn.Conv1d(12, 12, 1)
        self.dense = nn.Linear(12, 12)
        sparse_(self.conv)
        self.unused = sparse_(nn.Linear(12, 12))
        self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(12, 12))
        self.head = nn.Linear(12, 9, bias=False)
        self.head.weight = self.embed.weight
        self.ours = sparse_(nn.Linear(9, 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.ours(self.head(self.norm(self.dense(self.conv(self.embed(x).mT).mT))))


def test_what_cannot_be_converted_is_named_with_the_reason() -> None:
    result = to_csr(Various(), torch.randint(9, (4, 5)), timer=FASTER)
    reasons = {layer.name: layer.reason for layer in result.layers}
    assert reasons == {
        "embed": "only nn.Linear is converted, not Embedding",
        "conv": "only nn.Linear is converted, not Conv1d",
        "dense": "none of its weights is zero",
        "unused": "no forward of the example inputs calls it",
        "norm": "only nn.Linear is converted, not ParametrizedLinear",
        "head": "its weight is shared: embed.weight, head.weight",
        "ours": None,
    }


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_dtype_that_torch_has_no_kernel_for_is_left_dense(half: torch.dtype) -> None:
    result = to_csr(net().to(half), torch.randn(6, 12), timer=FASTER, tolerance=0.05)
    for layer in result.layers:
        assert layer.reason is None or layer.reason.startswith("torch refuses it: ")
    with torch.inference_mode():
        assert result.model(torch.randn(6, 12, dtype=half)).dtype == half


def test_a_layer_that_the_model_looks_into_is_left_dense() -> None:
    dense, x = sparse_(Looks()), torch.randn(6, 12)
    result = to_csr(dense, x, timer=FASTER)
    assert result.converted == ["last"]
    assert str(result.layers[0].reason).startswith("the model does not run with it: ")
    torch.testing.assert_close(result.model(x), dense(x))


def test_a_transformer_of_torchs_own_keeps_its_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
    dense, x = sparse_(nn.TransformerEncoder(layer, 2)).eval(), torch.randn(3, 5, 16)
    result = to_csr(dense, x, timer=FASTER)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(result.model(x), dense(x), atol=1e-5, rtol=1e-4)


def test_outputs_that_differ_leave_a_layer_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CsrLinear.forward
    monkeypatch.setattr(CsrLinear, "forward", lambda self, x: right(self, x) * 1.01)
    result = to_csr(net(), torch.randn(6, 12), timer=FASTER)
    assert result.converted == []
    assert all("its outputs differ by 1.0e-02 of the largest" in str(layer.reason) for layer in result.layers)


def test_a_layer_by_itself_and_one_in_two_places() -> None:
    x = torch.randn(6, 12)
    alone = sparse_(nn.Linear(12, 4))
    result = to_csr(alone, x, timer=FASTER)
    assert result.converted == [""]
    assert "(the model itself)" in result.table()
    torch.testing.assert_close(result.model(x), alone(x))
    same = sparse_(nn.Linear(12, 12))
    twice = nn.Sequential(same, nn.ReLU(), same)
    result = to_csr(twice, x, timer=FASTER)
    first, _, last = result.model  # pyright: ignore[reportGeneralTypeIssues]
    assert type(first) is CsrLinear
    assert first is last
    torch.testing.assert_close(result.model(x), twice(x))


def test_batch_and_threads_are_those_asked_for() -> None:
    threads, seen = torch.get_num_threads(), list[int]()

    def timer(calls: Calls) -> list[float]:
        seen.append(torch.get_num_threads())
        return [2.0, 1.0]

    result = to_csr(net(), torch.randn(1, 12), batch=7, threads=2, timer=timer)
    assert (result.batch, result.threads, set(seen), torch.get_num_threads()) == (7, 2, {2}, threads)
    assert "batches of 7, on 2 threads" in result.table()
    result = to_csr(net(), torch.randn(4, 12), batch=1, threads=1, timer=timer)
    assert (result.batch, result.threads) == (1, 1)
    for words in ({"batch": 0}, {"threads": 0}):
        with pytest.raises(ValueError, match=r"=0 must be at least 1"):
            to_csr(net(), torch.randn(1, 12), timer=timer, **words)
    with pytest.raises(ValueError, match="Sequential has no example inputs"):
        to_csr(net(), timer=timer)


@pytest.mark.parametrize("shape", [(12,), (3, 5, 12)], ids=str)
def test_a_layer_is_timed_on_the_rows_that_it_reads(shape: tuple[int, ...]) -> None:
    x, dense = torch.randn(shape), net()
    shapes: list[tuple[int, ...]] = []

    def timer(calls: Calls) -> list[float]:
        shapes.extend(tuple(found.shape) for call in calls if isinstance(found := call(), Tensor))
        return [2.0, 1.0]

    result = to_csr(dense, x, timer=timer)
    rows = x.numel() // 12
    assert shapes[:6] == [(rows, 30)] * 2 + [(rows, 20)] * 2 + [(rows, 4)] * 2
    assert shapes[6:] == [(*shape[:-1], 4)] * 2
    torch.testing.assert_close(result.model(x), dense(x))


def test_a_copy_and_a_pickle_answer_the_same() -> None:
    x, result = torch.randn(6, 12), to_csr(net(), torch.randn(6, 12), timer=FASTER)
    file = io.BytesIO()
    torch.save(result.model, file)
    file.seek(0)
    for other in (copy.deepcopy(result.model), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), result.model(x))
        assert not other.training
    other = copy.deepcopy(result.model)
    other[0].weight.values().zero_()  # pyright: ignore[reportIndexIssue]
    assert not torch.equal(other(x), result.model(x))


def test_a_file_brings_weights_and_layers_back(tmp_path: Path) -> None:
    dense, x = net(), torch.randn(6, 12)
    result = to_csr(dense, x, timer=says((2, 1), (1, 2), (2, 1), (2, 1)))
    written = save_csr(dense, result, tmp_path / "net.csr.safetensors", {"more": 1})
    assert written.bytes == (tmp_path / "net.csr.safetensors").stat().st_size
    state = load_compact(tmp_path / "net.csr.safetensors")
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.state_dict().items())
    plain: Any = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 20, bias=False), nn.ReLU(), nn.Linear(20, 4))
    loaded = load_csr(plain, tmp_path / "net.csr.safetensors")
    assert [type(layer) for layer in loaded.children()] == [CsrLinear, nn.ReLU, nn.Linear, nn.ReLU, CsrLinear]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), result.model(x))
    assert not loaded.training
    assert type(plain[0]) is nn.Linear


DAMAGE: dict[str, tuple[dict[str, object], str]] = {
    "no CSR": ({}, "has no 'csr'"),
    "a list": ({"csr": []}, "csr is a list"),
    "no layers": ({"csr": {}}, "csr has no 'layers'"),
    "layers a number": ({"csr": {"layers": 3}}, "csr.layers is 3"),
    "a name a number": ({"csr": {"layers": [3]}}, "csr.layers: a name is 3"),
    "another layer": ({"csr": {"layers": ["0", "1"]}}, "'1' is no nn.Linear of Sequential"),
    "no such layer": ({"csr": {"layers": ["gone"]}}, "'gone' is no nn.Linear of Sequential"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_G35_a_damaged_list_of_csr_layers_is_named(tmp_path: Path, case: str) -> None:
    from lightning_prune.export import save_compact

    extra, said = DAMAGE[case]
    save_compact(net(), tmp_path / "net.safetensors", extra)
    with pytest.raises(ValueError, match=said):
        load_csr(net(), tmp_path / "net.safetensors")


def test_the_timer_runs_all_in_turns_and_says_the_least() -> None:
    ran: list[str] = []
    least = in_turns([lambda: ran.append("one"), lambda: ran.append("other")])
    assert len(least) == 2
    assert all(ms > 0 for ms in least)
    assert ran.count("one") > 100
    changes = sum(one != other for one, other in pairwise(ran))
    assert changes >= 9


@pytest.mark.slow
def test_torchs_warning_is_silenced_here_and_nowhere_else() -> None:
    code = """
import warnings
import torch
from torch import nn
from lightning_prune.export import CsrLinear
warnings.simplefilter("error")
before = list(warnings.filters)
CsrLinear.of(nn.Linear(3, 3))(torch.ones(2, 3))
assert warnings.filters == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
