"""Counts of many tensors, read together, are those of each."""

import pytest
import torch

from lightning_prune.ranking import counts, on_host
from lightning_prune.ranking.counts import read


def test_counts_are_those_of_each_and_tensors_are_let_go() -> None:
    flags = [torch.tensor([True, False, True]), torch.zeros(2, 2, dtype=torch.bool), torch.ones(5, dtype=torch.bool)]
    assert counts(iter(flags)) == [2, 0, 5]
    assert counts(()) == []


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.bool], ids=str)
def test_numbers_of_several_dtypes_keep_their_order(dtype: torch.dtype) -> None:
    assert read([torch.tensor(1, dtype=dtype), torch.tensor([-7]), torch.tensor(0, dtype=dtype)]) == [1, -7, 0]
    assert read([torch.tensor(True)]) == [1]
    assert read([]) == []


def test_small_tensors_keep_shape_and_dtype() -> None:
    tensors = [torch.arange(6).view(2, 3), torch.tensor(1.5, dtype=torch.float64)]
    found = on_host(tensors)
    assert all(map(torch.equal, found, tensors))
