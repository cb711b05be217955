"""G30: what no optimizer steps and what is frozen is left whole, and pruned from when it trains."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning
from torch import Tensor, nn

from lightning_prune import LearnedMasks, Pruner, PruningCallback, Targets
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import OneShot, Polynomial
from tests.guarantees.helpers import RAMP, Net, Units, bits, differences, fit, ramp, sparsity, zeros
from tests.helpers import mlp

Make = Callable[[Any], torch.optim.Optimizer]


class Distilled(Net):
    """A student that trains and a teacher that nobody steps, though it is not frozen."""

    def __init__(self, frozen: bool = False, teacher: nn.Module | None = None) -> None:
        super().__init__()
        self.teacher = teacher or nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4))
        self.teacher.requires_grad_(not frozen)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with torch.no_grad():
            self.teacher(torch.ones(2, 12))
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.net.parameters())


def test_G30_a_teacher_that_no_optimizer_steps_is_left_whole() -> None:
    callback, model = ramp(), Distilled()
    before = bits(model.teacher)
    fit(model, callback, max_steps=20)
    assert not differences(before, bits(model.teacher))
    assert zeros(model)["net.0.weight"] + zeros(model)["net.3.weight"] == 205
    assert callback.report is not None
    assert callback.report.skipped["teacher.0.weight"] == "not stepped by any optimizer"
    assert callback.report.sparsity == 205 / 256


@pytest.mark.filterwarnings("ignore:.*nearly nothing is left:UserWarning")
def test_G30_what_is_included_by_name_is_pruned_all_the_same() -> None:
    callback, model = ramp(targets=Targets(include=(r"teacher\..*weight", r"net\.0\.weight"))), Distilled()
    fit(model, callback, max_steps=20)
    counted = zeros(model)
    assert counted["teacher.0.weight"] + counted["teacher.2.weight"] + counted["net.0.weight"] == round(
        0.8 * (240 + 80 + 192)
    )


def test_G30_two_optimizers_step_what_either_steps() -> None:
    class Two(Distilled):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:  # pyright: ignore
            for optimizer in self.optimizers():  # pyright: ignore
                optimizer.zero_grad()
                self.manual_backward(self.loss(self.global_step))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.net[0].parameters(), 0.1), torch.optim.SGD(self.net[3].parameters(), 0.1)]

    callback, model = ramp(), Two()
    fit(model, callback, max_steps=20)
    assert callback.report is not None
    assert [weight.name for weight in callback.report.weights] == ["net.0.weight", "net.3.weight"]
    assert sum(zeros(model.net).values()) == 205


@pytest.mark.parametrize("how", ["max_steps", "none", "copies"])
def test_G30_where_nothing_tells_what_is_stepped_all_is_pruned(how: str) -> None:
    class Odd(Distilled):
        def configure_optimizers(self) -> Any:
            if how == "none":
                return None
            masters = [nn.Parameter(p.detach().clone()) for p in self.net.parameters()]
            return torch.optim.SGD(self.net.parameters() if how == "max_steps" else masters, 0.1)

    callback = PruningCallback(Pruner(OneShot(0.5, 0)))
    model = Odd()
    if how == "none":
        with pytest.warns(UserWarning, match="with no optimizer"):
            fit(model, callback, max_steps=0)
    else:
        fit(model, callback, max_steps=0 if how == "max_steps" else 3)
    assert sparsity(model) == 0.5


def test_G30_nothing_that_trains_is_an_error_before_training() -> None:
    model = Distilled()
    with pytest.raises(ValueError, match=r"no weight of Distilled that trains \(teacher\.0\.weight: not stepped.*inc"):
        fit(model, ramp(targets=Targets(exclude=("net",))), max_steps=20)


@pytest.mark.parametrize("reason", ["frozen", "not stepped by any optimizer"])
def test_G30_units_of_what_does_not_train_are_left_whole(reason: str) -> None:
    class Half(Units):
        def configure_optimizers(self) -> Any:
            self.net[6].requires_grad_(reason != "frozen")
            own = {id(p) for p in self.net[6].parameters()}
            return torch.optim.SGD([p for p in self.parameters() if reason == "frozen" or id(p) not in own], 0.05)

    model = Half()
    before = bits(model.net[6])
    callback = PruningCallback(Pruner(RAMP, pattern=Channel()))
    fit(model, callback, max_steps=20)
    assert callback.report is not None
    assert callback.report.skipped["net.6.weight"] == f"{reason}; but columns that read removed units go" or (
        callback.report.skipped["net.6.weight"] == reason
    )
    assert bool((model.net[6].weight != 0).any(1).all())
    if reason != "frozen":
        assert torch.equal(model.net[6].bias, before["bias"])


@pytest.mark.parametrize("pattern", [Element(), Channel()])
def test_G30_learned_masks_leave_out_what_no_optimizer_steps(pattern: Any) -> None:
    class Pair(Units):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            out = self.net(x)
            return out + self.teacher(out)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.net.parameters(), 0.05)

    model = Pair()
    before = bits(model.teacher)
    callback = PruningCallback(LearnedMasks(Polynomial(0.5, 2, 12, 2), pattern=pattern))
    fit(model, callback, max_steps=20)
    assert not differences(before, bits(model.teacher))
    assert callback.report is not None
    assert callback.report.skipped["teacher.0.weight"] == "not stepped by any optimizer"


# Unfrozen later


class Tuned(Net):
    """A backbone and a head; the optimizer has the head alone, as Lightning's finetuning wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone: Any = nn.Sequential(nn.Linear(12, 16), nn.ReLU())
        self.net = nn.Sequential(self.backbone, nn.Linear(16, 4))

    def configure_optimizers(self) -> Any:
        return self.make_optimizer([p for p in self.parameters() if p.requires_grad])


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_G30_a_backbone_is_pruned_from_when_finetuning_unfreezes_it(epoch: int) -> None:
    """In an epoch of 5 steps: before the window, within it, after its end."""
    callback, model, counted = ramp(), Tuned(), dict[int, tuple[int, int]]()
    plan = callback.pruner
    before = model.backbone[0].weight.detach().clone()

    def look(run: pl.Trainer) -> None:
        named = zeros(model)
        counted[run.global_step] = named["net.0.0.weight"], named["net.1.weight"]
        if run.global_step <= 5 * epoch:
            assert torch.equal(model.backbone[0].weight, before)
            assert plan.report().skipped["net.0.0.weight"] == "frozen"

    model.after_batch.append(look)
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=epoch, backbone_initial_lr=0.01)
    fit(model, callback, finetuning, batches=5, max_epochs=6)
    for step, (backbone, head) in counted.items():
        due = RAMP.last_update(step)
        share = 0.0 if due is None else RAMP.sparsity(due)
        if step <= 5 * epoch:
            assert (backbone, head) == (0, round(share * 64))
        else:
            assert backbone + head == round(share * 256)
    assert sparsity(model) == 205 / 256
    assert callback.report is not None
    assert {weight.name for weight in callback.report.weights} == {"net.0.0.weight", "net.1.weight"}


