"""Weight averages beside pruning: who comes first, the copies in files, and what a resumed run goes on with."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from lightning_prune import families
from lightning_prune.callbacks.left_zeros import masks_left
from lightning_prune.learned import LearnedMasks
from lightning_prune.masks import zero_copies
from lightning_prune.pruning import Pruner
from lightning_prune.report import Report

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import Callback

_SWA = "callbacks.StochasticWeightAveraging"
_EMA = "callbacks.weight_averaging.WeightAveraging"  # Lightning 2.5 has none


def behind(callbacks: Sequence[Callback], kind: type[Callback]) -> list[Callback]:
    """Return the callbacks with those of a kind right behind the last one that averages weights, if they stood before.

    An average is put into the model, or into a file, in the hook of its callback: masks must be put on it after that.
    All others stay where the user put them.
    """
    averages = families.every(_EMA, _SWA)
    averaging = [n for n, c in enumerate(callbacks) if isinstance(c, averages)]
    last = max(averaging, default=-1)
    moved = [c for c in callbacks[: last + 1] if isinstance(c, kind)]
    return [*(c for c in callbacks[: last + 1] if c not in moved), *moved, *callbacks[last + 1 :]]


def names(trainer: pl.Trainer) -> str:
    """Return what the callbacks that average weights are called, with commas between; nothing where there are none."""
    averaging = families.every(_EMA, _SWA)
    return ", ".join(type(c).__name__ for c in trainer.callbacks if isinstance(c, averaging))  # pyright: ignore


def models(trainer: pl.Trainer) -> list[nn.Module]:
    """Return the averages of the model that callbacks hold."""
    averaging = families.every(_EMA, _SWA)
    held = [getattr(c, "_average_model", None) for c in trainer.callbacks if isinstance(c, averaging)]  # pyright: ignore
    return [m.module if isinstance(m, AveragedModel) else m for m in held if isinstance(m, nn.Module)]


def copies(checkpoint: dict[str, Any], ours: Container[str]) -> dict[str, Any]:
    """Return what of a checkpoint may hold copies of pruned weights: all but optimizers and our callbacks' own state.

    Args:
        checkpoint: as Lightning writes it.
        ours: the keys of the states of our callbacks, which hold dense values on purpose.
    """
    states = {key: state for key, state in checkpoint.get("callbacks", {}).items() if key not in ours}
    return {**checkpoint, "callbacks": states, "optimizer_states": None}


def mask_file(
    checkpoint: dict[str, Any],
    ours: Container[str],
    key: str,
    pruner: Pruner | LearnedMasks,
    report: Report | None,
    model: nn.Module,
) -> None:
    """Mask every copy of a pruned weight in a checkpoint; after the strip by the zeros that are left.

    Args:
        checkpoint: as Lightning writes it.
        ours: the keys of the states of our callbacks.
        key: of the state that takes what learned masks have replaced.
        pruner: whose masks.
        report: of the stripped model, None before.
        model: the model.
    """
    found = copies(checkpoint, ours)
    if pruner.attached:
        soft = pruner.mask_copies(found)
        if soft and key in checkpoint.get("callbacks", {}):
            checkpoint["callbacks"][key]["soft"] = soft
    elif report is not None:
        zero_copies(found, masks_left(report, model))


def put_back(trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any], soft: Any) -> None:
    """Give the tensors of a loaded checkpoint the values they had before it was written, and averages with them.

    Lightning has averages read the checkpoint before the callback gets to it, so they read it again.

    Args:
        trainer: the one that resumes.
        pl_module: the module it fits.
        checkpoint: what was loaded.
        soft: nested dicts like the checkpoint's, with the tensors that hard ones stand in place of.
    """
    _update(checkpoint, soft)
    for callback in trainer.callbacks:  # pyright: ignore
        if isinstance(callback, families.every(_EMA) or families.every(_SWA)):
            callback.on_load_checkpoint(trainer, pl_module, checkpoint)


def _update(at: Any, values: Any) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _update(at[key], value)
        else:
            at[key] = value
