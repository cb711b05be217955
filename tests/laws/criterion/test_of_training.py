"""Criteria that look at training: each equal to a slow, obvious version on what was really computed, and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_prune.criterion import (
    LAMP,
    OBS,
    ActivationTaylor,
    APoZ,
    Entropy,
    Fisher,
    Inbound,
    MeanActivation,
    Movement,
    OutputVariance,
    Site,
    Snip,
    Taylor,
    Wanda,
)
from lightning_prune.pattern import Channel, Element
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.asking import scores_of
from lightning_prune.reconstruction import SparseGPT
from lightning_prune.schedule import OneShot

UPDATE, WINDOW = 5, 3
"""The update whose scores are looked at, and how many steps before it are seen."""


class Net(nn.Module):
    """A convolution with its norm, one in groups, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 4, 3, stride=2, groups=2)
        self.hidden = nn.Linear(4 * 4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.grouped(x)).flatten(1)
        return self.out(torch.relu(self.hidden(x)))


class Record:
    """What every layer was called with and gave, and every gradient, at the steps of the window."""

    def __init__(self, model: nn.Module) -> None:
        self.inputs: dict[str, list[Tensor]] = {}
        self.outputs: dict[str, list[Tensor]] = {}
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.on = False
        self._model = model
        for name, module in model.named_children():
            module.register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            if self.on:
                args[0].retain_grad() if args[0].requires_grad else None
                self.inputs.setdefault(name, []).append(args[0])
                self.outputs.setdefault(name, []).append(output.detach())

        return hook

    def step(self) -> None:
        named = {name: p for name, p in self._model.named_parameters() if p.grad is not None}
        self.gradients.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})
        self.weights.append({name: p.detach().clone() for name, p in named.items()})


def train(criterion: Any, pattern: Any = Element()) -> tuple[Pruner, Record]:
    """Train up to the update's step, and stop between the backward and the update."""
    torch.manual_seed(3)
    model = Net().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner = Pruner(OneShot(0.5, UPDATE), criterion, pattern)
    pruner.attach(model, 10)
    record = Record(model)
    for step in range(1, UPDATE + 1):
        x, y = torch.randn(7, 3, 5, 5, dtype=torch.float64), torch.randint(0, 3, (7,))
        record.on = step > UPDATE - WINDOW
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        if record.on:
            record.step()
        pruner.before_step(optimizer)
        if step < UPDATE:
            optimizer.step()
            pruner.after_step(step, [optimizer])
    return pruner, record


def scored(pruner: Pruner, name: str) -> Tensor:
    return scores_of(pruner.criterion, pruner.masks[name], UPDATE, 0.5)


WEIGHTS = ["conv.weight", "grouped.weight", "hidden.weight"]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", WEIGHTS)
def test_taylor_is_a_running_mean_of_squared_changes(name: str) -> None:
    pruner, record = train(Taylor(window=WINDOW, decay=0.7))
    mean = torch.zeros_like(record.weights[0][name])
    for weights, gradients in zip(record.weights, record.gradients, strict=True):
        mean = 0.7 * mean + 0.3 * (weights[name] * gradients[name]) ** 2
    close(scored(pruner, name), mean)


@pytest.mark.parametrize("name", WEIGHTS)
def test_taylor_of_filters_squares_the_sum_of_a_filter(name: str) -> None:
    pruner, record = train(Taylor(of_filters=True, window=WINDOW, decay=0.7))
    mean = torch.zeros(len(record.weights[0][name]), dtype=torch.float64)
    for weights, gradients in zip(record.weights, record.gradients, strict=True):
        for unit in range(len(mean)):
            mean[unit] = 0.7 * mean[unit] + 0.3 * float((weights[name][unit] * gradients[name][unit]).sum()) ** 2
    scores = scored(pruner, name)
    for unit in range(len(mean)):
        close(scores[unit], mean[unit].expand_as(scores[unit]))


