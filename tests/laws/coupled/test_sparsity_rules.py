"""`Targets(sparsity=...)` with coupled units: groups under a rule have a budget of their own."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets
from tests.helpers import same

pytest.importorskip("torch_pruning")

RULES = {"a": 0.25, "c": 0.75}


class Blocks(nn.Module):
    """Three residual blocks, each with channels of its own, and a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        for name in "abc":
            self.add_module(name, nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name in "abc":
            x = x + self.get_submodule(name)(x)
        return self.head(x)


def test_G3_groups_under_sparsity_rules_meet_their_own_budgets() -> None:
    torch.manual_seed(0)
    model = Blocks()
    targets = Targets(include=(r"[abc]\.0\.weight",), sparsity={rf"^{name}": s for name, s in RULES.items()})
    pruner = Pruner(Polynomial(0.5, 0, 4, 2), pattern=Channel(example_inputs=torch.zeros(2, 6)), targets=targets)
    pruner.attach(model, 10)
    for step in (0, 2, 4):
        pruner.update(step)
        for name in "abc":
            part = pruner.resolved_schedule.sparsity(step) / 0.5
            gone = int((model.get_parameter(f"{name}.0.weight") == 0).all(1).sum())
            assert gone == round(part * RULES.get(name, 0.5) * 16)
    state = pruner.state_dict()
    report = pruner.strip()
    assert report.sparsity == report.final_sparsity == 0.5
    again = Pruner(Polynomial(0.5, 0, 4, 2), pattern=Channel(example_inputs=torch.zeros(2, 6)), targets=targets)
    again.load_state_dict(state)
    again.attach(model, 10)
    assert again.strip().zeros == report.zeros
    assert shrink(model, torch.zeros(2, 6)).model.get_parameter("b.0.weight").shape == (8, 8)


@pytest.mark.parametrize("rules", [{"stem": 0.3}, {"a.2": 0.3}, {"^a": 0.3}, {"head": 0.3}])
def test_G13_a_sparsity_that_cannot_hold(rules: dict[str, float]) -> None:
    model = Blocks()
    before = copy.deepcopy(dict(model.state_dict()))
    pattern = Channel(example_inputs=torch.zeros(2, 6))
    pruner = Pruner(OneShot(0.5, 0), pattern=pattern, targets=Targets(sparsity=rules))
    with pytest.raises(
        ValueError, match=r"Targets\(sparsity=\.\.\.\) cannot hold: (units under .* share the|'head' matches no)"
    ):
        pruner.attach(model, 10)
    assert same(dict(model.state_dict()), before)
