"""The callback stays where the user put it, but behind callbacks that average weights."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging

from lightning_prune import PruningCallback
from lightning_prune.callbacks.averages import behind
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, fit

SCHEDULE = Polynomial(0.75, 2, 8, 3)


class Watch(Callback):
    """Notes the zeros of masks and weights at the end of every batch."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.masked: dict[int, int] = {}
        self.zeros: dict[int, int] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        masks = self.pruning.pruner.masks
        self.masked[trainer.global_step] = masks.pruned
        self.zeros[trainer.global_step] = sum(int((w.parameter == 0).sum()) for w in masks.values())


def asked_for(step: int) -> int:
    last = SCHEDULE.last_update(step)
    return 0 if last is None else round(256 * SCHEDULE.sparsity(last))


@pytest.mark.parametrize("behind_it", [True, False])
def test_a_callback_sees_the_masks_of_this_step_behind_pruning_and_of_the_step_before_in_front(behind_it: bool) -> None:
    pruning = PruningCallback(SCHEDULE)
    watch = Watch(pruning)
    fit(Net(), *((pruning, watch) if behind_it else (watch, pruning)), max_steps=10, max_epochs=2)
    expected = {step: asked_for(step if behind_it else step - 1) for step in range(1, 11)}
    assert watch.masked == expected
    assert watch.zeros == expected
    assert len(set(expected.values())) == 3


AVERAGES = {"ema": lambda: EMAWeightAveraging(decay=0.5), "swa": lambda: StochasticWeightAveraging(1e-2, 1)}


@pytest.mark.parametrize("average", AVERAGES)
def test_it_stands_right_behind_an_average_and_moves_for_nothing_else(average: str, tmp_path: Path) -> None:
    averaging: Any = AVERAGES[average]()
    first, second = PruningCallback(0.5, tag="first"), PruningCallback(0.5, tag="second")
    others = [Callback() for _ in range(4)]
    saving = ModelCheckpoint(tmp_path)
    first.pruner.targets, second.pruner.targets = (type(first.pruner.targets)(include=(f"net.{n}",)) for n in (0, 3))
    given = [first, others[0], averaging, others[1], second, others[2], saving, others[3]]
    model = Net()
    trainer = fit(model, *given, max_epochs=3, enable_checkpointing=True)
    placed = [c for c in trainer.callbacks if c in given]  # pyright: ignore
    assert placed == [others[0], averaging, first, others[1], second, others[2], others[3], saving]


def test_without_an_average_the_order_is_the_users() -> None:
    pruning, others = PruningCallback(0.5), [Callback(), Callback()]
    trainer = fit(Net(), others[0], pruning, others[1], max_epochs=2)
    assert [c for c in trainer.callbacks if c in (*others, pruning)] == [others[0], pruning, others[1]]  # pyright: ignore


@pytest.mark.slow
def test_every_order_of_five_callbacks() -> None:
    pruning: list[Callback] = [PruningCallback(0.5, tag="a"), PruningCallback(0.5, tag="b")]
    averaging, others = EMAWeightAveraging(decay=0.5), [Callback(), Callback()]
    for order in itertools.permutations([*pruning, averaging, *others]):
        placed = behind(order, PruningCallback)
        assert sorted(map(id, placed)) == sorted(map(id, order))
        assert all(placed.index(one) > placed.index(averaging) for one in pruning)
        assert [c for c in placed if c not in pruning] == [c for c in order if c not in pruning]
        assert [c for c in placed if c in pruning] == [c for c in order if c in pruning]
        moved = [c for c in pruning if order.index(c) < order.index(averaging)]
        at = placed.index(averaging)
        assert set(placed[at + 1 : at + 1 + len(moved)]) == set(moved)
        assert behind(placed, PruningCallback) == placed
    for order in itertools.permutations([*pruning, *others]):
        assert behind(order, PruningCallback) == list(order)
