"""Gates on models: the schedule, the norm's scale, steps, and going on from a state."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import LearnedMasks, Pruner, Targets
from lightning_prune.dynamic import DynamicGates
from lightning_prune.dynamic.links import links_on
from lightning_prune.schedule import Geometric, OneShot, Polynomial
from tests.dynamic.helpers import HALF, Stream, batch, chain, gated, same, sequences, train


def said_by(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return a dict that takes what each gate of a model says from here on."""
    said: dict[str, list[Tensor]] = {}
    for name, link in links_on(model):

        def note(_: nn.Module, args: Any, out: Tensor, name: str = name) -> None:
            said.setdefault(name, []).append(out.detach())

        link.gate.register_forward_hook(note)
    return said


@pytest.mark.parametrize("schedule", [HALF, Geometric(0.7, 0, 12, 3)])
def test_each_example_keeps_exactly_what_the_schedule_says_at_each_step(schedule: Polynomial | Geometric) -> None:
    model = chain()
    gates = gated(model, batch(), schedule)
    said = said_by(model)
    optimizer, before = None, {"0": 8, "4": 12}
    for step in range(15):
        optimizer = train(model, gates, range(step, step + 1), optimizer)
        for layer, channels in (("0", 8), ("4", 12)):
            assert int((said[layer][-1] != 0).sum(1).max()) <= before[layer]
            last = schedule.last_update(step + 1)
            sparsity = 0.0 if last is None else schedule.sparsity(last)
            assert gates.kept[layer] == max(1, channels - round(sparsity * channels))
        before = gates.kept
    report = gates.report()
    assert report.sparsity == 1 - sum(before.values()) / 20
    assert [w.zeros for w in report.weights] == [8 - before["0"], 12 - before["4"]]


def test_a_rule_of_its_own_and_a_layer_that_keeps_one() -> None:
    gates = gated(chain(), batch(), OneShot(0.5, 0), targets=Targets(sparsity={"^4": 0.999}))
    gates.after_step(0)
    assert gates.kept == {"0": 4, "4": 1}


@pytest.mark.parametrize("make", [chain, sequences])
def test_at_first_a_layer_computes_what_it_did_where_the_predictor_says_nothing(make: Any) -> None:
    model = make()
    x = batch() if make is chain else torch.randn(4, 4, 12)
    norm = model[1]
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-2, 2, len(norm.weight)))
        norm.bias.uniform_(-1, 1)
    before = model.eval()(x)
    gates = gated(model, x)
    for _, link in links_on(model):
        link.gate.weight.data.zero_()
    assert set(norm.weight.tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(model(x), before)
    gates.withdraw()
    assert torch.equal(model(x), before)


def test_the_scale_of_the_norm_does_not_train_and_all_else_does() -> None:
    model = chain()
    gates = gated(model, batch())
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    first = {name: copy.deepcopy(link.gate.state_dict()) for name, link in links_on(model)}
    train(model, gates, range(3), torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1))
    still = {name for name, p in model.named_parameters() if torch.equal(p, start[name])}
    assert still == {"1.weight", "5.weight"}
    for name, link in links_on(model):
        assert not torch.equal(link.gate.weight, first[name]["weight"])
        assert not torch.equal(link.gate.bias, first[name]["bias"])
    assert gates.penalty > 0


def test_only_the_gates_of_the_layers_that_an_optimizer_steps_learn() -> None:
    model = chain()
    gates = gated(model, batch())
    first = {name: link.gate.bias.detach().clone() for name, link in links_on(model)}
    model(batch()).square().mean().backward()
    gates.before_step(torch.optim.SGD(model[0].parameters(), lr=0.1))
    moved = {name for name, link in links_on(model) if not torch.equal(link.gate.bias, first[name])}
    assert moved == {"0"}
    gates.before_step(torch.optim.SGD(model[4].parameters(), lr=0.1))
    assert not torch.equal(dict(links_on(model))["4"].gate.bias, first["4"])


def test_the_loss_scale_changes_no_step() -> None:
    ends: list[nn.Module] = []
    for scale in (1.0, 1024.0):
        model = chain()
        gates = gated(model, batch(), strength=0.1)
        gates.before_forward(scale)
        (scale * model(batch()).square().mean()).backward()
        gates.before_step(None, scale)
        gates.strip()
        ends.append(model)
    for one, other in zip(*(end[0].channel_gate.parameters() for end in ends), strict=True):  # pyright: ignore
        torch.testing.assert_close(one, other)


