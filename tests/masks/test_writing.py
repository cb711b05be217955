"""Masks written together are those written one by one."""

import pytest
import torch
from torch import nn

from lightning_prune.masks import Masks, write_all
from lightning_prune.targets import Targets


@pytest.mark.parametrize("reversible", [False, True])
def test_what_changed_and_what_is_pruned_is_counted_for_each(reversible: bool) -> None:
    models = [nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    together, alone = (Masks(Targets().find(model).targets, reversible, model) for model in models)
    for seed in range(3):
        drawn = [torch.rand(w.mask.shape, generator=torch.Generator().manual_seed(seed)) > 0.4 for w in alone.values()]
        new = [m if reversible else m & w.mask for m, w in zip(drawn, alone.values(), strict=True)]
        found = write_all([(w, m.clone(), 0.5) for w, m in zip(together.values(), new, strict=True)])
        assert found == sum(w.write(m, 0.5) for w, m in zip(alone.values(), new, strict=True))
        for one, other in zip(together.values(), alone.values(), strict=True):
            assert torch.equal(one.mask, other.mask)
            assert torch.equal(one.parameter, other.parameter)
            assert one.pruned == other.pruned == int((~one.mask).sum())
