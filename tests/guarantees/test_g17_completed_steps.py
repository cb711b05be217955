"""G17: steps are completed optimizer steps; accumulation and several optimizers neither shift nor repeat an update."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import OneShot, Polynomial
from tests.guarantees.helpers import RAMP, SIZE, Net, adamw, draw, fit, momentum, ramp, zeros
from tests.guarantees.spies import Record


class Gan(Net):
    """Two networks, two optimizers, stepped by hand; the discriminator may step more often than the generator."""

    def __init__(self, accumulate: int = 1, critic_steps: int = 1, clip: float | None = None) -> None:
        super().__init__(norm=False)
        self.automatic_optimization = False
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.accumulate = accumulate
        self.critic_steps = critic_steps
        self.clip = clip

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for act in self.in_step:
            act(self.trainer)
        optimizers: Any = self.optimizers()
        generator, critic = optimizers
        x, y = draw(self.global_step, next(self.parameters()))
        real = nn.functional.one_hot(y, 4).to(x)
        last = (batch_idx + 1) % self.accumulate == 0
        for _ in range(self.critic_steps):
            self._step(critic, self.critic(self.net(x).detach()).mean() - self.critic(real).mean(), last)
        self._step(generator, -self.critic(self.net(x)).mean(), last)

    def _step(self, optimizer: Any, loss: Tensor, last: bool) -> None:
        self.toggle_optimizer(optimizer)
        self.manual_backward(loss / self.accumulate)
        if last:
            if self.clip:
                self.clip_gradients(optimizer, self.clip, "norm")
            optimizer.step()
            optimizer.zero_grad()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return momentum(self.net.parameters()), adamw(self.critic.parameters())


GAN_SIZE = SIZE + 4 * 8 + 8


@pytest.mark.parametrize("critic_steps", [1, 2], ids=["two_steps_a_batch", "three_steps_a_batch"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_G17_two_optimizers_and_accumulation_shift_and_repeat_no_update(accumulate: int, critic_steps: int) -> None:
    model, callback = Gan(accumulate, critic_steps), ramp()
    record = Record(model, callback)
    fit(model, callback, batches=4 * accumulate, max_epochs=6)
    assert record.rows[-1][0] == 24 * (1 + critic_steps)
    steps = [step for step, _, _ in record.rows]
    due = [RAMP.last_update(step) for step in steps]
    assert [last for _, last, _ in record.rows] == due
    assert [d for _, _, d in record.rows] == [0 if t is None else round(RAMP.sparsity(t) * GAN_SIZE) for t in due]
    assert record.updates == list(dict.fromkeys(due))


def test_G17_accumulation_repeats_no_update() -> None:
    model, callback = Net(), ramp()
    record = Record(model, callback)
    fit(model, callback, batches=20, accumulate_grad_batches=4, max_epochs=4)
    assert record.updates == [None, 3, 6, 9, 12, 13]
    assert [step for step, _, _ in record.rows] == [i // 4 for i in range(1, 81)]


def test_G17_a_share_of_a_run_with_two_optimizers_counts_the_steps_of_both() -> None:
    model, callback = Gan(), PruningCallback(Polynomial(0.8, 0.25, 0.75, 0.25))
    record = Record(model, callback)
    fit(model, callback, batches=4, max_epochs=5)
    assert record.rows[-1][0] == 40
    assert record.updates == [None, 10, 20, 30]


def test_G17_both_optimizers_are_guarded_at_each_step() -> None:
    model, callback = Gan(clip=0.1), PruningCallback(Pruner(OneShot(0.5, 4)))
    back: list[int] = []

    def look(trainer: pl.Trainer) -> None:
        masks = callback.pruner.masks
        back.append(sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks.values()))

    model.after_batch.append(look)
    model.in_step.append(look)
    fit(model, callback, batches=4, max_epochs=4)
    assert back == [0] * 32
    assert sum(zeros(model).values()) == GAN_SIZE // 2