def test_G30_an_unfreezing_by_hand_counts_as_well() -> None:
    """All parameters are in the optimizer from the start; one weight that stays frozen stays whole."""

    class ByHand(Net):
        def on_train_epoch_start(self) -> None:
            self.net[0].requires_grad_(self.current_epoch >= 2)

        def configure_optimizers(self) -> Any:
            self.net[0].requires_grad_(False)
            self.extra = nn.Linear(8, 8).requires_grad_(False)
            return super().configure_optimizers()

    callback, model = ramp(), ByHand()
    fit(model, callback, batches=5, max_epochs=4)
    assert zeros(model.net)["0.weight"] + zeros(model.net)["3.weight"] == 205
    assert zeros(model)["extra.weight"] == 0
    assert callback.report is not None
    assert callback.report.skipped["extra.weight"] == "frozen"


@pytest.mark.parametrize("cut", [8, 17])
def test_G30_a_resumed_run_keeps_the_masks_of_what_was_unfrozen(cut: int, tmp_path: Path) -> None:
    """Plain torch: before and after the unfreezing at step 12, in a process that begins frozen again."""

    def run(model: Any, pruner: Pruner, optimizer: Any, steps: range) -> None:
        for step in steps:
            model[0].requires_grad_(step >= 12)
            optimizer.zero_grad()
            torch.manual_seed(step)
            model(torch.randn(6, 7)).square().mean().backward()
            pruner.before_step(optimizer)
            optimizer.step()
            pruner.after_step(step + 1, [optimizer])

    def begin(model: Any) -> tuple[Pruner, Any]:
        model[0].requires_grad_(False)
        return Pruner(Polynomial(0.75, 2, 20, 3)), torch.optim.SGD(model.parameters(), 0.1)

    whole = mlp()
    pruner, optimizer = begin(whole)
    pruner.attach(whole, 30)
    run(whole, pruner, optimizer, range(30))
    first = mlp()
    pruner, optimizer = begin(first)
    pruner.attach(first, 30)
    run(first, pruner, optimizer, range(cut))
    saved = copy.deepcopy((first.state_dict(), pruner.state_dict()))
    second = mlp(seed=1)
    pruner, optimizer = begin(second)
    second.load_state_dict(saved[0])
    pruner.load_state_dict(saved[1])
    pruner.attach(second, 30)
    run(second, pruner, optimizer, range(cut, 30))
    assert not differences(dict(whole.state_dict()), dict(second.state_dict()))
    assert pruner.strip().zeros == 108
    assert int((second[0].weight == 0).sum()) > 0  # pyright: ignore


