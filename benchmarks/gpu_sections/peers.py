"""An update and a step of ours, of `torch.nn.utils.prune` and of Lightning's `ModelPruning`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from resnet50 import resnet50_weights
from timing import Contender
from torch import nn
from torch.nn.utils import prune

from gpu_sections.tools import NotHere, Table, Where, rows_of
from gpu_sections.updates import AFTER, BEFORE, Update, gpt_weights

SHARE = (AFTER - BEFORE) / (1 - BEFORE)
HEAD = ["update from 50 to 60 %", "ms", "times ours", "zeros of prunable weights"]


def run(where: Where) -> list[Table]:
    times: dict[str, float] = {}

    def row(measure: Callable[[Where], tuple[float, float]]) -> Sequence[str]:
        ms, zeros = measure(where)
        times.setdefault("ours", ms)
        return [f"{ms:.2f}", f"{ms / times['ours']:.1f}", f"{100 * zeros:.2f} %"]

    contenders = {
        "ours": _ours,
        "torch.nn.utils.prune, global_unstructured": _utils,
        "Lightning's ModelPruning": _lightning,
    }
    of = "A GPT of width 32" if where.small else "ResNet-50"
    note = f"{of}. Steps beside torch.nn.utils.prune: see the section `cost`."
    return [Table(HEAD, rows_of(contenders, row, len(HEAD)), note)]


def _weights(where: Where) -> nn.ModuleList:
    with where.device:
        return gpt_weights(32, 2, 100)[1:] if where.small else resnet50_weights()


def _zeros(layers: nn.ModuleList) -> float:
    weights = [getattr(layer, "weight").detach() for layer in layers]  # noqa: B009
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def _ours(where: Where) -> tuple[float, float]:
    update = Update(layers := _weights(where))
    ms = where.least_ms({"ours": Contender(update.run, update.prepare)}, 10)["ours"]
    return ms, _zeros(layers)


def _utils(where: Where) -> tuple[float, float]:
    layers = _weights(where)
    pairs: list[Any] = []

    def prepare() -> None:
        nonlocal layers
        layers = _weights(where)
        pairs[:] = [(layer, "weight") for layer in layers]
        prune.global_unstructured(pairs, prune.L1Unstructured, amount=BEFORE)

    def update() -> None:
        prune.global_unstructured(pairs, prune.L1Unstructured, amount=SHARE)

    ms = where.least_ms({"peer": Contender(update, prepare)}, 3, warm_up=1)["peer"]
    return ms, _zeros(layers)


def _lightning(where: Where) -> tuple[float, float]:
    try:
        from pytorch_lightning.callbacks import ModelPruning
    except ImportError as error:
        raise NotHere("pytorch-lightning is not installed here") from error
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    layers = _weights(where)
    callbacks: list[ModelPruning] = []

    def prepare() -> None:
        nonlocal layers
        layers = _weights(where)
        pairs: Any = [(layer, "weight") for layer in layers]
        callbacks[:] = [ModelPruning("l1_unstructured", pairs, use_global_unstructured=True)]
        callbacks[0].apply_pruning(BEFORE)

    ms = where.least_ms({"peer": Contender(lambda: callbacks[0].apply_pruning(SHARE), prepare)}, 3, warm_up=1)["peer"]
    return ms, _zeros(layers)
