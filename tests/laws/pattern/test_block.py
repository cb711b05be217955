"""Blocks against a loop by hand, those that are cut off at the end included."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_prune.pattern import Block
from tests.helpers import pruned_once


def blocks_by_hand(scores: np.ndarray, height: int, width: int, pool: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one score per block and how many weights it holds, by a plain loop."""
    long = [n for n in scores.shape if n != 1] or [1]
    matrix = scores.reshape(long[0], -1)
    rows, columns = matrix.shape
    height, width = rows if height == -1 else height, columns if width == -1 else width
    found = [[matrix[i : i + height, j : j + width] for j in range(0, columns, width)] for i in range(0, rows, height)]
    reduce = np.mean if pool == "avg" else np.max
    return np.array([[reduce(b) for b in row] for row in found]), np.array([[b.size for b in row] for row in found])


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.sampled_from([(5, 2, 3, 3), (1, 6, 1, 1), (4, 1, 1, 5), (7,)]),
    ),
    height=st.sampled_from([-1, 1, 2, 3, 4, 20]),
    width=st.sampled_from([-1, 1, 2, 3, 4, 20]),
    pool=st.sampled_from(["avg", "max"]),
    seed=st.integers(0, 99),
)
def test_block_against_a_loop_by_hand(shape: tuple[int, ...], height: int, width: int, pool: Any, seed: int) -> None:
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    block = Block(height, width, pool)
    expected, sizes = blocks_by_hand(scores.numpy(), height, width, pool)
    np.testing.assert_allclose(block.units(scores).numpy(), expected, rtol=1e-12)
    found = torch.as_tensor(block.weights_per_unit(scores.shape)).expand(expected.shape)
    np.testing.assert_array_equal(found.numpy(), sizes)


def test_block_means_of_half_precision_are_taken_in_single() -> None:
    assert Block(-1, -1).units(torch.full((64, 64), 60_000.0, dtype=torch.float16)).item() == 60_000.0
    assert Block(2, 2).units(torch.ones(4, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_G3_blocks_that_are_cut_off_count_as_what_they_hold() -> None:
    model = nn.Linear(5, 5, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[:, 4] = 0.5
        model.weight[4, :] = 0.5
    pruner = pruned_once(model, 9 / 25, pattern=Block(2, 2))
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[:4, :4] = True
    assert torch.equal(pruner.masks["weight"].mask, expected)


@pytest.mark.parametrize("size", [0, -2, 1.5, True])
def test_G13_a_block_size_that_is_none(size: Any) -> None:
    with pytest.raises(ValueError, match="height="):
        Block(size, 1)
    with pytest.raises(ValueError, match="width="):
        Block(1, size)


def test_G13_an_unknown_pooling() -> None:
    pool: Any = "sum"
    with pytest.raises(ValueError, match="pool='sum' must be"):
        Block(1, 1, pool)
