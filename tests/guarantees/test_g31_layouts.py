"""G31: what must know a weight's layout knows it, or says before training that it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_prune import Pruner, PruningCallback, Targets
from lightning_prune.pattern import NofM
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
