"""Random scores follow from seed, step, name and position alone, and look random."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.criterion import Random
from lightning_prune.schedule import OneShot
from tests.device.simulated import simulated
from tests.helpers import criterion_at

SIZE = 1 << 18


def scores(seed: int = 0, name: str = "a", step: int = 1, size: int = SIZE) -> Tensor:
    return criterion_at(Random(seed), name, step)(torch.empty(size), None)


def correlation(one: Tensor, other: Tensor) -> float:
    """Return the correlation in standard deviations of that of independent numbers."""
    return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1]) * one.numel() ** 0.5


def test_G1_random_differs_by_seed_step_and_name_alone() -> None:
    weight = torch.zeros(50, 4)
    ask = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]
    found = [criterion_at(Random(seed), name, step)(weight, None) for seed, name, step in ask]
    for i, one in enumerate(found):
        assert 0 <= float(one.min()) <= float(one.max()) < 1
        assert abs(float(one.mean()) - 0.5) < 0.1
        for other in found[:i]:
            assert (one == other).sum() < 5
    assert torch.equal(found[0], criterion_at(Random(0), "a", 1)(weight + 7, torch.ones(50, 4)))


def test_G1_any_piece_of_a_weight_gets_the_scores_of_its_positions() -> None:
    criterion = criterion_at(Random(5), "w", 3)
    whole = criterion(torch.empty(70, 1000), None)
    positions = torch.arange(70_000).view(70, 1000)
    for piece in ((slice(3, 40), slice(7, 900, 3)), (slice(69, 70), slice(0, 0)), (slice(None), slice(999, 1000))):
        assert torch.equal(criterion.of(positions[piece]), whole[piece])  # pyright: ignore
    shuffled = torch.randperm(70_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(criterion.of(shuffled), whole.view(-1)[shuffled])
    assert torch.equal(positions, torch.arange(70_000).view(70, 1000)), "what is given is left as it is"
    assert criterion(torch.empty(()), None).shape == ()
    assert criterion(torch.empty(0, 3), None).shape == (0, 3)


def test_positions_past_2_to_the_32_have_scores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    criterion: Any = criterion_at(Random(), "w", 3)
    base = torch.arange(1 << 16)
    found = [criterion.of(base + (high << 32)) for high in (0, 1, 2, 3, 1 << 20)]
    for one, other in itertools.combinations(found, 2):
        assert int((one == other).sum()) < 5
        assert abs(correlation(one, other)) < 5
    assert torch.equal(found[0], criterion(base.float(), None))
    across = torch.arange((1 << 32) - 4, (1 << 32) + 4)
    assert torch.equal(criterion.of(across)[4:], found[1][:4])


def test_the_numbers_are_those_of_every_machine() -> None:
    """They decide the masks of runs that are resumed, and of the ranks of a run."""
    found = [int(score * 2**24) for score in criterion_at(Random(3), "net.0.weight", 40)(torch.empty(6), None)]
    assert found == [4006233, 4416959, 7804719, 15298184, 4440344, 4136472]


def test_G1_a_device_makes_the_same_numbers_itself() -> None:
    expected = scores(size=5000)
    with simulated() as device:
        with device.counted() as counts:
            found = criterion_at(Random(), "a", 1)(torch.empty(5000, device=device.device), None)
        assert found.device == device.device
        assert counts.synchronizations == 0, counts.where
        assert torch.equal(found.cpu(), expected)


def test_doubles_by_default_change_nothing() -> None:
    expected = scores(size=100)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(scores(size=100), expected)
        assert criterion_at(Random(), "a", 1).of(torch.arange(100)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("seed", [0, 1, -7])
def test_they_are_uniform_in_every_bit(seed: int) -> None:
    numbers = (scores(seed) * 2**24).long()
    for bins in (16, 256, 4096):
        expected = SIZE / bins
        counts = torch.bincount(numbers * bins >> 24, minlength=bins)
        chi = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi - bins) < 5 * (2 * bins) ** 0.5
    for bit in range(24):
        assert abs(float((numbers >> bit & 1).sum()) - SIZE / 2) < 5 * SIZE**0.5 / 2
    few = numbers[: 1 << 14]
    assert len(few) - len(few.unique()) < 30, "8 are expected of 24 bits"


def test_there_is_no_correlation_along_rows_columns_steps_names_or_seeds() -> None:
    one = scores()
    for lag in (1, 2, 3, 8, 9, 64, 100, 512, 768, 1024, 4096, 65_536):
        assert abs(correlation(one[:-lag], one[lag:])) < 5, lag
        assert abs(correlation((one[:-lag] - 0.5).abs(), (one[lag:] - 0.5).abs())) < 5, lag
    others = [scores(step=step) for step in (2, 3, 100)] + [scores(name="b"), scores(seed=1), scores(step=11)]
    for other in others:
        assert abs(correlation(one, other)) < 5
    for width in (9, 64, 1000):
        means = one[: SIZE // width * width].view(-1, width).double().mean(1)
        assert abs(float(means.var()) * 12 * width - 1) < 5 * (2 / len(means)) ** 0.5


def test_each_bit_of_a_position_and_of_the_step_changes_half_of_the_bits() -> None:
    criterion: Any = criterion_at(Random(), "a", 1)
    positions = torch.arange(1 << 14) * 7919
    before = (criterion.of(positions) * 2**24).long()
    for bit in range(40):
        after = (criterion.of(positions ^ (1 << bit)) * 2**24).long()
        changed = sum(float(((before ^ after) >> place & 1).double().mean()) for place in range(24)) / 24
        assert 0.45 < changed < 0.55, (bit, changed)


def test_a_transposed_convolution_and_a_stack_are_scored_with_their_outputs_first() -> None:
    """So the same units go of a layer and of one that holds its weight turned."""
    plain, turned = nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3)
    found: list[Tensor] = []
    for layer in (plain, turned):
        pruner = Pruner(OneShot(0.5, 1), Random(2))
        pruner.attach(nn.Sequential(layer))
        pruner.after_step(1)
        weight = pruner.masks["0.weight"]
        found.append(weight.canonical(weight.mask))
    assert torch.equal(*found)
    assert int(found[0].sum()) == 108
