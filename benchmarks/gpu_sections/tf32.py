"""Outputs of a dense and a shrunk ResNet-20, with TF32 allowed in products and without, beside full precision."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch

from gpu_sections.tools import Table, Where, apart, rows_of
from lightning_prune import Pruner
from lightning_prune.coupling.full_precision import full_precision
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import shrink
from lightning_prune.tasks.resnet import resnet20

HEAD = [
    "TF32",
    "outputs apart, as the run computes",
    "apart in full precision",
    "apart as shrink says",
    "settings kept",
]


def run(where: Where) -> list[Table]:
    rows = rows_of({"off": False, "on": True}, lambda on: _row(where, on), len(HEAD))
    return [Table(HEAD, rows, "A row is there only if shrink has found the outputs equal within its 1e-4.")]


def _row(where: Where, on: bool) -> Sequence[str]:
    with _tf32(on):
        torch.manual_seed(0)
        model = resnet20().to(where.device)
        example = where.randn(2, 3, 32, 32)
        for seed in range(2):  # statistics that are not those of a new net
            model(where.randn(16, 3, 32, 32, seed=seed))
        model.eval()
        pruner = Pruner(OneShot(0.6, 0), pattern=Channel(example_inputs=example))
        pruner.attach(model)
        pruner.after_step(0)
        pruner.strip()
        shrunk = shrink(model, example)
        smaller, images = shrunk.model.eval(), where.randn(64, 3, 32, 32, seed=9)
        with torch.no_grad():
            fast = apart(model(images), smaller(images))
            with full_precision(model):
                full = apart(model(images), smaller(images))
        kept = "yes" if _settings() == (on, "high" if on else "highest") else "NO"
        return [fast, full, f"{shrunk.report.relative:.1e}", kept]


def _settings() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@contextmanager
def _tf32(on: bool) -> Generator[None, None, None]:
    convolutions, products = _settings()
    torch.backends.cudnn.allow_tf32 = on
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
