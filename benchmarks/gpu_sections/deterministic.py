"""Updates under `torch.use_deterministic_algorithms(True)`: do they run, and are the masks the same?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gpu_sections.masks import IDEAS, after_updates
from gpu_sections.tools import Table, Where, rows_of, yes

HEAD = ["ideas", "same masks", "same values"]


def run(where: Where) -> list[Table]:
    def row(ideas: dict[str, Any]) -> Sequence[str]:
        free = after_updates(where.device, where.small, ideas)
        torch.use_deterministic_algorithms(True)
        try:
            strict = after_updates(where.device, where.small, ideas)
        finally:
            torch.use_deterministic_algorithms(False)
        same = [
            all(torch.equal(b[name], value) for name, value in a.items()) for a, b in zip(free, strict, strict=True)
        ]
        return [yes(each) for each in same]

    return [Table(HEAD, rows_of(IDEAS, row, len(HEAD)))]
