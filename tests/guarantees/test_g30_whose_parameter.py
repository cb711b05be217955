"""G30: masks act on the parameters that the model computes with, whoever has put others in their place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune import LearnedMasks, Pruner, PruningCallback
from lightning_prune.callbacks.rewind import Rewind
from lightning_prune.gate import SoftThreshold
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import OneShot, Polynomial
from tests.guarantees.helpers import RAMP, Net, Units, fit, raise_at, ramp, sparsity, zeros
from tests.guarantees.whole_units import assert_pruned, channels
from tests.helpers import mlp

pytestmark = pytest.mark.filterwarnings("ignore:.*nearly nothing is left:UserWarning")  # of a layer of 64 weights

Act = Callable[[Any], None]


def assign(model: Any) -> None:
    dense = {name: torch.randn_like(value) for name, value in model.net.state_dict().items() if value.dim()}
    model.net.load_state_dict(model.net.state_dict() | dense, assign=True)


def new_parameter(model: Any) -> None:
    model.net[0].weight = nn.Parameter(torch.randn(16, 12))


def new_head(model: Any) -> None:
    model.net[3] = nn.Linear(16, 4)


def new_body(model: Any) -> None:
    model.net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def emptied(model: Any) -> None:
    model.net.to_empty(device="cpu")
    for parameter in model.net.parameters():
        nn.init.normal_(parameter)


REPLACED: dict[str, Act] = {
    "assign": assign,
    "parameter": new_parameter,
    "head": new_head,
    "body": new_body,
    "to_empty": emptied,
}


class Replace(pl.Callback):
    """Replaces something once in a hook; it stands behind the pruning callback."""

    def __init__(self, act: Act, hook: str, step: int = 0) -> None:
        self.act, self.step = act, step
        setattr(self, hook, self._do)

    def _do(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.step = -1
            self.act(pl_module)


def zeros_in(tensor: Any) -> int:
    return int((tensor == 0).sum())


def pruned_are_zero(callback: PruningCallback, model: nn.Module) -> bool:
    """Whether the parameters that the model has, by name, are zero where the masks say so."""
    now = dict(model.named_parameters())
    masks = callback.pruner.masks
    assert all(weight.parameter is now[name] for name, weight in masks.items())
    return all(not now[name].detach()[~weight.mask].any() for name, weight in masks.items())


@pytest.mark.parametrize("what", REPLACED)
@pytest.mark.parametrize(("hook", "step"), [("on_fit_start", 0), ("on_train_start", 0), ("on_train_batch_end", 7)])
def test_G30_what_is_replaced_in_a_run_is_pruned(what: str, hook: str, step: int) -> None:
    callback, model, seen = ramp(), Net(), list[bool]()
    model.after_batch.append(lambda run: seen.append(run.global_step == step or pruned_are_zero(callback, model)))
    fit(model, callback, Replace(REPLACED[what], hook, step), max_steps=20)
    assert all(seen)
    assert len(seen) == 20
    assert callback.report is not None
    assert sparsity(model) == callback.report.sparsity == round(0.8 * 256) / 256


@pytest.mark.parametrize("at", [2, 7, 14, 19])
def test_G30_zeros_are_put_in_at_once(at: int) -> None:
    """At 7 no update is due before step 9, at 14 and 19 never again: the masks of now hold by the next step."""
    callback, model, counted = ramp(), Net(), dict[int, int]()

    def look(run: pl.Trainer) -> None:
        counted[run.global_step] = sum(zeros(model).values())
        if run.global_step == at:
            new_body(model)

    model.after_batch.append(look)
    fit(model, callback, max_steps=20)
    for step, count in counted.items():
        due = RAMP.last_update(step)
        assert count == (0 if due is None else round(RAMP.sparsity(due) * 256))
    assert sparsity(model) == round(0.8 * 256) / 256


@pytest.mark.parametrize("what", ["assign", "head", "body"])
def test_G30_validation_and_files_have_the_zeros_of_a_replaced_weight(what: str, tmp_path: Any) -> None:
    callback, model, seen = ramp(), Net(), list[int]()
    model.in_validation.append(lambda run: seen.append(sum(zeros(model).values())))
    act = Replace(REPLACED[what], "on_train_epoch_end", 18)
    run = fit(model, callback, act, max_steps=18, val=1, enable_checkpointing=True, default_root_dir=tmp_path)
    run.save_checkpoint(tmp_path / "end.ckpt")
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]
    assert sum(zeros_in(saved[f"net.{n}.weight"]) for n in (0, 3)) == 205
    assert seen[-1] == 205
    assert sparsity(model) == 205 / 256


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_start"])
def test_G30_another_shape_is_an_error_before_training_that_names_both(hook: str) -> None:
    def narrow(model: Any) -> None:
        model.net[3] = nn.Linear(16, 3)

    callback, model = ramp(), Net()
    with pytest.raises(ValueError, match=r"'net\.3\.weight' was replaced.*\(4, 16\).*\(3, 16\).*exclude"):
        fit(model, callback, Replace(narrow, hook), max_steps=20)
    assert not callback.pruner.attached
    assert not [key for module in model.modules() for key in vars(module) if key.endswith(("_mask", "_threshold"))]


def test_G30_another_shape_in_mid_run_is_an_error_by_the_next_step() -> None:
    def gone(model: Any) -> None:
        model.net[0].weight = None

    callback, model = ramp(), Net()
    with pytest.raises(ValueError, match=r"'net\.0\.weight' was replaced.*no parameter of Linear"):
        fit(model, callback, Replace(gone, "on_train_batch_end", 6), max_steps=20)
    assert not callback.pruner.attached


def test_G30_a_failure_of_something_else_after_a_replacement_is_the_error_that_is_seen() -> None:
    def narrow(run: pl.Trainer) -> None:
        model.net[3] = nn.Linear(16, 3)
        raise RuntimeError("on purpose")

    callback, model = ramp(), Net()
    model.after_batch.append(lambda run: narrow(run) if run.global_step == 6 else None)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, callback, max_steps=20)
    assert not callback.pruner.attached


@pytest.mark.parametrize("at", [0, 6, 14])
def test_G30_whole_units_follow_a_replaced_module(at: int) -> None:
    def replace(run: pl.Trainer) -> None:
        if run.global_step == at:
            for name, module in list(model.net.named_modules()):
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    parent, _, key = name.rpartition(".")
                    fresh = copy.deepcopy(module)
                    fresh.reset_parameters()
                    setattr(model.net.get_submodule(parent), key, fresh)

    callback, model = channels(), Units()
    model.in_step.append(replace)
    fit(model, callback, max_steps=20)
    assert_pruned(model, callback)


@pytest.mark.parametrize("schedule", [None, Polynomial(0.5, 2, 12, 2)])
@pytest.mark.parametrize("gate", [None, SoftThreshold(0.1)])
def test_G30_learned_masks_are_on_the_module_that_is_there(schedule: Any, gate: Any) -> None:
    options: dict[str, Any] = {} if gate is None else {"gate": gate, "mask_regularizer": None}
    options |= {"lr": 0.5} if schedule is None else {}
    callback = PruningCallback(LearnedMasks(schedule, pattern=Element(), **options))
    model, hooked = Net(), list[bool]()

    def look(run: pl.Trainer) -> None:
        if run.global_step > 6 and not callback.pruner._model.finished:  # pyright: ignore
            hooked.append(bool(model.net[0]._forward_pre_hooks))

    model.after_batch.append(look)
    fit(model, callback, Replace(new_body, "on_train_batch_start", 5), max_steps=20)
    assert hooked
    assert all(hooked)
    assert not model.net[0]._forward_pre_hooks
    assert callback.report is not None
    assert sparsity(model) == callback.report.sparsity
    if schedule is not None:
        assert sparsity(model) == 0.5


def test_G30_learned_units_are_read_through_masks_in_a_new_module() -> None:
    callback, model = PruningCallback(LearnedMasks(Polynomial(0.8, 2, 12, 2))), Units()

    def replace(run: pl.Trainer) -> None:
        if run.global_step == 5:
            model.net[8] = nn.Linear(10, 4)

    model.in_step.append(replace)
    model.after_batch.append(lambda run: hooks.append(len(model.net[8]._forward_pre_hooks)))
    hooks: list[int] = []
    fit(model, callback, max_steps=20)
    assert hooks[6:10] == [1] * 4
    assert hooks[-1] == 0
    assert callback.report is not None
    weight = model.net[8].weight
    assert int((weight == 0).all(0).sum()) > 0
    assert callback.report.weights[-1].zeros == int((weight == 0).sum())


@pytest.mark.parametrize("reversible", [False, True])
def test_G30_the_pure_pruner_follows_and_leaves_the_orphan_alone(reversible: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    pruner = Pruner(OneShot(0.5, 1), reversible=reversible)
    pruner.attach(model)
    assert pruner.after_step(1, [optimizer])
    orphan: Any = model[0].weight
    mask = pruner.masks["0.weight"].mask
    model[0].weight = nn.Parameter(torch.ones(12, 7))
    with torch.no_grad():
        orphan.fill_(2.0)
    pruner.before_step(optimizer)
    assert torch.equal(model[0].weight != 0, mask)
    assert bool((orphan == 2.0).all())
    assert pruner.masks["0.weight"].parameter is model[0].weight
    assert model[0].weight_mask is pruner.masks["0.weight"].mask
    if reversible:
        assert bool((pruner.masks["0.weight"].ranked() == 1.0).all())
    report = pruner.strip()
    assert report.zeros == sum(zeros_in(model[n].weight) for n in (0, 3))
    assert not hasattr(model[0], "weight_mask")


def test_G30_a_module_that_was_replaced_has_no_masks_left() -> None:
    model: Any = mlp()
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    pruner.after_step(0)
    old, model[3] = model[3], nn.Linear(12, 5)
    report = pruner.report()
    assert not hasattr(old, "weight_mask")
    assert zeros_in(model[3].weight) == report.weights[1].zeros > 0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def test_G30_tied_weights_that_are_replaced_together_stay_one() -> None:
    model = Tied()
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    pruner.after_step(0)
    model.one.weight = model.two.weight = nn.Parameter(torch.ones(6, 6))
    assert pruner.report().weights[0].zeros == 18


@pytest.mark.parametrize("alone", ["one", "two"])
def test_G30_tied_weights_that_are_parted_are_an_error(alone: str) -> None:
    model = Tied()
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    pruner.after_step(0)
    model.get_submodule(alone).weight = nn.Parameter(torch.ones(6, 6))
    with pytest.raises(ValueError, match=r"'two\.weight' and 'one\.weight' were one parameter"):
        pruner.before_step()
    with pytest.raises(ValueError, match="were one parameter"):
        pruner.strip()
    assert not pruner.attached
    assert not hasattr(model.one, "weight_mask")


def test_G30_weights_that_become_one_are_an_error() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"'0\.weight' and '1\.weight' have become one"):
        pruner.after_step(0)


def test_G30_a_compiled_model_is_looked_through() -> None:
    net = mlp()
    model: Any = torch.compile(net, backend="eager")
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    net[0] = nn.Linear(7, 12)
    assert pruner.after_step(0)
    assert zeros_in(net[0].weight) == pruner.report().weights[0].zeros > 0


def test_G30_a_rewind_goes_back_in_the_module_that_is_there() -> None:
    callback, model = PruningCallback(Pruner(OneShot(0.5, 5)), rewind=Rewind(2, after_last=True)), Net()
    kept: dict[int, Tensor] = {}
    model.after_batch.append(lambda run: kept.update({run.global_step: model.net[0].weight.detach().clone()}))
    fit(model, callback, Replace(new_parameter, "on_train_batch_end", 4), max_steps=6)
    alive = kept[5] != 0
    assert 0 < int(alive.sum()) < alive.numel()
    assert torch.equal(kept[5][alive], kept[2][alive])


def test_G30_an_exception_elsewhere_leaves_a_replaced_module_plain() -> None:
    callback, model = ramp(), Net()
    model.in_step.append(lambda run: new_head(model) if run.global_step == 7 else None)
    model.in_step.append(raise_at(7))
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, callback, max_steps=20)
    assert zeros(model)["net.3.weight"] > 0
    assert not hasattr(model.net[3], "weight_mask")


def test_G30_the_scale_of_a_norm_that_is_replaced_goes_with_its_units() -> None:
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    pruner = Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=torch.zeros(2, 6)))
    pruner.attach(model)
    pruner.after_step(0)
    gone = ~pruner.masks["1.weight"].mask
    assert bool(gone.any())
    model[1] = nn.BatchNorm1d(8)
    pruner.after_step(1)
    assert torch.equal(model[1].weight == 0, gone)
