"""Weights that return: against a slow version at every update, exact counts, resumed to the bit, what is refused."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import PruningCallback
from lightning_prune.callbacks import Rewind
from lightning_prune.criterion import OBS, FirstOrderDelta, Magnitude, Random, Taylor
from lightning_prune.pattern import Block, Channel, Column, Element, Kernel, NofM, Row
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.regrowing import Regrowing
from lightning_prune.reconstruction import SparseGPT
from lightning_prune.regrowth import Gradient
from lightning_prune.regularizer import Growing
from lightning_prune.schedule import AccuracyBudget, Geometric, Hold, OneShot, Polynomial
from lightning_prune.scope import ERK, GlobalRanking, Uniform
from lightning_prune.targets import Targets
from tests.helpers import grad_of, same

STEPS = 16
RISING = Polynomial(0.7, 3, 12, 3)
CONSTANT = Polynomial(0.6, 0, 15, 3, initial_sparsity=0.6)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 11), nn.Tanh(), nn.Linear(11, 9), nn.Tanh(), nn.Linear(9, 3))


def wide() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 3))


def conv() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 4, 2, groups=2), nn.Flatten(), nn.Linear(4, 3))


def net(make: Callable[[], nn.Sequential] = mlp) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make()


def loss_of(model: nn.Sequential, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    shape = (9, 6) if isinstance(model[0], nn.Linear) else (9, 2, 4, 4)
    x, y = torch.randn(shape, generator=generator), torch.randint(0, 3, (9,), generator=generator)
    return functional.cross_entropy(model(x), y)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 0.02)


def one_step(model: nn.Sequential, pruner: Pruner, optimizer: torch.optim.Optimizer, step: int) -> bool:
    optimizer.zero_grad()
    loss_of(model, step).backward()
    pruner.before_step(optimizer)
    optimizer.step()
    return pruner.after_step(step, [optimizer])


def slowly(weight: Tensor, gradient: Tensor, keep: Tensor, share: float) -> Tensor:
    """Return the mask after an exchange, found one unit after the other; of equal ones the first is better."""
    w, g, stay = weight.abs().flatten().tolist(), gradient.abs().flatten().tolist(), keep.flatten().tolist()
    alive = [n for n, kept in enumerate(stay) if kept]
    number = min(int(share * len(alive)), sum(g[n] > 0 for n, kept in enumerate(stay) if not kept))
    for _ in range(number):
        worst = min((n for n in alive if stay[n]), key=lambda n: (w[n], -n))
        stay[worst] = False
    among = [n for n, kept in enumerate(stay) if not kept]
    for n in sorted(among, key=lambda n: (-g[n], n))[:number]:
        stay[n] = True
    return torch.tensor(stay).view(keep.shape)


def units_of(pattern: Any, values: Tensor) -> Tensor:
    return values if isinstance(pattern, Element) else pattern.units(values)


CASES: dict[str, tuple[Callable[[], nn.Sequential], dict[str, Any]]] = {
    "granet": (mlp, {"schedule": RISING}),
    "rigl from a random start": (mlp, {"schedule": CONSTANT, "criterion": Random(3), "scope": ERK()}),
    "window": (mlp, {"schedule": RISING, "regrowth": Gradient(0.5, 14, window=2), "scope": Uniform()}),
    "window longer than the frequency": (mlp, {"schedule": RISING, "regrowth": Gradient(0.5, 14, window=5)}),
    "another criterion looks as well": (mlp, {"schedule": RISING, "criterion": Taylor(window=2)}),
    "memory of its own": (mlp, {"schedule": RISING, "criterion": FirstOrderDelta(0.5)}),
    "geometric": (conv, {"schedule": Geometric(0.8, 2, 13, 2)}),
    "rules": (mlp, {"schedule": RISING, "targets": Targets(sparsity={"0.weight": 0.4}, exclude=("4",))}),
    "row": (wide, {"schedule": RISING, "pattern": Row()}),
    "column": (wide, {"schedule": CONSTANT, "criterion": Random(1), "scope": Uniform(), "pattern": Column()}),
    "kernel": (conv, {"schedule": CONSTANT, "pattern": Kernel()}),
    "block": (mlp, {"schedule": RISING, "pattern": Block(1, 3), "targets": Targets(include=("0.weight", "4.weight"))}),
    "growing": (mlp, {"schedule": RISING, "regularizer": Growing(0.01)}),
}


@pytest.mark.parametrize("case", CASES)
def test_G3_every_update_is_that_of_the_slow_version_with_exact_counts(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, given = CASES[case]
    options: dict[str, Any] = {"regrowth": Gradient(0.8, 14)} | given
    regrowth: Gradient = options["regrowth"]
    model, pruner = net(make), Pruner(**options)
    optimizer = adam(model)
    asked: dict[str, Tensor] = {}
    inner = Regrowing.exchanged

    def exchanged(self: Any, decisions: Any, step: int) -> Any:
        asked.update({d.weight.target.name: d.mask.clone() for d in decisions})
        return inner(self, decisions, step)

    monkeypatch.setattr(Regrowing, "exchanged", exchanged)
    pruner.attach(model, STEPS)
    pruner.after_step(0, [optimizer])
    pattern: Any = options.get("pattern", Element())
    window: list[dict[str, Tensor]] = []
    since, differ, returned = 0, 0, 0
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        window.append({name: grad_of(model, name).clone() for name in pruner.masks})
        pruner.before_step(optimizer)
        optimizer.step()
        masks = {name: weight.mask.clone() for name, weight in pruner.masks.items()}
        values = {name: weight.values.detach().clone() for name, weight in pruner.masks.items()}
        asked.clear()
        if not pruner.after_step(step, [optimizer]):
            continue
        share = regrowth.fraction / 2 * (1 + math.cos(math.pi * step / regrowth.until)) if step < regrowth.until else 0
        assert set(asked) == set(masks)
        for name, weight in pruner.masks.items():
            sums = torch.zeros_like(values[name])
            for gradients in window[-min(regrowth.window, step - since) :]:
                sums += gradients[name]
            units = [units_of(pattern, some) for some in (values[name].abs(), sums.abs(), asked[name].float())]
            kept = slowly(units[0], units[1], units[2] > 0, share)
            wanted = kept if isinstance(pattern, Element) else pattern.expand(kept, weight.shape)
            assert torch.equal(weight.mask, wanted), (step, name)
            assert int(weight.mask.sum()) == int(asked[name].sum()) == weight.size - weight.pruned
            back = weight.mask & ~masks[name]
            returned += int(back.sum())
            differ += int((weight.mask != asked[name]).sum())
            assert not weight.values[back].any(), "they begin at zero"
            assert not weight.values[~weight.mask].any()
            for moment in ("exp_avg", "exp_avg_sq"):
                state = optimizer.state[weight.parameter][moment]
                assert not state[back].any()
                assert not state[~weight.mask].any()
        since = step
        if isinstance(pattern, Element) and not options.get("targets"):
            total = sum(weight.size for weight in pruner.masks.values())
            wanted_zeros = options["schedule"].sparsity(step) * total
            apart = 0.5 if isinstance(options.get("scope", GlobalRanking()), (GlobalRanking, ERK)) else 2
            assert abs(sum(weight.pruned for weight in pruner.masks.values()) - wanted_zeros) <= apart
    assert differ >= 6
    assert returned >= 2
    report = pruner.strip()
    alive = sum(int((parameter == 0).sum()) for name, parameter in model.named_parameters() if "weight" in name)
    assert report.zeros == sum(w.zeros for w in report.weights)
    assert case in ("rules", "block") or alive == report.zeros
    if isinstance(pattern, Element) and case != "rules":
        assert report.zeros == round(options["schedule"].final_sparsity * report.size)


SLOWER = ("rigl from a random start", "another criterion looks as well", "row")


@pytest.mark.parametrize("case", ["granet", "window", *(pytest.param(c, marks=pytest.mark.slow) for c in SLOWER)])
def test_G2_resumed_between_a_step_and_its_update_and_right_behind_one_it_ends_in_the_same_bits(case: str) -> None:
    make, given = CASES[case]
    options: dict[str, Any] = {"regrowth": Gradient(0.8, 14)} | given

    def run(cut: int | None, before_update: bool = False) -> Any:
        model, pruner = net(make), Pruner(**options)
        optimizer = adam(model)
        pruner.attach(model, STEPS)
        pruner.after_step(0, [optimizer])
        kept_zeros = 0
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            loss_of(model, step).backward()
            pruner.before_step(optimizer)
            optimizer.step()
            if not before_update:
                pruner.after_step(step, [optimizer])
            else:
                pruner.mask_weights(optimizer)
            if step == cut:
                states = copy.deepcopy((model.state_dict(), optimizer.state_dict(), pruner.state_dict()))
                kept_zeros = sum(len(m.get("kept_zeros", ())) for m in states[2]["masks"].values())
                model, pruner = net(make), Pruner(**options)
                optimizer = adam(model)
                model.load_state_dict(states[0])
                pruner.load_state_dict(states[2])
                pruner.attach(model, STEPS)
                optimizer.load_state_dict(states[1])
            if before_update:
                pruner.update(step, [optimizer])
        masks = {name: weight.mask.clone() for name, weight in pruner.masks.items()}
        return (dict(model.state_dict()), masks, optimizer.state_dict()["state"]), kept_zeros

    whole, _ = run(None)
    zeros: list[int] = []
    for cut, before_update in ((5, False), (6, True), (9, False)):
        ended, kept_zeros = run(cut, before_update)
        zeros.append(kept_zeros)
        assert same(ended, whole), (cut, before_update)
    assert max(zeros) > 1, "what had just returned was saved as kept"


def test_nothing_is_held_between_windows_and_no_gradient_without_an_exchange() -> None:
    model, pruner = net(), Pruner(RISING, regrowth=Gradient(0.3, 8))
    optimizer = adam(model)
    pruner.attach(model, STEPS)
    held: list[int] = []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        pruner.before_step(optimizer)
        if "returning" in pruner.state_dict():
            held.append(step)
        optimizer.step()
        pruner.after_step(step, [optimizer])
    assert held == [3, 6], "the updates at 9 and 12 are behind `until`"


def test_an_update_before_the_first_step_exchanges_nothing_and_waits_for_nothing() -> None:
    model, pruner = net(), Pruner(CONSTANT, Random(), scope=Uniform(), regrowth=Gradient(0.5, 14))
    alone = Pruner(CONSTANT, Random(), scope=Uniform())
    other = net()
    pruner.attach(model, STEPS)
    alone.attach(other, STEPS)
    assert pruner.after_step(0)
    assert alone.after_step(0)
    assert pruner.masks.digest() == alone.masks.digest()


def test_accumulated_gradients_count_as_one_and_clipping_does_not_count() -> None:
    masks: list[dict[str, Tensor]] = []
    for parts in (1, 2):
        model, pruner = net().double(), Pruner(OneShot(0.6, 1), regrowth=Gradient(0.5, 14))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        pruner.attach(model, STEPS)
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for some in x.chunk(parts):
            (model(some).square().mean() / parts).backward()
        pruner.before_step(optimizer)
        for parameter in model.parameters() if parts == 2 else ():
            assert parameter.grad is not None
            parameter.grad.clamp_(-1e-9, 1e-9)
        for parameter in model.parameters():
            parameter.requires_grad_()
        pruner.after_step(1, [optimizer])
        masks.append({name: weight.mask for name, weight in pruner.masks.items()})
    plain = Pruner(OneShot(0.6, 1))
    model = net().double()
    plain.attach(model, STEPS)
    plain.after_step(1)
    counts = [int(mask.sum()) for mask in masks[0].values()]
    assert counts == [int(mask.sum()) for mask in masks[1].values()]
    assert counts == [weight.size - weight.pruned for weight in plain.masks.values()]
    assert any(not torch.equal(mask, plain.masks[name].mask) for name, mask in masks[0].items())


def test_a_loss_scale_is_taken_out_and_steps_that_overflow_are_left_out() -> None:
    found: list[Any] = []
    for scale in (1.0, 256.0):
        model, pruner = net(), Pruner(OneShot(0.5, 2), regrowth=Gradient(0.5, 14, window=2))
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        pruner.attach(model, STEPS)
        (loss_of(model, 1) * scale).backward()
        pruner.before_step(optimizer, grad_scale=scale)
        if scale != 1.0:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad.fill_(torch.inf)
            pruner.before_step(optimizer, grad_scale=scale)
        pruner.after_step(2, [optimizer])
        found.append({name: weight.mask for name, weight in pruner.masks.items()})
    assert same(*found)


def test_G24_a_gradient_that_is_not_finite_is_named_and_nothing_is_changed() -> None:
    model, pruner = net(), Pruner(OneShot(0.5, 1), FirstOrderDelta(0.5), regrowth=Gradient(0.5, 14))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner.attach(model, STEPS)
    loss_of(model, 1).backward()
    grad = model.get_parameter("2.weight").grad
    assert grad is not None
    grad[0, 0] = torch.nan
    pruner.before_step(optimizer)
    before = copy.deepcopy((dict(model.state_dict()), pruner.masks.digest()))
    with pytest.raises(ValueError, match=r"'2\.weight' is not finite"):
        pruner.after_step(1, [optimizer])
    assert same(before, (dict(model.state_dict()), pruner.masks.digest()))


def test_a_weight_that_no_gradient_reaches_is_waited_for_and_named() -> None:
    model, pruner = net(), Pruner(OneShot(0.5, 1), regrowth=Gradient(0.5, 30))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, 40)
    for step in range(1, 18):
        model.zero_grad()
        loss_of(model, step).backward()
        model.get_parameter("2.weight").grad = None
        pruner.before_step(optimizer)
        if step < 17:
            assert not pruner.after_step(step, [optimizer])
    with pytest.raises(ValueError, match=r"has seen no gradient of '2\.weight' in 16 steps"):
        pruner.after_step(17, [optimizer])


def test_frozen_weights_that_are_included_exchange_nothing() -> None:
    model = net()
    model.get_parameter("2.weight").requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 1), scope=Uniform(), regrowth=Gradient(0.5, 14), targets=Targets(include=("weight",)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    pruner.attach(model, STEPS)
    smallest = model.get_parameter("2.weight").abs().flatten().argsort()[:50]
    assert one_step(model, pruner, optimizer, 1)
    assert not pruner.masks["2.weight"].mask.flatten()[smallest[:49]].any()
    assert pruner.masks["2.weight"].pruned == round(0.5 * 99)


def test_where_nothing_has_a_gradient_nothing_is_exchanged() -> None:
    """Inputs that are always zero: the weights that read them would return, and stay zero."""
    model = net()
    pruner = Pruner(
        OneShot(0.9, 1), scope=Uniform(), regrowth=Gradient(0.9, 14), targets=Targets(include=("0.weight",))
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    x = torch.zeros(5, 6)
    x[:, 0] = torch.randn(5)
    for step in range(1, 6):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(step, [optimizer])
    weight = pruner.masks["0.weight"]
    assert int(weight.mask[:, 0].sum()) >= 5
    assert pruner.strip().zeros == round(0.9 * 66), "nothing that is kept is zero"


def test_stacked_experts_are_one_layer() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bi,eio->bo", x, self.weight)

    for pattern in (Element(), Row()):
        model = Experts()
        targets = Targets(include=("weight",), layout={"weight": "expert in out"})
        pruner = Pruner(OneShot(0.6, 1), pattern=pattern, targets=targets, regrowth=Gradient(0.6, 14))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        pruner.attach(model, STEPS)
        before = model.weight.detach().clone()
        model(torch.randn(7, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(1, [optimizer])
        mask = pruner.masks["weight"].mask
        assert int(mask.sum()) == 24
        if isinstance(pattern, Row):
            rows = mask.movedim(-1, 1)
            assert torch.equal(rows.all(-1), rows.any(-1))
        assert before.shape == mask.shape


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a class": ({"regrowth": Gradient}, "regrowth=Gradient is a class"),
    "none": ({"regrowth": 0.3}, "regrowth=0.3 is no regrowth"),
    "channel": ({"pattern": Channel()}, "pattern=Channel("),
    "n of m": ({"pattern": NofM(2, 4)}, "groups of pattern=NofM(n=2, m=4)"),
    "reconstruction": ({"reconstruction": SparseGPT()}, "reconstruction=SparseGPT("),
    "obs": ({"criterion": OBS()}, "OBS("),
    "reversible": ({"reversible": True}, "reversible=True"),
    "hold": ({"schedule": Hold()}, "schedule=Hold()"),
    "told": ({"schedule": AccuracyBudget("val/accuracy", 0.01)}, "schedule=AccuracyBudget("),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_it_is_refused_by_name(case: str) -> None:
    given, message = REFUSED[case]
    options: dict[str, Any] = {"schedule": RISING, "regrowth": Gradient()} | given
    with pytest.raises(ValueError, match=re.escape(message)):
        Pruner(**options)


def test_a_return_at_the_last_step_of_the_run_is_refused_and_the_model_left_as_it_was() -> None:
    model = net()
    for schedule in (Polynomial(0.5, 2, 10, 2), Geometric(0.5, 4, 10, 3)):
        with pytest.raises(ValueError, match="return at step 10, the last of the run"):
            Pruner(schedule, regrowth=Gradient(0.3, 11)).attach(model, 10)
        Pruner(schedule, regrowth=Gradient(0.3, 11)).attach(net(), 11)
        Pruner(schedule, regrowth=Gradient(0.3, 1.0)).attach(net(), 10)
    assert not hasattr(model[0], "weight_mask")
    with pytest.raises(ValueError, match=r"until=0\.75 is a share of the run"):
        Pruner(RISING, regrowth=Gradient()).attach(model)


def test_blocks_that_are_cut_off_are_refused_by_weight() -> None:
    with pytest.raises(ValueError, match=r"in '0\.weight', of shape \(11, 6\), are not of one size"):
        Pruner(RISING, pattern=Block(2, 3), regrowth=Gradient()).attach(net(), STEPS)


def test_the_plan_says_how_many_return() -> None:
    pruner = Pruner(RISING, regrowth=Gradient(0.3, 14))
    pruner.attach(net(), STEPS)
    share = 0.15 * (1 + math.cos(math.pi * 3 / 14))
    assert f"each layer exchanges {100 * share:.1f} % of its weights at step 3" in pruner.report().plan()
    late = Pruner(RISING, regrowth=Gradient(0.3, 2))
    late.attach(net(), STEPS)
    assert "no update exchanges any weights" in late.report().plan()
    start = Pruner(CONSTANT, regrowth=Gradient(0.3, 14))
    start.attach(net(), STEPS)
    assert "of its weights at step 3" in start.report().plan()


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.02)


def fit(callback: PruningCallback, **options: Any) -> Module:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 6, generator=generator), torch.randint(0, 3, (64,), generator=generator)
    module = Module()
    shown = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        callbacks=[callback], max_epochs=2, accelerator="cpu", enable_checkpointing=False, **shown, **options
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), 8))
    return module


def test_a_run_of_lightning_ends_with_the_exact_sparsity() -> None:
    """With clipping and accumulation: 8 optimizer steps."""
    masks: list[dict[str, Tensor]] = []

    class Watched(Pruner):
        def update(self, step: int, optimizers: Any = ()) -> bool:
            done = super().update(step, optimizers)
            if done:
                masks.append({name: weight.mask for name, weight in self.masks.items()})
            return done

    pruner = Watched(Polynomial(0.8, 1, 6, 1), regrowth=Gradient(0.4, 7))
    callback = PruningCallback(pruner)
    module = fit(callback, gradient_clip_val=0.1, accumulate_grad_batches=2)
    assert len(masks) == 6
    back = [sum(int((b[n] & ~a[n]).sum()) for n in a) for a, b in pairwise(masks)]
    assert sum(back) > 10
    assert callback.report is not None
    assert callback.report.zeros == round(0.8 * callback.report.size)
    assert callback.report.zeros == sum(int((m.weight == 0).sum()) for m in module.net if isinstance(m, nn.Linear))


def test_rewinding_is_refused_before_training() -> None:
    for rewind in (1, Rewind("init")):
        callback = PruningCallback(Pruner(Polynomial(0.8, 2, 6, 1), regrowth=Gradient(0.4, 7)), rewind=rewind)
        with pytest.raises(ValueError, match="rewind does not go with regrowth="):
            fit(callback)


def test_magnitude_is_what_is_dropped_by_whatever_the_criterion() -> None:
    """A random start: the criterion draws at every update anew, and what is exchanged is the smallest all the same."""
    model, pruner = net(), Pruner(CONSTANT, Random(7), scope=Uniform(), regrowth=Gradient(0.3, 14))
    assert pruner.criterion != Magnitude()
    optimizer = adam(model)
    pruner.attach(model, STEPS)
    pruner.after_step(0, [optimizer])
    for step in (1, 2):
        one_step(model, pruner, optimizer, step)
    optimizer.zero_grad()
    loss_of(model, 3).backward()
    pruner.before_step(optimizer)
    optimizer.step()
    before = {name: weight.mask.clone() for name, weight in pruner.masks.items()}
    values = {name: weight.values.detach().clone() for name, weight in pruner.masks.items()}
    assert pruner.after_step(3, [optimizer])
    for name, weight in pruner.masks.items():
        stayed, gone = (values[name][before[name] & flags].abs() for flags in (weight.mask, ~weight.mask))
        assert len(gone) >= 1
        number = int(0.15 * (1 + math.cos(math.pi * 3 / 14)) * int(before[name].sum()))
        assert float(gone.max()) <= float(torch.cat([stayed, gone]).sort().values[number - 1])
