"""Values that stay in any case: the bracket and counting agree with setting them aside and ranking the rest."""

import pytest
import torch
from torch import Tensor

from lightning_prune.ranking import NotFiniteError, Spared, bracket, keep_largest, threads
from lightning_prune.ranking.keep_largest import _by_counting
from tests.helpers import FLOATS, keep_by_sorting

BIG = threads._PARALLEL_FROM
"""From here on the work is shared between threads."""


def by_sorting(values: list[Tensor], alive: list[Tensor | None], drop: int, spared: list[Spared]) -> list[Tensor]:
    """Return who stays by plain sorts: of the spared tensors by themselves, then of the rest."""
    best = [torch.zeros_like(v, dtype=torch.bool) for v in values]
    for run in spared:
        some = slice(run.first, run.end)
        size = sum(v.numel() for v in values[some])
        best[some] = keep_by_sorting(values[some], alive[some], size - run.least)
    rest = [~b if a is None else a & ~b for a, b in zip(alive, best, strict=True)]
    dead = sum(int((~r).sum()) for r in rest)
    return [k | b for k, b in zip(keep_by_sorting(values, rest, dead + drop), best, strict=True)]


def check(values: list[Tensor], alive: list[Tensor | None], drop: int, spared: list[Spared]) -> None:
    expected = by_sorting(values, alive, drop, spared)
    for keeps, _ in (
        keep_largest(values, alive, drop, False, spared=spared),
        _by_counting(values, alive, drop, False, spared),
    ):
        assert all(map(torch.equal, keeps, expected))


def normal(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("share", [0.3, 0.9, 0.995])
def test_G3_tensors_far_below_and_far_above(dtype: torch.dtype, share: float) -> None:
    values = [(normal(40_000, i) + away).to(dtype) for i, away in enumerate((0, -4, 4, -9))]
    spared = [Spared(0, 1, 40), Spared(1, 3, 7), Spared(3, 4, 400)]
    check(values, [None, None, normal(40_000, 9) > 0, normal(40_000, 8) > 2], round(share * 100_000), spared)


def test_G3_equal_values_over_chunks_tensors_and_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        values = [normal(BIG // 2).round(), normal(BIG // 2, 1).round() - 2, torch.full((BIG // 4,), -3.0)]
        check(values, [None, normal(BIG // 2, 2) > 0, None], BIG - 100_000, [Spared(0, 1, 7), Spared(1, 3, 70_000)])
    finally:
        torch.set_num_threads(before)


def test_G3_all_that_contend_there_stay() -> None:
    alive = normal(30_000, 1) > 2
    check([normal(30_000) - 9, normal(30_000, 2)], [alive, None], 20_000, [Spared(0, 1, int(alive.sum()))])
    check([torch.zeros(0), normal(50)], [None, None], 20, [Spared(0, 1, 0), Spared(1, 2, 30)])


@pytest.mark.parametrize("lower", [0, 1])
def test_an_end_that_is_too_high_for_a_tensor_is_noticed(lower: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [normal(500) - 20, normal(500, 1)]
    fifth = int(bracket.float_keys.keys(values[0], False).sort(descending=True).values[4])
    real, asked = bracket.lower_ends, list[int]()

    def ends(*arguments: object) -> list[int]:
        found = real(*arguments)  # type: ignore[arg-type]
        asked.append(found[0])
        return found if len(asked) > 1 else [fifth - lower, *found[1:]]  # those above it are to hold the five

    monkeypatch.setattr(bracket, "lower_ends", ends)
    check(values, [None, None], 700, [Spared(0, 1, 5)])
    assert len(asked) == 2 - lower


def test_a_bracket_of_all_that_misses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [normal(500) - 20, normal(500, 1)]
    real, asked = bracket._bracket, list[object]()

    def drawn(*arguments: object) -> tuple[int, int]:
        asked.append(arguments)
        low, high = real(*arguments)  # type: ignore[arg-type]
        return (low, high) if len(asked) > 2 else (high, high + 1)

    monkeypatch.setattr(bracket, "_bracket", drawn)
    check(values, [None, None], 700, [Spared(0, 1, 200)])
    assert len(asked) > 2


def test_G24_not_finite_is_named_by_its_tensor() -> None:
    values = [normal(50), normal(50, 1)]
    values[1][7] = torch.nan
    with pytest.raises(NotFiniteError) as caught:
        keep_largest(values, [None, None], 60, False, spared=[Spared(0, 1, 3)])
    assert caught.value.index == 1
