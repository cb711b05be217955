"""Laws of every budget under conf/pruner/budget: what is said to be gone is gone from the model made smaller."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.budget import MACs, Weights
from lightning_prune.cost import count
from lightning_prune.pattern import Channel, Element
from lightning_prune.pruning import Pruner
from lightning_prune.report import Report
from lightning_prune.schedule import Hold, OneShot, Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets
from tests.helpers import ideas

BUDGETS = pytest.mark.parametrize("budget", ideas("budget"))


class Residual(nn.Module):
    """Convolutions that are added, one of them in groups, behind a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 1)
        )
        self.down = nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, groups=16), nn.ReLU(), nn.Conv2d(16, 40, 1), nn.ReLU())
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.down(x + self.body(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 32, 2, batch_first=True), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x)).mean(1))


NETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)),
        (2, 64),
    ),
    "conv net": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 30, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(30 * 16, 50),
            nn.ReLU(),
            nn.Linear(50, 10),
        ),
        (2, 1, 16, 16),
    ),
    "residual": (Residual, (2, 3, 16, 16)),
    "lstm": (Recurrent, (2, 12, 8)),
    "transformer": (Transformer, (2, 12, 16)),
}


def pruned(
    name: str, budget: Any, share: float = 0.5, **ideas: Any
) -> tuple[nn.Module, nn.Module, Tensor, Report, Report]:
    """Return a model, what is left of it, an example, the plan and the report."""
    make, shape = NETS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)
    pruner = Pruner(OneShot(share, 1), pattern=Channel(example_inputs=x), budget=budget, **ideas)
    smaller = copy.deepcopy(model)
    pruner.attach(smaller)
    plan = pruner.report()
    assert pruner.after_step(1)
    return model, shrink(smaller, x).model, x, plan, pruner.strip()


@pytest.mark.parametrize("by_cost", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_macs_that_are_said_to_be_gone_are_gone_from_the_smaller_model(name: str, by_cost: bool) -> None:
    model, smaller, x, plan, report = pruned(name, MACs(by_cost))
    before, after = count(model, x).macs, count(smaller, x).macs
    assert plan.spent is not None
    assert plan.spent.total == before
    assert plan.spent.gone == 0.0
    assert report.spent is not None
    assert report.spent.left == pytest.approx(after, abs=0.5)
    assert abs(1 - after / before - 0.5) <= report.spent.grain, "as near as the largest unit allows"


@BUDGETS
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_the_share_asked_for_is_met_as_nearly_as_units_allow(budget: Any, share: float) -> None:
    _, _, _, _, report = pruned("mlp", budget, share, scope=Uniform())
    gone, grain = (
        (report.sparsity, report.grain / report.size)
        if report.spent is None
        else (report.spent.gone, report.spent.grain)
    )
    within_reach = share if report.spent is None else min(share, report.spent.reachable)
    assert abs(gone - within_reach) <= 2 * grain  # two layers, each by itself


def test_by_cost_units_that_cost_much_go_first() -> None:
    """The first layers see the largest images: for the same MACs fewer weights go."""
    sparsity = [pruned("conv net", MACs(by_cost))[-1].sparsity for by_cost in (False, True)]
    assert sparsity[1] < sparsity[0]


def test_the_plan_and_the_report_say_what_it_comes_to() -> None:
    _, _, _, plan, report = pruned("residual", MACs())
    assert "MACs: " in plan.plan()
    assert "50.00 % asked for in the end" in plan.plan()
    assert "about " in plan.plan()
    assert report.spent is not None
    assert f"MACs: {report.spent.left:,.0f} of {report.spent.total:,.0f} are left" in report.table()
    assert report.scalars()["left/MACs"] == report.spent.left
    assert report.to_dict()["spent"]["asked"] == 0.5


def test_what_is_out_of_reach_is_said_before_training() -> None:
    _, _, _, plan, _ = pruned("transformer", MACs(), 0.97)
    assert "97.00 % is out of reach" in plan.plan()


def test_a_schedule_is_followed_and_a_state_goes_on() -> None:
    make, shape = NETS["residual"]
    torch.manual_seed(0)
    model, x = make(), torch.randn(shape)

    def pruner() -> Pruner:
        return Pruner(Polynomial(0.6, 1, 9, 2), pattern=Channel(example_inputs=x), budget=MACs())

    first = pruner()
    first.attach(model)
    for step in range(1, 6):
        first.after_step(step)
        spent = first.report().spent
        assert spent is not None
        due = first.resolved_schedule.last_update(step)
        assert due is not None
        assert abs(spent.gone - first.resolved_schedule.sparsity(due)) <= spent.grain
    state, weights = first.state_dict(), copy.deepcopy(model.state_dict())
    other, second = make(), pruner()
    other.load_state_dict(weights)
    second.load_state_dict(state)
    second.attach(other)
    for step in range(6, 11):
        assert first.after_step(step) == second.after_step(step)
    assert all(torch.equal(first.masks[name].mask, second.masks[name].mask) for name in first.masks)
    assert first.report() == second.report()


def test_what_cannot_be_paid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget=MACs.* is paid by whole units, and pattern=Element\(\)"):
        Pruner(OneShot(0.5, 1), pattern=Element(), budget=MACs())
    with pytest.raises(ValueError, match="is of the whole model"):
        Pruner(OneShot(0.5, 1), pattern=Channel(), budget=MACs(), targets=Targets(sparsity={"a": 0.3}))
    with pytest.raises(ValueError, match="nothing goes"):
        Pruner(Hold(), pattern=Channel(), budget=MACs())
    budget: Any = MACs
    with pytest.raises(ValueError, match="is no budget"):
        Pruner(OneShot(0.5, 1), budget=budget)
    assert Pruner(OneShot(0.5, 1)).budget == Weights()
