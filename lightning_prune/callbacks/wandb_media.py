"""What scalars cannot show, for Weights & Biases: histograms, a table by layer, the summary, the model as an artifact.

Neither wandb nor matplotlib is imported before a trainer with a WandbLogger needs it.
"""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_prune import families
from lightning_prune.dynamic import DynamicGates
from lightning_prune.learned import LearnedMasks
from lightning_prune.masks import MaskedWeight
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.reconstructing import chooser
from lightning_prune.report import Report

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import WandbLogger


class Media:
    """Log media to the trainer's WandbLoggers.

    Args:
        loggers: the loggers, on the first rank.
        prefix: put before every name, such as `pruning/`.
        pictures: how many histogram pictures to draw in one fit, at most.
    """

    def __init__(self, loggers: list[WandbLogger], prefix: str, pictures: int = 10) -> None:
        self._loggers = loggers
        self._prefix = prefix
        self._pictures = pictures
        self._drawn_at: float | None = None

    @staticmethod
    def of(trainer: pl.Trainer, prefix: str) -> Media | None:
        """Return media for the trainer's WandbLoggers on the first rank, or None if there are none."""
        wandb = families.every("loggers.WandbLogger")
        loggers: list[Any] = [logger for logger in trainer.loggers if isinstance(logger, wandb)]
        return Media(loggers, prefix) if loggers and trainer.is_global_zero else None

    def update(self, pruner: Pruner | LearnedMasks, report: Report, step: int) -> None:
        """Draw |w| of every weight at some updates, spread over the way to the final sparsity, and at the last.

        Of learned masks the probabilities are drawn, spread over their window.
        """
        if isinstance(pruner, DynamicGates):  # no weight is masked, so no histogram has something to show
            return
        way = round(report.target_sparsity / report.final_sparsity, 9) if report.final_sparsity else 1.0
        if isinstance(pruner, LearnedMasks):
            way = round(pruner.progress, 9)
        if not self._due(way):
            return
        self._drawn_at = way
        picture = _draw(pruner)
        if picture is None:
            self._pictures = 0
            return
        import wandb

        for logger in self._loggers:
            logger.log_metrics({f"{self._prefix}histograms": wandb.Image(picture)}, step)  # pyright: ignore[reportArgumentType]

    def _due(self, way: float) -> bool:
        if self._pictures < 1 or self._drawn_at == 1.0:
            return False
        if way == 1.0:
            return True
        # The last one is kept for the final sparsity, the others lie at least so far apart.
        return self._pictures > 1 and (self._drawn_at is None or way - self._drawn_at >= 1.0 / (self._pictures - 1))

    def finish(self, report: Report, model: nn.Module) -> None:
        """Log the table by layer, fill the summary, and upload the stripped model's state_dict as an artifact."""
        import wandb

        names: list[Any] = ["weight", "shape", "weights", "zeros", "sparsity", "threshold"]
        rows = [[w.name, str(w.shape), w.size, w.zeros, w.sparsity, w.threshold] for w in report.weights]
        totals = {"zeros": report.zeros, "prunable": report.size, "parameters": report.parameters}
        tag = re.sub(r"[^\w.-]+", "-", self._prefix.removeprefix("pruning/").rstrip("/"))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.pt"
            torch.save({k: v.cpu() if isinstance(v, Tensor) else v for k, v in model.state_dict().items()}, file)
            for logger in self._loggers:
                logger.log_table(f"{self._prefix}layers", names, rows)
                run = logger.experiment
                run.summary.update({f"{self._prefix}final/{k}": v for k, v in report.scalars().items()})
                run.summary.update({f"{self._prefix}{k}": v for k, v in totals.items()})
                name = f"pruned-{tag}-{run.id}" if tag else f"pruned-{run.id}"
                artifact = wandb.Artifact(name, type="model", metadata={"sparsity": report.sparsity} | totals)
                artifact.add_file(str(file), name="model.pt")
                run.log_artifact(artifact)


def histograms(pruner: Pruner, most: int = 24) -> Any:
    """Return a matplotlib figure: for every weight, or the `most` largest, the histogram of |w| over its live entries.

    The mask's threshold is marked where it is a magnitude: with another criterion it is no point on this axis.
    """
    from matplotlib.figure import Figure

    weights = list(pruner.masks.items())
    largest = {name for name, _ in sorted(weights, key=lambda item: -item[1].mask.numel())[:most]}
    shown = [(name, weight) for name, weight in weights if name in largest]
    marked = getattr(chooser(pruner), "absolute", False) and getattr(pruner.pattern, "single", False)
    across = min(4, len(shown))
    down = math.ceil(len(shown) / across)
    figure = Figure(figsize=(max(5.0, 3.6 * across), 2.5 * down + 0.6), layout="constrained")
    for axis, item in zip(figure.subplots(down, across, squeeze=False).flat, [*shown, *[None] * across], strict=False):
        if item is None:
            axis.set_axis_off()
        else:
            _histogram(axis, *item, marked=marked)
    note = "|w| of the weights that are left" + ("; the line is the threshold" if marked else "")
    if len(shown) < len(weights):
        note += f"; the {most} largest of {len(weights)} weights"
    figure.supxlabel(note, fontsize=10)
    return figure


def _histogram(axis: Any, name: str, weight: MaskedWeight, marked: bool) -> None:
    live = weight.parameter.detach()[weight.mask].abs().float().cpu().numpy()
    live = live[np.isfinite(live)]
    if live.size:
        counts, edges = np.histogram(live, bins=min(60, math.ceil(2 * live.size ** (1 / 3))))  # Rice's rule
        axis.stairs(counts, edges, fill=True, color="#4477aa")
        axis.locator_params("y", nbins=5, integer=True)
    else:
        axis.text(0.5, 0.5, "nothing is left", transform=axis.transAxes, ha="center", fontsize=9)
        axis.set_yticks([])
    if marked and weight.pruned:
        axis.axvline(float(weight.threshold), color="#cc3311", linewidth=1.5)
    axis.set_title(f"{_shortened(name)}\n{100 * weight.pruned / weight.mask.numel():.1f} % pruned", fontsize=9)
    axis.set_xlim(left=0.0)
    axis.tick_params(labelsize=8)
    axis.locator_params("x", nbins=5)
    axis.spines[["top", "right"]].set_visible(False)


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"…{name[-39:]}"


def _draw(pruner: Pruner | LearnedMasks) -> Any:
    """Return the histograms as an array of pixels, or None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        rank_zero_warn("matplotlib is not installed, so wandb gets no histograms: pip install 'lightning-prune[wandb]'")
        return None
    figure = pruner.picture() if isinstance(pruner, LearnedMasks) else histograms(pruner)
    canvas = FigureCanvasAgg(figure)  # not wandb.Image(figure): that asks for pyplot, which nobody imported
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