@pytest.mark.parametrize("name", WEIGHTS)
def test_snip_movement_and_fisher_are_sums_over_the_steps(name: str) -> None:
    pruner, record = train(Snip(window=WINDOW))
    weight = record.weights[-1][name]
    close(scored(pruner, name), (weight * sum(g[name] for g in record.gradients)).abs())
    pruner, record = train(Movement(window=WINDOW))
    each = zip(record.weights, record.gradients, strict=True)
    expected = torch.stack([-w[name] * g[name] for w, g in each]).sum(0)
    close(scored(pruner, name), expected)
    pruner, record = train(Fisher(window=WINDOW))
    mean = torch.stack([g[name] ** 2 for g in record.gradients]).mean(0)
    close(scored(pruner, name), mean * record.weights[-1][name] ** 2 / 2)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("block", [8, 4, 2, 1])  # three unknowns; kept to the end; folded by two, by one
def test_obs_inverts_the_fisher_of_each_block(name: str, block: int) -> None:
    pruner, record = train(OBS(block=block, damping=0.1, window=WINDOW))
    assert ("fisher" in pruner.masks[name].memory) == (block < WINDOW)
    weight = record.weights[-1][name].flatten()
    gradients = [g[name].flatten() for g in record.gradients]
    diagonal = sum((g**2).sum() for g in gradients) / WINDOW / (math.ceil(len(weight) / block) * block)
    expected = torch.zeros_like(weight)
    for start in range(0, len(weight), block):
        some = slice(start, start + block)
        size = len(weight[some])
        fisher = 0.1 * diagonal * torch.eye(size, dtype=torch.float64)
        for gradient in gradients:
            fisher += torch.outer(gradient[some], gradient[some]) / WINDOW
        expected[some] = weight[some] ** 2 / (2 * torch.linalg.inv(fisher).diagonal())
    close(scored(pruner, name).flatten(), expected)


