"""Linear layers of pattern 2:4 in the format of sparse tensor cores, beside the dense ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timing import Contender
from torch import nn

from gpu_sections.tools import Table, Where, apart, needs_cuda, rows_of
from lightning_prune import Pruner
from lightning_prune.export import check_gpu, to_semi_structured
from lightning_prune.pattern import NofM
from lightning_prune.schedule import OneShot

HEAD = [
    "two layers, width -> 4 width -> width",
    "dtype",
    "batch",
    "converted",
    "dense, ms",
    "2:4, ms",
    "faster",
    "apart",
]


def run(where: Where) -> list[Table]:
    needs_cuda(where)
    check_gpu()
    cases = {
        f"{width}; {str(dtype).removeprefix('torch.')}; {batch}": (width, dtype, batch)
        for width in ((256,) if where.small else (1024, 4096))
        for dtype in (torch.float16, torch.bfloat16)
        for batch in (64, 4096)
    }
    rows = rows_of(cases, lambda case: _row(where, *case), len(HEAD) - 2)
    return [Table(HEAD, [[*row[0].split("; "), *row[1:]] for row in rows])]


def _row(where: Where, width: int, dtype: torch.dtype, batch: int) -> Sequence[str]:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)).to(where.device)
    pruner = Pruner(OneShot(0.5, 0), pattern=NofM(2, 4))
    pruner.attach(dense)
    pruner.after_step(0)
    pruner.strip()
    dense = dense.to(dtype).eval().requires_grad_(False)
    result = to_semi_structured(dense)
    x = where.randn(batch, width).to(dtype)
    with torch.inference_mode():
        difference = apart(dense(x), result.model(x))
        models = {"dense": Contender(lambda: dense(x)), "2:4": Contender(lambda: result.model(x))}
        times = where.least_ms(models, 50)
    converted = f"{len(result.converted)} of {len(result.layers)}"
    ratio = f"{times['dense'] / times['2:4']:.2f}"
    return [converted, f"{times['dense']:.3f}", f"{times['2:4']:.3f}", ratio, difference]
