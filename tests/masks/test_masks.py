"""Masks in place: zeros to the bit, all else untouched to the bit, nothing left on the modules."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune.masks import MaskedWeight, Masks, zero_, zero_gradients
from lightning_prune.ranking import count
from lightning_prune.ranking.float_keys import bits
from lightning_prune.ranking.threads import CHUNK
from lightning_prune.targets import Targets
from tests.helpers import FLOATS, same

DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def random_mask(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


def masks_of(model: nn.Module, reversible: bool = False) -> Masks:
    return Masks(Targets().find(model).targets, reversible)


@DTYPES
@given(shape=st.lists(st.integers(0, 6), min_size=0, max_size=4).map(tuple), seed=st.integers(0, 99))
def test_G24_zero_writes_zeros_over_anything_and_keeps_all_other_bits(
    dtype: torch.dtype, shape: tuple[int, ...], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    odd = torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0, 1e-40, 3.0, -2.5, 0.0], dtype=torch.float64)
    tensor = odd[torch.randint(8, shape, generator=generator)].to(dtype)
    mask = random_mask(shape, seed)
    before = bits(tensor).clone()
    zero_(tensor, mask)
    assert torch.equal(bits(tensor), torch.where(mask, before, torch.zeros_like(before)))


@pytest.mark.parametrize("shape", [(3, CHUNK), (CHUNK // 7, 15), (2 * CHUNK + 1,), (1, CHUNK + 1)], ids=str)
def test_zero_in_chunks(shape: tuple[int, ...]) -> None:
    tensor, mask = torch.full(shape, float("nan")), random_mask(shape)
    zero_(tensor, mask)
    assert torch.equal(tensor.isnan(), mask)
    assert torch.equal(tensor == 0, ~mask)


def test_zero_minds_no_strides() -> None:
    tensor = torch.ones(4, 8, 40, 300).to(memory_format=torch.channels_last)
    mask = random_mask((4, 8, 40, 300))
    for strided_mask in (mask, mask.to(memory_format=torch.channels_last)):
        values = tensor.clone()
        zero_(values, strided_mask)
        assert torch.equal(values != 0, mask)
        assert values.is_contiguous(memory_format=torch.channels_last)
    flipped = torch.ones(5, 7).t()
    zero_(flipped, random_mask((7, 5)))
    assert torch.equal(flipped != 0, random_mask((7, 5)))


def test_count() -> None:
    mask = random_mask((3, 4, 5, 6)).to(memory_format=torch.channels_last)
    assert count(mask) == int(mask.sum())
    assert count(torch.ones(0, 3, dtype=torch.bool)) == 0
    assert count(torch.tensor(True)) == 1


def test_mask_and_threshold_hang_on_the_module_but_not_in_its_state() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 2))
    before = set(model.state_dict()), [id(p) for p in model.parameters()], list(model.buffers())
    masks = masks_of(model)
    mask = random_mask((3, 3))
    masks["0.weight"].write(mask, 0.5)
    assert vars(model[0])["weight_mask"] is mask
    assert float(vars(model[0])["weight_threshold"]) == 0.5
    assert vars(model[1])["weight_ih_l0_mask"].all()
    assert (set(model.state_dict()), [id(p) for p in model.parameters()], list(model.buffers())) == before
    masks.hide()
    for module in model:
        assert not [name for name in vars(module) if name.endswith(("_mask", "_threshold"))]


@pytest.mark.parametrize("own", ["weight_mask", "weight_threshold"])
@pytest.mark.parametrize("kind", ["buffer", "attribute", "parameter"])
def test_the_users_own_attribute_is_left_alone(own: str, kind: str) -> None:
    layer, value = nn.Linear(3, 3), torch.arange(3.0)
    if kind == "buffer":
        layer.register_buffer(own, value)
    else:
        setattr(layer, own, nn.Parameter(value) if kind == "parameter" else value)
    mine = getattr(layer, own)
    masks = Masks(Targets(include=(r"^weight$",)).find(layer).targets, False)
    masks["weight"].write(random_mask((3, 3)), 1.0)
    assert getattr(layer, own) is mine
    masks.hide()
    assert getattr(layer, own) is mine
    assert torch.equal(mine.detach(), torch.arange(3.0))
    other = {"weight_mask": "weight_threshold", "weight_threshold": "weight_mask"}[own]
    assert not hasattr(layer, other)


def test_write_counts_what_changed() -> None:
    layer = nn.Linear(4, 4)
    weight = masks_of(layer)["weight"]
    mask = torch.ones(4, 4, dtype=torch.bool)
    assert weight.write(mask, 0.0) == 0
    mask = mask.clone()
    mask[0] = False
    assert weight.write(mask, 0.1) == 4
    assert (weight.pruned, int((layer.weight == 0).sum())) == (4, 4)
    assert weight.write(mask, 0.1) == 0


def test_G5_reversible_weights_come_back_with_their_last_dense_values() -> None:
    layer = nn.Linear(4, 4)
    dense = layer.weight.detach().clone()
    weight = masks_of(layer, reversible=True)["weight"]
    top = torch.arange(16).view(4, 4) < 8
    assert weight.write(top, 0.1) == 8
    with torch.no_grad():
        layer.weight[0] += 1.0
    assert weight.write(~top, 0.1) == 16
    assert torch.equal(layer.weight[2:], dense[2:])
    assert not layer.weight[:2].any()
    assert weight.write(torch.ones_like(top), 0.0) == 8
    expected = dense.clone()
    expected[0] += 1.0
    assert torch.equal(layer.weight, expected)


def test_gradients_dense_absent_and_sparse() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    masks = Masks(Targets(include=("weight",)).find(embedding).targets, False)
    weight = masks["weight"]
    mask = random_mask((5, 3))
    weight.write(mask, 0.0)
    zero_gradients([weight])
    embedding(torch.tensor([0, 1])).sum().backward()
    zero_gradients([weight])
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.is_sparse
    embedding.weight.grad = torch.full((5, 3), float("nan"))
    zero_gradients([weight])
    assert torch.equal(embedding.weight.grad.isnan(), mask)


def test_G6_copies_in_nested_states_are_masked_and_nothing_else_is() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    masks = masks_of(model)
    mask = random_mask((3, 3))
    masks["0.weight"].write(mask, 0.0)
    saved: dict[Any, Any] = {
        "state_dict": {"0.weight": torch.ones(3, 3), "1.weight": torch.ones(3, 3), "0.bias": torch.ones(3)},
        "averages": {"inner": {"0.weight": torch.ones(3, 3, dtype=torch.float64)}},
        "0.weight": torch.ones(2, 2),
        "counts": {"0.weight": torch.ones(3, 3, dtype=torch.int64)},
        "epoch": 3,
        7: {"0.weight": "text"},
    }
    others = copy.deepcopy(saved)
    masks.apply_to(saved)
    assert torch.equal(saved["state_dict"].pop("0.weight") != 0, mask)
    assert torch.equal(saved["averages"]["inner"].pop("0.weight") != 0, mask)
    del others["state_dict"]["0.weight"], others["averages"]["inner"]["0.weight"]
    assert same(saved, others)


def test_G1_the_digest_tells_masks_and_thresholds_apart() -> None:
    def digest(mask: Tensor, threshold: float) -> bytes:
        masks = masks_of(nn.Linear(3, 3))
        masks["weight"].write(mask, threshold)
        return masks.digest()

    mask = random_mask((3, 3))
    flipped = mask.clone()
    flipped[2, 2] = ~flipped[2, 2]
    assert digest(mask, 0.5) == digest(mask.clone(), 0.5)
    assert len({digest(mask, 0.5), digest(flipped, 0.5), digest(mask, 0.5 + 1e-12)}) == 3
    assert len(digest(mask, 0.5)) == 8


def test_the_weights_of_one_optimizer() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    masks = masks_of(model)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
    assert masks.of(optimizer) == [masks["1.weight"]]
    assert masks.of(None) == [masks["0.weight"], masks["1.weight"]]


def test_G8_what_an_optimizer_keeps_in_other_shapes_is_left() -> None:
    layer = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    state = optimizer.state[layer.weight]
    state["labels"] = torch.ones(3, 3, dtype=torch.int64)
    state["row"], state["nothing"] = torch.ones(3), None
    mask = random_mask((3, 3))
    weight = MaskedWeight(Targets().find(layer).targets[0], False)
    weight.write(mask, 0.0)
    weight.apply_to_moments([optimizer, torch.optim.SGD([torch.ones(1, requires_grad=True)])])
    assert torch.equal(state["exp_avg"] != 0, mask)
    assert float(state["step"]) == 1.0
    assert state["labels"].all()
    assert state["row"].all()
