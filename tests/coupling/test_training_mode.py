"""Ways that are taken in training alone: what hangs together there is coupled, and the smaller model trains on."""

import sys

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.coupling.couple import couple
from lightning_prune.coupling.example import answer, distance
from lightning_prune.coupling.reach import both_ways
from lightning_prune.shrink import NotEqualError, shrink
from tests.coupling.architectures import ARCHITECTURES
from tests.coupling.helpers import assert_trains, pruned
from tests.coupling.nets.unusual import Auxiliary


@pytest.mark.parametrize("name", ["auxiliary_head", "deep_supervision"])
def test_the_smaller_model_gives_the_same_in_training_mode(name: str) -> None:
    model, example = ARCHITECTURES[name].model(), ARCHITECTURES[name].example()
    pruned(model, example)
    before = answer(model, example, training=True)
    state, random = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    smaller = shrink(model, example).model
    assert distance(before, answer(smaller, example, training=True))[1] <= 1e-5
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert_trains(smaller, example)


def test_without_dropout_an_answer_in_training_mode_is_no_matter_of_chance() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.5, batch_first=True)
    model, x = nn.Sequential(nn.Dropout(0.5), layer, nn.LSTM(8, 4, 2, dropout=0.5)), torch.randn(3, 5, 8)
    one, other = answer(model, x, training=True), answer(model, x, training=True)
    assert all(map(torch.equal, one, other))
    assert distance(answer(model.eval(), x), one)[1] < 1e-5
    assert not model.training
    assert model[2].dropout == 0.5  # pyright: ignore
    assert layer.self_attn.dropout == 0.5


class Targets(nn.Module):
    """Wants targets in training; a head of its own reads the features there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head, self.loss = (
            nn.Linear(n, m) for n, m in ((9, 16), (16, 12), (12, 3), (16, 1))
        )

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.first(x).relu()
        if self.training:
            if targets is None:
                raise ValueError("targets are missing")
            return self.loss(x) - targets
        return self.head(self.second(x).relu())


def test_what_cannot_be_run_in_training_mode_keeps_what_the_rest_may_read() -> None:
    model, x = Targets(), torch.randn(4, 9)
    coupling = couple(model, x)
    assert [group.name for group in coupling.groups] == ["second.weight"]
    assert coupling.refused["first.weight"].startswith("loss is not reached with the example inputs")
    with torch.no_grad():
        model.second.weight[:5] = 0
        model.second.bias[:5] = 0
    smaller = shrink(model, x).model
    assert smaller.train()(x, torch.ones(4, 1)).shape == (4, 1)


def test_another_way_in_training_is_seen_and_no_other_way_is_not() -> None:
    assert both_ways(Auxiliary(), torch.randn(2, 9))[1] is not None
    for model in (nn.Sequential(nn.Linear(9, 4), nn.Dropout(), nn.BatchNorm1d(4)), nn.Linear(9, 2)):
        assert both_ways(model, torch.randn(2, 9))[1] is None


class Summed(nn.Module):
    """In training all hidden units are summed as well, whoever reads them; in evaluation they are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(9, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.head(x) + x.mean(-1, keepdim=True) if self.training else self.head(x)


def test_outputs_that_would_differ_in_training_mode_alone_are_refused() -> None:
    torch.manual_seed(0)
    model = Summed()
    with torch.no_grad():
        model.head.weight[:, :9] = 0
    coupling = couple(model, torch.randn(4, 9))
    assert "first.weight" in coupling.refused
    assert not coupling.groups


def test_a_difference_in_training_mode_alone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = Summed(), torch.randn(4, 9)
    with torch.no_grad():
        model.head.weight[:, :9] = 0

    class Evaluated(Summed):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x).relu())

    evaluated = couple(Evaluated(), x)
    assert evaluated.groups
    monkeypatch.setattr(sys.modules["lightning_prune.shrink.shrink"], "couple", lambda *_: evaluated)
    with pytest.raises(NotEqualError, match="differ"):
        shrink(model, x)


@pytest.mark.parametrize("blocked", [False, True], ids=["reads itself", "reads the student"])
def test_a_part_that_no_forward_comes_by_is_taken_to_read_itself_where_it_can(blocked: bool) -> None:
    """A teacher beside its student reads its own features; a head that begins with the student's width may read it."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
            first = nn.Linear(8 if blocked else 6, 8)
            self.teacher = nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.student(x)

    coupling = couple(Pair(), torch.zeros(2, 6))
    assert [group.name for group in coupling.groups] == ([] if blocked else ["student.0.weight"])
    assert ("teacher.0" in coupling.refused.get("student.0.weight", "")) is blocked
