"""What scalars cannot show, for Weights & Biases: histograms, a table by layer, the summary, the model as an artifact."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.pruner import Pruner
from lightning_prune.report import Report


class Media:
    """Log media to the trainer's WandbLoggers.

    Args:
        runs: the wandb runs.
        prefix: put before every name, such as `pruning/`.
        pictures: how many histogram pictures to draw over the whole run, at most.
    """

    def __init__(self, runs: list[Any], prefix: str, pictures: int = 10) -> None:
        self._runs = runs
        self._prefix = prefix
        self._pictures = pictures
        self._drawn_at = -1.0

    @staticmethod
    def of(trainer: Any, prefix: str) -> Media | None:
        """Return media for the trainer's WandbLoggers on the first rank, or None if there are none."""
        from pytorch_lightning.loggers import WandbLogger

        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        return Media([logger.experiment for logger in loggers], prefix) if loggers and trainer.is_global_zero else None

    def update(self, pruner: Pruner, report: Report, step: int) -> None:
        """Draw |w| of every weight with its threshold, at some of the updates, spread over the way to the final sparsity."""
        way = report.target_sparsity / report.final_sparsity if report.final_sparsity else 1.0
        if self._drawn_at >= 0 and way < 1.0 and way - self._drawn_at < 1.0 / self._pictures:
            return
        if self._drawn_at >= 1.0:
            return
        self._drawn_at = way
        import wandb

        figure = histograms(pruner)
        for run in self._runs:
            run.log({f"{self._prefix}histograms": wandb.Image(figure), "trainer/global_step": step})
        figure.clear()

    def finish(self, report: Report, model: nn.Module) -> None:
        """Log the table by layer, fill the summary, and upload the stripped model's state_dict as an artifact."""
        import wandb

        names = ["weight", "shape", "weights", "zeros", "sparsity", "threshold"]
        rows = [[w.name, str(w.shape), w.size, w.zeros, w.sparsity, w.threshold] for w in report.weights]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.pt"
            torch.save(model.state_dict(), file)
            for run in self._runs:
                run.log({f"{self._prefix}layers": wandb.Table(columns=names, data=rows)})
                run.summary.update({f"{self._prefix}final/{k}": v for k, v in report.scalars().items()})
                run.summary.update({f"{self._prefix}zeros": report.zeros, f"{self._prefix}prunable": report.size})
                artifact = wandb.Artifact(f"pruned-{run.id}", type="model", metadata={"sparsity": report.sparsity})
                artifact.add_file(str(file), name="model.pt")
                run.log_artifact(artifact)


def histograms(pruner: Pruner) -> Any:
    """Return a matplotlib figure: for every weight the histogram of |w| over its live entries, its threshold marked."""
    from matplotlib.figure import Figure

    weights = list(pruner.masks.items())[:24]
    across = min(4, len(weights))
    down = math.ceil(len(weights) / across)
    figure = Figure(figsize=(4 * across, 2.6 * down), layout="constrained")
    for axis, (name, weight) in zip(figure.subplots(down, across, squeeze=False).flat, weights, strict=False):
        live = weight.parameter.detach()[weight.mask].abs().float().cpu().numpy()
        axis.hist(live, bins=60, color="#4477aa")
        axis.axvline(float(weight.threshold), color="#cc3311", linewidth=1.2)
        axis.set_title(f"{name}, {100 * weight.pruned / weight.mask.numel():.1f} % pruned", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.supxlabel("|w| of live weights; the line is the threshold", fontsize=8)
    return figure
