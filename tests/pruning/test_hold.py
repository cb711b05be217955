"""Hold: the zeros that a model came with are its masks, whatever the pattern, and nothing else is pruned."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import LearnedMasks, Pruner
from lightning_prune.criterion import Random
from lightning_prune.pattern import Block, Channel, Column, NofM, Row
from lightning_prune.regularizer import Growing
from lightning_prune.schedule import Hold, OneShot, Polynomial
from lightning_prune.scope import ERK, Uniform
from lightning_prune.selection import Histogram
from lightning_prune.targets import Targets
from tests.helpers import conv_net, masks_of, mlp, pruned_once, train

EXAMPLE = Channel(example_inputs=torch.zeros(2, 7))


def sparse(pattern: Any = None, share: float = 0.6) -> nn.Sequential:
    """Return a small net that was pruned once, plain."""
    model = mlp()
    pruned_once(model, share, **({"pattern": pattern} if pattern else {})).strip()
    return model


def zeros_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: (p.detach() == 0) for name, p in model.named_parameters() if p.dim() > 1}


def trained(model: nn.Module, pruner: Pruner) -> None:
    """Train with weight decay and momentum, and strip."""
    pruner.attach(model, total_steps=8)
    train(model, pruner, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01), range(8))
    pruner.strip()


@pytest.mark.parametrize(
    "ideas",
    [
        {},
        {"criterion": Random(), "scope": Uniform()},
        {"selection": Histogram(), "scope": ERK()},
        {"pattern": Row()},
        {"pattern": Column()},
        {"pattern": Block(2, 2)},
        {"pattern": NofM(2, 4)},
        {"pattern": EXAMPLE},
    ],
    ids=str,
)
def test_G5_zeros_that_a_model_came_with_stay_and_all_else_trains(ideas: dict[str, Any]) -> None:
    model = sparse(ideas.get("pattern"))
    before, values = zeros_of(model), {n: p.detach().clone() for n, p in model.named_parameters()}
    pruner = Pruner(Hold(), **ideas)
    trained(model, pruner)
    after = zeros_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = {n: p.detach() != values[n] for n, p in model.named_parameters() if n in before}
    assert all(torch.equal(moved[name], ~before[name]) for name in before)
    report = pruner.report()
    assert report.zeros == sum(int(zero.sum()) for zero in before.values())
    assert report.sparsity == report.final_sparsity == report.target_sparsity > 0.5
    assert not report.starved


def test_single_zeros_in_a_unit_that_is_alive_train() -> None:
    model = sparse(Row())
    weight: Any = model[0].weight
    alive = int((weight != 0).any(1).nonzero()[0])
    with torch.no_grad():
        weight[alive, 2:4] = 0.0
    pruner = Pruner(Hold(), pattern=Row())
    pruner.attach(model)
    dead = (weight == 0).all(1)
    assert torch.equal(masks_of(pruner)["0.weight"], ~dead[:, None].expand(12, 7))
    assert "2 more zeros lie in units that are alive, and train" in pruner.report().plan()


@pytest.mark.parametrize("net", [mlp, conv_net])
def test_masks_are_there_from_the_attach_on(net: Any) -> None:
    """A loop that makes no update before its first step loses nothing."""
    model = net()
    pruned_once(model, 0.5).strip()
    before = zeros_of(model)
    pruner = Pruner(Hold())
    pruner.attach(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert pruner.after_step(1)
    assert not pruner.after_step(2)
    assert all(torch.equal(zero, before[name]) for name, zero in zeros_of(model).items())


def test_what_remembers_the_zeros_forgets_them() -> None:
    model = sparse()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(3, 7)).square().mean().backward()
    optimizer.step()
    pruned_once(model, 0.6).strip()
    pruner = Pruner(Hold())
    pruner.attach(model)
    pruner.after_step(0, [optimizer])
    for name, weight in pruner.masks.items():
        assert int((optimizer.state[weight.parameter]["momentum_buffer"][~weight.mask] != 0).sum()) == 0, name


@pytest.mark.parametrize("pattern", [None, Row()])
def test_nothing_was_ranked_so_thresholds_are_0(pattern: Any) -> None:
    model = sparse(pattern)
    pruner = Pruner(Hold(), **({"pattern": pattern} if pattern else {}))
    pruner.attach(model)
    assert [float(weight.threshold) for weight in pruner.masks.values()] == [0.0] * len(pruner.masks)
    assert pruner.after_step(0)
    assert {weight.threshold for weight in pruner.strip().weights} == {0.0}


def test_the_plan_says_how_sparse_the_model_came() -> None:
    pruner = Pruner(Hold())
    pruner.attach(sparse(share=0.75))
    plan = pruner.report().plan()
    assert "came with 108 of 144 weights at zero, 75.00 %: they are held, and no more are pruned" in plan
    assert re.search(r"0\.weight +12x7 +84 +\d\d\.\d\d %", plan)
    assert "zero in every entry" not in plan


def test_a_weight_of_which_nothing_is_left_is_named() -> None:
    model = sparse()
    nn.init.zeros_(model[3].weight)  # pyright: ignore
    pruner = Pruner(Hold())
    pruner.attach(model)
    assert "zero in every entry, which stays so: 3.weight; a layer that was made" in pruner.report().plan()


@pytest.mark.parametrize(
    ("pattern", "said"),
    [(None, "found nothing that is zero in"), (Row(), "found nothing in whole units of Row() that")],
)
def test_G13_a_model_without_zeros_is_refused_by_name(pattern: Any, said: str) -> None:
    model = sparse(NofM(2, 4)) if pattern else mlp()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    pruner = Pruner(Hold(), **({"pattern": pattern} if pattern else {}))
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        pruner.attach(model)
    assert "0.weight, 3.weight" in str(error.value)
    assert not pruner.attached
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any("mask" in key for module in model.modules() for key in vars(module))


def test_G13_zeros_that_are_not_those_of_the_pattern_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the zeros of '0.weight' do not keep to NofM\(n=2, m=4\): \d+ weights are"):
        Pruner(Hold(), pattern=NofM(2, 4)).attach(sparse(share=0.6))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": Targets(sparsity={"^0": 0.5})}, "Targets(sparsity={'^0': 0.5}) asks for sparsities, and Hold()"),
        ({"reversible": True}, "reversible=True lets pruned weights return, and Hold() holds them"),
        ({"regularizer": Growing(0.1)}, "acts on what is to go, and with Hold() nothing goes"),
    ],
)
def test_G13_what_asks_for_more_or_less_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Pruner(Hold(), **options)


def test_G13_learned_masks_do_not_hold() -> None:
    with pytest.raises(ValueError, match=re.escape("schedule=Hold(): learned masks find their own zeros")):
        LearnedMasks(schedule=Hold())


def test_what_is_unfrozen_later_is_held_with_the_zeros_it_came_with() -> None:
    model = sparse()
    weight: Any = model[3].weight
    weight.requires_grad_(False)
    zeros = weight == 0
    pruner = Pruner(Hold())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner.attach(model)
    held = masks_of(pruner)["0.weight"]
    assert torch.equal(masks_of(pruner)["3.weight"], ~zeros)
    train(model, pruner, optimizer, range(3))
    with torch.no_grad():
        kept = held.nonzero()[0]
        model[0].weight[kept[0], kept[1]] = 0.0  # pyright: ignore
    weight.requires_grad_(True)
    train(model, pruner, optimizer, range(3, 6))
    masks = masks_of(pruner)
    assert torch.equal(masks["3.weight"], ~zeros)
    assert torch.equal(masks["0.weight"], held), "a value that happens to be zero by now is no pruned one"
    assert pruner.report().sparsity == pruner.report().final_sparsity


def test_what_is_frozen_and_has_no_zeros_is_left_whole() -> None:
    model = nn.Sequential(sparse(), nn.Linear(5, 5))
    model[1].requires_grad_(False)
    pruner = Pruner(Hold())
    pruner.attach(model)
    assert list(pruner.masks) == ["0.0.weight", "0.3.weight"]
    assert pruner.report().skipped["1.weight"] == "frozen"


def test_units_of_a_frozen_layer_are_held_too() -> None:
    model = sparse(EXAMPLE)
    model[0].requires_grad_(False)
    zeros = zeros_of(model)
    pruner = Pruner(Hold(), pattern=EXAMPLE)
    trained(model, pruner)
    assert all(torch.equal(zero, zeros[name]) for name, zero in zeros_of(model).items())


def test_G2_a_state_brings_its_masks_whatever_else_is_zero() -> None:
    model = sparse()
    pruner = Pruner(Hold())
    pruner.attach(model)
    train(model, pruner, torch.optim.SGD(model.parameters(), lr=0.1), range(3))
    with torch.no_grad():
        for weight in pruner.masks.values():
            weight.parameter[weight.mask.nonzero()[0].tolist()[0]] = 0.0
    masks, state = masks_of(pruner), pruner.state_dict()
    again = Pruner(Hold())
    again.load_state_dict(state)
    other = mlp()
    other.load_state_dict(model.state_dict())
    again.attach(other)
    assert all(torch.equal(masks[name], mask) for name, mask in masks_of(again).items())
    assert again.resolved_schedule == pruner.resolved_schedule


def test_masks_of_a_run_that_pruned_are_held_where_it_is_gone_on_from() -> None:
    model = mlp()
    pruner = Pruner(Polynomial(0.8, 1, 9, 1))
    pruner.attach(model)
    train(model, pruner, torch.optim.SGD(model.parameters(), lr=0.1), range(4))
    masks = masks_of(pruner)
    again = Pruner(Hold())
    again.load_state_dict(pruner.state_dict())
    pruner.strip(resumable=True)
    again.attach(model)
    train(model, again, torch.optim.SGD(model.parameters(), lr=0.1), range(4, 12))
    assert all(torch.equal(masks[name], mask) for name, mask in masks_of(again).items())


def test_a_held_model_can_be_pruned_further() -> None:
    model = sparse(share=0.5)
    before = zeros_of(model)
    trained(model, Pruner(OneShot(0.8, 4)))
    after = zeros_of(model)
    assert sum(int(zero.sum()) for zero in after.values()) == round(0.8 * 144)
    assert before.keys() == after.keys()