@pytest.mark.parametrize("damping", [1.0, 0.01, 1e-6])
def test_obs_of_few_steps_is_that_of_their_products(damping: float) -> None:
    """Three gradients of blocks of 16 are solved for as three unknowns; their products, as 16."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(5, 16, dtype=torch.float64, generator=generator)
    gradients = [torch.randn(5, 16, dtype=torch.float64, generator=generator) for _ in range(3)]
    keep = torch.rand(5, 16, generator=generator) > 0.4
    keep[0], keep[1] = False, True
    criterion = OBS(block=16, damping=damping)
    few = {f"gradient/{n}": gradient for n, gradient in enumerate(gradients)}
    few["count"] = torch.tensor(3.0, dtype=torch.float64)
    sums = criterion.folded([{"gradient": gradient} for gradient in gradients]) | {"count": few["count"]}
    for memory in (few, {key: value.float() for key, value in few.items()}):
        one, other = criterion.at(Site("w", 0, memory)), criterion.at(Site("w", 0, sums))
        rtol = 1e-9 / damping if memory is few else 1e-4
        torch.testing.assert_close(one(w, None), other(w, None), rtol=rtol, atol=1e-9, check_dtype=False)
        torch.testing.assert_close(one.corrected(w, keep), other.corrected(w, keep), rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_obs_keeps_a_gradient_apart_from_the_one_that_it_is_shown(size: int, dtype: torch.dtype) -> None:
    seen = torch.ones(size, dtype=dtype)
    found = OBS(block=4).observe(seen, seen)["gradient"]
    seen.zero_()  # as an optimizer's zero_grad(set_to_none=False)
    assert float(found.sum()) == size


def test_obs_keeps_gradients_where_they_take_no_more_room_than_their_products() -> None:
    kept = {window: OBS(block=16, window=window).most_steps for window in (1, 16, 17, None)}
    assert kept == {1: 1, 16: 16, 17: 8, None: 8}
    assert OBS(block=3, window=None).most_steps == 3


def test_obs_refuses_blocks_and_dampings_that_make_no_sense() -> None:
    bad: Any
    for bad in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"block={bad!r} must be an int of at least 1"):
            OBS(block=bad)
    for bad in (0.0, -1.0, math.nan, math.inf, "a"):
        with pytest.raises(ValueError, match=f"damping={bad!r} must be a number above 0"):
            OBS(damping=bad)


@pytest.mark.parametrize("idea", [{"criterion": OBS()}, {"reconstruction": SparseGPT()}], ids=["OBS", "SparseGPT"])
def test_new_values_that_are_not_finite_end_the_update_by_name_and_change_nothing(
    idea: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    (kind,) = {type(each) for each in idea.values()}
    right: Any = kind.corrected

    def corrected(self: Any, weight: Tensor, keep: Tensor) -> Tensor:
        values = right(self, weight, keep)
        return values.index_fill(1, torch.tensor([2]), torch.inf) if self.name == "1.weight" else values

    pruner = Pruner(OneShot(0.5, 1), **idea)
    pruner.attach(model, 2)
    model(torch.randn(8, 6)).square().mean().backward()
    pruner.before_step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with monkeypatch.context() as patched:
        patched.setattr(kind, "corrected", corrected)
        with pytest.raises(ValueError, match=r"what the criterion puts in the place of the weights of '1\.weight'"):
            pruner.after_step(1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(bool(weight.mask.all()) for weight in pruner.masks.values())


def patches(layer: Any, x: Tensor) -> Tensor:
    """Return (examples, entries of a filter, positions) of each group of a convolution, or of a linear layer."""
    if isinstance(layer, nn.Linear):
        return x[:, None, :, None]
    columns = functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return columns.unflatten(1, (layer.groups, -1))


@pytest.mark.parametrize("name", WEIGHTS)
def test_wanda_is_the_weight_times_the_norm_of_its_inputs(name: str) -> None:
    pruner, record = train(Wanda(window=WINDOW))
    module = name.split(".")[0]
    layer: Any = pruner.masks[name].target.owners[0][0]
    seen = torch.cat([patches(layer, x.detach()) for x in record.inputs[module]])
    weight = record.weights[-1][name]
    groups, per = seen.shape[1], len(weight) // seen.shape[1]
    expected = torch.zeros_like(weight).flatten(1)
    for output in range(len(weight)):
        for entry in range(expected.shape[1]):
            norm = seen[:, output // per, entry].norm()
            expected[output, entry] = weight.flatten(1)[output, entry].abs() * norm
    assert groups == (2 if module == "grouped" else 1)
    close(scored(pruner, name).flatten(1), expected)


@pytest.mark.parametrize("name", WEIGHTS)
def test_inbound_is_the_variance_of_a_links_norm(name: str) -> None:
    pruner, record = train(Inbound(window=WINDOW))
    module = name.split(".")[0]
    layer: Any = pruner.masks[name].target.owners[0][0]
    # at each step with the weights of that step
    norms: dict[tuple[int, int], list[float]] = {}
    for weights, x in zip(record.weights, record.inputs[module], strict=True):
        weight = weights[name]
        if isinstance(layer, nn.Linear):  # a link is a weight, and what varies is its input
            weight = record.weights[-1][name]
        outputs, inputs = weight.shape[:2]
        groups = getattr(layer, "groups", 1)
        for t in range(outputs):
            for s in range(inputs):
                channel = s + (t // (outputs // groups)) * inputs
                if isinstance(layer, nn.Linear):
                    found = (weight[t, s] * x[:, s]).abs()
                else:
                    one = functional.conv2d(
                        x[:, channel : channel + 1], weight[t, s][None, None], None, layer.stride, layer.padding
                    )
                    found = one.flatten(1).norm(dim=1)
                norms.setdefault((t, s), []).extend(found.tolist())
    scores = scored(pruner, name)
    for (t, s), values in norms.items():
        variance = torch.tensor(values, dtype=torch.float64).var(unbiased=False)
        close(scores[t, s], variance.expand_as(scores[t, s]))


@pytest.mark.parametrize("name", WEIGHTS)
def test_output_variance_is_of_the_maps_norm_without_the_bias(name: str) -> None:
    pruner, record = train(OutputVariance(window=WINDOW))
    module = name.split(".")[0]
    values: list[Tensor] = []
    for weights, x in zip(record.weights, record.inputs[module], strict=True):
        layer: Any = pruner.masks[name].target.owners[0][0]
        x = x.detach()
        y = (
            functional.linear(x, weights[name])
            if isinstance(layer, nn.Linear)
            else functional.conv2d(x, weights[name], None, layer.stride, layer.padding, 1, layer.groups)
        )
        values.append(y.flatten(2).norm(dim=2) if y.dim() > 2 else y.abs())
    variance = torch.cat(values).var(0, unbiased=False)
    scores = scored(pruner, name)
    for unit in range(len(variance)):
        torch.testing.assert_close(scores[unit], variance[unit].expand_as(scores[unit]), rtol=1e-9, atol=1e-9)


READERS = {"conv.weight": "grouped", "grouped.weight": "hidden", "hidden.weight": "out"}
"""Which layer reads the units that a weight computes."""

Seen = dict[str, list[tuple[Tensor, Tensor]]]
"""Weight -> what a layer reads of its units at each step, and the gradients: (examples, units, positions)."""


def worth(criterion: Any) -> tuple[dict[str, Tensor], Seen]:
    """Return what each group's units are worth to the update, by the weight that computes them, and what is read."""
    example = torch.zeros(2, 3, 5, 5, dtype=torch.float64)
    pruner, record = train(criterion, Channel(normalize=False, example_inputs=example))
    update: Any = pruner._on_model._updates[0]  # pyright: ignore[reportPrivateUsage]
    found = dict(zip([g.name for g in update.groups], update._scores(update.alive(), UPDATE, 0.5), strict=True))
    assert found.keys() == READERS.keys()
    seen: Seen = {}
    for group in update.groups:
        (part,) = group.of("in")
        channels = [[int(n) for n in unit] for unit in part.index]
        if READERS[group.name] == "grouped":  # its column reads one channel of each group
            channels = [[n + 3 * half for half in range(2) for n in unit] for unit in channels]
        for x in record.inputs[READERS[group.name]]:
            assert x.grad is not None
            each = [
                torch.stack([t.flatten(2)[:, unit].flatten(1) for unit in channels], 1)
                for t in (x.detach()[..., None], x.grad[..., None])
            ]
            seen.setdefault(group.name, []).append((each[0], each[1]))
    return found, seen


