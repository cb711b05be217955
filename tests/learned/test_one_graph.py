"""Learned masks in compiled models: one graph, the draws of plain Python to the bit, and what cannot be had."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lightning_prune import LearnedMasks
from lightning_prune.gate import HardConcrete, Sigmoid, SoftThreshold
from lightning_prune.learned import operations
from lightning_prune.pattern import Channel, Element
from lightning_prune.schedule import Polynomial
from tests.learned.helpers import attached, logits_of, on

RAMP = Polynomial(0.5, 1, 4, 1)
X = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Eager(Sigmoid):
    """A gate with what no trace goes through: a number of the host, and one that differs at every step."""

    def sample(self, logits: Tensor, uniform: Tensor, progress: float) -> Tensor:
        steep = float(torch.tensor([20.0]).numpy()[0]) + len(str(progress))
        return torch.sigmoid(steep * (self.probability(logits) - uniform))


FORMS: dict[str, Callable[[], LearnedMasks]] = {
    "units": lambda: LearnedMasks(RAMP, pattern=Channel(example_inputs=X)),
    "units, annealed": lambda: LearnedMasks(RAMP, Sigmoid(b_at_start=5.0), pattern=Channel(example_inputs=X)),
    "units, an own gate": lambda: LearnedMasks(RAMP, Eager(), pattern=Channel(example_inputs=X)),
    "weights": lambda: LearnedMasks(RAMP, HardConcrete(), pattern=Element()),
    "thresholds": lambda: LearnedMasks(RAMP, SoftThreshold(0.05), None, Element()),
}


class Twice(nn.Module):
    """Calls one layer twice: two forwards of it, with a draw each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.again(self.first(x).relu()).relu()).relu())


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def conv() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, groups=2)]
    return nn.Sequential(nn.Unflatten(1, (3, 2, 2)), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))


@pytest.fixture(autouse=True)
def anew() -> Generator[None, None, None]:
    """Have no compiled code and no counts from elsewhere."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def trained(make: Callable[[], nn.Module], masks: LearnedMasks, backend: str | None) -> list[Tensor]:
    """Return all there is to see of five steps on batches of two sizes: losses, evaluations, weights, logits."""
    torch.manual_seed(0)
    model = make()
    masks.attach(model, 5)
    called: Any = model if backend is None else torch.compile(model, backend=backend, fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen: list[Tensor] = []
    for step in range(1, 6):
        optimizer.zero_grad()
        for batch in (X, X[:5]) if step == 3 else (X,):
            loss = called(batch).square().mean()
            loss.backward()
            seen.append(loss.detach())
        masks.before_step(optimizer)
        optimizer.step()
        if step < 4:
            seen += logits_of(masks)
        masks.mask_weights(optimizer)
        masks.update(step, [optimizer])
        model.eval()
        with torch.no_grad():
            seen.append(called(X))
        model.train()
    masks.strip()
    return [*seen, *(p.detach().clone() for p in model.parameters())]


def same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize(
    ("make", "form", "backend"),
    [
        (mlp, "units", "eager"),
        *(
            pytest.param(make, form, backend, marks=pytest.mark.slow)
            for make in (mlp, conv, Twice)
            for form in FORMS
            for backend in ("eager", "aot_eager")
            if (make, form, backend) != (mlp, "units", "eager")
        ),
    ],
)
def test_one_graph_learns_what_plain_python_does_to_the_bit(
    make: Callable[[], nn.Module], form: str, backend: str
) -> None:
    """`fullgraph=True` raises at the first break; no number of a step is in the graph, so steps add none."""
    expected = trained(make, FORMS[form](), None)
    counters.clear()
    assert same(trained(make, FORMS[form](), backend), expected)
    assert not counters["graph_break"]


def test_two_calls_of_a_layer_have_a_draw_each() -> None:
    torch.manual_seed(0)
    model = Twice()
    masks = attached(model, X)
    drawn: list[Tensor] = []
    draw = on(masks).logits._draw
    on(masks).logits._draw = lambda *of: drawn.append(draw(*of)) or drawn[-1]  # type: ignore
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(X)
    compiled(X)
    assert len(drawn) == 4
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])


def test_evaluation_follows_the_masks_of_now_without_being_compiled_anew() -> None:
    torch.manual_seed(0)
    model = mlp().eval()
    masks = attached(model, X, schedule=Polynomial(0.5, 1, 50, 1))
    masks.update(1, [])
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    before = compiled(X)
    graphs = int(counters["stats"]["unique_graphs"])
    masks.update(40, [])
    assert not torch.equal(compiled(X), before)
    assert torch.equal(compiled(X), model(X))
    assert int(counters["stats"]["unique_graphs"]) == graphs == 1


@pytest.mark.parametrize("pattern", [Channel(example_inputs=X), Element()])
def test_operations_say_of_themselves_what_is_true(pattern: Any) -> None:
    """torch's own check: what they write to, the shapes they promise, gradients through `torch.compile`'s middle."""
    model = mlp()
    masks = LearnedMasks(RAMP, pattern=pattern)
    masks.attach(model, 10)
    logits = on(masks).logits.values[0].detach().requires_grad_()
    hook = next(hook for module in model for hook in module._forward_pre_hooks.values())  # pyright: ignore
    factors = hook._factors if hasattr(hook, "_factors") else None
    giver: Any = factors._masking if factors else hook.factor.__closure__[0].cell_contents
    named, units = giver._named, len(logits)
    operations_of: Any = operations
    draw = (named.turn, logits.detach(), named.key, 0, 0, 3)
    torch.library.opcheck(operations_of._draw, draw, test_utils=("test_schema", "test_faketensor"))  # else it draws on
    uniform, progress = operations_of._draw(*draw)
    torch.library.opcheck(operations_of._sample, (logits, uniform, progress, named.key, 0))
    settled = (named.turn, logits.detach(), None, named.key, 0, units, torch.float32)
    torch.library.opcheck(operations_of._settled, settled)


def test_each_model_has_a_number_that_is_forgotten_with_it() -> None:
    gc.collect()
    before = set(operations._named)
    models = [mlp(), mlp()]
    masks = [attached(model, X) for model in models]
    assert len(set(operations._named) - before) == 2
    del masks, models
    gc.collect()
    assert set(operations._named) <= before


@pytest.mark.parametrize("form", ["units", "weights"])
def test_a_model_is_not_exported_before_its_masks_are_in_its_weights(form: str) -> None:
    model, masks = mlp().eval(), FORMS[form]()
    masks.attach(model, 10)
    with pytest.raises(RuntimeError, match="strip"):
        torch.export.export(model, (X,))
    masks.strip()
    program: Any = torch.export.export(model, (X,))
    assert torch.equal(program.module()(X), model(X))
