"""Reconstructions in a pruner: what is corrected and by how much it helps, resumed to the bit, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import PruningCallback
from lightning_prune.criterion import Magnitude, Wanda
from lightning_prune.observing import inputs_of
from lightning_prune.pattern import Channel, Column, Element, NofM
from lightning_prune.pruning import Pruner
from lightning_prune.reconstruction import Greedy, Lasso, ReduceReuse, SparseGPT, UnitReconstruction
from lightning_prune.regularizer import Growing
from lightning_prune.schedule import AccuracyBudget, Hold, OneShot, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.targets import Targets
from tests.helpers import ideas, same, vary

RECONSTRUCTIONS = pytest.mark.parametrize("reconstruction", ideas("reconstruction"))
IMAGES = torch.zeros(2, 3, 8, 8)
STEPS = 12


class Net(nn.Module):
    """Two convolutions that add, their norm, one in groups and strided, a flattened map, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.same = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 6, 3, stride=2, groups=2)
        self.hidden, self.out = nn.Linear(6 * 9, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.relu(self.norm(x + self.same(x)))
        x = torch.relu(self.grouped(x)).flatten(1)
        return self.out(torch.relu(self.hidden(x)))


def net(make: Callable[[], nn.Module] = Net) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make()


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(12, 3, 8, 8, generator=generator)
    return x + x.roll(1, -1) + x.mean(1, keepdim=True), torch.randint(0, 4, (12,), generator=generator)


def pruner_of(reconstruction: Any, schedule: Any = OneShot(0.5, 6), **options: Any) -> Pruner:
    of_units = isinstance(reconstruction, UnitReconstruction)
    pattern = Channel(example_inputs=IMAGES) if of_units else Element()
    options = {"pattern": pattern, "scope": Uniform()} | options
    return Pruner(schedule, reconstruction=reconstruction, **options)


def one_step(model: nn.Module, pruner: Pruner, optimizer: torch.optim.Optimizer, step: int) -> bool:
    x, y = batch(step)
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    pruner.before_step(optimizer)
    optimizer.step()
    return pruner.after_step(step, [optimizer])


def train(model: nn.Module, pruner: Pruner, steps: int = STEPS, lr: float = 0.05) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    pruner.attach(model, STEPS)
    for step in range(1, steps + 1):
        one_step(model, pruner, optimizer, step)


def errors_of(model: nn.Module, before: nn.Module) -> dict[str, float]:
    """Return how far each layer's output is from what it was on what it read before, on the batches of the window."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda module, args: seen.setdefault(name, []).append(args[0])

    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in before.named_children()]
    with torch.no_grad():
        for step in range(1, 7):
            before(batch(step)[0])
        for hook in hooks:
            hook.remove()
        found: dict[str, float] = {}
        for name, inputs in seen.items():
            new: Any = model.get_submodule(name)
            old: Any = before.get_submodule(name)
            if old.weight.dim() < 2:
                continue
            alive = new.weight.flatten(1).any(1)  # outputs that are gone are nobody's
            then, now = (functional_output(layer, torch.cat(inputs)).movedim(1, 0)[alive] for layer in (old, new))
            found[name] = float((now - then).square().sum())
    return found


def functional_output(layer: Any, x: Tensor) -> Tensor:
    """Return a layer's output without its bias."""
    return torch.func.functional_call(layer, {"bias": torch.zeros_like(layer.bias)}, (x,))


@RECONSTRUCTIONS
def test_every_layer_is_nearer_to_what_it_was_than_without_the_correction(
    reconstruction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same masks, once with and once without new values; no step moves a weight."""
    found: list[dict[str, float]] = []
    for corrects in (True, False):
        model, pruner = net(), pruner_of(reconstruction)
        if not corrects:
            monkeypatch.setattr("lightning_prune.pruning.attached.put_in", lambda better: None)
        train(model, pruner, 6, lr=0.0)
        masks = {name: weight.mask for name, weight in pruner.masks.items()}
        pruner.strip()
        found.append(errors_of(model, net().train()) | {"masks": sum(int(mask.sum()) for mask in masks.values())})
    with_it, without = found
    layers = [name for name in with_it if name != "masks" and without[name] > 0]
    assert with_it["masks"] == without["masks"]
    assert len(layers) >= 4
    for name in layers:
        assert with_it[name] < 0.999 * without[name], name
    assert sum(with_it.values()) < sum(without.values())


@RECONSTRUCTIONS
@pytest.mark.parametrize("schedule", [OneShot(0.6, 4), Polynomial(0.6, 2, 8, 3)], ids=str)
def test_G6_sparsity_is_exact_and_zeros_stay(reconstruction: Any, schedule: Any) -> None:
    model, pruner = net(), pruner_of(reconstruction, schedule)
    train(model, pruner)
    report = pruner.report()
    most = max(1, 0 if isinstance(pruner.pattern, Element) else report.grain)
    assert abs(report.zeros - 0.6 * report.size) <= most
    masks = {name: weight.mask.clone() for name, weight in pruner.masks.items()}
    pruner.strip()
    for name, mask in masks.items():
        assert not bool(model.get_parameter(name)[~mask].any())


@RECONSTRUCTIONS
def test_G2_resumed_between_a_step_and_its_update_the_run_ends_in_the_same_bits(reconstruction: Any) -> None:
    reconstruction = vary(reconstruction, window=3)

    def small() -> nn.Module:
        maps = nn.Conv2d(3, 6, 3, stride=2)
        return nn.Sequential(maps, nn.ReLU(), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Linear(8, 4))

    def run(cut: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model, pruner = net(small), pruner_of(reconstruction, Polynomial(0.6, 4, 10, 3))
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        pruner.attach(model, STEPS)
        for step in range(1, STEPS + 1):
            one_step(model, pruner, optimizer, step)
            if step == cut:
                states = copy.deepcopy((model.state_dict(), optimizer.state_dict(), pruner.state_dict()))
                model, pruner = net(small), pruner_of(reconstruction, Polynomial(0.6, 4, 10, 3))
                optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
                model.load_state_dict(states[0])
                pruner.load_state_dict(states[2])
                pruner.attach(model, STEPS)
                optimizer.load_state_dict(states[1])
        masks = {name: weight.mask.clone() for name, weight in pruner.masks.items()}
        assert pruner.strip().sparsity > 0.5
        return dict(model.state_dict()), masks

    whole = run(None)
    for cut in (3, 9):
        assert same(run(cut), whole), cut


@RECONSTRUCTIONS
def test_it_looks_in_its_window_alone_and_leaves_nothing_behind(reconstruction: Any) -> None:
    model, pruner = net(), pruner_of(vary(reconstruction, window=2))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    pruner.attach(model, STEPS)
    there: list[int] = []
    for step in range(1, 9):
        one_step(model, pruner, optimizer, step)
        hooked = any(module._forward_pre_hooks for module in model.modules())
        kept = any(weight.memory for weight in pruner.masks.values())
        there += [step] if hooked or kept else []
    assert there == [4, 5], "before the steps 5 and 6"


@pytest.mark.parametrize("pattern", [NofM(2, 4), Column()], ids=str)
def test_sparse_gpt_goes_with_patterns_of_weights(pattern: Any) -> None:
    model, pruner = net(), pruner_of(SparseGPT(), pattern=pattern, targets=Targets(exclude=("first",)))
    train(model, pruner, 6, lr=0.0)
    weight = pruner.masks["out.weight"].mask
    if isinstance(pattern, NofM):
        assert weight[:, :8].unflatten(1, (-1, 4)).sum(-1).eq(2).all()
    else:
        assert all(column.all() or not column.any() for column in weight.T)
    plain = net()
    magnitude = Pruner(OneShot(0.5, 6), Magnitude(), pattern, Uniform(), targets=Targets(exclude=("first",)))
    train(plain, magnitude, 6, lr=0.0)
    assert magnitude.report().zeros == pruner.report().zeros
    better, worse = errors_of(model, net()), errors_of(plain, net())
    for name in ("same", "grouped", "hidden", "out"):
        assert better[name] < worse[name], name


class Twice(nn.Module):
    """A layer whose units two layers read, one of them at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.left, self.right = nn.Linear(16, 5), nn.Linear(8, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.out(torch.relu(self.left(torch.cat([x, x.square()], -1)) + self.right(x)))


@pytest.mark.parametrize("reconstruction", [ReduceReuse(), Greedy(), Lasso()], ids=str)
def test_all_that_read_a_unit_have_a_say_and_are_corrected(reconstruction: Any) -> None:
    model = net(Twice).double()
    before = copy.deepcopy(model)
    x = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pruner = pruner_of(reconstruction, OneShot(0.5, 1), pattern=Channel(example_inputs=x[:2]))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pruner.attach(model, 3)
    model(x).square().mean().backward()
    pruner.before_step(optimizer)
    assert {name for name, weight in pruner.masks.items() if weight.memory} == {
        "left.weight",
        "right.weight",
        "out.weight",
    }
    optimizer.step()
    pruner.after_step(1, [optimizer])
    stay = pruner.masks["first.weight"].mask.any(1)
    assert 0 < int(stay.sum()) < 8
    read = torch.relu(before.first(x)).detach()
    for name, seen in (("left", torch.cat([read, read.square()], -1)), ("right", read)):
        new, old = (m.get_parameter(f"{name}.weight").detach() for m in (model, before))
        rows = new.any(1)
        alive = new[rows].any(0)
        assert torch.equal(alive, torch.cat([stay] * (old.shape[1] // 8)))
        plain = old * alive
        now, without = ((seen @ (some - old).T)[:, rows].square().sum() for some in (new, plain))
        assert 0.0 < float(now) < float(without), name


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.rnn = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.attention(x, x, x)[0])[0][:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.other(torch.relu(self.one(torch.relu(self.first(x)))))))


@pytest.mark.parametrize("reconstruction", [ReduceReuse(), Greedy(), Lasso(), SparseGPT()], ids=str)
@pytest.mark.parametrize(
    ("make", "shape", "why"),
    [
        (Attention, (2, 5, 8), r"'(attention.out_proj.weight': attention|rnn.weight_hh_l0': LSTM) reads them inside"),
        (
            Tied,
            (2, 6),
            r"'one.weight': it is tied, and what it multiplies differs by place \(one.weight, other.weight\)",
        ),
    ],
    ids=["inside", "tied"],
)
def test_what_cannot_be_rebuilt_is_named_and_the_model_is_as_it_was(
    reconstruction: Any, make: Any, shape: tuple[int, ...], why: str
) -> None:
    model = net(make)
    before = copy.deepcopy(model.state_dict())
    pattern: Any = Element() if isinstance(reconstruction, SparseGPT) else Channel(example_inputs=torch.zeros(shape))
    with pytest.raises(ValueError, match=why + r".*Targets\(exclude"):
        pruner_of(reconstruction, pattern=pattern).attach(model, STEPS)
    assert same(dict(model.state_dict()), dict(before))
    assert not any(m._forward_pre_hooks or "weight_mask" in vars(m) for m in model.modules())


def test_what_does_not_go_together_is_refused() -> None:
    kind: Any = SparseGPT
    once, channel = OneShot(0.5, 2), Channel(example_inputs=IMAGES)
    refused: list[tuple[str, Callable[[], Any]]] = [
        (r"use pattern=Channel\(\), or SparseGPT\(\)", lambda: Pruner(once, reconstruction=Lasso())),
        (
            r"use ReduceReuse\(\), Greedy\(\) or Lasso\(\)",
            lambda: Pruner(once, pattern=channel, reconstruction=SparseGPT()),
        ),
        ("criterion=Wanda.* would not be asked", lambda: Pruner(once, Wanda(), reconstruction=SparseGPT())),
        ("reversible=True lets pruned", lambda: Pruner(once, reversible=True, reconstruction=SparseGPT())),
        ("with schedule=Hold.* nothing goes", lambda: Pruner(Hold(), reconstruction=SparseGPT())),
        ("when a validation is over", lambda: Pruner(AccuracyBudget("acc", 0.1), reconstruction=SparseGPT())),
        ("leave out readers=True", lambda: Pruner(once, pattern=Channel(readers=True), reconstruction=Greedy())),
        ("SparseGPT is a class", lambda: Pruner(once, reconstruction=kind)),
        ("is no reconstruction", lambda: Pruner(once, reconstruction=Magnitude())),  # pyright: ignore
        ("regularizer=Growing", lambda: Pruner(once, regularizer=Growing(0.1), reconstruction=SparseGPT())),
    ]
    for said, make in refused:
        with pytest.raises(ValueError, match=said):
            make()


def test_one_that_gives_no_float_a_unit_is_named() -> None:
    class Ones:
        observes, window = "input", 3

        def observe(self, weight: Tensor, seen: Tensor) -> dict[str, Tensor]:
            return {"count": seen.new_ones(())}

        def at(self, site: Any) -> Any:
            return self

        def worth(self, readers: Any) -> Tensor:
            return torch.ones(3)

        def corrected(self, weight: Tensor, keep: Tensor) -> Tensor:
            return weight

    with pytest.raises(ValueError, match=r"Ones must give a float for each of the 10 units of 'hidden.weight'"):
        train(net(), pruner_of(Ones()))


class Task(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.example_input_array = IMAGES

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, some: list[Tensor]) -> Tensor:
        return functional.cross_entropy(self(some[0]), some[1])

    def train_dataloader(self) -> Any:
        x, y = zip(*(batch(step) for step in range(1, 9)), strict=True)
        return DataLoader(TensorDataset(torch.cat(x), torch.cat(y)), 12)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.01)


@pytest.mark.parametrize("reconstruction", [SparseGPT(), Lasso()], ids=str)
def test_a_trainer_gives_the_batches_before_the_update(reconstruction: Any, tmp_path: Any) -> None:
    options: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    pattern: Any = Channel() if isinstance(reconstruction, Lasso) else Element()
    callback = PruningCallback(Pruner(OneShot(0.5, 5), pattern=pattern, reconstruction=reconstruction))
    trainer = Trainer(max_steps=8, callbacks=[callback], default_root_dir=tmp_path, accelerator="cpu", **options)
    model = Task()
    trainer.fit(model)
    assert callback.pruner.report().sparsity == pytest.approx(0.5, abs=0.03)
    assert "reconstruction=" in repr(callback.pruner)
    callback = PruningCallback(Pruner(OneShot(0.5, 0), reconstruction=SparseGPT()))
    trainer = Trainer(max_steps=0, callbacks=[callback], default_root_dir=tmp_path, accelerator="cpu", **options)
    with pytest.raises(ValueError, match="max_steps=0 trains nothing"):
        trainer.fit(Task())


def test_what_is_seen_is_what_the_layer_reads() -> None:
    """The moment in the memory is that of the patches of all steps of the window, without gradients."""
    model, pruner = net(), pruner_of(SparseGPT(window=2), OneShot(0.5, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    pruner.attach(model, STEPS)
    rows: list[Tensor] = []
    model.get_submodule("grouped").register_forward_pre_hook(lambda _, args: rows.append(args[0].detach()))
    for step in (1, 2, 3):
        x, y = batch(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        pruner.before_step(optimizer)
        if step < 3:
            optimizer.step()
            pruner.after_step(step, [optimizer])
    seen = inputs_of(model.get_submodule("grouped"), torch.cat(rows[1:])).flatten(2, 4).flatten(3)
    expected = torch.einsum("ngap,ngbp->gab", seen, seen)
    found = pruner.masks["grouped.weight"].memory["moment"]
    assert found.shape == (2, 36, 36)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
