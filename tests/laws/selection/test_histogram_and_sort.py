"""The approximate selections against the rules of the reference, written out in numpy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_prune.selection import Exact, Histogram, Sort, Units
from tests.laws.selection.scores import KINDS, draw_scores, pool_of


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


@pytest.mark.parametrize("selection", [Histogram(), Histogram(16, 0.5), Sort(), Sort(0.5), Exact()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("absolute", [False, True])
def test_scores_are_read_and_not_written_to(selection: Any, dtype: torch.dtype, absolute: bool) -> None:
    scores = [torch.rand(4, 6).to(dtype), torch.rand(9).to(dtype)]
    before = [score.clone() for score in scores]
    selection([Units(f"w{i}", score, absolute) for i, score in enumerate(scores)], 10, 0.3)
    assert all(torch.equal(score, old) for score, old in zip(scores, before, strict=True))


@pytest.mark.parametrize("selection", [Histogram(nbins=7, threshold_decay=0.5), Sort(threshold_decay=0.5), Exact()])
def test_several_pools_at_once_are_each_by_itself(selection: Any) -> None:
    """Of other sizes, dtypes and ways to score; one of zeros, one that keeps nothing, one with units that are dead."""
    draw = torch.Generator().manual_seed(0)
    pools = [
        [Units("a", torch.randn(30, generator=draw), absolute=True, threshold=0.2)],
        [Units("b", torch.rand(4, 5, generator=draw)), Units("c", torch.rand(7, generator=draw).double())],
        [Units("d", torch.zeros(6))],
        [Units("e", torch.rand(9, generator=draw), alive=torch.arange(9) % 2 == 0)],
        [Units("f", torch.randn(8, generator=draw).bfloat16(), absolute=True)],
    ]
    drops, shares = [10, 20, 3, 6, 8], [0.3, 0.7, 0.5, 0.6, 1.0]
    together = selection.of_each(pools, drops, shares)
    for pool, drop, share, (keeps, threshold) in zip(pools, drops, shares, together, strict=True):
        alone, same = selection(pool, drop, share)
        assert threshold == same
        assert all(torch.equal(one, other) for one, other in zip(keeps, alone, strict=True))


def test_an_error_of_several_pools_names_the_weight() -> None:
    good, bad = Units("good", torch.rand(5)), Units("bad", torch.tensor([1.0, float("nan")]))
    for selection in (Histogram(), Sort()):
        with pytest.raises(ValueError, match="'bad'"):
            selection.of_each([[good], [bad]], [1, 1], [0.5, 0.5])
    with pytest.raises(ValueError, match="'low'"):
        Histogram().of_each([[good], [Units("low", torch.tensor([-1.0, 2.0]))]], [1, 1], [0.5, 0.5])
