"""G7, G30: masks hold after each step of optimizers that have no hooks of torch's, or write behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks.stepping import AfterStep
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import RAMP, Net, Units, bits, differences, fit, momentum, ramp, sparsity
from tests.guarantees.whole_units import assert_pruned, channels
from tests.helpers import mlp


class Slow:
    """Slow weights: after each second step they go half of the way, and the weights go back to them."""

    def __init__(self, parameters: Iterable[nn.Parameter], through_data: bool) -> None:
        self.through_data = through_data
        self.pairs = [(p, p.detach().clone()) for p in parameters]
        self.count = 0

    def pull(self) -> None:
        self.count += 1
        for parameter, slow in self.pairs if self.count % 2 == 0 else ():
            slow += 0.5 * (parameter.detach() - slow)
            with torch.no_grad():
                (parameter.data if self.through_data else parameter).copy_(slow)


class Bare(Optimizer):
    """Skips `Optimizer.__init__`, and so has no hooks: a wrapper as they are found on the web."""

    def __init__(self, inner: Optimizer, slow: Slow) -> None:
        self.inner, self.slow = inner, slow
        self.param_groups, self.defaults, self.state = inner.param_groups, inner.defaults, inner.state

    def step(self, closure: Any = None) -> Any:
        loss = self.inner.step(closure)
        self.slow.pull()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)


class Lent(Bare):
    """Lends all attributes of the one inside, hooks among them: they come before the slow weights."""

    def __init__(self, inner: Optimizer, slow: Slow) -> None:
        self.__dict__.update(inner.__dict__)
        self.inner, self.slow = inner, slow


class Asked(Bare):
    """Asks the one inside for what it does not have."""

    def __init__(self, inner: Optimizer, slow: Slow) -> None:
        self.inner, self.slow = inner, slow

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


class Proper(Optimizer):
    """Made as torch wants it, around another one."""

    def __init__(self, inner: Optimizer, slow: Slow) -> None:
        self.inner, self.slow = inner, slow
        super().__init__(inner.param_groups, {})

    def step(self, closure: Any = None) -> Any:  # pyright: ignore
        loss = self.inner.step(closure)
        self.slow.pull()
        return loss


class Lightnings(LightningOptimizer):
    """Lightning's own wrapper, with more in its step."""

    def __init__(self, inner: Optimizer, slow: Slow) -> None:
        super().__init__(inner)
        self.slow = slow

    def step(self, closure: Any = None, **options: Any) -> Any:
        loss = super().step(closure, **options)
        self.slow.pull()
        return loss


FORMS = [Bare, Lent, Asked, Proper, Lightnings]


class Watched(Net):
    """Counts the pruned weights that are alive when a forward begins."""

    def __init__(self, form: Any, through_data: bool) -> None:
        super().__init__(norm=False)
        self.form, self.through_data = form, through_data
        self.callback: Any = None
        self.alive: list[int] = []
        self.made: Any = None

    def loss(self, seed: int) -> Tensor:
        if self.callback is not None and self.callback.pruner.attached:
            masks = self.callback.pruner.masks
            self.alive.append(sum(int((w.parameter.detach()[~w.mask] != 0).sum()) for w in masks.values()))
        return super().loss(seed)

    def configure_optimizers(self) -> Any:
        parameters = list(self.parameters())
        self.made = self.form(momentum(parameters), Slow(parameters, self.through_data))
        return self.made


@pytest.mark.parametrize("through_data", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_G30_slow_weights_bring_nothing_back(form: Any, through_data: bool) -> None:
    callback, model = ramp(), Watched(form, through_data)
    model.callback = callback
    fit(model, callback, max_steps=24, val=1)
    assert sum(model.alive) == 0
    assert len(model.alive) > 24
    assert sparsity(model) == 205 / 256
    assert "step" not in vars(model.made)


@pytest.mark.parametrize("form", [Bare, Lightnings])
def test_G30_the_slow_weights_do_act_between(form: Any) -> None:
    """Without the callback they bring pruned weights back, and kept weights are those of a run that is not pruned."""
    pruned, plain = Watched(form, True), Watched(form, True)
    fit(pruned, PruningCallback(0.0), max_steps=9)
    fit(plain, max_steps=9)
    assert not differences(bits(pruned), bits(plain))


@pytest.mark.parametrize("form", [Bare, Lent, Lightnings])
def test_G30_manual_steps_are_masked_before_the_next_forward_of_the_batch(form: Any) -> None:
    class Manual(Watched):
        def __init__(self) -> None:
            super().__init__(form, True)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer: Any = self.optimizers()
            for seed in range(2):
                optimizer.zero_grad()
                self.manual_backward(self.loss(2 * self.global_step + seed))
                optimizer.step()

    callback, model = ramp(), Manual()
    model.callback = callback
    fit(model, callback, max_steps=24)
    assert len(model.alive) == 24
    assert sum(model.alive) == 0
    assert sparsity(model) == 205 / 256


@pytest.mark.parametrize("form", [Bare, Asked])
def test_G30_slow_weights_bring_no_unit_back(form: Any) -> None:
    class Wide(Units):
        def configure_optimizers(self) -> Any:
            parameters = list(self.parameters())
            return form(momentum(parameters), Slow(parameters, True))

    callback, model = channels(), Wide()
    fit(model, callback, max_steps=20)
    assert_pruned(model, callback)


def test_G30_an_update_beside_an_optimizer_without_state() -> None:
    model = mlp()
    optimizer = Bare(torch.optim.SGD(model.parameters(), 0.1), Slow(model.parameters(), False))
    del optimizer.state
    pruner = Pruner(OneShot(0.5, 1))
    pruner.attach(model)
    assert pruner.after_step(1, [optimizer])
    assert pruner.strip().sparsity == 0.5


def test_G30_a_scheduler_that_wraps_the_step_is_left_as_it_was() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    optimizer = Bare(torch.optim.SGD(parameters, 0.1), Slow(parameters, True))
    calls: list[Any] = []
    before = optimizer.step

    def scheduled(*args: Any) -> Any:
        calls.append("step")
        return before(*args)

    optimizer.step = scheduled  # pyright: ignore
    after = AfterStep(optimizer, lambda _: calls.append("after"))
    optimizer.step()
    assert calls == ["step", "after"]
    after.remove()
    assert optimizer.step is scheduled
    later = AfterStep(optimizer, lambda _: calls.append("later"))
    optimizer.step = lambda *_: None  # pyright: ignore
    kept = optimizer.step
    later.remove()
    assert optimizer.step is kept


@pytest.mark.parametrize("form", [Bare, Lightnings])
def test_G30_an_exception_leaves_the_optimizer_as_it_was(form: Any) -> None:
    class Failing(Watched):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.global_step == 9:
                raise RuntimeError("on purpose")

    model = Failing(form, True)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, ramp(schedule=RAMP), max_steps=20)
    assert "step" not in vars(model.made)


def test_G30_torchs_own_hook_is_used_where_there_is_one() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)
    after = AfterStep(optimizer, lambda _: None)
    assert "step" not in vars(optimizer)
    assert len(optimizer._optimizer_step_post_hooks) == 1
    after.remove()
    assert not optimizer._optimizer_step_post_hooks