def same_units(found: dict[str, Tensor], expected: Callable[[Tensor], Tensor], seen: Seen) -> None:
    for name, steps in seen.items():
        every = torch.cat([values for values, _ in steps])
        torch.testing.assert_close(found[name].double(), expected(every), rtol=1e-6, atol=1e-7)


def test_apoz_is_the_share_of_zeros_behind_the_activation() -> None:
    found, seen = worth(APoZ(window=WINDOW))

    def expected(values: Tensor) -> Tensor:
        return torch.stack([1.0 - (unit == 0).double().mean() for unit in values.unbind(1)])

    same_units(found, expected, seen)


def test_mean_activation_is_the_mean_magnitude() -> None:
    found, seen = worth(MeanActivation(window=WINDOW))
    same_units(found, lambda values: values.abs().mean((0, 2)), seen)


def test_entropy_is_of_a_histogram_over_each_units_own_range() -> None:
    found, seen = worth(Entropy(bins=4, window=WINDOW))

    def expected(values: Tensor) -> Tensor:
        pooled = values.mean(2)
        entropies: list[float] = []
        for unit in pooled.T.tolist():
            low, high = min(unit), max(unit)
            counts = [0] * 4
            for value in unit:
                counts[min(3, int((value - low) / (high - low) * 4)) if high > low else 0] += 1
            shares = [count / len(unit) for count in counts if count]
            entropies.append(-sum(share * math.log(share) for share in shares))
        return torch.tensor(entropies, dtype=torch.float64)

    same_units(found, expected, seen)


def test_activation_taylor_is_the_mean_change_of_each_examples_loss() -> None:
    found, seen = worth(ActivationTaylor(window=WINDOW))
    for name, steps in seen.items():
        total, number = torch.zeros(len(found[name]), dtype=torch.float64), 0
        for values, gradients in steps:
            for z, change in zip(values, gradients * len(gradients), strict=True):  # the loss is the examples' mean
                total += (z * change).mean(1).abs()
                number += 1
        mean = total / number
        torch.testing.assert_close(found[name].double(), mean / mean.norm(), rtol=1e-6, atol=1e-7)


# By hand


