"""G30: what others write to pruned weights after the masks is gone by the next forward, and said once."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor

from lightning_prune import LearnedMasks, PruningCallback
from lightning_prune.callbacks import guard
from lightning_prune.masks import MaskedWeight, mend
from lightning_prune.pattern import Element
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, Units, fit, ramp, sparsity
from tests.guarantees.whole_units import channels

WAYS = ("counted", "data")


def recentre(model: Any, way: str) -> None:
    for module in model.net.modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() < 2:
            continue
        with torch.no_grad():
            if way == "counted":
                weight.sub_(weight.mean())
            elif way == "data":
                weight.data.sub_(weight.data.mean())
            else:
                weight.data = weight.data - weight.data.mean()


class Seen:
    """Counts in each forward of a training step the pruned weights that are alive."""

    def __init__(self, model: Any, callback: PruningCallback) -> None:
        self.alive: list[int] = []
        self.callback = callback
        model.in_step.append(self.look)

    def look(self, run: pl.Trainer) -> None:
        masks = self.callback.pruner.masks
        self.alive.append(sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks.values()))


class Behind(pl.Callback):
    def __init__(self, way: str) -> None:
        self.way = way

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        recentre(pl_module, self.way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", ["module", "callback"])
def test_G30_what_is_written_behind_the_callback_is_gone_by_the_next_forward(who: str, way: str) -> None:
    callback, model = ramp(), Net()
    seen = Seen(model, callback)
    others = [Behind(way)] if who == "callback" else []
    if who == "module":
        model.after_batch.append(lambda run: recentre(model, way))
    with pytest.warns(UserWarning, match=r"net\.0\.weight, net\.3\.weight were not zero any more") as said:
        fit(model, callback, *others, max_steps=20)
    assert len([each for each in said if "not zero any more" in str(each.message)]) == 1
    assert sum(seen.alive) == 0
    assert sparsity(model) == 205 / 256


@pytest.mark.parametrize("way", WAYS)
def test_G30_units_are_guarded_as_well(way: str) -> None:
    callback, model = channels(), Units()
    seen = Seen(model, callback)
    model.after_batch.append(lambda run: recentre(model, way))
    with pytest.warns(UserWarning, match="were not zero any more"):
        fit(model, callback, max_steps=20)
    assert sum(seen.alive) == 0


def test_G30_a_weight_with_other_memory_was_replaced_and_is_masked_without_a_warning() -> None:
    callback, model = ramp(), Net()
    seen = Seen(model, callback)
    model.after_batch.append(lambda run: recentre(model, "set_data"))
    fit(model, callback, max_steps=20)
    assert sum(seen.alive) == 0
    assert sparsity(model) == 205 / 256


def test_G30_learned_masks_are_guarded_once_they_are_final() -> None:
    callback, model = PruningCallback(LearnedMasks(Polynomial(0.5, 2, 8, 2), pattern=Element())), Net()
    alive: list[int] = []

    def look(run: pl.Trainer) -> None:
        if callback.pruner._model.finished:  # pyright: ignore
            masks = callback.pruner.masks
            alive.append(sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks.values()))

    model.in_step.append(look)
    model.after_batch.append(lambda run: recentre(model, "counted"))
    with pytest.warns(UserWarning, match="were not zero any more"):
        fit(model, callback, max_steps=20)
    assert len(alive) == 12
    assert sum(alive) == 0


def test_G30_a_hook_that_writes_for_a_while_costs_and_says_nothing_after(recwarn: pytest.WarningsRecorder) -> None:
    """Writes that leave zeros alone are no reason for a warning."""
    callback, model = ramp(), Net()

    def scale(run: pl.Trainer) -> None:
        with torch.no_grad():
            model.net[0].weight.mul_(0.99)
            model.net[3].weight.data.clamp_(-0.1, 0.1)

    model.after_batch.append(scale)
    fit(model, callback, max_steps=20)
    assert not [each for each in recwarn if "not zero" in str(each.message)]


def test_G30_a_weight_average_is_no_reason_for_a_warning() -> None:  # a warning is an error here
    callback, model = ramp(), Net()
    fit(model, callback, EMAWeightAveraging(decay=0.9), max_steps=20, val=1)
    assert sparsity(model) == 205 / 256


def test_G30_without_writes_no_value_is_looked_at_but_after_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def counted(weights: list[MaskedWeight]) -> list[MaskedWeight]:
        looked.extend(weight.target.name for weight in weights)
        return mend(weights)

    monkeypatch.setattr(guard, "mend", counted)
    fit(Net(), ramp(), max_steps=20)
    assert len(looked) == 2 * 5  # two weights, five updates


def test_G30_a_second_fit_warns_again() -> None:
    callback = ramp()
    for _ in range(2):
        model = Net()
        model.after_batch.append(lambda run, model=model: recentre(model, "counted"))
        with pytest.warns(UserWarning, match="were not zero any more"):
            fit(model, callback, max_steps=20)


def test_G30_a_weight_without_pruned_entries_is_left_alone() -> None:
    callback, model = PruningCallback(0.0), Net()
    before: list[Tensor] = []
    model.after_batch.append(lambda run: recentre(model, "counted"))
    model.after_batch.append(lambda run: before.append(model.net[0].weight.detach().clone()))
    fit(model, callback, max_steps=3)
    assert torch.equal(before[-1], model.net[0].weight.detach())


class BeforeForward(Net):
    """Writes to its weights when the callback has looked at them already."""

    def __init__(self, where: str, way: str) -> None:
        super().__init__()
        self.where, self.way = where, way

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.where == "hook":
            recentre(self, self.way)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.where == "step":
            recentre(self, self.way)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(("where", "way"), [("hook", "counted"), ("step", "counted"), ("hook", "data")])
def test_G30_what_is_written_just_before_a_forward_is_said_once(where: str, way: str) -> None:
    model, callback = BeforeForward(where, way), ramp()
    with pytest.warns(UserWarning, match=r"net\.0\.weight, net\.3\.weight were not zero in a forward") as said:
        fit(model, callback, max_steps=20)
    assert len([each for each in said if "were not zero" in str(each.message)]) == 1
    assert callback.report is not None
    assert callback.report.sparsity == sparsity(model) == round(0.8 * 256) / 256
