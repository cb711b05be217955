"""G31: what must know a weight's layout knows it, or says before training that it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_prune import Pruner, PruningCallback, Targets
from lightning_prune.pattern import Element, NofM, Pattern
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, adamw, fit

LAYOUT = {"net.up$": "expert in out", "net.down$": "expert out in"}


class Mixture(nn.Module):
    """GPT-2's linear layer, then experts in two stacks, one the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.into = Conv1D(16, 12)
        self.router = nn.Linear(16, 3)
        self.up = nn.Parameter(torch.randn(3, 16, 8) / 4)
        self.down = nn.Parameter(torch.randn(3, 4, 8) / 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).relu()
        hidden = torch.einsum("bi,eih->ebh", x, self.up).relu()
        each = hidden @ self.down.mT
        return torch.einsum("be,ebo->bo", self.router(x).softmax(-1), each)


def pruning(layout: dict[str, str]) -> PruningCallback:
    schedule = Polynomial(0.5, begin_step=2, end_step=10, pruning_frequency=2)
    return PruningCallback(Pruner(schedule, pattern=NofM(2, 4), targets=Targets(layout=layout)))


def test_G31_every_four_inputs_of_each_weight_keep_two() -> None:
    torch.manual_seed(0)
    model = Net(adamw, Mixture())
    fit(model, pruning(LAYOUT), max_steps=15)
    for name, dim in (("into.weight", 0), ("router.weight", 1), ("up", 1), ("down", 2)):
        alive = model.net.get_parameter(name).detach() != 0
        assert alive.movedim(dim, -1).unflatten(-1, (-1, 4)).sum(-1).unique().tolist() == [2], name


@pytest.mark.parametrize("layout", [{}, {"net.up$": "expert in out"}], ids=["none", "one"])
def test_G31_an_unknown_layout_is_refused_before_training(layout: dict[str, str]) -> None:
    model = Net(adamw, Mixture())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    named = "'net.down' of shape \\(3, 4, 8\\): name" if layout else "'net.up' of shape .*, 'net.down' of shape"
    with pytest.raises(ValueError, match=f"pattern=NofM.* no layer says so of {named}"):
        fit(model, pruning(layout), max_steps=15)
    assert model.trainer.global_step == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not hasattr(model.net.into, "weight_mask")


class Router(nn.Module):
    """A mixture of bare experts: each row goes to all of them, and their answers are weighed."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.twice = twice
        self.router = nn.Linear(12, 3)
        self.up = nn.Parameter(torch.randn(3, 12, 8) / 4)
        self.down = nn.Parameter(torch.randn(3, 8, 8) / 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.bmm(x.expand(3, -1, -1), self.up).relu()
        each = torch.stack([nn.functional.linear(h, w) for h, w in zip(hidden, self.down, strict=True)])
        if self.twice:
            each = each @ self.down
        return torch.einsum("be,ebo->bo", self.router(x).softmax(-1), each)[:, :4]


class WithExample(Net):
    def __init__(self, net: nn.Module, example: Tensor | None) -> None:
        super().__init__(adamw, net)
        self.example_input_array = example

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_G31_the_layout_of_bare_experts_is_known_by_their_use() -> None:
    torch.manual_seed(0)
    model = WithExample(Router(), torch.zeros(2, 12))
    fit(model, pruning({}), max_steps=15)
    for name, dim in (("router.weight", 1), ("up", 1), ("down", 2)):
        alive = model.net.get_parameter(name).detach() != 0
        assert alive.movedim(dim, -1).unflatten(-1, (-1, 4)).sum(-1).unique().tolist() == [2], name


def test_G31_a_declared_layout_holds_over_the_use() -> None:
    torch.manual_seed(0)
    model = WithExample(Router(), torch.zeros(2, 12))
    fit(model, pruning({"up$": "expert out in"}), max_steps=15)
    alive = model.net.up.detach() != 0
    assert alive.unflatten(2, (-1, 4)).sum(-1).unique().tolist() == [2]


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (torch.zeros(2, 12), "which is used as 'expert out in' and as 'expert in out': name"),
        (torch.zeros(2, 5), "whose use is not seen, for the example inputs fail with RuntimeError: .*: name"),
        (None, "name .*; a model with an example_input_array is looked at for how it uses them"),
    ],
    ids=["two ways", "failing", "none"],
)
def test_G31_a_use_that_does_not_tell_is_refused_with_the_reason(example: Tensor | None, said: str) -> None:
    model = WithExample(Router(twice=True), example)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"pattern=NofM.*'net.down' of shape \(3, 8, 8\).*{said}"):
        fit(model, pruning({}), max_steps=15)
    assert model.trainer.global_step == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_G31_the_model_runs_only_where_a_layout_is_needed_and_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[bool] = []
    forward = Router.forward

    def counted(self: Router, x: Tensor) -> Tensor:
        ran.append(self.training)
        return forward(self, x)

    monkeypatch.setattr(Router, "forward", counted)
    ways: list[tuple[Pattern, Targets, list[bool]]] = [
        (NofM(2, 4), Targets(), [False]),
        (Element(), Targets(), []),
        (NofM(2, 4), Targets(exclude=("up", "down")), []),
        (NofM(2, 4), Targets(layout={"up|down": "expert in out"}), []),
    ]
    for pattern, targets, runs in ways:
        ran.clear()
        pruner = Pruner(Polynomial(0.5, 2, 10, 2), pattern=pattern, targets=targets)
        pruner.attach(WithExample(Router(), torch.zeros(2, 12)))
        assert ran == runs
