"""Weight averages beside pruning (EMA, SWA, a plain mean), and a search of saved files for weights that came back."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import StochasticWeightAveraging
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging, WeightAveraging
from torch import Tensor

from lightning_prune.pruning import saved_masks
from lightning_prune.targets import plain_name


def ema() -> pl.Callback:
    return EMAWeightAveraging(decay=0.7)


def swa() -> pl.Callback:
    return StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1, annealing_epochs=1)


def averaging() -> pl.Callback:
    return WeightAveraging()


AVERAGES = {"ema": ema, "swa": swa, "mean": averaging, "none": None}
ORDERS = ["average_first", "pruning_first"]


def averaged(average: str, order: str, callback: pl.Callback) -> list[pl.Callback]:
    make = AVERAGES[average]
    both = [callback] if make is None else [make(), callback]
    return both if order == "average_first" else both[::-1]


def masks_in(checkpoint: dict[str, Any], state_key: str) -> dict[str, Tensor]:
    """Return the masks of a checkpoint by its weights' keys; count and checksum of those of the run bear them out."""
    weights = checkpoint.get("current_model_state", checkpoint["state_dict"])
    keys = {plain_name(key): key for key in weights}
    state = checkpoint["callbacks"][state_key]
    masks = saved_masks.from_weights(state, {name: weights[keys[name]] for name in state["masks"]})
    return {keys[name]: mask for name, mask in masks.items()}


def off_mask(saved: Any, masks: dict[str, Tensor]) -> list[str]:
    """Every path in nested dicts that ends in a masked weight's name and is not zero where it was pruned."""
    found: list[str] = []
    for key, value in saved.items():
        if isinstance(value, dict):
            found += [f"{key}/{path}" for path in off_mask(value, masks)]
        elif isinstance(value, Tensor) and key in masks and value.is_floating_point():
            found += [key] if bool((value[~masks[key]] != 0).any()) else []
    return found
