"""What an update and a step cost: milliseconds, waits, memory, and bandwidth beside that of a plain copy."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence

import torch
from nets import NETS, OPTIMIZERS
from step import dense_step, our_step
from timing import Contender
from torch import nn
from torch.nn.utils import prune

from gpu_sections.tools import Table, Where, rows_of
from gpu_sections.updates import Update, models
from lightning_prune import Pruner
from lightning_prune.schedule import OneShot

HEAD = [
    *("model", "prunable weights", "update, ms", "waits", "peak, bytes a weight", "weights read, GB/s"),
    *("copy, GB/s", "optimizer's step, ms", "ours, ms", "waits of ours"),
]
STEPS = ["model, whole step", "dense, ms", "ours, ms", "utils.prune, ms", "ours / dense", "utils.prune / dense"]
_NOTE = (
    "Weights read: the size of the prunable weights over the time of an update. Copy: bytes read and written. "
    "The optimizer is AdamW, foreach, and without a forward, so this is the most that a step can be slowed."
)


def run(where: Where) -> list[Table]:
    updates = rows_of(models(where), lambda make: _row(where, make), len(HEAD))
    nets = [name for name in NETS if not where.small or name.startswith("MLP")]
    steps = rows_of({name: name for name in nets}, lambda name: _steps(where, name), len(STEPS))
    return [Table(HEAD, updates, _NOTE), Table(STEPS, steps, "AdamW, fused; at 90 % sparsity.")]


def _row(where: Where, make: Callable[[], nn.Module]) -> Sequence[str]:
    with where.device:
        update = Update(make())
    update.prepare()
    waits, peak = waits_of(where, update.run), _peak_of(where, update)
    ms = where.least_ms({"update": Contender(update.run, update.prepare)}, 10)["update"]
    size = update.size
    cells = [f"{size:,}", f"{ms:.2f}", waits, peak if peak == "-" else f"{int(peak) / size:.2f}"]
    cells += [f"{4 * size / ms / 1e6:.1f}", f"{_copy_bandwidth(where, size):.1f}"]
    del update
    gc.collect()
    return [*cells, *_optimizer_steps(where, make)]


def _optimizer_steps(where: Where, make: Callable[[], nn.Module]) -> list[str]:
    with where.device:
        models = [make(), make()]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True) for model in models]
    for parameter in (p for model in models for p in model.parameters()):
        parameter.grad = torch.full_like(parameter, 1e-3)
    pruner = Pruner(OneShot(0.9, 0))
    pruner.attach(models[1])
    pruner.update(0, [optimizers[1]])

    def ours() -> None:
        pruner.before_step(optimizers[1])
        optimizers[1].step()
        pruner.stepped(optimizers[1])
        pruner.update(1, [optimizers[1]])

    steps = {"dense": Contender(optimizers[0].step), "ours": Contender(ours)}
    times = where.least_ms(steps, 30, warm_up=8)
    return [f"{times['dense']:.3f}", f"{times['ours']:.3f}", waits_of(where, ours)]


def _steps(where: Where, name: str) -> Sequence[str]:
    make, batch = NETS[name]
    optimizer = OPTIMIZERS["AdamW, fused"]
    torch.manual_seed(0)
    dense, ours, peer = (make().to(where.device) for _ in range(3))
    x = batch().to(where.device)
    pruner = Pruner(OneShot(0.9, 0))
    pruner.attach(ours)
    pruner.update(0)
    for key, weight in pruner.masks.items():
        path, _, attribute = key.rpartition(".")
        prune.custom_from_mask(peer.get_submodule(path), attribute, weight.mask)
    steps = {
        "dense": Contender(dense_step(dense, optimizer(dense), x)),
        "ours": Contender(our_step(ours, optimizer(ours), x, pruner)),
        "peer": Contender(dense_step(peer, optimizer(peer), x)),
    }
    times = where.least_ms(steps, 50, warm_up=10)
    shares = [f"{times[each] / times['dense']:.2f}" for each in ("ours", "peer")]
    return [*(f"{ms:.2f}" for ms in times.values()), *shares]


def waits_of(where: Where, call: Callable[[], object]) -> str:
    """Return how many times the host waited for the device in a call, as far as torch sees it on CUDA."""
    if not where.cuda:
        call()
        return "needs CUDA"
    where.wait()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return str(sum("synchronizing" in str(each.message) and "prototype" not in str(each.message) for each in said))


def _peak_of(where: Where, update: Update) -> str:
    """Return how many bytes above what was there an update took for a moment."""
    memory = getattr(torch, where.device.type, None)
    if not hasattr(memory, "max_memory_allocated"):
        return "-"
    update.prepare()
    where.wait()
    getattr(memory, "reset_peak_memory_stats")()  # noqa: B009
    before = getattr(memory, "memory_allocated")()  # noqa: B009
    update.run()
    return str(getattr(memory, "max_memory_allocated")() - before)  # noqa: B009


def _copy_bandwidth(where: Where, size: int) -> float:
    source = torch.zeros(max(size, 2**24 if not where.small else 2**16), device=where.device)
    target = torch.empty_like(source)
    ms = where.least_ms({"copy": Contender(lambda: target.copy_(source))}, 20)["copy"]
    return 8 * source.numel() / ms / 1e6
