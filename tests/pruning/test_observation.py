"""When a criterion looks at training, what it must not see, and what becomes of that between a step and its update."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lightning_prune.criterion import (
    OBS,
    ActivationTaylor,
    APoZ,
    Fisher,
    Magnitude,
    MeanActivation,
    Movement,
    OutputVariance,
    Snip,
    Taylor,
    Wanda,
)
from lightning_prune.pattern import Channel, Element
from lightning_prune.pruning import Pruner
from lightning_prune.reconstruction import Greedy, Lasso, ReduceReuse, SparseGPT
from lightning_prune.regularizer import Growing
from lightning_prune.rounds import PruningRounds
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.helpers import criteria_of_training, same

EXAMPLE = torch.zeros(2, 6)
STEPS = 14


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))


def net_for(criterion: Any) -> nn.Sequential:
    """Return the net, or one with norms whose statistics stand still, where a criterion asks for norms."""
    if not getattr(criterion, "needs_norm", False):
        return net()
    one, act, two, again, last = net()
    model = nn.Sequential(one, nn.BatchNorm1d(8), act, two, nn.BatchNorm1d(7), again, last)
    for layer in (model[1], model[4]):
        layer.eval()
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(9, 6, generator=generator), torch.randint(0, 3, (9,), generator=generator)


def pruner_of(criterion: Any, schedule: Any = Polynomial(0.6, 4, 10, 3)) -> Pruner:
    units = criterion.observes in ("activation", "saliency") or getattr(criterion, "needs_norm", False)
    return Pruner(schedule, criterion, Channel(example_inputs=EXAMPLE) if units else Element())


def one_step(model: nn.Module, pruner: Pruner, optimizer: torch.optim.Optimizer, step: int) -> bool:
    x, y = batch(step)
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    pruner.before_step(optimizer)
    optimizer.step()
    return pruner.after_step(step, [optimizer])


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def seen(pruner: Pruner) -> dict[str, dict[str, Tensor]]:
    return {name: dict(weight.memory) for name, weight in pruner.masks.items() if weight.memory}


@pytest.mark.parametrize("criterion", criteria_of_training())
def test_G2_resumed_between_a_step_and_its_update_the_run_ends_in_the_same_bits(criterion: Any) -> None:
    def run(cut: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model, pruner = net_for(criterion), pruner_of(criterion)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        pruner.attach(model, STEPS)
        for step in range(1, STEPS + 1):
            one_step(model, pruner, optimizer, step)
            if step == cut:
                states = copy.deepcopy((model.state_dict(), optimizer.state_dict(), pruner.state_dict()))
                model, pruner = net_for(criterion), pruner_of(criterion)
                optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
                model.load_state_dict(states[0])
                pruner.load_state_dict(states[2])
                pruner.attach(model, STEPS)
                optimizer.load_state_dict(states[1])
        masks = {name: weight.mask.clone() for name, weight in pruner.masks.items()}
        assert pruner.strip().sparsity > 0.5
        return dict(model.state_dict()), masks

    whole = run(None)
    for cut in (2, 3, 5, 6, 8):
        assert same(run(cut), whole), cut


@pytest.mark.parametrize("criterion", [Wanda(window=2), APoZ(window=2), ActivationTaylor(window=2)], ids=str)
def test_hooks_are_there_in_the_window_before_an_update_and_at_no_other_time(criterion: Any) -> None:
    model, pruner = net(), pruner_of(criterion, Polynomial(0.6, 4, 10, 6))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    there = [hooks(model)]
    for step in range(1, STEPS + 1):
        one_step(model, pruner, optimizer, step)
        there.append(hooks(model))
    assert [step for step, number in enumerate(there) if number] == [2, 3, 8, 9], "before the steps 3, 4 and 9, 10"
    pruner.strip()
    assert hooks(model) == 0


@pytest.mark.parametrize("criterion", [Taylor(window=2), Fisher(window=2)], ids=str)
def test_gradients_are_looked_at_in_the_window_without_hooks(criterion: Any) -> None:
    model, pruner = net(), pruner_of(criterion, OneShot(0.5, 6))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    for step in range(1, 6):
        one_step(model, pruner, optimizer, step)
        assert hooks(model) == 0
        assert bool(seen(pruner)) == (step >= 5)
    assert one_step(model, pruner, optimizer, 6)
    assert bool(seen(pruner)) == isinstance(criterion, Taylor), "a running mean lasts, sums are forgotten"


@pytest.mark.parametrize("criterion", [Wanda(), MeanActivation(), ActivationTaylor()], ids=str)
def test_only_forwards_of_training_count(criterion: Any) -> None:
    model, pruner = net(), pruner_of(criterion, OneShot(0.5, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    x, y = batch(1)
    functional.cross_entropy(model(x), y).backward()
    model.eval()
    model(torch.full((3, 6), 50.0))
    model.train()
    with torch.no_grad():
        model(torch.full((3, 6), 50.0))
    clone = copy.deepcopy(model)
    pickle.loads(pickle.dumps(model))(torch.full((3, 6), 50.0))
    clone(torch.full((3, 6), 50.0))
    pruner.before_step(optimizer)
    found = seen(pruner)

    other, alone = net(), pruner_of(criterion, OneShot(0.5, 2))
    alone.attach(other, STEPS)
    functional.cross_entropy(other(x), y).backward()
    alone.before_step(torch.optim.SGD(other.parameters(), 0.1))
    assert same(found, seen(alone))
    assert found


def test_a_forward_that_checkpointing_makes_again_counts_once() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Any:
            return self.net[2:](checkpoint(self.net[:2], x, use_reentrant=False))

    for criterion in (Wanda(), Taylor()):
        found: list[Any] = []
        for model in (Checkpointed(), net()):
            pruner = pruner_of(criterion, OneShot(0.5, 2))
            pruner.attach(model, STEPS)
            x, y = batch(1)
            functional.cross_entropy(model(x), y).backward()
            pruner.before_step(torch.optim.SGD(model.parameters(), 0.1))
            found.append([memory for memory in seen(pruner).values()])
        assert same(*found)


@pytest.mark.parametrize("criterion", criteria_of_training())
def test_accumulated_gradients_and_all_their_forwards_are_one_step(criterion: Any) -> None:
    """Two halves of a batch are seen as the batch: sums of values to the rounding, gradients as they are."""
    found: list[Any] = []
    for parts in (1, 2):
        model = net_for(criterion).double()
        pruner = pruner_of(criterion, OneShot(0.5, 3))
        if isinstance(pruner.pattern, Channel):
            pruner.pattern = Channel(example_inputs=EXAMPLE.double())
        pruner.attach(model, STEPS)
        x, y = (t[:8] for t in batch(1))
        for some, of in zip(x.double().chunk(parts), y.chunk(parts), strict=True):
            (functional.cross_entropy(model(some), of) / parts).backward()
        pruner.before_step(torch.optim.SGD(model.parameters(), 0.1))
        found.append(seen(pruner))
    for name, memory in found[0].items():
        for key, value in memory.items():
            if key.endswith("examples"):
                continue
            other = found[1][name][key]
            if isinstance(criterion, ActivationTaylor) and key.endswith("changes"):
                other = other * 2  # a constant factor: the loss was divided by the number of parts
            torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-12)


def test_a_loss_scale_is_taken_out_and_a_step_that_overflows_is_not_seen() -> None:
    for criterion in (Taylor(), ActivationTaylor(), Wanda()):
        found: list[Any] = []
        for scale in (1.0, 256.0):
            model, pruner = net(), pruner_of(criterion, OneShot(0.5, 3))
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            pruner.attach(model, STEPS)
            x, y = batch(1)
            (functional.cross_entropy(model(x), y) * scale).backward()
            pruner.before_step(optimizer, grad_scale=scale)
            if scale != 1.0:
                before = copy.deepcopy(seen(pruner))
                (functional.cross_entropy(model(x), y) * torch.inf).backward()
                pruner.before_step(optimizer, grad_scale=scale)
                gradients = criterion.observes != "squared input"
                assert (
                    same(
                        {n: {k: v for k, v in m.items() if "count" not in k} for n, m in before.items()},
                        {n: {k: v for k, v in m.items() if "count" not in k} for n, m in seen(pruner).items()},
                    )
                    == gradients
                )
                found.append(before)
            else:
                found.append(copy.deepcopy(seen(pruner)))
        assert same(*found), criterion


def test_a_gradient_that_overflows_is_kept_as_zeros_and_not_counted() -> None:
    model, pruner = net(), pruner_of(OBS(block=4), OneShot(0.5, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    x, y = batch(1)
    for loss in (functional.cross_entropy(model(x), y) * 256.0, functional.cross_entropy(model(x), y) * torch.inf):
        optimizer.zero_grad()
        loss.backward()
        pruner.before_step(optimizer, grad_scale=256.0)
    for memory in seen(pruner).values():
        assert memory["count"] == 1
        assert memory["gradient/0"].any()
        assert not memory["gradient/1"].any()


def test_movement_sums_from_the_first_step_to_the_last_update() -> None:
    model, pruner = net(), pruner_of(Movement(), Polynomial(0.5, 3, 9, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    sums = {name: torch.zeros_like(weight.values) for name, weight in pruner.masks.items()}
    for step in range(1, STEPS + 1):
        x, y = batch(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        for name, weight in pruner.masks.items() if step <= 9 else ():
            assert weight.grad is not None
            sums[name] -= weight.values.detach() * weight.grad
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(step, [optimizer])
    for name, memory in seen(pruner).items():
        torch.testing.assert_close(memory["movement"], sums[name])


def test_an_update_at_the_start_is_made_when_a_step_was_seen() -> None:
    model, pruner = net(), pruner_of(Taylor(), Polynomial(0.6, 0, 6, 3, initial_sparsity=0.2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    assert not pruner.after_step(0, [optimizer]), "nothing was seen yet"
    assert one_step(model, pruner, optimizer, 1)
    assert pruner.last_update == 0
    assert pruner.report().zeros == round(0.2 * pruner.report().size)
    assert not one_step(model, pruner, optimizer, 2)
    assert one_step(model, pruner, optimizer, 3)


@pytest.mark.parametrize("criterion", [Taylor(), Wanda()], ids=str)
def test_what_no_step_ever_reaches_is_named(criterion: Any) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model, pruner = Unused(), pruner_of(criterion, OneShot(0.5, 2))
    if (
        criterion.observes == "squared input"
    ):  # a layer that is never called multiplies nothing: all its inputs are zero
        pruner = Pruner(OneShot(0.5, 2), criterion, targets=Targets(include=("used.weight",)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, 40)

    def run() -> None:
        for step in range(1, 30):
            one_step(model, pruner, optimizer, step)

    with pytest.raises(ValueError, match=r"has seen no (gradient|squared input) of 'unused.weight' in 16 steps"):
        run()
    pruner.strip(resumable=True)
    assert hooks(model) == 0


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.rnn = nn.LSTM(6, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.attention(x, x, x)[0])[0][:, -1])


def test_layers_that_cannot_be_seen_are_refused_by_name_before_training() -> None:
    model = Attention()
    with pytest.raises(ValueError, match=r"'attention.out_proj.weight': attention reads them inside.*Targets\(exclude"):
        Pruner(OneShot(0.5, 2), Wanda()).attach(model, 9)
    assert hooks(model) == 0
    assert not any("weight_mask" in vars(m) for m in model.modules())
    with pytest.raises(ValueError, match=r"'head.bias': it multiplies no input"):
        Pruner(OneShot(0.5, 2), Wanda(), targets=Targets(include=("head",))).attach(model, 9)
    Pruner(OneShot(0.5, 2), Wanda(), targets=Targets(include=("head.weight",))).attach(model, 9)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"knows of no layer that reads: use pattern=Channel\(\)"):
        Pruner(OneShot(0.5, 2), APoZ())
    with pytest.raises(ValueError, match="reversible=True lets pruned weights return"):
        Pruner(OneShot(0.5, 2), OBS(), reversible=True)
    with pytest.raises(ValueError, match="acts on what is to go next"):
        Pruner(OneShot(0.5, 2), Taylor(), regularizer=Growing(1e-3))
    with pytest.raises(ValueError, match="looks at training"):
        PruningRounds(0.5, criterion=Taylor())
    bad: Any
    for bad in (0, 2.5, True):
        with pytest.raises(ValueError, match="window="):
            Taylor(window=bad)


def test_a_saved_state_is_not_moved_by_later_steps() -> None:
    model, pruner = net(), pruner_of(Taylor(), OneShot(0.5, 9))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    for step in range(1, 4):
        one_step(model, pruner, optimizer, step)
    state = pruner.state_dict()
    before = copy.deepcopy(state["memory"])
    one_step(model, pruner, optimizer, 4)
    assert same(state["memory"], before)


def test_a_replaced_layer_is_watched_from_the_next_step_on() -> None:
    model, pruner = net(), pruner_of(Wanda(window=4), OneShot(0.5, 6))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    for step in range(1, 4):
        one_step(model, pruner, optimizer, step)
    old = model[2]
    model[2] = nn.Linear(8, 7)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert [one_step(model, pruner, optimizer, step) for step in range(4, 7)] == [False, False, True]
    assert hooks(old) == 0


@pytest.mark.parametrize("criterion", [Taylor(window=4), Wanda(window=4), ActivationTaylor(window=4)], ids=str)
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_G16_a_copy_in_the_window_goes_on_alike(criterion: Any, way: str) -> None:
    model, pruner = net(), pruner_of(criterion, OneShot(0.5, 8))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    for step in range(1, 7):
        one_step(model, pruner, optimizer, step)
    together = (model, pruner, optimizer)
    copied: Any = copy.deepcopy(together) if way == "deepcopy" else pickle.loads(pickle.dumps(together))
    for its_model, its_pruner, its_optimizer in (together, copied):
        for step in (7, 8):
            one_step(its_model, its_pruner, its_optimizer, step)
    masks = [{name: weight.mask for name, weight in some[1].masks.items()} for some in (together, copied)]
    assert same(*masks)
    assert pruner.report().sparsity > 0.4


def lowered(criterion: Any) -> list[torch.dtype]:
    """Return the types of a criterion's sums after a step of which forward and `before_step` are under autocast."""
    model, pruner = net_for(criterion), pruner_of(criterion, OneShot(0.5, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner.attach(model, STEPS)
    for step in (1, 2):
        x, y = batch(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):  # manual optimization: all of a training step
            functional.cross_entropy(model(x).float(), y).backward()
            pruner.before_step(optimizer)
    return [value.dtype for memory in seen(pruner).values() for value in memory.values()]


@pytest.mark.parametrize("criterion", [*criteria_of_training(), OBS(block=4, window=None)])
def test_sums_are_worked_out_outside_of_autocast(criterion: Any) -> None:
    assert torch.bfloat16 not in lowered(criterion)


@pytest.mark.parametrize("reconstruction", [SparseGPT(), ReduceReuse(), Greedy(), Lasso()])
def test_sums_of_reconstructions_are_too(reconstruction: Any) -> None:
    pattern = Element() if isinstance(reconstruction, SparseGPT) else Channel(example_inputs=EXAMPLE)
    model, pruner = net(), Pruner(OneShot(0.5, 3), pattern=pattern, reconstruction=reconstruction)
    pruner.attach(model, STEPS)
    with torch.autocast("cpu", torch.bfloat16):
        x, y = batch(1)
        functional.cross_entropy(model(x).float(), y).backward()
        pruner.before_step()
    found = [value for memory in seen(pruner).values() for value in memory.values()]
    assert found
    assert all(value.dtype != torch.bfloat16 for value in found)


@pytest.mark.parametrize("criterion", [Wanda(window=1), Snip(window=1), Movement(window=2)])
def test_where_two_optimizers_step_in_a_batch_windows_lie_before_the_same_updates(criterion: Any) -> None:
    """The pruner is asked once a batch, when two steps more are completed."""

    def updates(criterion: Any) -> list[int]:
        model = net()
        halves = [torch.optim.SGD(model[:2].parameters(), 0.1), torch.optim.SGD(model[2:].parameters(), 0.1)]
        pruner, found = Pruner(Polynomial(0.6, 4, 18, 2), criterion), list[int]()
        pruner.attach(model, 20)
        pruner.update(0, halves)
        for step in range(2, 21, 2):
            x, y = batch(step)
            for optimizer in halves:
                optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            for optimizer in halves:
                pruner.before_step(optimizer)
                optimizer.step()
            if pruner.update(step, halves):
                found.append(step)
        return found

    assert updates(criterion) == updates(Magnitude()) == list(range(4, 19, 2))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("criterion", [Wanda(window=2), OutputVariance(window=2)])
def test_reentrant_checkpointing_is_seen_once_as_is_any_other(criterion: Any) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool | None) -> None:
            super().__init__()
            self.net, self.reentrant = net(), reentrant

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.net[0](x))
            part = self.net[2:]
            return part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)

    def sums(reentrant: bool | None) -> dict[str, dict[str, Tensor]]:
        model, pruner = Checkpointed(reentrant), Pruner(OneShot(0.5, 2), criterion)
        pruner.attach(model, STEPS)
        with torch.no_grad():  # as a teacher's, or a first look: never made again
            model(batch(9)[0])
        for step in (1, 2):
            x, y = batch(step)
            functional.cross_entropy(model(x), y).backward()
            pruner.before_step()
        return seen(pruner)

    plain = sums(None)
    assert same(plain, sums(False))
    assert same(plain, sums(True))
