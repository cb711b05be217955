"""A finished model is plain: copied, pickled, saved, loaded, exported, compiled, trained on."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.dynamic import put_gates
from lightning_prune.dynamic.links import links_on
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from tests.dynamic.helpers import Stream, batch, chain, finished, gated, train


def test_a_copy_and_a_pickle_have_gates_of_their_own() -> None:
    model, x = finished(), batch(5, 2)
    answer = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    others: list[Any] = [copy.deepcopy(model), torch.load(file, weights_only=False)]
    for other in others:
        assert torch.equal(other(x), answer)
        assert {name for name, _ in other.named_parameters()} > {"0.channel_gate.weight", "4.channel_gate.bias"}
        other[0].channel_gate.bias.data.add_(1.0)
        assert not torch.equal(other(x), answer)
        assert torch.equal(model(x), answer)


def test_a_state_dict_loads_into_a_plain_model_that_gets_gates_first(tmp_path: Path) -> None:
    model, x = finished(0.25), batch(5, 2)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    plain = chain(seed=9)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*channel_gate"):
        plain.load_state_dict(state)
    put_gates(plain, state, batch()).load_state_dict(state)
    assert torch.equal(plain.eval()(x), model(x))
    put_gates(plain, state, batch()).load_state_dict(state)  # those it has are replaced
    assert torch.equal(plain(x), model(x))


def test_gates_that_do_not_fit_the_model_are_refused_by_name() -> None:
    state = finished().state_dict()
    other = chain()
    with pytest.raises(ValueError, match="there are no gates in the state"):
        put_gates(other, other.state_dict(), batch())
    with pytest.raises(ValueError, match="gate of '0', which is no layer of this model"):
        put_gates(Stream(), state, torch.randn(2, 2, 5, 5))
    other[4], other[5], other[8] = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(96, 5)
    with pytest.raises(ValueError, match=r"gate of '4' has a weight of shape \(12, 8\)"):
        put_gates(other, state, batch())
    assert not any("channel_gate" in key for key in other.state_dict())


def test_it_trains_on_without_us_and_moves_to_another_dtype() -> None:
    model = finished()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[0].channel_gate.bias.detach().clone()  # pyright: ignore
    model.train()(batch()).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model[0].channel_gate.bias, before)  # pyright: ignore
    answer = model.eval()(batch())
    torch.testing.assert_close(model.double()(batch().double()).float(), answer, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_it_is_exported_with_its_gates() -> None:
    model, x = finished(), batch(5, 2)
    size = torch.export.Dim("size", min=2, max=64)
    program = torch.export.export(model, (batch(),), dynamic_shapes=({0: size},))
    torch.testing.assert_close(program.module()(x), model(x))
    assert any("channel_gate" in name for name in program.state_dict)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch.compile does it
@pytest.mark.parametrize("when", ["finished", "training"])
def test_it_is_compiled_in_one_graph(when: str) -> None:
    if when == "finished":
        model: Any = finished()
        answer = model(batch())
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.equal(compiled(batch()), answer)
        return
    ends: list[dict[str, torch.Tensor]] = []
    for compile_ in (False, True):
        model = chain()
        called = torch.compile(model, backend="eager", fullgraph=True) if compile_ else model
        gates = gated(model, batch())
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(5):
            gates.before_forward(0.5)
            called(batch(8, step)).square().mean().backward()
            gates.before_step(optimizer)
            optimizer.step()
            gates.after_step(step + 1)
        gates.strip()
        ends.append(model.state_dict())
    torch.testing.assert_close(ends[0], ends[1])


def test_while_gates_train_they_are_in_files_and_no_parameters() -> None:
    model = chain()
    gates = gated(model, batch())
    train(model, gates, range(3))
    state = copy.deepcopy(model.state_dict())
    assert "0.channel_gate.weight" in state
    assert not any("channel_gate" in name for name, _ in model.named_parameters())
    train(model, gates, range(3, 6))
    model.load_state_dict(state)
    assert torch.equal(dict(links_on(model))["0"].gate.weight, state["0.channel_gate.weight"])
    shared = copy.deepcopy(model)
    assert dict(links_on(shared))["0"].gate is dict(links_on(model))["0"].gate


def test_activation_checkpointing_that_holds_the_norm_alone_is_an_error() -> None:
    model = chain()
    gated(model, batch())
    with pytest.raises(RuntimeError, match="the norm behind '0' runs without it"):
        model[1](torch.randn(2, 8, 4, 4))


def test_channels_of_a_gated_model_are_not_pruned_from_under_its_gates() -> None:
    model = finished()
    pruner = Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=batch()))
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="no units that can be removed"):
        pruner.attach(model, 10)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
