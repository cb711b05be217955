"""Where learned masks act, and what stripping and shrinking make of them, on every architecture."""

from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_prune.coupling.example import answer, distance
from lightning_prune.gate import HardConcrete, Sigmoid
from lightning_prune.learned import LearnedMasks
from lightning_prune.learned.learning import Learning
from lightning_prune.learned.masked_units import MaskedUnits
from lightning_prune.mask_regularizer import Binarizer, ExpectedSparsity, MeanProbability
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets
from tests.coupling.architectures import ARCHITECTURES


def on(masks: LearnedMasks) -> Learning:
    model = masks._model  # pyright: ignore[reportPrivateUsage]
    assert model is not None
    return model


def perceptron(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def attached(model: nn.Module, example: Any, **ideas: Any) -> LearnedMasks:
    masks = LearnedMasks(pattern=Channel(example_inputs=example), **ideas)
    masks.attach(model, 100)
    return masks


@pytest.mark.parametrize("gate", [Sigmoid(), HardConcrete(start=0.5)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_G9_stripped_gives_what_evaluation_gave_and_shrunk_does_too(name: str, gate: Any) -> None:
    model, example = ARCHITECTURES[name].model(), ARCHITECTURES[name].example()
    plain = answer(model, example)
    masks = attached(model, example, gate=gate)
    here = on(masks)
    with torch.no_grad():
        for number, logits in enumerate(here.logits.values):
            logits += torch.randn(logits.shape, generator=torch.Generator().manual_seed(number))
    evaluated = answer(model, example)
    assert distance(plain, evaluated)[1] > 1e-3  # something is masked
    masks.strip()
    assert distance(evaluated, answer(model, example))[1] <= 1e-5
    shrunk = shrink(model, example)
    assert shrunk.report.parameters[1] < shrunk.report.parameters[0]
    assert distance(evaluated, answer(shrunk.model, example))[1] <= 1e-4
    for inputs in (make() for make in ARCHITECTURES[name].others):
        assert distance(answer(model, inputs), answer(shrunk.model, inputs))[1] <= 1e-4


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.ELU()])
def test_masks_are_on_the_outputs_after_norm_and_activation_one_draw_an_example(activation: nn.Module) -> None:
    model = perceptron(activation).train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(2, 6))
    here, x = on(masks), torch.randn(7, 6)
    out = model(x)
    by_units = {m.shape[1]: m for m in factors_of(here).values()}
    assert {m.shape for m in by_units.values()} == {(7, 8), (7, 5)}
    hidden = twin[1](twin[0](x)) * by_units[8]
    hidden = twin[4](twin[3](twin[2](hidden))) * by_units[5]
    assert torch.allclose(out, twin[5](hidden), atol=1e-6)


def test_all_readers_of_a_group_get_the_same_draw_and_the_next_forward_another() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.one, self.other = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).exp()
            return torch.cat([self.one(x), self.other(x)], 1)

    model = Two().train()
    masks = attached(model, torch.zeros(2, 4))
    seen: list[Tensor] = []
    for layer in (model.one, model.other):
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    x = torch.randn(5, 4)
    model(x), model(x)  # pyright: ignore[reportUnusedExpression]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[0], seen[2])
    masks.strip()


def test_gradients_of_the_logits_against_finite_differences() -> None:
    model = perceptron(nn.Tanh()).double().train()
    masks = attached(model, torch.zeros(2, 6, dtype=torch.float64), gate=Sigmoid(b=5.0))
    here, x = on(masks), torch.randn(9, 6, dtype=torch.float64)
    here.logits.values = [v.detach().double().requires_grad_() for v in here.logits.values]

    def loss(*values: Tensor) -> Tensor:
        here.logits.values = list(values)
        here.logits.forget_draws()
        here.logits._draws = [0] * len(values)  # pyright: ignore[reportPrivateUsage]
        return model(x).square().mean()

    assert torch.autograd.gradcheck(loss, tuple(here.logits.values))


@pytest.mark.parametrize("task_share", [None, 0.1])
def test_the_step_is_along_the_gradient_of_the_mixed_loss(task_share: float | None) -> None:
    """Gradients of task and regularizer by hand, mixed as the arguments say; the weights' share of it too."""
    model = perceptron(nn.ReLU()).train()
    masks = attached(model, torch.zeros(2, 6), task_share=task_share, mask_regularizer=Binarizer(0.7))
    here = on(masks)
    model(torch.randn(9, 6)).square().mean().backward()
    task = [v.grad.clone() for v in here.logits.values if v.grad is not None]
    weights = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    p = torch.cat([torch.sigmoid(5 * v) for v in here.logits.values])
    rest = torch.autograd.grad(-((p - 0.7) ** 2).mean(), here.logits.values)
    taken: list[Tensor] = []
    here.logits.advance = lambda numbers: taken.extend(here.logits.values[n].grad.clone() for n in numbers)  # type: ignore
    masks.before_step()
    share, other = (1.0, 1.0) if task_share is None else (task_share, 1 - task_share)
    for found, t, r in zip(taken, task, rest, strict=True):
        assert torch.allclose(found, share * t + other * r)
    for found, before in zip((p.grad for p in model.parameters()), weights, strict=True):
        assert found is not None
        assert torch.allclose(found, share * before)


