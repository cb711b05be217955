"""G4, G5, G17: every update at its step, once, with the formula's sparsity; masks only shrink unless reversible."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import FirstOrderDelta, Magnitude, Random
from lightning_prune.schedule import Geometric, Iterative, OneShot, Polynomial, Schedule
from tests.guarantees.helpers import RAMP, Net, adamw, draw, fit, momentum, ramp, zeros

SIZE = 12 * 16 + 16 * 4
STEPS = 20

Plan = dict[int, float]
"""Update step -> sparsity from there on."""


def on_curve(begin: int, end: int, frequency: int, curve: Callable[[float], float]) -> Plan:
    """The plan written out from the definition: a grid from `begin`, and `end`."""
    return {t: curve((t - begin) / (end - begin)) for t in [*range(begin, end, frequency), end]}


PLANS: dict[str, tuple[Schedule, Plan]] = {
    "cubic, end off the grid": (Polynomial(0.8, 3, 13, 3), on_curve(3, 13, 3, lambda p: 0.8 - 0.8 * (1 - p) ** 3)),
    "from step 0": (Polynomial(0.5, 0, 8, 4, 0.2), on_curve(0, 8, 4, lambda p: 0.5 - 0.3 * (1 - p) ** 3)),
    "linear, to the last step": (Polynomial(0.9, 5, 20, 4, power=1.0), on_curve(5, 20, 4, lambda p: 0.9 * p)),
    "frequency past the end": (Polynomial(0.6, 4, 9, 50, 0.1), {4: 0.1, 9: 0.6}),
    "shares": (Polynomial(0.8, 0.1, 0.65, 0.2), on_curve(2, 13, 4, lambda p: 0.8 - 0.8 * (1 - p) ** 3)),
    "shares and ints": (Polynomial(0.8, 2, 0.65, 4), on_curve(2, 13, 4, lambda p: 0.8 - 0.8 * (1 - p) ** 3)),
    "share below one step": (Polynomial(0.7, 4, 8, 0.01), on_curve(4, 8, 1, lambda p: 0.7 - 0.7 * (1 - p) ** 3)),
    "geometric": (Geometric(0.9, 2, 12, 4), on_curve(2, 12, 4, lambda p: 1 - 0.1 ** (1 - (1 - p) ** 2))),
    "one shot": (OneShot(0.75, 6), {6: 0.75}),
    "one shot before the first step": (OneShot(0.75, 0), {0: 0.75}),
    "one shot at a share": (OneShot(0.75, 0.5), {10: 0.75}),
    "iterative": (Iterative(0.875, 4, 12, 3), {4: 0.5, 8: 0.75, 12: 0.875}),
    "the one line": (
        PruningCallback(0.9).pruner.schedule,
        on_curve(1, 8, 1, lambda p: 0.9 - 0.9 * (1 - p) ** 3),
    ),
}


class Record:
    """What a run's masks did, looked at after every batch."""

    def __init__(self, model: Net, callback: PruningCallback) -> None:
        self.callback = callback
        self.rows: list[tuple[int, int | None, int]] = []
        self.masks: list[dict[str, Tensor]] = []
        self.updates: list[int | None] = []
        model.after_batch.append(self.look)

    def look(self, trainer: pl.Trainer) -> None:
        masks = {n: w.mask for n, w in self.callback.pruner.masks.items()}
        if not self.masks or any(m is not self.masks[-1][n] for n, m in masks.items()):
            self.masks.append(masks)
            self.updates.append(self.callback.pruner.last_update)
        dropped = sum(int((~m).sum()) for m in masks.values())
        self.rows.append((trainer.global_step, self.callback.pruner.last_update, dropped))

    def expected(self, plan: Plan) -> list[tuple[int, int | None, int]]:
        rows: list[tuple[int, int | None, int]] = []
        for step, _, _ in self.rows:
            last = max((t for t in plan if t <= step), default=None)
            rows.append((step, last, 0 if last is None else round(plan[last] * SIZE)))
        return rows


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", PLANS)
def test_G4_every_update_comes_at_its_step_with_the_formulas_sparsity(name: str, accumulate: int) -> None:
    schedule, plan = PLANS[name]
    model, callback = Net(norm=False), PruningCallback(schedule)
    record = Record(model, callback)
    fit(model, callback, batches=5 * accumulate, accumulate_grad_batches=accumulate, max_epochs=4)
    assert [step for step, _, _ in record.rows][-1] == STEPS
    assert record.rows == record.expected(plan)
    assert sum(zeros(model).values()) == round(max(plan.values()) * SIZE)


def test_G4_a_bound_in_steps_is_the_length_that_shares_refer_to() -> None:
    model, callback = Net(norm=False), PruningCallback(Polynomial(0.8, 0.1, 0.65, 0.2))
    record = Record(model, callback)
    fit(model, callback, batches=7, max_steps=STEPS, max_epochs=50)
    assert record.rows == record.expected(PLANS["shares"][1])


@pytest.mark.parametrize(
    ("criterion", "reversible"),
    [(Magnitude(), False), (Magnitude(), True), (Random(), False), (Random(), True), (FirstOrderDelta(0.5), False)],
)
def test_G5_a_pruned_weight_returns_only_where_reversible(criterion: Any, reversible: bool) -> None:
    slow = Polynomial(0.5, 2, 20, 2, initial_sparsity=0.4, power=1.0)
    model, callback = Net(momentum), ramp(schedule=slow, criterion=criterion, reversible=reversible)
    record = Record(model, callback)
    fit(model, callback, max_steps=STEPS)
    pairs = [(a[n], b[n]) for a, b in pairwise(record.masks) for n in a]
    assert len(record.masks) == 11
    returned = sum(int((later & ~earlier).sum()) for earlier, later in pairs)
    assert (returned > 0) == reversible


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
