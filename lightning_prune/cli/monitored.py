"""Callbacks that look at a metric: whether the better of two values is meant to be the one that it says."""

from __future__ import annotations

import re

from omegaconf import DictConfig

from lightning_prune.cli.errors import UserError

_BEST = {
    "min": {"loss", "error", "err", "perplexity", "ppl", "mse", "mae", "rmse", "nll", "wer", "cer"},
    "max": {"acc", "accuracy", "auc", "auroc", "f1", "precision", "recall", "iou", "bleu"},
}
"""Words of metrics' names -> what is best."""


def check_modes(config: DictConfig) -> None:
    """Look at each callback that a config names with a `monitor` and a `mode`.

    Raises:
        UserError: the worst would be kept for the best, as far as the metric's name tells.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, DictConfig):
        return
    for name, node in callbacks.items():
        if not isinstance(node, DictConfig) or not isinstance(node.get("monitor"), str):
            continue
        words = set(re.split(r"[^a-z0-9]+", node.monitor.lower()))
        for best, other in (("min", "max"), ("max", "min")):
            if node.get("mode") == other and words & _BEST[best] and not words & _BEST[other]:
                raise UserError(
                    f"callbacks.{name}.monitor={node.monitor} with mode={other} keeps the worst: set "
                    f"callbacks.{name}.mode={best}"
                )
