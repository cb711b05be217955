"""Flags that differ are found word by word as one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.ranking.flags import where_only


@given(st.integers(0, 300), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_what_is_set_in_the_first_alone_is_found_in_order(
    size: int, share: float, differ: float, start: int, seed: int
) -> None:
    drawn = np.random.default_rng(seed)
    first = (drawn.random(size + start) < share)[start:]  # memory that begins anywhere
    second = first ^ (drawn.random(size) < differ)
    plain = np.flatnonzero(first & ~second)
    found = where_only(first, second)
    assert found is not None
    assert found.tolist() == plain.tolist()
    some = where_only(first, second, most=0.25)
    assert some is None or some.tolist() == plain.tolist()


@pytest.mark.parametrize("at", [0, 7, 8, 4095, 4096, 4103])
@pytest.mark.parametrize("way", ["gone", "come"])
def test_one_flag_that_differs_among_many(at: int, way: str) -> None:
    first, second = np.ones(4104, np.bool_), np.ones(4104, np.bool_)
    (second if way == "gone" else first)[at] = False
    for most in (1.0, 0.01):
        found = where_only(first, second, most)
        assert found is not None
        assert found.tolist() == ([at] if way == "gone" else [])


@pytest.mark.parametrize("where", ["at once", "at the end"])
def test_it_gives_up_where_many_words_differ(where: str) -> None:
    first, second = np.ones(1 << 14, np.bool_), np.ones(1 << 14, np.bool_)
    second[slice(0, 1 << 11) if where == "at once" else slice(-(1 << 11), None)] = False
    assert where_only(first, second, most=0.1) is None
    found = where_only(first, second, most=0.125)
    assert (found is None) is (where == "at once"), "the first words are taken for all"
    if found is not None:
        assert found.size == 1 << 11