def test_expected_sparsity_is_that_of_independent_draws() -> None:
    model = perceptron(nn.ReLU())
    schedule = Polynomial(0.5, 0, 10, 1)
    masks = attached(model, torch.zeros(2, 6), schedule=schedule, mask_regularizer=ExpectedSparsity(1.0))
    here = on(masks)
    units = cast(MaskedUnits, here._sites)._units  # pyright: ignore[reportPrivateUsage]
    p = [v.detach() for v in here.logits.probabilities()]
    expected = float(units.zeros([(1 - q).sum() for q in p]) / units.size)
    generator = torch.Generator().manual_seed(0)
    draws = [
        units.zeros([float((torch.rand(q.shape, generator=generator) >= q).sum()) for q in p]) / units.size
        for _ in range(4000)
    ]
    assert sum(draws) / len(draws) == pytest.approx(expected, abs=0.01)


def test_at_least_one_unit_of_each_group_stays() -> None:
    model = perceptron(nn.ReLU())
    masks = attached(model, torch.zeros(2, 6))
    here = on(masks)
    with torch.no_grad():
        for logits in here.logits.values:
            logits -= 3.0
    best = [int(logits.argmax()) for logits in here.logits.values]
    here._stale = True  # pyright: ignore[reportPrivateUsage]
    here.settle()
    assert [keep.nonzero().flatten().tolist() for keep in here.keeps] == [[b] for b in best]
    masks.strip()
    assert bool(torch.isfinite(model(torch.randn(4, 6))).all())


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_G16_a_copy_reads_through_the_same_masks_and_a_pickle_through_none(how: str) -> None:
    model = perceptron(nn.ReLU()).eval()
    x = torch.randn(5, 6)
    plain = model(x)
    masks = attached(model, torch.zeros(2, 6))
    if how == "deepcopy":
        assert torch.equal(copy.deepcopy(model)(x), model(x))
    else:
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), plain)
    masks.strip()
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_activation_checkpointing_repeats_the_draw() -> None:
    from torch.utils.checkpoint import checkpoint

    def grads(again: bool) -> list[Tensor]:
        model = perceptron(nn.ReLU()).train()
        masks = attached(model, torch.zeros(2, 6))
        x = torch.linspace(-1, 1, 30).view(5, 6).requires_grad_()
        out = checkpoint(model, x, use_reentrant=False) if again else model(x)
        out.square().sum().backward()
        found = [v.grad for v in on(masks).logits.values] + [p.grad for p in model.parameters()]
        return [grad for grad in found if grad is not None]

    for one, other in zip(grads(False), grads(True), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


class Recurrent(nn.Module):
    """A layer, two of an LSTM, another layer, the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.lstm(self.embed(x))[0]).relu())


class Attention(nn.Module):
    """Self-attention of three heads between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention, self.head = nn.Linear(4, 12), nn.MultiheadAttention(12, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def factors_of(here: Learning) -> dict[str, Tensor]:
    """Return the masks of the latest draw by group, each of the batch that was asked for."""
    drawn = [next(iter(draws.values()))[0] for draws in here.logits._uniform]  # pyright: ignore[reportPrivateUsage]
    named = zip(here._sites.names, here.logits.values, drawn, strict=True)  # pyright: ignore[reportPrivateUsage]
    return {name: here.logits.gates[0].sample(v, u, 0.0) for name, v, u in named}


def test_hidden_states_are_masked_where_the_recurrence_reads_them() -> None:
    torch.manual_seed(0)
    model = Recurrent().train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(2, 3, 4), gate=Sigmoid(b=5.0))
    x = torch.randn(9, 3, 4)
    out = model(x)
    found = factors_of(on(masks))
    shapes = {name: tuple(m.shape) for name, m in found.items()}
    assert shapes == {
        "embed.weight": (9, 6),
        "lstm.weight_ih_l0": (1, 5),
        "hidden.weight": (9, 7),
    }
    states = found["lstm.weight_ih_l0"]  # both layers have the same units
    with torch.no_grad():
        for name in ("weight_hh_l0", "weight_ih_l1", "weight_hh_l1"):
            twin.lstm.get_parameter(name).mul_(states)
    read = twin.lstm(twin.embed(x) * found["embed.weight"][:, None])[0] * states
    assert torch.allclose(out, twin.head(twin.hidden(read).relu() * found["hidden.weight"][:, None]), atol=1e-6)
    out.square().sum().backward()
    assert all(v.grad is not None and bool(v.grad.any()) for v in on(masks).logits.values)
    assert not {"weight_hh_l0", "weight_ih_l1", "weight_hh_l1"} & set(vars(model.lstm))


def test_packed_sequences_have_one_draw_an_example_too() -> None:
    class Packed(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            lengths = torch.arange(len(x)) % 3 + 1
            rows = pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.hidden(pad_packed_sequence(self.lstm(rows)[0], batch_first=True)[0]).relu())

    torch.manual_seed(0)
    model = Packed().train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(4, 3, 4))
    x = torch.randn(9, 3, 4)
    out = model(x)
    found = factors_of(on(masks))
    assert {name: m.shape for name, m in found.items()} == {"embed.weight": (9, 6), "hidden.weight": (9, 7)}
    assert "lstm.weight_ih_l0" in masks.report().skipped
    lengths = torch.arange(9) % 3 + 1
    read = twin.embed(x) * found["embed.weight"][:, None]
    rows = pack_padded_sequence(read, lengths, batch_first=True, enforce_sorted=False)
    states = pad_packed_sequence(twin.lstm(rows)[0], batch_first=True)[0]
    assert torch.allclose(out, twin.head(twin.hidden(states).relu() * found["hidden.weight"][:, None]), atol=1e-6)
    model.eval()
    evaluated = model(x)
    masks.strip()
    assert torch.allclose(evaluated, model(x), atol=1e-6)
    smaller: Any = shrink(model, torch.zeros(4, 3, 4)).model
    assert torch.allclose(evaluated, smaller(x), atol=1e-6)
    assert smaller.lstm.input_size < 6


