"""Checkpoints of a run that shrinks its model: files of the larger and of the smaller model load."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_prune import families
from lightning_prune.callbacks import averages
from lightning_prune.callbacks.own_processes import check_shapes_come_back
from lightning_prune.callbacks.taken_apart import one_file
from lightning_prune.shrink import StillAliveError, larger, rebuild, recipes_in, take_out
from lightning_prune.targets import plain_name

if TYPE_CHECKING:
    import pytorch_lightning as pl

NAME, MASKED = "shrunk", "masked"


class Loading:
    """While a Trainer runs: a state_dict is fitted to the model it is loaded into, or the model to the state_dict."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def begin(self, trainer: pl.Trainer, model: pl.LightningModule, recipe: Mapping[str, Any], stage: str) -> None:
        """Watch what is loaded into the model, and into averages of it, until `end`.

        Args:
            trainer: the one that loads.
            model: the module it was given.
            recipe: of the model as the latest fit has shrunk it; empty if it shrank none.
            stage: what the Trainer is about to do.
        """
        self.end()

        def fit(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
            if not self._hooks:  # a copy of the model, made meanwhile, still has the hook
                return
            keys = _keys(module, state, prefix)
            if _is_of(module, state, keys, recipe):
                _make_small(trainer, model, state, keys, recipe, stage)
            elif module is model and _has_less(module, state, keys):
                followed = _recipes(trainer)
                if followed and stage == "fit":
                    first = f"give the model its shapes first: load_shrunk(model, {str(trainer.ckpt_path)!r})"
                    check_shapes_come_back(trainer.strategy, f"{trainer.ckpt_path} is of a shrunk model", first)
                for follow in followed:
                    for each in (model, *averages.models(trainer)):
                        rebuild(each, follow)

        for module in (model, *averages.models(trainer)):
            hook = module._register_load_state_dict_pre_hook(fit, with_module=True)  # pyright: ignore
            self._hooks.append(hook)  # public from torch 2.5 on

    def end(self) -> None:
        """Leave loading as it is without us."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def shrink_averages(trainer: pl.Trainer, model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Give averages of a shrunk model its shapes and values: it was made of them when training ended."""
    for average in averages.models(trainer):
        rebuild(average, recipe)
        with torch.no_grad():
            for own, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                own.copy_(value)


def save_small(trainer: pl.Trainer, callback: pl.Callback) -> str | None:
    """Write the model beside the files of the ModelCheckpoint, if one saves files. Returns the path.

    Args:
        trainer: where a fit has ended; all ranks call this, the first writes.
        callback: the one that has just shrunk the model. Of several the last to do so writes.
    """
    folder = _folder(trainer)
    shrinking = [c for c in trainer.callbacks if isinstance(c, type(callback)) and getattr(c, "shrink", False)]  # pyright: ignore
    if folder is None or shrinking[-1] is not callback:
        return None
    checkpoint: Any = trainer.checkpoint_callback
    path, version = os.path.join(folder, f"{NAME}.ckpt"), 0
    while checkpoint.file_exists(path, trainer):
        version += 1
        path = os.path.join(folder, f"{NAME}-v{version}.ckpt")
    with one_file(trainer.strategy):
        trainer.save_checkpoint(path, weights_only=False)
    rank_zero_info(f"the smaller model is saved in {path}")
    return path


def save_masked(
    trainer: pl.Trainer, masked: Mapping[str, Any], error: BaseException, folder: str | None = None
) -> BaseException:
    """Save a trained model with its zeros where it could not be made smaller, and return the error that says where.

    Args:
        trainer: where the fit has ended.
        masked: the state_dict of the model in its full size.
        error: why it could not; of the same kind is the one returned, unless what that says cannot be changed.
        folder: where to; None for that of the ModelCheckpoint, or else the trainer's.
    """
    path = os.path.join(folder or _folder(trainer) or trainer.default_root_dir, f"{MASKED}.pt")
    said = (
        f"the trained model, with its zeros and in its full size, is saved in {path}: "
        f"model.load_state_dict(torch.load({path!r}))"
    )
    if trainer.is_global_zero:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            torch.save(dict(masked), path)
        except Exception as second:  # what went wrong first is to be seen all the same
            said = f"the trained model could not be saved in {path}: {second}"
    rank_zero_info(said)
    if not isinstance(error, Exception):  # somebody has had enough
        return error
    said = f"{said}. It could not be made smaller: {str(error) or type(error).__name__}"
    error.args = (said,)
    return error if said in str(error) else RuntimeError(said)


def _folder(trainer: pl.Trainer) -> str | None:
    """Return where the ModelCheckpoint saves; None if there is none that does."""
    checkpoint: Any = trainer.checkpoint_callback
    if not isinstance(checkpoint, families.every("callbacks.ModelCheckpoint")) or trainer.fast_dev_run:  # pyright: ignore
        return None
    saves = checkpoint.save_top_k != 0 or checkpoint.save_last
    return str(checkpoint.dirpath) if saves and checkpoint.dirpath else None


def _keys(module: nn.Module, state: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return the keys of a state_dict that are tensors of the module, and the first name of each."""
    first: dict[int, str] = {}
    keys: dict[str, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and isinstance(state.get(prefix + name), Tensor):
            keys[prefix + name] = first.setdefault(id(tensor), plain_name(name))
    return keys


def _is_of(module: nn.Module, state: Mapping[str, Any], keys: Mapping[str, str], recipe: Mapping[str, Any]) -> bool:
    """Whether the module has the recipe's shapes and the state those before it."""
    before = larger(recipe)
    own = {plain_name(n): tuple(t.shape) for n, t in module.state_dict(keep_vars=True).items()}
    return any(name in before for name in keys.values()) and all(
        tuple(state[key].shape) == before[name] and own[name] == tuple(recipe["tensors"][name])
        for key, name in keys.items()
        if name in before
    )


def _make_small(
    trainer: pl.Trainer,
    model: nn.Module,
    state: MutableMapping[str, Any],
    keys: Mapping[str, str],
    recipe: Mapping[str, Any],
    stage: str,
) -> None:
    made, stage = f"{type(model).__name__}(...)", str(getattr(stage, "value", stage))
    if stage == "fit":
        raise ValueError(
            f"{trainer.ckpt_path} is from before the model was shrunk, and so are its masks and optimizer: go on from "
            f"it with the plain model, trainer.fit({made}, ckpt_path=...)"
        )
    try:
        take_out(state, recipe, keys)
    except StillAliveError as error:
        raise StillAliveError(
            f"{trainer.ckpt_path}: {error}. It loads into the plain model, trainer.{stage}({made}, ckpt_path=...); "
            f"{NAME}.ckpt beside it is the shrunk model, and SparseModelCheckpoint keeps the best of the final masks"
        ) from error


def _has_less(module: nn.Module, state: Mapping[str, Any], keys: Mapping[str, str]) -> bool:
    own = {plain_name(n): t for n, t in module.state_dict(keep_vars=True).items()}
    return any(
        s.dim() == own[n].dim() and s.numel() < own[n].numel() for s, n in ((state[k], n) for k, n in keys.items())
    )


def _recipes(trainer: pl.Trainer) -> list[dict[str, Any]]:
    """Return the recipes in the file that the Trainer loads; none where it cannot be read here."""
    path = trainer.ckpt_path
    if path is None or not os.path.isfile(path):
        return []
    return recipes_in(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
