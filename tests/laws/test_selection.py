"""Laws of every selection under conf/pruner/selection; what single ones compute is in tests/laws/selection."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import ideas
from tests.laws.selection.scores import DTYPES, dead_of, draw_scores, pool_of

SELECTIONS = pytest.mark.parametrize("selection", ideas("selection"))


@SELECTIONS
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77, 1.0])
def test_masks_of_the_right_kind_and_inputs_unchanged(selection: Any, sparsity: float) -> None:
    scores = [draw_scores("normal", shape, torch.float32, 1).abs() for shape in ((7, 3), (2, 3, 3, 3), (1,), ())]
    lives: list[Tensor | None] = [None, draw_scores("normal", (2, 3, 3, 3), torch.float32, 2) > 0, None, None]
    copies = [score.clone() for score in scores]
    total = sum(score.numel() for score in scores)
    keeps, threshold = selection(pool_of(scores, lives), max(round(sparsity * total), dead_of(lives)), sparsity)
    for keep, score, alive, copy in zip(keeps, scores, lives, copies, strict=True):
        assert keep.dtype == torch.bool
        assert keep.shape == score.shape
        assert torch.equal(score, copy)
        assert alive is None or not (keep & ~alive).any()
    assert np.isfinite(threshold)
    again, same_threshold = selection(pool_of(scores, lives), max(round(sparsity * total), dead_of(lives)), sparsity)
    assert all(torch.equal(a, b) for a, b in zip(keeps, again, strict=True))
    assert threshold == same_threshold


@SELECTIONS
def test_a_lower_score_never_outlives_a_higher_one(selection: Any) -> None:
    scores = [draw_scores("normal", (9, 7), torch.float32, seed).abs() for seed in range(3)]
    keeps, _ = selection(pool_of(scores, [None] * 3), 100, 100 / 189)
    flat, keep = torch.cat([s.flatten() for s in scores]), torch.cat([k.flatten() for k in keeps])
    assert 0 < int(keep.sum()) < flat.numel()
    assert float(flat[~keep].max()) <= float(flat[keep].min())


@SELECTIONS
@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("absolute", [False, True])
def test_G24_a_score_that_is_not_finite_is_named(
    selection: Any, dtype: torch.dtype, bad: float, absolute: bool
) -> None:
    scores = [torch.ones(5, 5, dtype=dtype), torch.ones(6, dtype=dtype), torch.ones(4, dtype=dtype)]
    scores[1][3] = bad
    with pytest.raises(ValueError, match="'w1' is not finite"):
        selection(pool_of(scores, [None] * 3, absolute), 7, 0.2)
