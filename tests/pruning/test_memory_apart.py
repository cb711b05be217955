"""A criterion that remembers apart from its scores: nothing of it moves before the masks are known, all of it then."""

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.criterion import FirstOrderDelta, SecondOrderDelta, Site
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import Polynomial


@pytest.mark.parametrize("kind", [FirstOrderDelta, SecondOrderDelta])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2), (7,)])
def test_score_and_remember_are_what_a_call_does(kind: type[FirstOrderDelta], shape: tuple[int, ...]) -> None:
    called: dict[str, Tensor] = {}
    apart: dict[str, Tensor] = {}
    for step in range(4):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        wanted = kind(0.7).at(Site("w", step, called))(weight, None)
        criterion = kind(0.7).at(Site("w", step, apart))
        before = {name: tensor.clone() for name, tensor in apart.items()}
        assert torch.equal(criterion.score(weight, None), wanted)
        assert apart.keys() == before.keys()
        assert all(torch.equal(apart[name], kept) for name, kept in before.items())
        held = dict(apart)
        criterion.remember(weight, None)
        assert all(torch.equal(held[name], kept) for name, kept in before.items()), "a saved state may hold those"
        assert apart.keys() == called.keys()
        assert all(torch.equal(apart[name], called[name]) for name in called)


@pytest.mark.parametrize("kind", [FirstOrderDelta, SecondOrderDelta])
def test_the_memory_stays_where_an_update_fails_and_moves_where_it_does_not(kind: type[FirstOrderDelta]) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    pruner = Pruner(Polynomial(0.6, 0, 4, 1), criterion=kind(0.5))
    pruner.attach(model, 6)
    pruner.update(0)
    before = {name: dict(weight.memory) for name, weight in pruner.masks.items()}
    assert all(before.values())
    with torch.no_grad():
        model[1].get_parameter("weight")[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"1\.weight"):
        pruner.update(1)
    assert all(weight.memory[k] is v for name, weight in pruner.masks.items() for k, v in before[name].items())
    with torch.no_grad():
        model[1].get_parameter("weight")[0, 0] = 1.0
    values = {name: weight.parameter.detach().clone() for name, weight in pruner.masks.items()}
    pruner.update(1)
    assert all(torch.equal(weight.memory["old_weight"], values[name]) for name, weight in pruner.masks.items())
