"""G13 and G24: what cannot work is an error before training, and a diverged weight an error that changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.criterion import FirstOrderDelta, Magnitude
from lightning_prune.pattern import Block, Element, NofM
from lightning_prune.regularizer import L1
from lightning_prune.schedule import Geometric, OneShot, Polynomial
from lightning_prune.scope import GlobalRanking
from lightning_prune.selection import Histogram, Sort
from lightning_prune.targets import Targets
from tests.helpers import mlp, same

RAMP = Polynomial(0.9, 0, 100, 10)


def make(options: dict[str, Any]) -> Pruner:
    arguments: dict[str, Any] = {"schedule": RAMP} | options
    return Pruner(**arguments)


NO_PRUNER: list[tuple[dict[str, Any], str]] = [
    ({"schedule": 0.9}, "schedule=0.9"),
    ({"schedule": Polynomial}, "schedule=Polynomial"),
    ({"criterion": Magnitude}, "criterion=Magnitude"),
    ({"criterion": "magnitude"}, "criterion='magnitude'"),
    ({"pattern": Element}, "pattern=Element"),
    ({"pattern": NofM}, "pattern=NofM"),
    ({"pattern": None}, "pattern=None"),
    ({"scope": GlobalRanking}, "scope=GlobalRanking"),
    ({"scope": "global"}, "scope='global'"),
    ({"selection": Sort}, "selection=Sort"),
    ({"selection": None}, "selection=None"),
    ({"targets": Targets}, "targets=Targets"),
    ({"targets": ["0.weight"]}, r"targets=\['0.weight'\]"),
    ({"regularizer": L1}, "regularizer=L1"),
    ({"regularizer": 0.1}, "regularizer=0.1"),
    ({"pattern": NofM(2, 4), "selection": Histogram()}, "needs an exact selection"),
    ({"pattern": NofM(1, 4), "schedule": OneShot(0.5, 0)}, "final_sparsity=0.5 is too low"),
    ({"pattern": NofM(2, 4), "targets": Targets(sparsity={"^3": 0.4})}, "3=0.4 is too low"),
]


@pytest.mark.parametrize(("options", "message"), NO_PRUNER)
def test_G13_ideas_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(options)


NO_RUN: list[tuple[dict[str, Any], int | None, str]] = [
    ({"schedule": Polynomial(0.9, 50, 100, 10)}, 50, "begin_step=50 is at or past the end of the run, which takes 50"),
    ({"schedule": OneShot(0.9, 51)}, 50, "begin_step=51"),
    ({"schedule": OneShot(0.9, 1.0)}, 50, "begin_step=50"),
    ({"schedule": OneShot(0.9, 0.5)}, None, "is a share of the run"),
    ({"schedule": OneShot(0.0, 70), "targets": Targets(sparsity={"^3": 0.9})}, 50, "begin_step=70"),
    ({"targets": Targets(include=("nowhere",))}, 200, "include pattern 'nowhere' matches no weight"),
    ({"targets": Targets(exclude=("nowhere",))}, 200, "exclude pattern 'nowhere' matches no weight"),
    ({"targets": Targets(sparsity={"nowhere": 0.5})}, 200, "sparsity pattern 'nowhere' matches no weight"),
    ({"targets": Targets(exclude=("weight",))}, 200, "select no weight of Sequential"),
    (
        {"schedule": Polynomial(0.9, 0, 10, 1, initial_sparsity=0.5), "targets": Targets(sparsity={"^3": 0.2})},
        200,
        r"Targets.sparsity\['\^3'\] does not go with the schedule",
    ),
    (
        {"schedule": Geometric(0.9, 0, 10, 1), "targets": Targets(sparsity={"^3": 1.0})},
        200,
        r"Targets.sparsity\['\^3'\]",
    ),
]


@pytest.mark.parametrize(("options", "total_steps", "message"), NO_RUN)
def test_G13_runs_in_which_nothing_would_happen(options: dict[str, Any], total_steps: int | None, message: str) -> None:
    model = mlp()
    pruner = make(options)
    with pytest.raises(ValueError, match=message):
        pruner.attach(model, total_steps)
    assert not pruner.attached
    assert not hasattr(model[0], "weight_mask")


def test_G13_a_window_past_the_end_warns_and_names_what_will_be_reached() -> None:
    with pytest.warns(
        UserWarning, match=r"end_step=100 is past the end of the run, which takes 55 .* of 0\.7875, not 0\.9"
    ):
        Pruner(RAMP).attach(mlp(), 55)


def test_G13_a_trial_may_be_too_short_and_a_dense_schedule_may_be_anywhere() -> None:
    trial, dense = Pruner(OneShot(0.9, 70)), Pruner(OneShot(0.0, 70))
    trial.attach(mlp(), 1, trial=True)
    dense.attach(mlp(), 1)
    assert trial.resolved_schedule.end_step == dense.resolved_schedule.end_step == 70
    assert not trial.after_step(1)
    assert trial.strip().zeros == dense.strip().zeros == 0


def test_G13_scores_of_another_shape_are_refused() -> None:
    def rows(weight: torch.Tensor, grad: torch.Tensor | None) -> torch.Tensor:
        return weight.abs().sum(1)

    pruner = Pruner(OneShot(0.5, 0), criterion=rows)
    pruner.attach(mlp())
    with pytest.raises(ValueError, match=r"'0.weight', .*shape \(12, 7\).* shape \(12,\)"):
        pruner.after_step(0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"criterion": FirstOrderDelta(0.5)},
        {"pattern": Block(2, 2, "max")},
        {"selection": Sort()},
        {"reversible": True},
    ],
    ids=["default", "memory", "block", "sort", "reversible"],
)
def test_G24_a_diverged_weight_is_named_and_nothing_changes(options: dict[str, Any], bad: float) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    pruner = Pruner(Polynomial(0.8, 0, 10, 5, initial_sparsity=0.3), **options)
    pruner.attach(model)
    pruner.after_step(0)
    model(torch.randn(4, 7)).sum().backward()
    optimizer.step()
    pruner.after_step(1)
    weight = pruner.masks["3.weight"]
    place = tuple(weight.mask.nonzero()[3].tolist())
    with torch.no_grad():
        model.get_parameter("3.weight")[place] = bad
    before = [model.state_dict(), optimizer.state_dict(), pruner.state_dict()]
    held = [
        {k: v.clone() for k, v in model.state_dict().items()},
        copy_of(optimizer.state_dict()),
        copy_of(pruner.state_dict()),
    ]
    with pytest.raises(ValueError, match=r"'3\.weight' is not finite"):
        pruner.after_step(5, [optimizer])
    assert same(before[0], held[0])
    assert same([optimizer.state_dict(), pruner.state_dict()], held[1:])
    with torch.no_grad():
        model.get_parameter("3.weight")[place] = 0.01
    assert pruner.after_step(5, [optimizer]), "the update is made up for once the weight is mended"


def copy_of(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return {key: copy_of(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("criterion", [Magnitude(), FirstOrderDelta()], ids=["magnitude", "memory"])
def test_G24_what_is_not_finite_in_a_pruned_entry_becomes_zero(bad: float, reversible: bool, criterion: Any) -> None:
    model = mlp()
    pruner = Pruner(Polynomial(0.8, 0, 10, 5, initial_sparsity=0.3), criterion=criterion, reversible=reversible)
    pruner.attach(model)
    for step in (0, 3, 5, 10):
        pruner.after_step(step)
        for weight in pruner.masks.values():
            assert torch.equal(weight.parameter == 0, ~weight.mask)
            assert torch.isfinite(weight.parameter).all()
            with torch.no_grad():
                weight.parameter[~weight.mask] = bad
            weight.parameter.grad = torch.full_like(weight.parameter, bad)
        pruner.before_step()
        for weight in pruner.masks.values():
            assert weight.parameter.grad is not None
            assert not weight.parameter.grad[~weight.mask].any()
    assert pruner.strip().zeros == round(0.8 * 144)


def test_G13_an_empty_weight_is_left_whole_and_said() -> None:
    makers: list[Callable[[], nn.Parameter]] = [
        lambda: nn.Parameter(torch.zeros(0, 3)),
        lambda: nn.Parameter(torch.zeros(3, 0)),
    ]
    for make in makers:
        model = nn.Sequential(nn.Linear(4, 4))
        model.register_parameter("nothing", make())
        pruner = Pruner(OneShot(0.5, 0))
        pruner.attach(model)
        pruner.after_step(0)
        assert pruner.report().skipped["nothing"] == "empty"
        assert pruner.strip().sparsity == 0.5
