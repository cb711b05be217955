"""State: a resumed run is the uninterrupted one to the bit, and a state that does not belong is refused."""

import io
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn, optim

from lightning_prune import Pruner
from lightning_prune.criterion import SecondOrderDelta
from lightning_prune.regularizer import NearThreshold
from lightning_prune.schedule import OneShot, Polynomial, TurnSchedule
from lightning_prune.scope import ByLayer, GlobalRanking, Uniform
from lightning_prune.selection import Histogram
from lightning_prune.targets import Targets
from tests.helpers import criteria_without_norm, ideas, mlp, patterns, same, train, vary

STEPS = 16
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "reversible": {"reversible": True},
    "memory": {"criterion": SecondOrderDelta(0.5)},
    "reversible with memory": {"criterion": SecondOrderDelta(0.5), "reversible": True},
    "smoothed": {"selection": Histogram(16, 0.9), "reversible": True},
    "regularized": {"regularizer": NearThreshold(0.1)},
    "by rule": {"targets": Targets(sparsity={"^3": 0.3})},
}


def saved_and_loaded(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state as a checkpoint file gives it back to a careful reader."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def start(options: dict[str, Any], schedule: Any = None) -> tuple[nn.Sequential, optim.Optimizer, Pruner]:
    """Return a run before its first step; unless a schedule is given, one in shares of the run."""
    model = mlp()
    shares = Polynomial(0.8, begin_step=0.1, end_step=0.8, pruning_frequency=0.2, initial_sparsity=0.1)
    return model, optim.Adam(model.parameters(), lr=0.05), Pruner(schedule or shares, **options)


def begun(options: dict[str, Any], steps: int, total: int = STEPS) -> tuple[nn.Sequential, optim.Optimizer, Pruner]:
    """Return a run that has taken so many of its steps."""
    model, optimizer, pruner = start(options)
    pruner.attach(model, total_steps=total)
    train(model, pruner, optimizer, range(steps))
    return model, optimizer, pruner


def everything(model: nn.Module, optimizer: optim.Optimizer, pruner: Pruner) -> list[Any]:
    return [model.state_dict(), optimizer.state_dict()["state"], pruner.state_dict()]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7, 8, 13, 15])
@pytest.mark.parametrize("late", [False, True], ids=["before attach", "after attach"])
def test_G2_resumed_is_uninterrupted(variant: str, cut: int, late: bool) -> None:
    model, optimizer, pruner = begun(VARIANTS[variant], cut)
    checkpoint = saved_and_loaded(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()}
    )
    train(model, pruner, optimizer, range(cut, STEPS))

    again, its_optimizer, its_pruner = start(VARIANTS[variant])
    its_optimizer_state = checkpoint["optimizer"]
    if late:
        its_pruner.attach(again, total_steps=STEPS)
        train(again, its_pruner, its_optimizer, range(11))  # a past that must leave no trace
    again.load_state_dict(checkpoint["model"])
    its_optimizer.load_state_dict(its_optimizer_state)
    its_pruner.load_state_dict(checkpoint["pruner"])
    if not late:
        its_pruner.attach(again, total_steps=STEPS)
    assert same(its_pruner.state_dict(), checkpoint["pruner"])
    train(again, its_pruner, its_optimizer, range(cut, STEPS))
    assert same(everything(again, its_optimizer, its_pruner), everything(model, optimizer, pruner))
    assert its_pruner.strip() == pruner.strip()


@pytest.mark.parametrize("criterion", criteria_without_norm())
@pytest.mark.parametrize("schedule", ideas("schedule"))
def test_G2_a_state_round_trips_to_the_bit_for_every_idea(criterion: Any, schedule: Any) -> None:
    scope = Uniform() if isinstance(schedule, TurnSchedule) else GlobalRanking()
    options: dict[str, Any] = {"criterion": criterion, "scope": scope}
    model, optimizer, pruner = start(options, vary(schedule, pruning_frequency=0.1))
    with torch.no_grad():
        model[0].weight[:, ::3] = 0.0  # pyright: ignore - what a schedule may hold
    pruner.attach(model, total_steps=20)
    train(model, pruner, optimizer, range(12))
    state = saved_and_loaded(pruner.state_dict())
    assert same(state, pruner.state_dict())
    again = Pruner(pruner.schedule, **options)
    again.load_state_dict(state)
    assert again.state_dict() == state, "a state that waits for attach is handed on"
    other = mlp()
    other.load_state_dict(model.state_dict())
    again.attach(other, total_steps=20)
    assert same(again.state_dict(), state)


def test_G2_a_snapshot_does_not_move_with_the_run() -> None:
    for options in VARIANTS.values():
        model, optimizer, pruner = begun(options, 8)
        snapshot = pruner.state_dict()
        held = saved_and_loaded(snapshot)
        train(model, pruner, optimizer, range(8, STEPS))
        assert same(snapshot, held)


def test_G2_shares_keep_their_meaning_when_a_run_is_resumed_with_another_length() -> None:
    model, _, pruner = begun({}, 20, total=100)
    again, other = Pruner(pruner.schedule), mlp()
    other.load_state_dict(model.state_dict())
    again.load_state_dict(pruner.state_dict())
    with pytest.warns(UserWarning, match="end_step=80 is past the end of the run, which takes 30"):
        again.attach(other, total_steps=30)
    assert again.resolved_schedule == pruner.resolved_schedule


