"""Masks written together are those written one by one."""

import pytest
import torch
from torch import nn

from lightning_prune.masks import Masks, write_all
from lightning_prune.masks.zeros import zero_, zero_counting
from lightning_prune.ranking.threads import CHUNK
from lightning_prune.targets import Targets


@pytest.mark.parametrize("reversible", [False, True])
def test_what_changed_and_what_is_pruned_is_counted_for_each(reversible: bool) -> None:
    models = [nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    together, alone = (Masks(Targets().find(model).targets, reversible, model) for model in models)
    for seed in range(3):
        drawn = [torch.rand(w.mask.shape, generator=torch.Generator().manual_seed(seed)) > 0.4 for w in alone.values()]
        new = [m if reversible else m & w.mask for m, w in zip(drawn, alone.values(), strict=True)]
        found = write_all([(w, m.clone(), 0.5) for w, m in zip(together.values(), new, strict=True)])
        assert found == sum(w.write(m, 0.5) for w, m in zip(alone.values(), new, strict=True))
        for one, other in zip(together.values(), alone.values(), strict=True):
            assert torch.equal(one.mask, other.mask)
            assert torch.equal(one.parameter, other.parameter)
            assert one.pruned == other.pruned == int((~one.mask).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_is_counted_while_it_is_zeroed_is_what_stays(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shapes = [(3, 5), (CHUNK + 9,), (7, CHUNK // 2), (4, 6), (2, 2)]
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    tensors[3] = tensors[3].t()
    masks = [torch.rand(tensor.shape) > 0.5 for tensor in tensors]
    masks[4].fill_(True)
    for tensor in tensors:
        tensor[0] = float("nan")
    plain = [torch.where(mask, tensor, 0.0) for mask, tensor in zip(masks, tensors, strict=True)]
    versions = [tensor._version for tensor in tensors]
    assert zero_counting(tensors, masks) == [int(mask.sum()) for mask in masks]
    for tensor, right in zip(tensors, plain, strict=True):
        assert torch.equal(tensor.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))
    written = [tensor._version > version for tensor, version in zip(tensors, versions, strict=True)]
    assert written == [True, True, True, True, False], "torch counts each write, and nothing goes of the last"


@pytest.mark.parametrize("strides", ["channels_last", "transposed"])
def test_large_weights_of_other_strides_are_zeroed_some_rows_at_a_time(
    strides: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(64, 64, 16, 16) if strides == "channels_last" else torch.randn(1024, 1024).t()
    weight = weight.to(memory_format=torch.channels_last) if strides == "channels_last" else weight
    assert not weight.is_contiguous()
    mask = torch.rand_like(weight) > 0.5
    expected, most = torch.where(mask, weight, 0.0), [0]
    multiply = torch.Tensor.mul_

    def counted(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        most[0] = max(most[0], self.numel())
        return multiply(self, other)

    monkeypatch.setattr(torch.Tensor, "mul_", counted)
    zero_(weight, mask)
    assert torch.equal(weight, expected)
    assert 0 < most[0] <= weight.numel() // 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("few", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("size", [1, 7, 5000, CHUNK + 9])
def test_entries_known_to_be_zero_are_not_set_again(dtype: torch.dtype, few: float, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    before = torch.rand(size, generator=generator) > 0.4
    after = before & (torch.rand(size, generator=generator) >= few)
    after[::997] = True  # some come back
    tensor = torch.randn(size, generator=generator).to(dtype)
    tensor[::13] = float("nan")
    tensor[~before] = 0.0
    plain, written = torch.where(after, tensor, 0.0), tensor._version
    assert zero_counting([tensor], [after], [before]) == [int(after.sum())]
    assert torch.equal(tensor.view(torch.uint8), plain.view(torch.uint8))
    assert (tensor._version > written) is bool((~after).any())


@pytest.mark.parametrize("write", ["counted", "other memory", "none"])
def test_a_pruned_entry_that_somebody_writes_is_zero_behind_an_update_that_changes_little(write: str) -> None:
    model = nn.Linear(300, 200)
    (weight,) = Masks(Targets().find(model).targets, False, model).values()
    first = torch.rand(weight.mask.shape) > 0.5
    write_all([(weight, first, 0.5)])
    second = first.clone()
    second.view(-1)[int(first.view(-1).nonzero()[0])] = False
    with torch.no_grad():
        if write == "counted":
            weight.parameter.add_(1.0)
        elif write == "other memory":
            weight.parameter.data = torch.ones_like(weight.parameter)
    write_all([(weight, second, 0.5)])
    assert bool((weight.parameter[~second] == 0).all())
    assert bool((weight.parameter[second] != 0).all())
    assert weight.pruned == int((~second).sum())
    assert not weight.written_to