def test_a_gradient_that_is_not_finite_is_named_unless_a_scale_is_to_blame() -> None:
    model = chain()
    gates = gated(model, batch())
    link = dict(links_on(model))["4"]
    for scale in (2.0, 1.0):
        link.gate.bias.grad = torch.full_like(link.gate.bias, float("inf"))
        start = link.gate.bias.detach().clone()
        if scale == 1.0:
            with pytest.raises(ValueError, match="the gate of '4' is not finite"):
                gates.before_step(None, scale)
        else:
            gates.before_step(None, scale)
        assert torch.equal(link.gate.bias, start)


@pytest.mark.parametrize("stop", [1, 4, 12])
def test_G2_resumed_is_uninterrupted(stop: int) -> None:
    whole = chain()
    gates = gated(whole, batch())
    train(whole, gates, range(16))
    gates.strip()

    first = chain()
    gates = gated(first, batch())
    optimizer = train(first, gates, range(stop))
    state, weights = copy.deepcopy(gates.state_dict()), copy.deepcopy(first.state_dict())
    moments = copy.deepcopy(optimizer.state_dict())

    second = chain(seed=5)
    second.load_state_dict({k: v for k, v in weights.items() if "channel_gate" not in k})
    gates = DynamicGates(HALF, example_inputs=batch())
    gates.load_state_dict(state)
    gates.attach(second, 20)
    optimizer = torch.optim.Adam(second.parameters(), lr=0.01)
    optimizer.load_state_dict(moments)
    train(second, gates, range(stop, 16), optimizer)
    gates.strip()
    assert same(whole, second)


def test_evaluation_is_deterministic_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    model = chain()
    torch.set_rng_state(state)
    gated(model, batch())
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()
    assert torch.equal(model(batch(3)), model(batch(3)))
    torch.testing.assert_close(model(batch(3))[1:2], model(batch(3)[1:2]))  # an example does not see the others


def test_a_finished_model_is_gated_further() -> None:
    model = chain()
    gates = gated(model, batch(), OneShot(0.25, 1))
    train(model, gates, range(4))
    gates.strip()
    answer, keys = model.eval()(batch()), list(model.state_dict())
    again = gated(model, batch(), OneShot(0.5, 3))
    again._on_model.gates["0"].kept.fill_(6)
    again._on_model.gates["4"].kept.fill_(9)
    assert torch.equal(model(batch()), answer)  # it begins where the other ended
    again.withdraw()
    assert list(model.state_dict()) == keys
    assert torch.equal(model(batch()), answer)
    again = gated(model, batch(), OneShot(0.5, 3))
    train(model, again, range(4))
    again.strip()
    assert int(model[0].channel_gate.kept) == 4  # pyright: ignore


def test_states_of_another_kind_or_of_other_layers_are_refused() -> None:
    model = chain()
    gates = gated(model, batch())
    state = gates.state_dict()
    with pytest.raises(ValueError, match="is one of DynamicGates, and cannot be restored into a Pruner"):
        Pruner(HALF).load_state_dict(state)
    with pytest.raises(ValueError, match="is one of DynamicGates, and cannot be restored into LearnedMasks"):
        LearnedMasks().load_state_dict(state)
    pruner = Pruner(HALF)
    pruner.attach(chain(), 20)
    with pytest.raises(ValueError, match="is one of a Pruner, and cannot be restored into DynamicGates"):
        gates.load_state_dict(pruner.state_dict())
    for damage, said in (
        ({"gates": {"0": state["gates"]["0"]}}, "its gates are of"),
        ({"gates": state["gates"] | {"4": state["gates"]["0"]}}, r"gates\['4'\].weight"),
        ({"gates": state["gates"] | {"4": state["gates"]["4"] | {"kept": torch.tensor(99)}}}, "kept"),
        ({"optimizer": state["optimizer"] | {"param_groups": []}}, "optimizer"),
    ):
        with pytest.raises(ValueError, match=said):
            gates.load_state_dict(state | damage)
    other = Stream()
    waiting = DynamicGates(HALF, example_inputs=torch.randn(2, 2, 5, 5))
    waiting.load_state_dict(state)
    keys = list(other.state_dict())
    with pytest.raises(ValueError, match="its gates are of"):
        waiting.attach(other, 20)
    assert list(other.state_dict()) == keys
