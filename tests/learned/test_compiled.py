"""Learned masks on compiled models: they act whenever the model was compiled, and nothing is compiled in each step."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lightning_prune import LearnedMasks, PruningCallback
from lightning_prune.gate import SoftThreshold
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Batches, Net, fit, trainer

X = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
RAMP = Polynomial(0.5, 0, 8, 2)


def units() -> LearnedMasks:
    return LearnedMasks(RAMP, pattern=Channel(example_inputs=X))


def weights() -> LearnedMasks:
    return LearnedMasks(RAMP, pattern=Element())


def thresholds() -> LearnedMasks:
    return LearnedMasks(RAMP, pattern=Element(), gate=SoftThreshold(0.05), mask_regularizer=None)


@pytest.fixture(autouse=True)
def anew() -> Generator[None, None, None]:
    """Have no compiled code and no counts from elsewhere."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def trained(model: nn.Module, called: Callable[[Tensor], Tensor], masks: LearnedMasks) -> tuple[list[float], list[int]]:
    """Return the losses of ten steps and of the stripped model, and how many graphs there were after each step."""
    masks.attach(model, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses: list[float] = []
    graphs: list[int] = []
    for step in range(1, 11):
        optimizer.zero_grad()
        loss = called(X).square().mean()
        loss.backward()
        masks.before_step(optimizer)
        optimizer.step()
        masks.mask_weights(optimizer)
        masks.update(step, [optimizer])
        losses.append(float(loss.detach()))
        graphs.append(int(counters["stats"]["unique_graphs"]))
    masks.strip()
    return [*losses, float(called(X).detach().square().mean())], graphs


@pytest.mark.parametrize("called_before", [True, False])
@pytest.mark.parametrize("masks", [units, weights, thresholds])
def test_masks_act_on_a_model_that_was_compiled_and_called_before(
    masks: Callable[[], LearnedMasks], called_before: bool
) -> None:
    plain, model = net(), net()
    expected, _ = trained(plain, plain, masks())
    compiled: Any = torch.compile(model, backend="eager")
    if called_before:
        compiled(X).sum().backward()
        compiled(X)
        model.zero_grad()
    found, graphs = trained(model, compiled, masks())
    assert found == expected
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    assert graphs[6] == graphs[1] > 0  # nothing is compiled anew in a step; the masks are final at step 8


def test_no_form_breaks_a_graph() -> None:
    for masks in (units, weights, thresholds):
        torch.compiler.reset()
        counters.clear()
        model = net()
        trained(model, torch.compile(model, backend="eager"), masks())
        assert not counters["graph_break"], masks.__name__


def test_a_function_around_the_model_is_compiled_anew_as_well() -> None:
    plain, model = net(), net()
    expected, _ = trained(plain, plain, weights())

    @torch.compile(backend="eager")
    def forward(x: Tensor) -> Tensor:
        return model(x)

    forward(X)
    assert trained(model, forward, weights())[0] == expected


@pytest.mark.parametrize("masks", [weights, thresholds])
def test_a_compiled_part_of_a_lightning_module(masks: Callable[[], LearnedMasks]) -> None:
    plain, model = Net(norm=False), Net(norm=False)
    fit(plain, PruningCallback(masks()), max_steps=10)
    inner = model.net
    model.net = torch.compile(inner, backend="eager")
    trainer().validate(model, Batches(1), verbose=False)  # pyright: ignore  # compiled by this
    fit(model, PruningCallback(masks()), max_steps=10)
    assert not counters["graph_break"]
    assert all(torch.equal(a, b) for a, b in zip(plain.net.parameters(), inner.parameters(), strict=True))
    assert any(bool((p == 0).any()) for p in inner.parameters())


def test_a_compiled_lightning_module() -> None:
    class Silent(Net):  # torch.compile cannot trace Lightning's `self.log` in every version
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.net(X).square().mean()

    plain, model = Silent(norm=False), Silent(norm=False)
    fit(plain, PruningCallback(weights()), max_steps=10)
    fit(torch.compile(model, backend="eager"), PruningCallback(weights()), max_steps=10)  # pyright: ignore
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("masks", [units, weights, thresholds])
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_G16_masks_are_copied_while_they_are_on_a_model(masks: Callable[[], LearnedMasks], way: str) -> None:
    model, pruner = net(), masks()
    pruner.attach(model, 10)
    other = copy.deepcopy(pruner) if way == "deepcopy" else pickle.loads(pickle.dumps(pruner))
    assert other.attached
    assert all(torch.equal(p, other.probabilities()[name]) for name, p in pruner.probabilities().items())
    other.strip()
    assert pruner.attached
