"""Files that a ModelCheckpoint has chosen by a metric, and that are less sparse than was asked for: said at the end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_prune import saved
from lightning_prune.dynamic import GateReport
from lightning_prune.dynamic.links import gates_in
from lightning_prune.report import Report, percent
from lightning_prune.targets import plain_name

if TYPE_CHECKING:
    import pytorch_lightning as pl


def warn_of_denser_files(trainer: pl.Trainer, title: str, report: Report) -> None:
    """Warn of each best file that is less sparse than was asked for, with the remedy; the first rank alone looks.

    A gradually pruned model scores best before pruning hurts, so the best file of a whole run is usually from then. The
    files are counted, not believed; one that cannot be read without running code in it is named as such.

    Args:
        trainer: where a fit has ended.
        title: what the warning begins with.
        report: of the stripped model.
    """
    if not trainer.is_global_zero:
        return
    for callback in trainer.checkpoint_callbacks:
        monitor, best = getattr(callback, "monitor", None), getattr(callback, "best_model_path", "")
        if monitor is None or not best or not Path(best).is_file():
            continue
        asked = f"{type(callback).__name__}(monitor={monitor!r}, mode={getattr(callback, 'mode', 'min')!r})"
        try:
            zeros, size = _count(saved.load(Path(best)), report)
        except ValueError as error:
            warnings.warn(f"{title}: whether the best file of {asked} is sparse cannot be seen: {error}", stacklevel=3)
            continue
        least = min(report.final_sparsity, report.sparsity) - report.grain / max(1, report.size)
        if size and zeros / size < least:
            ours = asked.replace(type(callback).__name__, "lightning_prune.callbacks.SparseModelCheckpoint")
            warnings.warn(
                f"{title}: the best file of {asked}, {best}, has a sparsity of {percent(zeros / size)}, less than the "
                f"{percent(report.final_sparsity)} asked for: it is from before the last update. {ours} in its place "
                "keeps the best of the sparse models",
                stacklevel=3,
            )


def _count(content: Any, report: Report) -> tuple[int, int]:
    """Return the zeros among a file's values of the pruned weights, and how many values there are."""
    state = content.get("state_dict", {}) if isinstance(content, Mapping) else {}
    if isinstance(report, GateReport):
        gates = list(gates_in(state).values())
        sizes = sum(gate["bias"].numel() for gate in gates)
        return sizes - sum(int(gate["kept"]) for gate in gates), sizes
    values = {plain_name(name): value for name, value in state.items() if isinstance(value, Tensor)}
    found = [values[weight.name] for weight in report.weights if weight.name in values]
    return sum(int((value == 0).sum()) for value in found), sum(value.numel() for value in found)
