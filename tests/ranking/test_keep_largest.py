"""`keep_largest` at sizes and on data that are hard for its sample: both ways give what a plain sort gives."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from lightning_prune.ranking import bracket, float_keys, keep_largest, threads
from lightning_prune.ranking.keep_largest import _by_counting
from tests.helpers import FLOATS, keep_by_sorting

BIG = threads._PARALLEL_FROM + 12_345
"""From here on the work is shared between threads."""
PERIOD = 4
MEDIUM = PERIOD * bracket._SAMPLE


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def check_ranking(
    values: Sequence[Tensor], contenders: Sequence[Tensor | None], drop: int, absolute: bool = False
) -> None:
    """Compare both ways with a plain sort of the contenders."""
    ranked = [v.abs() for v in values] if absolute else list(values)
    dead = sum(0 if c is None else int((~c).sum()) for c in contenders)
    expected = keep_by_sorting(ranked, contenders, dead + drop)
    by_counting, _ = _by_counting(values, contenders, drop, absolute)
    found, boundary = keep_largest(values, contenders, drop, absolute)
    for mask, counted, wanted in zip(found, by_counting, expected, strict=True):
        assert torch.equal(mask, wanted)
        assert torch.equal(counted, wanted)
    gone = [
        r[~w if c is None else c & ~w].max()
        for r, w, c in zip(ranked, expected, contenders, strict=True)
        if not w.all()
    ]
    assert boundary == float(max(gone))


def normal(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def missed_by_the_sample(values: Tensor, drop: int) -> bool:
    return bracket.by_bracket([values], [None], drop, False, values.numel()) is None


@pytest.mark.parametrize("absolute", [False, True])
def test_G3_above_the_limit_for_threads(absolute: bool) -> None:
    values = [normal(BIG - 1000), normal(1000, 1).view(10, 100)]
    alive = [normal(BIG - 1000, 2) > -1, None]
    check_ranking(values, alive, BIG // 2, absolute)


def test_G3_ties_are_broken_over_chunks_tensors_and_threads() -> None:
    values = [normal(BIG // 2, 3).round(), normal(BIG // 2, 4).round()]
    check_ranking(values, [None, normal(BIG // 2, 5) > 0], 3 * BIG // 7)
    constant = torch.full((BIG,), 0.25)
    masks, boundary = keep_largest([constant], [None], BIG - 777, False)
    assert boundary == 0.25
    assert masks[0][:777].all()
    assert not masks[0][777:].any()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_G3_sorted_either_way(dtype: torch.dtype, share: float) -> None:
    rising = torch.linspace(-3, 3, 300_001, dtype=torch.float64).to(dtype)
    for values in (rising, rising.flip(0)):
        check_ranking([values], [None], round(share * values.numel()))


@pytest.mark.parametrize("share", [0.1, 0.6, 0.9])
def test_G3_a_sample_that_sees_only_one_phase_of_a_period_is_not_trusted(share: float) -> None:
    values = 10 + normal(MEDIUM).abs()
    values[::PERIOD] -= 10
    drop = round(share * MEDIUM)
    assert missed_by_the_sample(values, drop)
    check_ranking([values], [None], drop)


def test_G3_a_sample_without_any_contender() -> None:
    alive = torch.ones(MEDIUM, dtype=torch.bool)
    alive[::PERIOD] = False
    check_ranking([normal(MEDIUM)], [alive], MEDIUM // 3)


@pytest.mark.parametrize("drop", [1, 2, 6])
def test_G3_the_first_and_the_last_to_go(drop: int) -> None:
    check_ranking([torch.tensor([3.0, -1.0, 2.0]), torch.tensor([[-1.0], [5.0], [-0.0]])], [None, None], drop)
    check_ranking([normal(400_000)], [None], 400_000 - drop + 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -float("nan")])
@pytest.mark.parametrize("size", [10, BIG])
def test_G24_not_finite_wherever_it_is(bad: float, size: int) -> None:
    for place in (0, size // 2, size - 1):
        values = [torch.ones(3), torch.ones(size)]
        values[1][place] = bad
        with pytest.raises(float_keys.NotFiniteError) as caught:
            keep_largest(values, [None, None], 2, True)
        assert caught.value.index == 1
        with pytest.raises(float_keys.NotFiniteError):
            _by_counting(values, [None, None], 2, False)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_G3_whole_tensors_below_and_above_the_boundary(share: float) -> None:
    scales = (1e-30, 1e-3, 1.0, 1e30)
    values = [scale * (1 + normal(120_003, n).abs()) for n, scale in enumerate(scales)]
    some = normal(120_003, 9) > 0
    drop = round(share * (3 * 120_003 + int(some.sum())))
    check_ranking(values, [some, None, None, None], drop, absolute=True)
    check_ranking([-v for v in values], [None, None, None, some], drop)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("drop", [1, 199_999, 200_001, 399_998])
def test_G3_zeros_denormals_and_equal_values_at_the_boundary(dtype: torch.dtype, drop: int) -> None:
    least = torch.finfo(dtype).smallest_normal / 4
    values = torch.zeros(400_000, dtype=dtype)
    values[1::4] = -0.0
    values[200_000:] = torch.tensor(least, dtype=dtype)
    for some in (values, values.flip(0), torch.zeros_like(values), -torch.ones_like(values)):
        check_ranking([some], [None], drop, absolute=True)
        check_ranking([some], [torch.arange(400_000) % 3 > 0], drop // 2 + 1)
