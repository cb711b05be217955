"""Scores that are hard to rank, and pools of them."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.selection import Units
from tests.helpers import FLOATS

DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)
SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple), min_size=1, max_size=4)
KINDS = ["normal", "ties", "zeros", "constant", "signed zeros", "denormal", "mixed magnitudes"]


def draw_scores(kind: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Return signed values of a kind that is hard to rank."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(dtype).smallest_normal
    return {
        "normal": normal,
        "ties": normal.round(),
        "zeros": torch.zeros_like(normal),
        "constant": torch.full_like(normal, -0.5),
        "signed zeros": normal.round().clamp(-0.0, 1.0) * normal.sign(),
        "denormal": normal.round() * tiny / 4,
        "mixed magnitudes": normal.sign() * 2.0 ** (normal * 4).round(),
    }[kind].to(dtype)


def pool_of(scores: Sequence[Tensor], alive: Sequence[Tensor | None], absolute: bool = False) -> list[Units]:
    pairs = enumerate(zip(scores, alive, strict=True))
    return [Units(f"w{i}", score, absolute=absolute, alive=lives) for i, (score, lives) in pairs]


def dead_of(alive: Sequence[Tensor | None]) -> int:
    return sum(0 if lives is None else int((~lives).sum()) for lives in alive)