def test_readers_that_differ_on_which_dimension_is_the_batch_share_one_draw() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.gru, self.head = nn.Linear(4, 6), nn.GRU(6, 5), nn.Linear(6, 3)
            self.out = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            return self.out(torch.cat([self.gru(x)[0], self.head(x)], -1))

    model = TimeFirst().train()
    masks = attached(model, torch.zeros(3, 2, 4))
    model(torch.randn(5, 7, 4))
    assert factors_of(on(masks))["embed.weight"].shape == (1, 6)


def test_heads_are_masked_where_the_output_layer_of_attention_reads_them() -> None:
    torch.manual_seed(0)
    model = Attention().train()
    twin = copy.deepcopy(model)
    masks = attached(model, torch.zeros(5, 2, 4), gate=Sigmoid(b=5.0), targets=Targets(include=("attention",)))
    x = torch.randn(5, 2, 4)
    out = model(x)
    (heads,) = (m for m in factors_of(on(masks)).values() if m.shape == (1, 3))
    with torch.no_grad():
        twin.attention.out_proj.weight.mul_(heads.repeat_interleave(4, dim=1))
    assert torch.allclose(out, twin(x), atol=1e-6)
    out.square().sum().backward()
    assert all(v.grad is not None and bool(v.grad.any()) for v in on(masks).logits.values)
    assert isinstance(model.attention.out_proj.weight, nn.Parameter)


def test_G14_what_cannot_be_masked_is_named() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.hidden = nn.Linear(4, 6), nn.Linear(6, 6)
            self.again, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
            self.again.weight = self.hidden.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.again(self.hidden(self.embed(x)).relu()).relu())

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.tied, self.last = nn.Linear(4, 4), Tied(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.tied(self.first(x).relu()).relu())

    masks = attached(Both(), torch.zeros(2, 4))
    skipped = masks.report().skipped
    assert "is tied: several layers read with it" in skipped["tied.embed.weight"]
    assert set(masks.probabilities()) == {"first.weight", "tied.head.weight"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_share": 1.5}, "task_share=1.5"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"train": "all"}, "train='all'"),
        ({"pattern": None}, "pattern=None"),
        ({"gate": Sigmoid}, "gate="),
        ({"schedule": 0.5}, "schedule=0.5"),
        ({"mask_regularizer": Binarizer(None)}, "follows a schedule"),
        ({"mask_regularizer": ExpectedSparsity()}, "follows a schedule"),
        ({"mask_regularizer": 3}, "mask_regularizer=3"),
        ({"targets": Targets(sparsity={"0": 0.5})}, "sparsity"),
    ],
)
def test_G13_arguments_that_mean_nothing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnedMasks(**arguments)


def test_G13_a_model_without_units_is_refused_and_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    masks = LearnedMasks(pattern=Channel(example_inputs=torch.zeros(2, 4)), mask_regularizer=MeanProbability(0.1))
    with pytest.raises(ValueError, match="no units that can be removed"):
        masks.attach(model, 10)
    assert not masks.attached
    assert not any(m._forward_pre_hooks for m in model.modules())
