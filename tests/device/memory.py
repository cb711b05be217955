"""How many bytes lie on the device: each storage once, for as long as a tensor holds it."""

from __future__ import annotations

import weakref
from collections import Counter

from torch import Tensor


class Memory:
    """Bytes on the device now, and the most there were at one time."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self._holders: Counter[int] = Counter()

    def add(self, held: Tensor) -> None:
        """Count what a tensor holds until it is gone."""
        storage = held.untyped_storage()
        key, size = int(storage._cdata), storage.nbytes()
        if not self._holders[key]:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._holders[key] += 1
        weakref.finalize(held, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.now -= size
