"""KMeans on a gradual schedule: at each update there are as many clusters as filters are to stay by then."""

from __future__ import annotations

import torch
from torch import nn

from lightning_prune import Pruner
from lightning_prune.criterion import KMeans, Site
from lightning_prune.pattern import Row
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Uniform

FILTERS = 12


def test_each_update_keeps_the_representatives_of_its_own_number_of_clusters() -> None:
    model, schedule = nn.Linear(6, FILTERS, bias=False), Polynomial(0.75, 1, 7, 2)
    pruner = Pruner(schedule, criterion=KMeans(seed=3), pattern=Row(), scope=Uniform())
    pruner.attach(model)
    kept: list[int] = []
    for step in range(1, 8):
        with torch.no_grad():
            model.weight += 0.05 * torch.randn_like(model.weight) * (model.weight != 0)
        before = model.weight.detach().clone()
        if pruner.after_step(step):
            asked = schedule.sparsity(step)
            scores = KMeans(seed=3).at(Site("weight", step, {}, asked))(before, None)[:, 0]
            best = scores.argsort(descending=True, stable=True)[: FILTERS - round(asked * FILTERS)]
            expected = torch.zeros(FILTERS, dtype=torch.bool).index_fill_(0, best, True)
            assert torch.equal(pruner.masks["weight"].mask, expected[:, None].expand(FILTERS, 6))
            kept.append(int(expected.sum()))
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) >= 3
    assert kept[-1] == 3
