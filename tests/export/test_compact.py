"""Compact files: every bit comes back, each tensor takes the fewest bytes, and a pruned net gets really small."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.export import load_compact, load_safetensors, save_compact
from lightning_prune.export.compact import DTYPES
from lightning_prune.export.encoding import behind_runs, decoded, encoded, packed, runs, unpacked
from lightning_prune.schedule import Polynomial


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are alike in dtype, shape and every bit."""
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and torch.equal(
        one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8)
    )


def of_bits(dtype: torch.dtype, size: int, every: int) -> Tensor:
    """Return a tensor of any bits at all, zero but for one entry in so many."""
    generator = torch.Generator().manual_seed(size)
    width = torch.empty(0, dtype=dtype).element_size()
    low, high = (1, 2) if dtype == torch.bool else (0, 256)
    raw = torch.randint(low, high, (size, width), dtype=torch.uint8, generator=generator)
    raw[torch.arange(size) % every != every - 1] = 0
    return raw.view(-1).view(dtype)


@pytest.mark.parametrize("every", [1, 3, 20, 700])
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back_to_the_bit(tmp_path: Path, name: str, every: int) -> None:
    weight = of_bits(DTYPES[name], 2003, every)
    found = save_compact({"w": weight}, tmp_path / "w.safetensors")
    assert same(load_compact(tmp_path / "w.safetensors")["w"], weight)
    expected = {1: "dense", 20: "gaps", 700: "gaps"}
    assert found.tensors[0].encoding == expected.get(every, found.tensors[0].encoding)


