"""The states of the global random number generators, of each process, as plain values and tensors."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_prune import saved

if TYPE_CHECKING:
    import pytorch_lightning as pl


def of(trainer: pl.Trainer) -> list[dict[str, Any]]:
    """Return the states of torch, its CUDA devices, numpy and Python: one entry for each process, by rank.

    All ranks call this.
    """
    own = _own()
    if trainer.world_size == 1:
        return [own]
    every: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(every, own)
    return every


def put_back(trainer: pl.Trainer, states: list[dict[str, Any]]) -> None:
    """Give this process the states of its rank; a rank that was not there before keeps what it has."""
    if trainer.global_rank >= len(states):
        return
    state = states[trainer.global_rank]
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, inner, gauss = state["python"]
    random.setstate((version, tuple(inner), gauss))


def checked(states: Any) -> list[dict[str, Any]]:
    """Return what a file holds. Raises ValueError, which names the field, if `of` has not made it."""
    found = [saved.mapping(f"random[{rank}]", state) for rank, state in enumerate(saved.sequence("random", states))]
    for rank, state in enumerate(found):
        where = f"random[{rank}]"
        if not isinstance(saved.at(where, state, "torch"), Tensor):
            raise ValueError(f"{where}: torch is no tensor")
        for key, length in (("cuda", None), ("numpy", 5), ("python", 3)):
            values = saved.sequence(f"{where}: {key}", saved.at(where, state, key))
            if length is not None and len(values) != length:
                raise ValueError(f"{where}: {key} has {len(values)} entries; it must have {length}")
        if not isinstance(state["numpy"][1], Tensor):
            raise ValueError(f"{where}: numpy[1] is no tensor")
        saved.sequence(f"{where}: python[1]", state["python"][1])
    return found


def _own() -> dict[str, Any]:
    # int64: torch cannot send tensors of uint32 from process to process
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.array(keys, dtype=np.int64)), *rest],
        "python": list(random.getstate()),
    }
