"""A CUDA graph captured of a step after an update, and what it does after the next update."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from stairs import Stairs

from gpu_sections.tools import Table, Where, mlp, needs_cuda, rows_of
from lightning_prune import Pruner

HEAD = ["what is replayed, 10 times", "after each replay", "pruned entries not zero at the end", "of"]
REPLAYS = 10


def run(where: Where) -> list[Table]:
    needs_cuda(where)
    cases = {
        f"{graph}; {after or 'nothing'}": (graph, after)
        for graph in (
            "the graph, its own masks",
            "captured anew after another update",
            "the graph, after another update",
        )
        for after in ("", "stepped", "mask_weights")
    }
    rows = rows_of(cases, lambda case: _row(where, *case), len(HEAD) - 1)
    note = "The graph holds before_step, which zeroes pruned gradients, and the optimizer's step: AdamW, capturable."
    return [Table(HEAD, [[*row[0].split("; "), *row[1:]] for row in rows], note)]


def _row(where: Where, graph: str, after: str) -> Sequence[str]:
    model, x = mlp(where), where.randn(64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, capturable=True)
    pruner = Pruner(Stairs((0.5, 0.8)))
    pruner.attach(model)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        model(x).square().mean().backward()
        pruner.before_step(optimizer)
        optimizer.step()

    step()
    pruner.update(0, [optimizer])
    replay = _captured(step)
    if graph != "the graph, its own masks":
        pruner.update(1, [optimizer])
    if graph == "captured anew after another update":
        replay = _captured(step)
    pruner.mask_weights()  # capturing warms up with steps of its own
    for _ in range(REPLAYS):
        replay()
        if after == "stepped":
            pruner.stepped(optimizer)
        elif after == "mask_weights":
            pruner.mask_weights()
    where.wait()
    weights = list(pruner.masks.values())
    left = sum(int((w.parameter.detach() * ~w.mask).count_nonzero()) for w in weights)
    return [f"{left:,}", f"{sum(int((~w.mask).sum()) for w in weights):,}"]


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
