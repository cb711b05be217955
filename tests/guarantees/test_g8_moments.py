"""G8: an update clears what the optimizer remembers of a pruned unit, in every slice, and nothing of the kept ones.

For single weights: tests/pruning/test_pruner_optimizers.py.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Units, fit
from tests.guarantees.whole_units import channels


def test_G8_moments_of_all_slices_of_a_dead_unit_are_cleared_and_others_untouched() -> None:
    callback, model = channels(schedule=OneShot(0.6, 5)), Units()
    moments: dict[int, dict[str, Tensor]] = {}
    zeroed: dict[str, Tensor] = {}
    named = dict(model.named_parameters())

    def look(run: pl.Trainer) -> None:
        state = run.optimizers[0].state
        moments[run.global_step] = {n: state[p]["exp_avg"].clone() for n, p in named.items()}
        if run.global_step == 5:
            zeroed.update({n: p.detach() != 0 for n, p in named.items()})

    class Before(pl.Callback):
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step == 5:
                moments[-1] = {n: trainer.optimizers[0].state[p]["exp_avg"].clone() for n, p in named.items()}

    model.after_batch.append(look)
    fit(model, Before(), callback, max_steps=6)
    for name, kept in zeroed.items():
        assert torch.equal(moments[5][name], moments[-1][name] * kept)
    assert all(bool((moments[-1][n][~zeroed[n]] != 0).any()) for n in ("net.2.weight", "net.2.bias", "net.6.bias"))
