"""Layers pruned alone: as a pruner prunes them, to the counts asked for, and put back to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import Pruner, Targets
from lightning_prune.criterion import LAMP, FirstOrderDelta, Taylor
from lightning_prune.pattern import Channel, Element, NofM, Row
from lightning_prune.rounds.alone import Layers, measured
from lightning_prune.schedule import OneShot
from lightning_prune.scope import GlobalRanking


class Convolutions(nn.Module):
    """Two convolutions on a residual stream, a norm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.back = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.example_input_array = torch.randn(2, 1, 6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.back(self.inner(x))).relu().mean((2, 3)))


def layered() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 4))
    model.example_input_array = torch.zeros(2, 6)
    return model


MODELS = pytest.mark.parametrize("make", [layered, Convolutions])


def pruner(pattern: Any = Element(), criterion: Any = None, **ideas: Any) -> Pruner:
    return Pruner(OneShot(0.5, 0), pattern=pattern, **({} if criterion is None else {"criterion": criterion}), **ideas)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@MODELS
@pytest.mark.parametrize("pattern", [Element(), Row(), Channel(), Channel(multiple=4)])
def test_one_layer_goes_alone_and_comes_back_to_the_bit(make: Callable[[], nn.Module], pattern: Any) -> None:
    torch.manual_seed(3)
    model = make()
    before, attributes = state(model), {name: set(vars(module)) for name, module in model.named_modules()}
    layers = Layers(model, pruner(pattern))
    of_units = isinstance(pattern, Channel)
    for place, (name, size) in enumerate(layers.sizes.items()):
        count = layers.counts(0.5)[place]
        with layers.pruned({name: count}) as went:
            zeros = {n: int((p == 0).sum()) for n, p in model.named_parameters() if p.dim() > 1}
            if of_units:
                assert went == {name: count}
                alone = [count if other == name else 0 for other in layers.sizes]
                assert sum(zeros.values()) == layers.zeros(alone)
                assert count % pattern.multiple == 0
            else:
                assert {n: z for n, z in zeros.items() if z} == ({name: went[name]} if went[name] else {})
                assert abs(went[name] - size / 2) <= (0.5 if isinstance(pattern, Element) else size / 4)
        assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    layers.release()
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes


@MODELS
def test_it_goes_as_a_pruner_would_prune_it(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(4)
    model, twin = make(), make()
    twin.load_state_dict(model.state_dict())
    layers = Layers(model, pruner(criterion=LAMP()))
    name, size = next(iter(layers.sizes.items()))
    alone = Pruner(OneShot(40 / size, 0), LAMP(), targets=Targets(include=(name,)), scope=GlobalRanking(0))
    alone.attach(twin, 1)
    alone.update(0)
    alone.strip()
    with layers.pruned({name: 40}):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@MODELS
@pytest.mark.parametrize("pattern", [Element(), Channel()])
def test_several_layers_together_and_all_alike_come_to_as_many_zeros(
    make: Callable[[], nn.Module], pattern: Any
) -> None:
    torch.manual_seed(5)
    model = make()
    layers = Layers(model, pruner(pattern))
    gone = layers.counts(0.25)
    with layers.pruned(dict(zip(layers.sizes, gone, strict=True))):
        counted = sum(int((p == 0).sum()) for p in model.parameters() if p.dim() > 1)
    assert counted == layers.zeros(gone)
    alike = layers.alike(layers.zeros(gone))
    assert alike == gone
    assert all(size > count for size, count in zip(layers.sizes.values(), layers.counts(0.9999), strict=True))


def test_what_is_measured_is_the_model_with_one_layer_pruned() -> None:
    torch.manual_seed(6)
    model = layered()
    layers = Layers(model, pruner())

    def zeros() -> dict[str, float]:
        return {n: float((p == 0).sum()) for n, p in model.named_parameters() if p.dim() > 1}

    found = measured(layers, [0.5, 0.51, 0.9], zeros)
    assert {name: [point.gone for point in points] for name, points in found.items()} == {
        "0.weight": [60, 61, 108],
        "2.weight": [100, 102, 180],
        "4.weight": [20, 36],  # .51 of 40 takes no weight more than .5
    }
    for name, points in found.items():
        for point in points:
            assert point.metrics == dict.fromkeys(layers.sizes, 0.0) | {name: point.gone}


def test_both_weights_of_a_recurrent_layer_are_one() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    layers = Layers(Recurrent(), pruner())
    assert layers.sizes == {"lstm.weight_l0": 160, "head.weight": 10}


def test_what_follows_goes_along_and_comes_back() -> None:
    model = nn.ModuleDict({"student": nn.Linear(6, 4), "teacher": nn.Linear(6, 4)})
    for parameter in model["teacher"].parameters():
        parameter.requires_grad_(False)
    before = state(model)
    layers = Layers(model, pruner(targets=Targets(follow={"teacher": "student"})))
    student, teacher = (dict(model.named_parameters())[f"{name}.weight"] for name in ("student", "teacher"))
    with layers.pruned({"student.weight": 10}):
        assert torch.equal(student == 0, teacher == 0)
        assert int((teacher == 0).sum()) == 10
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("ideas", "said"),
    [
        ({"criterion": Taylor()}, "criterion=Taylor.* looks at training"),
        ({"criterion": FirstOrderDelta()}, "criterion=FirstOrderDelta.* looks at training"),
        ({"pattern": NofM(2, 4)}, "pattern=NofM.* leaves no layer a choice below a sparsity of 0.5"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_leaves_the_model(ideas: dict[str, Any], said: str) -> None:
    model = layered()
    before = set(vars(model[0]))  # pyright: ignore[reportIndexIssue]
    with pytest.raises(ValueError, match=said):
        Layers(model, pruner(**ideas))
    assert set(vars(model[0])) == before  # pyright: ignore[reportIndexIssue]