def test_G28_a_newer_or_missing_version_is_refused() -> None:
    model, _, pruner = start({})
    pruner.attach(model, total_steps=STEPS)
    state = pruner.state_dict()
    for version in (state["version"] + 1, 99, None, "1"):
        for reader in (Pruner(OneShot(0.5, 1)), pruner):
            with pytest.raises(ValueError, match="version"):
                reader.load_state_dict({**state, "version": version})


def other_model(kind: str) -> nn.Sequential:
    return {
        "fewer": nn.Sequential(nn.Linear(7, 12)),
        "more": nn.Sequential(*mlp(), nn.Linear(5, 5)),
        "shapes": nn.Sequential(nn.Linear(7, 13), nn.BatchNorm1d(13), nn.ReLU(), nn.Linear(13, 5)),
    }[kind]


@pytest.mark.parametrize("kind", ["fewer", "more", "shapes"])
def test_G2_the_state_of_other_weights_is_refused_and_leaves_nothing_behind(kind: str) -> None:
    model, _, pruner = begun({}, 9)
    state = pruner.state_dict()

    other = other_model(kind)
    weights = saved_and_loaded(other.state_dict())
    reader = Pruner(pruner.schedule)
    reader.load_state_dict(state)
    with pytest.raises(ValueError, match=r"other weights|saved mask of '0\.weight'"):
        reader.attach(other, total_steps=STEPS)
    assert not reader.attached
    assert same(other.state_dict(), weights)
    assert not hasattr(other[0], "weight_mask")
    own = mlp()
    own.load_state_dict(model.state_dict())
    reader.attach(own, total_steps=STEPS)
    assert same(reader.state_dict()["masks"], state["masks"]), "the state still waits for the model it belongs to"

    attached = Pruner(pruner.schedule)
    attached.attach(other, total_steps=100)
    before = saved_and_loaded(attached.state_dict())
    with pytest.raises(ValueError, match=r"other weights|saved mask of '0\.weight'"):
        attached.load_state_dict(state)
    assert same(attached.state_dict(), before)
    assert same(other.state_dict(), weights)


def test_G2_the_state_of_a_stripped_run_is_read_off_the_zeros() -> None:
    model, _, pruner = begun({}, STEPS)
    masks = {name: weight.mask for name, weight in pruner.masks.items()}
    pruner.strip()
    state = saved_and_loaded(pruner.state_dict())
    assert sum(value.numel() for value in state.values() if isinstance(value, torch.Tensor)) == 0
    again = Pruner(pruner.schedule)
    again.load_state_dict(state)
    again.attach(model, total_steps=STEPS)
    assert same({name: weight.mask for name, weight in again.masks.items()}, masks)
    assert not again.after_step(STEPS), "its updates are done"


@pytest.mark.parametrize("pattern", patterns())
@pytest.mark.parametrize("scope", ideas("scope"))
def test_G5_masks_of_another_pattern_and_scope_are_gone_on_from(pattern: Any, scope: Any) -> None:
    """A state may be resumed with other ideas: what is gone stays gone, and what is asked for counts it in."""
    model = mlp()
    with torch.no_grad():
        model.get_parameter("3.weight").mul_(0.05)
    uneven = Pruner(OneShot(0.4, 1))
    uneven.attach(model)
    uneven.after_step(1)
    before = {name: weight.mask for name, weight in uneven.masks.items()}
    state = uneven.state_dict()
    uneven.strip()
    pruner = Pruner(Polynomial(0.6, 0, 4, 1), pattern=pattern, scope=scope)
    pruner.load_state_dict(state)
    pruner.attach(model)
    assert not any(weight.parameter[~weight.mask].any() for weight in pruner.masks.values())
    assert pruner.after_step(4)
    for name, weight in pruner.masks.items():
        assert not (weight.mask & ~before[name]).any()
    if not isinstance(scope, (Uniform, ByLayer)) and pattern.single:
        assert pruner.report().zeros == round(0.6 * 144)


def test_G2_a_run_that_broke_off_can_be_resumed_after_strip() -> None:
    model, _, pruner = begun({"reversible": True}, 9)
    before = saved_and_loaded(pruner.state_dict())
    pruner.strip(resumable=True)
    assert not hasattr(model[0], "weight_mask")
    assert same(pruner.state_dict(), before)


def test_G11_attach_twice_and_strip_before_attach_are_refused_and_a_second_fit_is_fresh() -> None:
    model, optimizer, pruner = start({})
    for verb in (pruner.strip, pruner.report, pruner.before_step, lambda: pruner.after_step(1), lambda: pruner.masks):
        with pytest.raises(RuntimeError, match=r"attach\(model"):
            verb()
    assert pruner.last_update is None
    pruner.attach(model, total_steps=STEPS)
    with pytest.raises(RuntimeError, match="already attached"):
        pruner.attach(mlp(), total_steps=STEPS)
    train(model, pruner, optimizer, range(STEPS))
    assert pruner.strip().zeros == round(0.8 * 144)
    dense = mlp(seed=5)
    pruner.attach(dense, total_steps=STEPS)
    assert pruner.report().zeros == 0
    assert pruner.last_update is None
    train(dense, pruner, optim.SGD(dense.parameters(), lr=0.1), range(STEPS))
    assert pruner.strip().zeros == round(0.8 * 144)
