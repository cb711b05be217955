"""The number of a mask: that of its formula, another one for every entry that moves, read in one wait."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.masks import Masks, checksums
from lightning_prune.masks.checksum import BASE
from lightning_prune.targets import Targets
from tests.device.simulated import simulated


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4


def by_formula(mask: Tensor) -> int:
    """Sum in Python's integers, which know no overflow."""
    positions = mask.reshape(-1).nonzero().flatten().tolist()
    total = sum(pow(BASE, 1 + p // 8, 2**64) * 2 ** (p % 8) for p in positions) % 2**64
    return total - 2**64 if total >= 2**63 else total


CASES = {
    "empty": drawn(0, 3),
    "scalar": drawn(),
    "one word": drawn(8),
    "a tail": drawn(3, 5),
    "convolution": drawn(4, 3, 3, 3),
    "transposed": drawn(12, 7).t(),
    "channels last": drawn(4, 3, 6, 6).to(memory_format=torch.channels_last),
    "begins inside a word": drawn(50)[3:],
    "of a stack": drawn(3, 5, 5)[1],
    "all": torch.ones(9, 9, dtype=torch.bool),
    "none": torch.zeros(9, 9, dtype=torch.bool),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_sum_of_its_formula(case: str) -> None:
    mask = CASES[case]
    assert checksums([mask]) == [by_formula(mask)]
    assert checksums([mask.contiguous().clone(), mask]) == [by_formula(mask)] * 2


def test_chunks_and_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = drawn(40, 37)
    whole = by_formula(mask)
    upper, lower = mask.clone(), mask.clone()
    upper[:13], lower[13:] = False, False
    (one, other) = checksums([upper, lower])
    assert (one + other - whole) % 2**64 == 0
    monkeypatch.setattr("lightning_prune.masks.checksum._WORDS", 7)
    assert checksums([mask, mask[:, 1:]]) == [whole, by_formula(mask[:, 1:])]


def test_G1_every_entry_that_comes_goes_or_moves_is_seen() -> None:
    size = 300
    mask = drawn(size)
    flips = [mask.clone() for _ in range(size)]
    for place, flipped in enumerate(flips):
        flipped[place] = ~flipped[place]
    assert len(set(checksums([mask, *flips]))) == size + 1
    moved: list[Tensor] = [mask]
    for place in mask.nonzero().flatten().tolist()[:20]:
        for to in (~mask).nonzero().flatten().tolist():
            moved.append(mask.clone())
            moved[-1][place], moved[-1][to] = False, True
    assert len(set(checksums(moved))) == len(moved)


def test_G1_rows_columns_and_blocks_that_change_places_are_seen() -> None:
    """What units do, in sizes that are powers of two: such sums share many factors of two."""
    found: list[Tensor] = []
    for at in range(32):
        for to in range(at):
            rows, columns, both = (torch.ones(32, 64, dtype=torch.bool) for _ in range(3))
            rows[at] = rows[to] = False
            columns[:, 2 * at] = columns[:, 2 * to] = False
            both[at, : 2 * at + 2], both[to, : 2 * to + 2] = False, False
            found += [rows, columns, both]
    kinds = {tuple(mask.reshape(-1).tolist()) for mask in found}
    assert len(set(checksums(found))) == len(kinds)


def test_a_device_is_waited_for_once_and_gives_the_same_number() -> None:
    net = nn.Sequential(nn.Linear(40, 30), nn.Conv2d(3, 5, 3), nn.Linear(3, 3))
    targets = Targets(exclude=("bias",)).find(net).targets
    masks = Masks(targets, False)
    for number, weight in enumerate(masks.values()):
        weight.write(drawn(*weight.mask.shape, seed=number), 0.5)
    expected = masks.digest()
    with simulated() as device:
        net.to(device.device)
        masks = Masks(Targets(exclude=("bias",)).find(net).targets, False)
        for number, weight in enumerate(masks.values()):
            weight.write(drawn(*weight.mask.shape, seed=number).to(device.device), 0.5)
        with device.counted() as counts:
            assert masks.digest() == expected
        assert counts.synchronizations == 1, counts.where
        assert counts.launches <= 3 + 12 * len(masks)
