"""What tells outputs from inputs refuses weights of which nobody says which dimension is which."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.criterion import FilterNorm, FirstOrderDelta, GeometricMedian, KMeans, Magnitude
from lightning_prune.hparams import parse
from lightning_prune.pattern import Block, Column, Element, Kernel, NofM, Row
from lightning_prune.pruning import Pruner
from lightning_prune.regularizer import L1, GroupLasso
from lightning_prune.schedule import OneShot
from lightning_prune.scope import ERK, GlobalRanking, Uniform
from lightning_prune.targets import Targets
from tests.helpers import masks_of, patterns, pruned_once
from tests.pruning.stacks import EXPERTS, Bare, Experts

NEEDY: list[tuple[str, dict[str, Any]]] = [
    ("pattern=Row()", {"pattern": Row()}),
    ("pattern=Column()", {"pattern": Column()}),
    ("pattern=Kernel()", {"pattern": Kernel()}),
    ("pattern=NofM(n=2, m=4)", {"pattern": NofM(2, 4)}),
    ("pattern=Block(height=2, width=2, pool='avg')", {"pattern": Block(2, 2)}),
    ("criterion=FilterNorm(p=1)", {"criterion": FilterNorm()}),
    ("criterion=GeometricMedian()", {"criterion": GeometricMedian()}),
    ("criterion=KMeans(", {"criterion": KMeans()}),
    ("scope=ERK()", {"scope": ERK()}),
    ("regularizer=GroupLasso(strength=0.1)", {"regularizer": GroupLasso(0.1)}),
]


@pytest.mark.parametrize(("idea", "options"), NEEDY, ids=[case[0] for case in NEEDY])
@pytest.mark.parametrize("trial", [False, True])
def test_G31_what_tells_outputs_from_inputs_refuses_an_unknown_layout(
    idea: str, options: dict[str, Any], trial: bool
) -> None:
    model = Experts()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruner = Pruner(OneShot(0.5, 0), **options)
    message = (
        " must know which dimension is the outputs' and which the inputs', and no layer says so of 'up' of shape "
        "(4, 12, 24), 'down' of shape (4, 12, 24): name the dimensions in their order, such as "
        "Targets(layout={'^up$': 'expert out in'}), or leave them out by Targets(exclude=...)"
    )
    with pytest.raises(ValueError, match=re.escape(idea) + ".*" + re.escape(message)):
        pruner.attach(model, trial=trial)
    assert not hasattr(model, "up_mask")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    Pruner(OneShot(0.5, 0), targets=Targets(layout=EXPERTS), **options).attach(model)
    Pruner(OneShot(0.5, 0), targets=Targets(exclude=("up", "down")), **options).attach(Experts())


def test_G31_every_pattern_but_single_weights_refuses() -> None:
    for (pattern,) in [case.values for case in patterns()]:
        if not pattern.single:
            with pytest.raises(ValueError, match="must know which dimension"):
                Pruner(OneShot(0.5, 0), pattern=pattern).attach(Experts())


@pytest.mark.parametrize("criterion", [Magnitude(), FirstOrderDelta()], ids=str)
@pytest.mark.parametrize("scope", [GlobalRanking(), Uniform()], ids=str)
def test_single_weights_need_no_layout(criterion: Any, scope: Any) -> None:
    model = Experts()
    pruner = pruned_once(model, 0.5, pattern=Element(), criterion=criterion, scope=scope, regularizer=L1(0.1))
    assert sum(int((~mask).sum()) for mask in masks_of(pruner).values()) == 0.5 * (48 + 2 * 1152)


def test_erk_takes_two_dimensions_in_any_order() -> None:
    model = nn.Sequential(nn.Linear(20, 30), Bare(torch.randn(8, 4)))
    masks = masks_of(pruned_once(model, 0.5, scope=ERK()))
    assert int((~masks["1.weight"]).sum()) == 0, "as dense as ERK leaves a small layer"


def test_a_pattern_by_weight_needs_the_layout_where_it_is_not_of_single_weights() -> None:
    blocks = "block_dims_map=[down:4x4],target_sparsity=0.5,do_not_prune=[{}]"
    parse(blocks.format("down")).attach(Experts())
    with pytest.raises(ValueError, match=r"no layer says so of 'down' of shape \(4, 12, 24\): name"):
        parse(blocks.format("router")).attach(Experts())


def test_a_long_list_is_counted() -> None:
    model = nn.ParameterList([torch.ones(2, 3, 1, 1) for _ in range(20)])
    with pytest.raises(ValueError, match=r"'7' of shape \(2, 3, 1, 1\) and 12 more: .*'\^0\$': 'out in kh kw'"):
        Pruner(OneShot(0.5, 0), pattern=Row()).attach(model)
