"""Chunks hold every entry once, in order, whatever the tensors' memory; what is put back lands where it was taken."""

import pytest
import torch
from torch import Tensor

from lightning_prune.ranking import by_rows, chunks

TENSORS = [
    torch.arange(30.0).view(5, 6),
    torch.zeros(0, 3),
    torch.tensor(7.0),
    torch.arange(24.0).view(2, 3, 4).transpose(0, 2),
    torch.arange(40.0).view(1, 40),
    torch.arange(12.0).view(2, 6).T,
]


@pytest.mark.parametrize("size", [1, 4, 7, 16, 1000])
def test_every_entry_once_and_in_order(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_LEAST", size)
    monkeypatch.setattr(chunks, "MOST", size)
    cut = chunks.chunks_of(TENSORS)
    found = torch.cat([chunks.take(TENSORS, chunk) for chunk in cut])
    assert torch.equal(found, torch.cat([t.reshape(-1) for t in TENSORS]))
    lengths = [sum(piece.end - piece.start for piece in chunk) for chunk in cut]
    assert max(lengths) <= 1.5 * max(size, 6), "a row of a tensor that is not contiguous stays whole"
    assert len(cut) <= 1 + sum(map(Tensor.numel, TENSORS)) / (size / 2) + len(TENSORS)
    flags = [torch.zeros(t.shape, dtype=torch.bool) for t in TENSORS]
    for chunk in cut:
        chunks.put(chunks.take(TENSORS, chunk) % 3 == 0, flags, chunk)
    assert all(torch.equal(f, t % 3 == 0) for f, t in zip(flags, TENSORS, strict=True))


def test_rows_are_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_LEAST", 4)
    for tensor in TENSORS:
        other = torch.zeros_like(tensor)
        for part, out in by_rows(tensor, other):
            assert part.numel() <= max(4, tensor[:1].numel() if tensor.dim() else 1)
            out.add_(part)
        assert torch.equal(tensor, other)
