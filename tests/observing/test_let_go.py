"""What a watch has seen is let go with the step's graph, of plain tensors and of packed sequences."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from lightning_prune.observing import Watch


class Reads(nn.Module):
    """A layer that is watched: it reads what a linear layer gives, packed or not."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.before = nn.Linear(3, 4)
        self.layer = nn.LSTM(4, 2, batch_first=True)
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        values: Any = self.before(x)
        if self.packed:
            values = pack_padded_sequence(values, [5, 2], batch_first=True)
        found = self.layer(values)[0]
        return found.data if isinstance(found, PackedSequence) else found


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", ["input", "saliency"])
def test_what_was_seen_is_let_go(kind: Any, packed: bool) -> None:
    """A hook that leads back to the tensor that it hangs on is a circle through autograd, which no collector finds."""
    seen: list[weakref.ref[Any]] = []

    def see(x: Any) -> None:
        values = x.data if isinstance(x, PackedSequence) else x
        assert values.shape[-1] == 4
        seen.append(weakref.ref(values))

    model = Reads(packed)
    watch = Watch(model.layer, kind, see)
    inputs = torch.randn(2, 5, 3)
    given: list[weakref.ref[Tensor]] = []
    model.before.register_forward_hook(lambda module, args, output: given.append(weakref.ref(output)) and None)
    for _ in range(3):
        model(inputs).square().sum().backward()
    watch.remove()
    gc.collect()
    assert len(seen) == 3
    assert [each() for each in (*seen, *given)] == [None] * 6
