"""Where two arrays of flags differ, found a word at a time: with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_WORD = 8
"""Flags that are compared at once, each a byte."""
_GLANCE = 1 << 9
"""Words that tell whether many differ."""


def where_only(first: Array, second: Array, most: float = 1.0) -> Array | None:
    """Return the positions, in order, where flags are set in `first` and not in `second`.

    Flags are compared a word of 8 at a time, and only in words that differ one by one: numpy's `nonzero` stops at every
    flag that it finds, which takes long where few of many are set.

    Args:
        first: flat, contiguous bool array.
        second: another of that size.
        most: give up, and return None, where a larger share of words than this differs, of the first few or of all.
    """
    whole = first.size - first.size % _WORD
    words, others = first[:whole].view(np.uint64), second[:whole].view(np.uint64)
    if most < 1.0 and np.count_nonzero(words[:_GLANCE] != others[:_GLANCE]) > most * min(_GLANCE, words.size):
        return None
    (differ,) = np.not_equal(words, others).nonzero()
    if differ.size > most * words.size:
        return None
    if differ.size * _WORD > words.size:  # taking words out would take longer than looking at all flags
        return np.greater(first, second).nonzero()[0]
    (ones,) = (words[differ] & ~others[differ]).view(np.bool_).nonzero()
    found = (differ[ones >> 3] << 3) + (ones & 7)
    (rest,) = np.greater(first[whole:], second[whole:]).nonzero()
    return np.concatenate((found, rest + whole)) if rest.size else found
