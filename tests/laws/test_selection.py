"""Laws of every selection under conf/pruner/selection, and the rules of those that are there, written out in numpy."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.selection import Exact, Histogram, Sort, Units
from tests.helpers import FLOATS, ideas, keep_by_sorting

SELECTIONS = pytest.mark.parametrize("selection", ideas("selection"))
DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)
SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple), min_size=1, max_size=4)
KINDS = ["normal", "ties", "zeros", "constant", "signed zeros", "denormal", "mixed magnitudes"]


def draw_scores(kind: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Return signed values of a kind that is hard to rank."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(dtype).smallest_normal
    return {
        "normal": normal,
        "ties": normal.round(),
        "zeros": torch.zeros_like(normal),
        "constant": torch.full_like(normal, -0.5),
        "signed zeros": normal.round().clamp(-0.0, 1.0) * normal.sign(),
        "denormal": normal.round() * tiny / 4,
        "mixed magnitudes": normal.sign() * 2.0 ** (normal * 4).round(),
    }[kind].to(dtype)


def pool_of(scores: Sequence[Tensor], alive: Sequence[Tensor | None], absolute: bool = False) -> list[Units]:
    pairs = enumerate(zip(scores, alive, strict=True))
    return [Units(f"w{i}", score, absolute=absolute, alive=lives) for i, (score, lives) in pairs]


def dead_of(alive: Sequence[Tensor | None]) -> int:
    return sum(0 if lives is None else int((~lives).sum()) for lives in alive)


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


def with_sequence(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.reshape(-1) for part in parts])


def histogram_by_hand(a: np.ndarray, nbins: int, decay: float, sparsity: float, old: float) -> tuple[np.ndarray, float]:
    """Return mask and threshold as section 1 of the reference puts it."""
    largest = a.max()
    bins = np.clip(np.floor(nbins * a / largest), 0, nbins - 1) if largest else np.zeros_like(a)
    cdf = np.cumsum([(bins == b).sum() for b in range(nbins)]) / a.size
    raw = (cdf < sparsity).sum() / nbins * largest
    threshold = (1 - decay) * raw + decay * old
    return a > threshold, threshold


def sort_by_hand(a: np.ndarray, decay: float, sparsity: float, old: float) -> tuple[np.ndarray, float]:
    """Return mask and threshold as section 1 of the reference puts it."""
    k = int(np.rint(a.size * (1 - sparsity)))
    raw = np.sort(a)[::-1][k - 1] if k else np.nextafter(a.max(), np.inf)
    threshold = (1 - decay) * raw + decay * old
    return a >= threshold, threshold


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("rule", ["histogram", "sort"])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3),
    kind=st.sampled_from(KINDS),
    nbins=st.sampled_from([2, 16, 255, 256]),
    seed=st.integers(0, 999),
)
@settings(max_examples=25)
def test_smoothed_thresholds_over_several_updates_as_in_the_reference(
    rule: str, decay: float, shapes: list[tuple[int, int]], kind: str, nbins: int, seed: int
) -> None:
    selection = Histogram(nbins, decay) if rule == "histogram" else Sort(decay)
    old = old_by_hand = 0.0
    for update, sparsity in enumerate([0.0, 0.3, 0.6, 0.75, 0.9, 0.9, 1.0]):
        scores = [draw_scores(kind, s, torch.float64, seed + 10 * update + i).abs() for i, s in enumerate(shapes)]
        a = with_sequence([score.numpy() for score in scores])
        pool = [Units(f"w{i}", score, threshold=old) for i, score in enumerate(scores)]
        keeps, old = selection(pool, 0, sparsity)
        expected, old_by_hand = (
            histogram_by_hand(a, nbins, decay, sparsity, old_by_hand)
            if rule == "histogram"
            else sort_by_hand(a, decay, sparsity, old_by_hand)
        )
        assert old == pytest.approx(old_by_hand, rel=1e-12)
        np.testing.assert_array_equal(with_sequence([keep.numpy() for keep in keeps]), expected)


def test_sort_keeps_ties_at_the_threshold() -> None:
    keeps, threshold = Sort()(pool_of([torch.tensor([1.0, 2.0, 2.0, 2.0, 3.0])], [None]), 3, 0.6)
    assert threshold == 2.0
    assert keeps[0].tolist() == [False, True, True, True, True]


def test_G13_histogram_refuses_scores_below_zero() -> None:
    with pytest.raises(ValueError, match=r"not negative; 'w1' has some. Use Exact\(\)"):
        Histogram()(pool_of([torch.ones(3), torch.tensor([1.0, -1.0])], [None, None]), 1, 0.2)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_G13_a_decay_out_of_range(decay: float) -> None:
    for make in (Sort, lambda threshold_decay: Histogram(threshold_decay=threshold_decay)):
        with pytest.raises(ValueError, match="threshold_decay="):
            make(threshold_decay=decay)


@pytest.mark.parametrize("nbins", [1, 0, -5, 2.5, True])
def test_G13_a_number_of_bins_that_is_none(nbins: Any) -> None:
    with pytest.raises(ValueError, match="nbins="):
        Histogram(nbins)
