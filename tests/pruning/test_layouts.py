"""Patterns and criteria follow a weight's layout: in any order of its dimensions, expert by expert."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_prune.criterion import FilterNorm, FirstOrderDelta, GeometricMedian, KMeans, Magnitude
from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import Block, Channel, Column, Kernel, NofM, Row
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.weight_update import scores_of
from lightning_prune.regularizer import L1, L2, GroupLasso
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK, GlobalRanking
from lightning_prune.targets import Targets
from tests.helpers import criterion_at, ideas, masks_of, patterns, pruned_once
from tests.pruning.stacks import EXPERTS, Bare, Experts, dense, outputs_first

PATTERNS = pytest.mark.parametrize("pattern", patterns())
STACKS = [" ".join(order) for order in itertools.permutations(("expert", "out", "in"))]
LAYOUTS = [
    *("out in", "in out", "out in kh kw", "in out kh kw", "kh kw in out", "kh out kw in", "out kh kw in"),
    *STACKS,
    *("in expert kh out", "kh kw expert in out"),
]


class Separate(nn.Module):
    """The experts of a stack, each a weight of its own."""

    def __init__(self, stack: Tensor) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in stack])
        for layer, weight in zip(self.experts, stack, strict=True):
            layer.weight = nn.Parameter(weight.clone())


def prune(model: nn.Module, final: float = 0.6, **options: Any) -> dict[str, Tensor]:
    """Return the masks after four updates, between which the weights move with what they are, not where they lie."""
    pruner = Pruner(Polynomial(final, 0, 6, 2, 0.3), **options)
    pruner.attach(model)
    for step in range(7):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 0.1 * (100 * parameter).cos())
        pruner.after_step(step)
    return masks_of(pruner)


@PATTERNS
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("criterion", [Magnitude(), FirstOrderDelta()], ids=str)
def test_G31_a_permuted_weight_has_the_permuted_mask(pattern: Any, layout: str, criterion: Any) -> None:
    weight = dense(layout)
    straight = outputs_first(layout, weight)
    names = [name for name in layout.split() if name[0] == "k"]
    first = " ".join((*(["expert"] if "expert" in layout else []), "out", "in", *names))
    found = prune(Bare(weight), pattern=pattern, criterion=criterion, targets=Targets(layout={"weight": layout}))
    expected = prune(Bare(straight), pattern=pattern, criterion=criterion, targets=Targets(layout={"weight": first}))
    assert found["weight"].shape == weight.shape
    assert torch.equal(outputs_first(layout, found["weight"]), expected["weight"])
    assert 0 < int(expected["weight"].sum()) < expected["weight"].numel()


@pytest.mark.parametrize("pattern", [Row(), Column(), NofM(2, 4), Block(3, 2), Kernel()], ids=str)
@pytest.mark.parametrize("layout", ["in out", "kh in kw out"])
@pytest.mark.parametrize("criterion", [FilterNorm(2), GeometricMedian(), KMeans()], ids=str)
def test_G31_criteria_of_whole_outputs_follow_the_layout(pattern: Any, layout: str, criterion: Any) -> None:
    weight = dense(layout)
    first = " ".join(("out", "in", *(name for name in layout.split() if name[0] == "k")))
    ways: dict[str, Any] = {"pattern": pattern, "criterion": criterion}
    found = prune(Bare(weight), targets=Targets(layout={"weight": layout}), **ways)["weight"]
    expected = prune(Bare(outputs_first(layout, weight)), targets=Targets(layout={"weight": first}), **ways)["weight"]
    assert torch.equal(outputs_first(layout, found), expected)


WAYS = [
    pytest.param(*pattern.values, criterion, *selection.values, id=f"{pattern.id}-{criterion}-{selection.id}")
    for pattern in patterns()
    for criterion in (Magnitude(), FilterNorm(1), GeometricMedian())
    for selection in ideas("selection")
    # All weights of an output tie by a criterion of outputs, and single ones go by where they lie; N:M must be exact.
    if not (getattr(pattern.values[0], "single", False) and criterion != Magnitude())
    and not (getattr(pattern.values[0], "least_sparsity", 0) and not selection.values[0].exact)
]


@pytest.mark.parametrize("layout", ["expert out in", "in expert out"])
@pytest.mark.parametrize(("pattern", "criterion", "selection"), WAYS)
def test_G31_experts_are_pruned_like_weights_of_their_own(
    pattern: Any, layout: str, criterion: Any, selection: Any
) -> None:
    weight = dense(layout)
    ways: dict[str, Any] = {"pattern": pattern, "criterion": criterion, "selection": selection}
    ways["scope"] = GlobalRanking(floor=0)  # which is for each layer, and a stack is one
    found = prune(Bare(weight), targets=Targets(layout={"weight": layout}), **ways)["weight"]
    separate = prune(Separate(outputs_first(layout, weight)), **ways)
    for expert, mask in zip(outputs_first(layout, found), separate.values(), strict=True):
        assert torch.equal(expert, mask)


@pytest.mark.parametrize("sparsity", [0.9, 1.0])
@pytest.mark.parametrize(("pattern", "dim"), [(Row(), 2), (Column(), 1)], ids=["row", "column"])
def test_each_expert_keeps_its_best_row_or_column(pattern: Any, dim: int, sparsity: float) -> None:
    weight = dense("expert in out")
    weight[0] *= 1e-3
    found = prune(Bare(weight), sparsity, pattern=pattern, targets=Targets(layout={"weight": "expert in out"}))
    alive = outputs_first("expert in out", found["weight"]).any(dim)
    assert alive.sum(1).min() == 1


def test_filters_are_compared_with_those_of_their_expert() -> None:
    weight = dense("expert in out")
    for criterion in (GeometricMedian(), KMeans()):
        (target,) = Targets(layout={"weight": "expert in out"}).find(Bare(weight)).targets
        masked = MaskedWeight(target, reversible=False)
        scores = scores_of(criterion, masked, 3, 0.5).unflatten(0, (3, 6))
        asked = criterion_at(criterion, "weight", 3)
        for score, expert in zip(scores, outputs_first("expert in out", weight), strict=True):
            assert torch.equal(score, asked(expert, None))


class Recall:
    """Score outputs by how often they were asked for, by a memory."""

    of_outputs = True

    def at(self, site: Any) -> Any:
        def score(weight: Tensor, grad: Tensor | None) -> Tensor:
            assert grad is not None
            assert grad.shape == weight.shape
            site.memory["seen"] = site.memory.get("seen", torch.zeros(())) + weight.sum()
            return site.memory["seen"].expand(weight.shape).float()

        return score


def test_each_expert_has_a_memory_of_its_own() -> None:
    model = Bare(dense("expert out in"))
    model.weight.grad = torch.ones_like(model.weight)
    (target,) = Targets(layout={"weight": "expert out in"}).find(model).targets
    masked = MaskedWeight(target, reversible=False)
    for times in (1, 2):
        scores = scores_of(Recall(), masked, 0, 0.5).unflatten(0, (3, 6))
        torch.testing.assert_close(scores[:, 0, 0], times * model.weight.detach().sum((1, 2)))


@pytest.mark.parametrize(
    ("model", "name", "dim", "layout"),
    [
        (Conv1D(12, 8), "weight", 0, {}),
        (nn.MultiheadAttention(8, 2), "in_proj_weight", 1, {}),
        (nn.Linear(8, 24), "weight", 1, {}),
        (nn.GRU(8, 4), "weight_ih_l0", 1, {}),
        (nn.ConvTranspose2d(8, 6, 3), "weight", 0, {}),
        (Experts(), "up", 1, EXPERTS),
        (Experts(), "down", 2, EXPERTS),
    ],
    ids=["Conv1D", "in_proj", "qkv", "gru", "transposed", "expert in out", "expert out in"],
)
def test_G31_two_of_four_consecutive_inputs_are_alive(
    model: nn.Module, name: str, dim: int, layout: dict[str, str]
) -> None:
    masks = masks_of(pruned_once(model, 0.5, pattern=NofM(2, 4), targets=Targets(layout=layout)))
    groups = masks[name].movedim(dim, -1).unflatten(-1, (-1, 4)).sum(-1)
    assert groups.unique().tolist() == [2]
    kept = model.get_parameter(name).detach() != 0
    assert torch.equal(kept, masks[name])


def test_erk_takes_a_stack_for_the_layers_that_it_stacks() -> None:
    model = Experts(5)
    apart = nn.ModuleDict({"router": nn.Linear(12, 5)})
    apart.update({f"up{n}": nn.Linear(12, 24) for n in range(5)} | {f"down{n}": nn.Linear(24, 12) for n in range(5)})
    stacked = masks_of(pruned_once(model, 0.8, scope=ERK(), targets=Targets(layout=EXPERTS)))
    single = masks_of(pruned_once(apart, 0.8, scope=ERK()))
    for name in ("up", "down"):
        kept = sum(int(mask.sum()) for key, mask in single.items() if key.startswith(name))
        assert abs(int(stacked[name].sum()) - kept) <= 5
    assert abs(int(stacked["router.weight"].sum()) - int(single["router.weight"].sum())) <= 1


@pytest.mark.parametrize("regularizer", [GroupLasso(0.3), L1(0.3), L2(0.2)], ids=str)
def test_a_regularizer_sees_outputs_first(regularizer: Any) -> None:
    weight = dense("expert in out")
    grads: list[Tensor] = []
    for layout, values in (("expert in out", weight), ("expert out in", outputs_first("expert in out", weight))):
        model = Bare(values)
        model.weight.grad = torch.zeros_like(model.weight)
        pruner = Pruner(OneShot(0.5, 1), regularizer=regularizer, targets=Targets(layout={"weight": layout}))
        pruner.attach(model)
        pruner.before_step()
        grads.append(outputs_first(layout, model.weight.grad))
    torch.testing.assert_close(grads[0], grads[1])
    assert grads[0].any()


def test_units_of_channels_are_found_without_a_declared_layout() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), Conv1D(3, 6))
    pruner = pruned_once(model, 0.5, pattern=Channel(example_inputs=torch.randn(1, 8)), criterion=FilterNorm())
    mask = pruner.masks["2.weight"].mask
    assert torch.equal(mask.any(1), pruner.masks["0.weight"].mask.any(1))
    assert not mask.all()


def test_G2_the_state_of_a_stack_is_resumed(tmp_path: Any) -> None:
    """By a criterion with a memory, saved after two updates and gone on with."""
    targets = Targets(layout={"weight": "expert in out"})

    def steps(pruner: Pruner, model: Bare, some: range) -> None:
        for step in some:
            with torch.no_grad():
                model.weight.mul_(1 + 0.1 * (100 * model.weight).cos())
            pruner.after_step(step)

    def fresh() -> Pruner:
        return Pruner(Polynomial(0.6, 0, 6, 2), criterion=FirstOrderDelta(), pattern=Column(), targets=targets)

    through, model = fresh(), Bare(dense("expert in out"))
    through.attach(model)
    steps(through, model, range(4))
    torch.save({"state": through.state_dict(), "weight": model.weight.detach().clone()}, tmp_path / "saved")
    steps(through, model, range(4, 7))
    saved = torch.load(tmp_path / "saved", weights_only=True)
    resumed, again = fresh(), Bare(saved["weight"])
    resumed.load_state_dict(saved["state"])
    resumed.attach(again)
    steps(resumed, again, range(4, 7))
    assert torch.equal(again.weight, model.weight)
    assert torch.equal(resumed.masks["weight"].mask, through.masks["weight"].mask)
