"""Counting in chunks: whatever the cut, the masks are those of a plain sort, also of several contests at once."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.ranking import Contest, NotFiniteError, chunks, digits, float_keys, keep_largest_of_each
from lightning_prune.ranking.counting import decide
from tests.helpers import FLOATS, keep_by_sorting


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_LEAST", 7)
    monkeypatch.setattr(chunks, "MOST", 7)


def values_of(draw: st.DataObject, dtype: torch.dtype) -> list[Tensor]:
    shapes = draw.draw(
        st.lists(st.sampled_from([(1,), (5,), (3, 4), (2, 3, 3), (0,), (1, 17)]), min_size=1, max_size=5)
    )
    few = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0])
    tensors: list[Tensor] = []
    for shape in shapes:
        size = torch.Size(shape).numel()
        tensor = torch.tensor(draw.draw(st.lists(few, min_size=size, max_size=size)), dtype=dtype).view(shape)
        if len(shape) > 1 and draw.draw(st.booleans()):  # as channels_last, or the turned weight of a transposed layer
            tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
        tensors.append(tensor)
    return tensors


def contenders_of(draw: st.DataObject, values: list[Tensor]) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for value in values:
        flags = draw.draw(st.lists(st.booleans(), min_size=value.numel(), max_size=value.numel()))
        found.append(draw.draw(st.sampled_from([None, torch.tensor(flags, dtype=torch.bool).view(value.shape)])))
    return found


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_G3_several_contests_at_once_in_chunks(dtype: torch.dtype, data: st.DataObject) -> None:
    contests: list[Contest] = []
    wanted: list[list[Tensor]] = []
    absolute = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 3))):
        values = values_of(data, dtype)
        who = contenders_of(data, values)
        living = sum(v.numel() if c is None else int(c.sum()) for v, c in zip(values, who, strict=True))
        if not living:
            continue
        drop = data.draw(st.integers(1, living))
        contests.append(Contest(values, who, drop, living, absolute))
        ranked = [v.abs() for v in values] if absolute else values
        wanted.append(keep_by_sorting(ranked, who, sum(v.numel() for v in values) - living + drop))
    if not contests:
        return
    for outcome, expected, contest in zip(decide(contests, counted=True), wanted, contests, strict=True):
        assert all(map(torch.equal, outcome.masks, expected))
        limit = float_keys.value_of(outcome.boundary, dtype)
        ranked = [v.abs() if absolute else v for v in contest.values]
        above = [m & (r > limit) for m, r in zip(expected, ranked, strict=True)]
        assert outcome.kept == [int(a.sum()) for a in above]
        assert any(bool((r[~m] == limit).any()) for m, r in zip(expected, ranked, strict=True))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("runs", [1, 3, 40])
def test_digits_become_narrow_where_many_runs_are_counted(runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_DIGIT", 8)
    monkeypatch.setattr(digits, "_LEAST_DIGIT", 2)
    generator = torch.Generator().manual_seed(runs)
    values = [torch.randn(29, generator=generator) for _ in range(runs)]
    contests = [Contest([v], [None], 1 + i % 29, 29, False) for i, v in enumerate(values)]
    for i, (outcome, v) in enumerate(zip(decide(contests), values, strict=True)):
        assert float_keys.value_of(outcome.boundary, v.dtype) == float(v.sort().values[i % 29])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -float("nan")])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("on_host", [False, True])
def test_G24_not_finite_is_named_by_contest_and_tensor(
    bad: float, absolute: bool, on_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not on_host:
        monkeypatch.setattr(sys.modules[keep_largest_of_each.__module__], "_NUMPY", False)
    fine, ill = [torch.ones(9), torch.ones(3)], [torch.ones(2), torch.ones(9), torch.ones(9)]
    ill[1][8] = bad
    contests = [Contest(v, [None] * len(v), 2, sum(t.numel() for t in v), absolute) for v in (fine, ill)]
    with pytest.raises(NotFiniteError) as caught:
        keep_largest_of_each(contests)
    assert (caught.value.contest, caught.value.index) == (1, 1)
    # A value that does not contend is looked at, too.
    with pytest.raises(NotFiniteError):
        decide([Contest([ill[1]], [ill[1] == 1.0], 2, 8, absolute)])


@pytest.mark.parametrize("numpy", [False, True])
def test_G3_contests_of_several_dtypes_and_kinds(numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[keep_largest_of_each.__module__], "_NUMPY", numpy)
    kinds = [(dtype, absolute) for dtype in FLOATS for absolute in (False, True)]
    values = [torch.randn(40, generator=torch.Generator().manual_seed(i)).to(d) for i, (d, _) in enumerate(kinds)]
    contests = [Contest([v], [None], 11, 40, absolute) for v, (_, absolute) in zip(values, kinds, strict=True)]
    for v, (_, absolute), ((mask,), boundary) in zip(values, kinds, keep_largest_of_each(contests), strict=True):
        ranked = v.abs() if absolute else v
        assert torch.equal(mask, keep_by_sorting([ranked], [None], 11)[0])
        assert boundary == float(ranked[~mask].max())
