"""What is pruned comes as near to the budget as any cut of the ranking: all cuts are tried by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_prune.pruning import Pruner
from lightning_prune.schedule import Polynomial
from tests.helpers import masks_of
from tests.laws.coupled.nets import NETS, Traced, coupling, move, net
from tests.laws.coupled.units import assert_whole_units, counted, worth, zeros_of


def rounded(keep: Tensor, scores: Tensor, able: Tensor, multiple: int) -> Tensor:
    """Return the keep with the best of those that can come back, until there is a multiple of at least one."""
    want = max(multiple, -(-int(keep.sum()) // multiple) * multiple)
    order = [i for i in scores.argsort(descending=True).tolist() if able[i]]
    chosen = torch.zeros_like(keep)
    chosen[order[: min(want, len(order))]] = True
    return chosen


@settings(max_examples=25)
@given(
    name=st.sampled_from(list(NETS)),
    seed=st.integers(0, 99),
    first=st.floats(0, 1),
    more=st.floats(0, 1),
    multiple=st.sampled_from([1, 1, 2, 4]),
    normalize=st.booleans(),
    readers=st.booleans(),
)
def test_G3_no_other_cut_of_the_ranking_is_nearer(
    name: str, seed: int, first: float, more: float, multiple: int, normalize: bool, readers: bool
) -> None:
    groups = coupling(name).groups
    model = net(name, seed)
    final = first + more * (1 - first)
    schedule = Polynomial(final, 0, 2, 2, initial_sparsity=first)
    pruner = Pruner(schedule, pattern=Traced(name, multiple, normalize, readers))
    pruner.attach(model)
    able = [torch.ones(group.units, dtype=torch.bool) for group in groups]
    shapes = {weight.name: torch.Size(weight.shape) for weight in pruner.report().weights}
    size = sum(shape.numel() for shape in shapes.values())
    for step in (0, 2):
        raw = [worth(group, model, readers) for group in groups]
        means = [float((r * a).mean()) if normalize else 1.0 for r, a in zip(raw, able, strict=True)]
        scores = [r / m if m else r for r, m in zip(raw, means, strict=True)]
        contenders = sorted(
            (float(s[i]), g, i) for g, s in enumerate(scores) for i in range(len(s)) if bool(able[g][i])
        )
        keeps = [a.clone() for a in able]
        cuts: list[int] = []
        for cut in range(len(contenders) + 1):
            if cut:
                _, g, i = contenders[cut - 1]
                keeps[g][i] = False
            whole = [rounded(k, s, a, multiple) for k, s, a in zip(keeps, scores, able, strict=True)]
            cuts.append(zeros_of(groups, whole, shapes))
        pruner.after_step(step)
        zeros, _ = counted(pruner)
        goal = schedule.sparsity(step) * size
        nearest = min(abs(cut - goal) for cut in cuts)
        assert abs(zeros - goal) == pytest.approx(nearest, abs=1e-6)
        able = assert_whole_units(groups, masks_of(pruner))
        for alive in able:
            assert int(alive.sum()) % multiple == 0 or bool(alive.all())
        move(model, seed)
