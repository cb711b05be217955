"""Exact is a plain sort: of every float type, with ties and dead, protected and unequal units."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.selection import Exact, Units
from tests.helpers import keep_by_sorting
from tests.laws.selection.scores import DTYPES, KINDS, SHAPES, dead_of, draw_scores, pool_of


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("absolute", [False, True])
@given(data=st.data())
@settings(max_examples=30)
def test_G3_exact_is_a_plain_sort(dtype: torch.dtype, kind: str, absolute: bool, data: st.DataObject) -> None:
    shapes = data.draw(SHAPES, "shapes")
    seed = data.draw(st.integers(0, 999), "seed")
    scores = [draw_scores(kind, shape, dtype, seed + i) for i, shape in enumerate(shapes)]
    lives: list[Tensor | None] = [
        draw_scores("normal", shape, torch.float32, seed + 50 + i) > -0.3 if masked else None
        for i, (shape, masked) in enumerate(
            zip(shapes, data.draw(st.tuples(*[st.booleans()] * len(shapes))), strict=True)
        )
    ]
    total = sum(prod(shape) for shape in shapes)
    sparsity = data.draw(st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1)), "sparsity")
    drop = max(round(sparsity * total), dead_of(lives))
    keeps, threshold = Exact()(pool_of(scores, lives, absolute), drop, sparsity)
    assert sum(int((~keep).sum()) for keep in keeps) == drop
    ranked = [score.abs() for score in scores] if absolute else scores
    expected = keep_by_sorting(ranked, lives, drop)
    for keep, wanted in zip(keeps, expected, strict=True):
        assert torch.equal(keep, wanted)
    gone = [
        score[~wanted if alive is None else alive & ~wanted]
        for score, wanted, alive in zip(ranked, expected, lives, strict=True)
    ]
    dropped = torch.cat([part.flatten() for part in gone])
    assert threshold == (float(dropped.max()) if dropped.numel() else 0.0)


@DTYPES
def test_G3_exact_of_a_single_weight(dtype: torch.dtype) -> None:
    for drop in (0, 1):
        keeps, _ = Exact()(pool_of([torch.tensor([[-3.0]], dtype=dtype)], [None]), drop, float(drop))
        assert int(keeps[0].sum()) == 1 - drop


def test_G3_exact_minds_neither_strides_nor_memory_format() -> None:
    image = draw_scores("ties", (4, 3, 5, 5), torch.float32, 0)
    tall = draw_scores("ties", (6, 9), torch.float32, 1)
    alive = draw_scores("normal", (4, 3, 5, 5), torch.float32, 2) > -1
    plain = pool_of([image, tall.t().contiguous()], [alive, None])
    strided = pool_of(
        [image.to(memory_format=torch.channels_last), tall.t()], [alive.to(memory_format=torch.channels_last), None]
    )
    for drop in (dead_of([alive]), 100, 200, 354):
        for one, other in zip(Exact()(plain, drop, 0.5)[0], Exact()(strided, drop, 0.5)[0], strict=True):
            assert torch.equal(one, other)


def test_G3_exact_ranks_half_and_single_precision_together() -> None:
    scores = [torch.tensor([1.0, 3.0], dtype=torch.bfloat16), torch.tensor([2.0, 1.001]), torch.tensor([0.5]).half()]
    keeps, threshold = Exact()(pool_of(scores, [None] * 3), 3, 0.6)
    assert [keep.tolist() for keep in keeps] == [[False, True], [True, False], [False]]
    assert threshold == pytest.approx(1.001)


@given(seed=st.integers(0, 999), drop=st.integers(0, 60))
def test_G3_protected_units_go_last(seed: int, drop: int) -> None:
    scores, alive = (
        draw_scores("ties", (6, 10), torch.float32, seed),
        draw_scores("normal", (6, 10), torch.float32, 3) > -1,
    )
    protected = draw_scores("normal", (6, 10), torch.float32, seed + 1) > 0
    (keep,), _ = Exact()([Units("w", scores, alive=alive, protected=protected)], drop, drop / 60)
    free, safe, dead = alive & ~protected, alive & protected, int((~alive).sum())
    assert int((~keep).sum()) == max(drop, dead)
    assert torch.equal(
        keep & free, keep_by_sorting([scores], [free], min(60, int((~free).sum()) + max(0, drop - dead)))[0]
    )
    if drop < dead + int(free.sum()):
        assert torch.equal(keep & safe, safe)
    else:
        assert not (keep & free).any()
        assert torch.equal(keep, keep_by_sorting([scores], [safe], max(drop, 60 - int(safe.sum())))[0])


@given(
    sizes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=3),
    seed=st.integers(0, 999),
    share=st.floats(0, 1),
)
def test_G3_units_of_different_sizes_come_as_near_as_they_can(sizes: list[list[int]], seed: int, share: float) -> None:
    weights = [torch.tensor(part) for part in sizes]
    scores = [draw_scores("ties", (len(part),), torch.float32, seed + i) for i, part in enumerate(sizes)]
    total = sum(sum(part) for part in sizes)
    drop = round(share * total)
    pool = [Units(f"w{i}", s, weights=w) for i, (s, w) in enumerate(zip(scores, weights, strict=True))]
    keeps, _ = Exact()(pool, drop, share)
    candidates = [keep_by_sorting(scores, [None] * len(scores), n) for n in range(sum(map(len, sizes)) + 1)]
    missed = [abs(sum(int(w[~k].sum()) for w, k in zip(weights, keep, strict=True)) - drop) for keep in candidates]
    assert any(
        missed[i] == min(missed) and all(torch.equal(a, b) for a, b in zip(keep, keeps, strict=True))
        for i, keep in enumerate(candidates)
    )
