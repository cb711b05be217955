"""Masks as small pictures."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from torch import Tensor

from lightning_prune.page.mask import Mask, edges, mask, read


def opacity(found: Mask) -> list[list[int]]:
    from PIL import Image

    data = base64.b64decode(found.png().removeprefix("data:image/png;base64,"))
    picture = Image.open(io.BytesIO(data)).convert("RGBA").getchannel("A")
    width, height = picture.size
    values = list(picture.tobytes())
    return [values[row * width : (row + 1) * width] for row in range(height)]


def test_a_small_weight_is_there_entry_by_entry() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    found = mask(weight)
    assert (found.shape, found.left, found.levels) == ((2, 3), (1, 2), ("f0f", "000"))
    assert opacity(found) == [[255, 0, 255], [0, 0, 0]]


def test_of_a_large_weight_each_patch_has_its_share() -> None:
    weight = torch.zeros(640, 960)
    weight[:10, :10] = 1  # one patch whole
    weight[10:20, 10:15] = 1  # one to a half
    found = mask(weight)
    assert found.patches == (64, 96)
    assert (found.levels[0][:2], found.levels[1][:2]) == ("f0", "08")
    assert found.left == (20, 15)


@pytest.mark.parametrize("shape", [(7,), (65, 97), (3, 2, 5, 5), (1, 1), (200, 1)])
def test_the_shares_add_up(shape: tuple[int, ...]) -> None:
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    weight[weight < 0.6] = 0
    found = mask(weight)
    rows, columns = (edges(size, most) for size, most in zip(found.shape, (64, 96), strict=True))
    flat = weight.reshape(found.shape)
    for i, line in enumerate(found.levels):
        for j, digit in enumerate(line):
            patch = flat[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            assert abs(int(digit, 16) / 15 - float((patch != 0).double().mean())) <= 1 / 15
    assert found.left == (int((flat != 0).any(1).sum()), int((flat != 0).any(0).sum()))


def test_it_comes_back_from_plain_values() -> None:
    found = mask(torch.eye(5))
    assert read("here", found.to_dict()) == found


@pytest.mark.parametrize(
    "change",
    [{"levels": []}, {"levels": ["g"]}, {"levels": ["0", "00"]}, {"levels": [3]}, {"shape": [1]}, {"left": "x"}],
)
def test_a_damaged_one_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="here"):
        read("here", {"shape": [1, 1], "left": [1, 1], "levels": ["f"]} | change)


def test_a_weight_is_left_as_it_is() -> None:
    weight = torch.randn(4, 4, requires_grad=True)
    before: Tensor = weight.detach().clone()
    mask(weight)
    assert torch.equal(weight, before)