SPECIAL = [-0.0, float("nan"), -float("nan"), float("inf"), -float("inf"), 1e-42, -1e-42, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("size", [7, 100, 5000])
def test_what_is_no_usual_number_comes_back(tmp_path: Path, dtype: torch.dtype, size: int) -> None:
    weight = torch.zeros(size)
    weight[torch.arange(7) * (size // 7)] = torch.tensor(SPECIAL[:7])
    weight[-1] = 1.0
    given_ = {"w": weight.to(dtype)}
    save_compact(given_, tmp_path / "w.safetensors")
    assert same(load_compact(tmp_path / "w.safetensors")["w"], given_["w"])


SHAPES = [(), (0,), (3, 0, 2), (1,), (7,), (8,), (9,), (5, 3), (1, 1, 1, 1), (250, 17), (3, 5, 7, 11)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 1.0])
def test_every_shape_comes_back(tmp_path: Path, shape: tuple[int, ...], keep: float) -> None:
    weight = torch.randn(shape) * (torch.rand(shape) < keep)
    save_compact({"w": weight}, tmp_path / "w.safetensors")
    assert same(load_compact(tmp_path / "w.safetensors")["w"], weight)


def test_views_and_conjugates_come_back(tmp_path: Path) -> None:
    whole = torch.randn(60, 80) * (torch.rand(60, 80) < 0.05)
    state = {
        "transposed": whole.T,
        "some": whole[::3, 5:70:2],
        "row": whole[4],
        "expanded": torch.tensor([2.0]).expand(50, 40),
        "conjugate": torch.complex(whole, whole.flip(0)).conj(),
        "trains": nn.Parameter(whole.clone()),
    }
    save_compact(state, tmp_path / "w.safetensors")
    back = load_compact(tmp_path / "w.safetensors")
    assert list(back) == list(state)
    assert all(same(back[name], value.detach().resolve_conj()) for name, value in state.items())
    assert not any(value.requires_grad for value in back.values())


@given(st.lists(st.booleans(), max_size=3000), st.integers(0, 1500))
def test_flags_come_back_from_bits_and_from_runs(flags: list[bool], behind: int) -> None:
    there = torch.tensor([*flags, *[False] * behind], dtype=torch.bool)
    assert torch.equal(unpacked(packed(there), len(there)), there)
    assert torch.equal(behind_runs(runs(there), len(there)), there)


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 100_000])
@pytest.mark.parametrize("behind", [0, 254, 255, 256, 510])
def test_runs_about_the_longest_come_back(gap: int, behind: int) -> None:
    there = torch.zeros(2 * gap + 2 + behind, dtype=torch.bool)
    there[[gap, 2 * gap + 1]] = True
    found = runs(there)
    assert len(found) == 2 * (gap // 255) + 2 + behind // 255
    assert torch.equal(behind_runs(found, len(there)), there)


def test_the_smallest_is_taken() -> None:
    taken: dict[str, int] = {}
    for keep in (1.0, 0.99, 0.5, 0.2, 0.1, 0.02, 0.0):
        weight = torch.randn(10_000).where((torch.arange(10_000) % 1000 < 1000 * keep)[torch.randperm(10_000)], 0.0)
        encoding, parts = encoded(weight)
        values = int(weight.count_nonzero())
        sizes = {
            "dense": 40_000,
            "bitmask": 4 * values + 1250,
            "gaps": 4 * values + runs(weight != 0).nbytes,
        }
        assert sizes[encoding] <= min(sizes.values()) + 100  # what another line in the header takes
        assert sum(part.nbytes for part in parts.values()) in (0, sizes[encoding])
        if parts:
            assert same(decoded(encoding, parts[encoding], parts["values"], weight.shape), weight)
        taken[encoding] = taken.get(encoding, 0) + 1
    assert set(taken) == {"dense", "bitmask", "gaps"}


def lenet() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def pruned(sparsity: float) -> nn.Module:
    """Return a net that was trained for a few steps, and pruned in these."""
    torch.manual_seed(0)
    net, pruner = lenet(), Pruner(Polynomial(sparsity, 1, 6, 1))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    pruner.attach(net, total_steps=8)
    for step in range(1, 9):
        nn.functional.cross_entropy(net(torch.randn(32, 784)), torch.randint(10, (32,))).backward()
        pruner.before_step()
        optimizer.step()
        pruner.after_step(step, [optimizer])
        optimizer.zero_grad()
    assert pruner.strip().sparsity == pytest.approx(sparsity, abs=1e-4)
    return net


def test_a_lenet_at_98_percent_is_more_than_30_times_smaller(tmp_path: Path) -> None:
    net = pruned(0.98)
    before = copy.deepcopy(net.state_dict())
    found = save_compact(net, tmp_path / "net.safetensors")
    assert found.bytes == (tmp_path / "net.safetensors").stat().st_size
    assert found.dense_bytes == 4 * sum(tensor.numel() for tensor in before.values())
    assert found.times_smaller > 30
    assert found.dense_bytes > 30 * found.bytes
    save_file(before, tmp_path / "dense.safetensors")
    assert (tmp_path / "dense.safetensors").stat().st_size > 30 * found.bytes
    back = load_compact(tmp_path / "net.safetensors")
    assert list(back) == list(before)
    assert all(same(back[name], tensor) for name, tensor in before.items())
    lenet().load_state_dict(back)


def test_a_tied_weight_is_written_once(tmp_path: Path) -> None:
    net = nn.ModuleDict(
        {"embed": nn.Embedding(50, 16), "body": nn.Linear(16, 16), "head": nn.Linear(16, 50, bias=False)}
    )
    net["head"].weight = net["embed"].weight
    once = sum(p.numel() for p in net.parameters()) * 4
    for given_ in (net, net.state_dict()):
        found = save_compact(given_, tmp_path / "w.safetensors")
        assert found.dense_bytes == once
        assert [each.encoding for each in found.tensors if each.name == "head.weight"] == ["embed.weight"]
        back = load_compact(tmp_path / "w.safetensors")
        assert back["head.weight"] is back["embed.weight"]
        assert all(same(back[name], tensor) for name, tensor in net.state_dict().items())
    overlapping = torch.randn(10)
    save_compact(
        {"one": overlapping[:6], "other": overlapping[4:], "none": overlapping[:0]}, tmp_path / "w.safetensors"
    )
    back = load_compact(tmp_path / "w.safetensors")
    assert same(back["one"], overlapping[:6])
    assert same(back["other"], overlapping[4:])
    assert back["none"].shape == (0,)


def test_zeros_with_a_sign_are_kept_and_counted(tmp_path: Path) -> None:
    weight = torch.randn(100, 30)
    by_product = weight * (torch.rand(100, 30) < 0.1)
    signed = int((torch.signbit(by_product) & (by_product == 0)).sum())
    assert signed > 1000
    found = save_compact(
        {"w": by_product, "half": by_product.half(), "int": -by_product.int()}, tmp_path / "w.safetensors"
    )
    assert [each.negative_zeros for each in found.tensors] == [signed, signed, 0]
    assert found.table().splitlines()[-1].startswith(f"{2 * signed:,} of the values are -0.0")
    assert same(load_compact(tmp_path / "w.safetensors")["w"], by_product)
    found = save_compact({"w": by_product + 0.0}, tmp_path / "w.safetensors")
    assert found.tensors[0].values == int(by_product.count_nonzero())
    assert "-0.0" not in found.table()


def test_other_tools_open_and_list_it(tmp_path: Path) -> None:
    net = pruned(0.95)
    save_compact(net, tmp_path / "net.safetensors", {"note": [1, {"two": "three"}]})
    parts = load_file(tmp_path / "net.safetensors")
    assert {"0.weight:gaps", "0.weight:values", "0.bias"} <= set(parts)
    weight = net.state_dict()["0.weight"]
    assert torch.equal(parts["0.weight:values"], weight[weight != 0])
    with safe_open(tmp_path / "net.safetensors", "pt") as content:
        facts = json.loads(content.metadata()["lightning-prune compact"])
    assert facts["version"] == 1
    assert facts["tensors"]["0.weight"] == {"shape": [300, 784], "dtype": "float32", "encoding": "gaps"}
    assert load_safetensors(tmp_path / "net.safetensors").extra == {"note": [1, {"two": "three"}]}


def test_a_file_is_the_same_each_time(tmp_path: Path) -> None:
    net = pruned(0.98)
    for name in ("one", "other"):
        save_compact(net, tmp_path / name, {"more": 1, "and": 2})
    save_compact(load_compact(tmp_path / "one"), tmp_path / "again", {"more": 1, "and": 2})
    assert len({(tmp_path / name).read_bytes() for name in ("one", "other", "again")}) == 1


def test_a_plain_file_is_read_by_the_reader_of_both(tmp_path: Path) -> None:
    state = lenet().state_dict()
    save_file(state, tmp_path / "plain.safetensors")
    found = load_safetensors(tmp_path / "plain.safetensors")
    assert found.extra == {}
    assert {name: same(tensor, state[name]) for name, tensor in found.tensors.items()} == dict.fromkeys(state, True)
    with pytest.raises(ValueError, match=r"plain\.safetensors is no compact file"):
        load_compact(tmp_path / "plain.safetensors")


class WithState(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"seen": 3}


REFUSED: dict[str, tuple[Any, str]] = {
    "a number": ({"w": 3}, "'w' is a int: a compact file holds tensors alone"),
    "extra state": (nn.Sequential(WithState(2, 2)), "'0._extra_state' is a dict"),
    "sparse": ({"w": torch.eye(3).to_sparse()}, "'w' is a torch.sparse_coo tensor"),
    "no memory": ({"w": torch.empty(3, device="meta")}, "'w' is a torch.strided tensor on meta"),
    "doubly complex": ({"w": torch.zeros(3, dtype=torch.complex128)}, "'w' is of torch.complex128"),
    "a number as name": ({3: torch.ones(2)}, "3 cannot be the name of a tensor"),
    "the header's name": ({"__metadata__": torch.ones(2)}, "'__metadata__' cannot be the name"),
    "a part's name": (
        {"a": torch.zeros(999), "a:gaps": torch.ones(2)},
        "'a:gaps' is the name of a tensor and of a part",
    ),
    "a part's name first": ({"a:values": torch.ones(2), "a": torch.zeros(999)}, "'a:values' is the name of a tensor"),
    "too many dimensions": ({"w": torch.ones([1] * 65)}, "'w' has 65 dimensions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written_is_named_and_the_file_before_stays(tmp_path: Path, case: str) -> None:
    given_, said = REFUSED[case]
    (tmp_path / "w.safetensors").write_bytes(b"the one before")
    with pytest.raises(ValueError, match=said):
        save_compact(given_, tmp_path / "w.safetensors")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("w.safetensors", b"the one before")]


def test_a_place_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"w\.safetensors cannot be written"):
        save_compact({"w": torch.ones(2)}, tmp_path / "nowhere" / "w.safetensors")
    with pytest.raises(FileNotFoundError):
        load_compact(tmp_path / "nowhere.safetensors")


def test_without_safetensors_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-prune\[structured\]'"):
        save_compact({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-prune\[structured\]'"):
        load_compact(tmp_path / "w.safetensors")


def test_the_table_says_how_each_is_written(tmp_path: Path) -> None:
    found = save_compact(pruned(0.98), tmp_path / "net.safetensors")
    lines = found.table().splitlines()
    assert lines[0].split() == ["tensor", "shape", "values", "dense,", "bytes", "bytes", "written", "as"]
    assert lines[2].split()[:2] == ["0.weight", "300x784"]
    assert lines[2].endswith("gaps")
    assert lines[-1].endswith(f"{found.times_smaller:.1f} times")
    facts = found.to_dict()
    assert facts["bytes"] == found.bytes
    assert facts["tensors"][0]["encoding"] == "gaps"
    assert sum(each["bytes"] for each in facts["tensors"]) < found.bytes
