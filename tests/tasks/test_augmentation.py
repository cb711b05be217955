"""Shifts and reflections: what they do to an image, and that seed, epoch and sample alone decide."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.tasks.data.augmentation import ShiftAndMirror

SAMPLES = 40


def images(height: int = 5, width: int = 7) -> Tensor:
    """No two pixels of an image alike, none of them black."""
    pixels = torch.arange(1, 1 + 3 * height * width, dtype=torch.uint8).view(1, 3, height, width)
    return pixels.expand(SAMPLES, -1, -1, -1).clone()


def changed(seed: int, epoch: int, rows: Tensor | None = None) -> Tensor:
    change = ShiftAndMirror(SAMPLES, seed, padding=2)
    change.set_epoch(epoch)
    rows = torch.arange(SAMPLES) if rows is None else rows
    return change(images()[rows], rows)


@given(
    padding=st.integers(0, 6),
    height=st.integers(1, 5),
    width=st.integers(1, 7),
    seed=st.integers(0, 2**64),
    epoch=st.integers(0, 10**6),
)
def test_each_image_is_moved_with_black_coming_in_then_mirrored_or_not(
    padding: int, height: int, width: int, seed: int, epoch: int
) -> None:
    change = ShiftAndMirror(SAMPLES, seed, padding)
    change.set_epoch(epoch)
    before = images(height, width)
    after = change(before, torch.arange(SAMPLES))
    assert after.dtype == torch.uint8
    assert after.shape == before.shape
    for image, found, (top, left), mirrored in zip(before, after, change.shifts, change.mirrored, strict=True):
        expected = torch.zeros(3, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
        expected[:, padding : padding + height, padding : padding + width] = image
        expected = expected[:, top : top + height, left : left + width]
        assert torch.equal(found, expected.flip(2) if mirrored else expected)


def test_all_shifts_come_equally_often_and_half_the_images_are_mirrored() -> None:
    change = ShiftAndMirror(81_000, seed=3)
    counts = torch.bincount(change.shifts[:, 0] * 9 + change.shifts[:, 1], minlength=81)
    assert 800 < counts.min() < counts.max() < 1200
    assert change.mirrored.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_samples_draw_does_not_depend_on_the_batch_it_is_in() -> None:
    whole = changed(1, 2)
    for rows in torch.randperm(SAMPLES).split(7):
        assert torch.equal(changed(1, 2, rows), whole[rows])


def test_seeds_and_epochs_all_have_draws_of_their_own() -> None:
    draws = {changed(seed, epoch).numpy().tobytes() for seed in range(8) for epoch in range(8)}
    assert len(draws) == 64


def test_drawing_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    changed(0, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("padding", -1)])
def test_numbers_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ShiftAndMirror(SAMPLES, **{"seed": 0, name: value})