def test_lamp_in_parts_is_lamp_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(7, 11, dtype=torch.float64).mul(8).round() / 8  # with equal ones, and zeros
    whole = LAMP()(weight, None)
    monkeypatch.setattr("lightning_prune.criterion.lamp._CHUNK", 10)
    torch.testing.assert_close(LAMP()(weight, None), whole, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_lamp_of_what_is_not_finite_ends_the_update_by_name(value: float) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    with torch.no_grad():
        model[1].weight[2, 3] = value  # pyright: ignore
    pruner = Pruner(OneShot(0.5, 1), criterion=LAMP())
    pruner.attach(model, 2)
    with pytest.raises(ValueError, match=r"1\.weight"):
        pruner.after_step(1)


def test_lamp_by_hand() -> None:
    scores = LAMP()(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), None)
    torch.testing.assert_close(scores, torch.tensor([[1 / 14, 4 / 13], [1.0, 0.0]]))
    ties = LAMP()(torch.tensor([2.0, 2.0, 2.0]), None)  # the first counts as the largest
    torch.testing.assert_close(ties, torch.tensor([1.0, 1 / 2, 1 / 3]))


def test_apoz_entropy_and_mean_by_hand() -> None:
    seen = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 4.0]]])  # two examples, two units, two positions
    weight = torch.zeros(2, 1)
    for criterion, expected in ((APoZ(), [0.5, 0.25]), (MeanActivation(), [1.0, 1.0]), (Entropy(2), [math.log(2)] * 2)):
        asked = criterion.at(Site("w", 0, criterion.observe(weight, seen)))
        torch.testing.assert_close(asked(weight, None)[:, 0], torch.tensor(expected))


def test_wanda_and_inbound_by_hand() -> None:
    seen = torch.tensor([[3.0, 0.0], [4.0, 2.0]])[:, None, :, None]  # two examples of two inputs
    weight = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    squares = seen.square().sum(0, keepdim=True)
    asked: Any = Wanda().at(Site("w", 0, Wanda().observe(weight, squares)))
    torch.testing.assert_close(asked(weight, None), torch.tensor([[5.0, 2.0], [2.5, 4.0]]))
    asked = Inbound().at(Site("w", 0, Inbound().observe(weight, seen)))
    torch.testing.assert_close(asked(weight, None), torch.tensor([[0.25, 1.0], [0.0625, 4.0]]))


def fisher_memory(hessian: Tensor) -> dict[str, Tensor]:
    return {"fisher": hessian[None] * 3.0, "count": torch.tensor(3.0, dtype=torch.float64)}


@pytest.mark.parametrize("gone", [(1,), (0, 3), (2, 3, 4)])
def test_obs_predicts_the_true_change_of_a_quadratic_loss(gone: tuple[int, ...]) -> None:
    """At the minimum of (w - w0)^T H (w - w0) / 2 the loss rises by what the score says, if the rest is corrected."""
    generator = torch.Generator().manual_seed(5)
    factor = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    hessian, w = factor @ factor.T + 0.1 * torch.eye(6), torch.randn(6, dtype=torch.float64, generator=generator)
    criterion = OBS(block=6, damping=1e-12).at(Site("w", 0, fisher_memory(hessian)))
    keep = torch.ones(6, dtype=torch.bool)
    keep[list(gone)] = False
    better = criterion.corrected(w, keep) - w
    assert torch.equal(better[~keep], -w[~keep])
    rise = better @ hessian @ better / 2
    inverse = torch.linalg.inv(hessian)[list(gone)][:, list(gone)]
    torch.testing.assert_close(rise, w[list(gone)] @ torch.linalg.inv(inverse) @ w[list(gone)] / 2)
    if len(gone) == 1:
        torch.testing.assert_close(criterion(w, None)[gone[0]], rise)
    plain = torch.where(keep, 0.0, -w)
    assert rise < plain @ hessian @ plain / 2, "less than without the correction"


def test_obs_corrects_the_weights_that_stay_at_an_update() -> None:
    pruner, _ = train(OBS(block=8, window=WINDOW))
    optimizer = torch.optim.SGD([w.parameter for w in pruner.masks.values()], lr=0.0)
    before = {name: weight.values.detach().clone() for name, weight in pruner.masks.items()}
    expected = {}
    memories = {name: dict(weight.memory) for name, weight in pruner.masks.items()}
    assert pruner.after_step(UPDATE, [optimizer])
    for name, weight in pruner.masks.items():
        asked = OBS(block=8).at(Site(name, 0, memories[name]))
        expected[name] = asked.corrected(before[name], weight.mask)
        assert torch.equal(weight.values, torch.where(weight.mask, expected[name], 0.0))
    moved = [not torch.equal(w.values[w.mask], before[name][w.mask]) for name, w in pruner.masks.items()]
    assert sum(moved) >= 3
