"""Random scores follow from seed, step and name alone."""

import torch

from lightning_prune.criterion import Random
from tests.helpers import criterion_at


def test_G1_random_differs_by_seed_step_and_name_alone() -> None:
    weight = torch.zeros(50, 4)
    ask = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]
    found = [criterion_at(Random(seed), name, step)(weight, None) for seed, name, step in ask]
    for i, one in enumerate(found):
        assert 0 <= float(one.min()) <= float(one.max()) < 1
        assert abs(float(one.mean()) - 0.5) < 0.1
        for other in found[:i]:
            assert (one == other).sum() < 5
    assert torch.equal(found[0], criterion_at(Random(0), "a", 1)(weight + 7, torch.ones(50, 4)))
