"""Masks and `torch.compile`, before attach and after it: zeros in place, and compiled outputs that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpu_sections.tools import Table, Where, apart, mlp, rows_of, yes
from lightning_prune import Pruner
from lightning_prune.gate import SoftThreshold
from lightning_prune.learned import LearnedMasks
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import Polynomial

HEAD = [
    *("what", "compiled", "sparsity", "zeros in weights", "outputs are those of the stripped model"),
    *("compiled and plain outputs apart", "the same in training", "backend"),
]
STEPS = 6


def run(where: Where) -> list[Table]:
    names = ("Pruner", "LearnedMasks", "Pruner, Channel", "LearnedMasks, Element", "SoftThreshold")
    cases = {
        f"{name}, {'before' if first else 'after'} attach": (name, first)
        for name in names[: 2 if where.small else None]
        for first in (True, False)
    }
    return [Table(HEAD, [_split(row) for row in rows_of(cases, lambda case: _row(where, *case), len(HEAD) - 1)])]


def _split(row: Sequence[str]) -> list[str]:
    name, _, when = row[0].rpartition(", ")
    return [name, when, *row[1:]]


def _engine(name: str, example: Tensor) -> Any:
    window = Polynomial(0.5, 1, 4, 1)
    if name.startswith("Pruner"):
        return Pruner(window, pattern=Channel(example_inputs=example) if "Channel" in name else Element())
    if name == "SoftThreshold":
        return LearnedMasks(gate=SoftThreshold(), mask_regularizer=None, pattern=Element())
    return LearnedMasks(window, pattern=Element() if "Element" in name else Channel(example_inputs=example))


def _row(where: Where, name: str, first: bool) -> Sequence[str]:
    backend = "aot_eager" if where.small else "inductor"
    torch.compiler.reset()
    model: nn.Module = mlp(where)
    x = where.randn(32, 64)
    engine = _engine(name, where.randn(2, 64))
    run: Any = None
    if first:
        run = torch.compile(model, backend=backend)
        run(x)  # compiled without masks
    engine.attach(model, STEPS)
    if not first:
        run = torch.compile(model, backend=backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS):
        optimizer.zero_grad()
        run(x).square().mean().backward()
        engine.before_step(optimizer)
        optimizer.step()
        engine.after_step(step, [optimizer])
    drawn = apart(model(x), run(x))  # draws are those of the step
    run.eval()
    with torch.no_grad():
        found, plain = run(x), model(x)
    weights = {key: weight.parameter.detach() for key, weight in engine.masks.items()}
    pruned = {key: ~weight.mask for key, weight in engine.masks.items()}
    zeros = all(not bool(weights[key][gone].any()) for key, gone in pruned.items())
    report = engine.strip()
    if not isinstance(engine, Pruner):  # their masks lie beside the weights until then
        found_zeros = sum(int((model.get_parameter(key) == 0).sum()) for key in weights)
        zeros = found_zeros >= round(report.sparsity * report.size)
    with torch.no_grad():
        stripped = model.eval()(x)
    close = torch.allclose(found, stripped, rtol=1e-3, atol=1e-4 * float(stripped.abs().max()))
    acts = yes(close) if report.sparsity else "nothing was pruned"
    return [f"{100 * report.sparsity:.1f} %", yes(zeros), acts, apart(plain, found), drawn, backend]