def test_G30_units_are_pruned_from_when_they_train() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    model[0].requires_grad_(False)
    pruner = Pruner(Polynomial(0.5, 0, 8, 2), pattern=Channel(example_inputs=torch.zeros(2, 6)))
    pruner.attach(model)
    for step in range(5):
        pruner.after_step(step)
    assert pruner.report().skipped["0.weight"].startswith("frozen")
    assert bool((model[0].weight != 0).all())
    model[0].requires_grad_(True)
    for step in range(5, 12):
        pruner.after_step(step)
    report = pruner.strip()
    assert "0.weight" in {weight.name for weight in report.weights}
    assert abs(report.sparsity - 0.5) * report.size <= report.grain
    assert int((model[0].weight == 0).all(1).sum()) > 0


def test_G30_a_weight_that_wakes_under_a_rule_of_its_own_ends_where_the_rule_says() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 1), targets=Targets(sparsity={r"^[01]\.": 0.25}))
    pruner.attach(model)
    pruner.after_step(1)
    model[0].requires_grad_(True)
    pruner.after_step(2)
    assert [int((layer.weight == 0).sum()) for layer in model[:2]] != [0, 16]
    assert sum(int((layer.weight == 0).sum()) for layer in model[:2]) == 32
    assert int((model[2].weight == 0).sum()) == 32


def test_G30_what_is_told_to_be_trained_is_what_is_pruned_and_a_new_group_wakes() -> None:
    model = mlp()
    head = list(model[3].parameters())
    optimizer = torch.optim.SGD(head, 0.1)
    pruner = Pruner(OneShot(0.5, 1))
    pruner.attach(model, trained=head)
    pruner.after_step(1, [optimizer])
    assert bool((model.get_parameter("0.weight") != 0).all())
    assert pruner.report().skipped["0.weight"] == "not stepped by any optimizer"
    optimizer.add_param_group({"params": list(model[0].parameters())})
    assert pruner.after_step(2, [optimizer])
    assert pruner.strip().zeros == 72


def test_G30_learned_masks_say_that_they_take_no_more_in() -> None:
    callback = PruningCallback(LearnedMasks(Polynomial(0.5, 2, 12, 2), pattern=Element()))
    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.01)
    with pytest.warns(UserWarning, match=r"net\.0\.0\.weight.* (frozen now|did not train)") as seen:
        fit(Tuned(), callback, finetuning, batches=5, max_epochs=4)
    said = [str(each.message) for each in seen if "net.0.0.weight" in str(each.message)]
    assert len(said) == 2
    assert "frozen now and stay whole" in said[0]
    assert "did not train when learned masks began" in said[1]


def test_G30_a_plan_that_covers_little_says_so() -> None:
    model: Any = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 2))
    model[0].requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 1))
    pruner.attach(model)
    line = pruner.report().plan().splitlines()[-1]
    assert line.startswith("80 of the 1,680 weights that the rules select train now; the others are frozen")
    model[0].requires_grad_(True)
    pruner.after_step(1)
    assert "train now" not in pruner.report().plan()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_G30_a_copy_goes_on_with_what_is_pruned_now(way: Callable[[Any], Any]) -> None:
    model = mlp()
    model[0].requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 1))
    pruner.attach(model)
    other, copied = way((model, pruner))
    other[0].requires_grad_(True)
    copied.after_step(1)
    assert copied.strip().size == 60
