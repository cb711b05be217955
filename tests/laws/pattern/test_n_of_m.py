"""N:M keeps the n best of each m inputs, from its least sparsity on and in every group."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_prune.pattern import NofM
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK
from lightning_prune.targets import Targets
from tests.helpers import criteria_without_norm, ideas, pruned_once


class Bare(nn.Module):
    """A module that is one weight."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def outputs_first(dimensions: int) -> Targets:
    """Return the rule that says so of the weight of `Bare`, which belongs to no layer."""
    return Targets(include=("weight",), layout={"weight": " ".join(("out", "in", "kh", "kw")[:dimensions])})


def alive_per_group(mask: Tensor, m: int) -> Tensor:
    """Return how many of each m consecutive inputs are alive, cut-off groups at the end included."""
    rows = mask.movedim(1, -1).long()
    return torch.nn.functional.pad(rows, (0, -rows.shape[-1] % m)).unflatten(-1, (-1, m)).sum(-1)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 19)),
        st.tuples(st.integers(1, 4), st.integers(1, 9), *[st.just(2)] * 2),
    ),
    n=st.integers(1, 5),
    more=st.integers(1, 4),
    extra=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_G3_n_of_m_holds_from_its_least_sparsity_on(
    shape: tuple[int, ...], n: int, more: int, extra: float, seed: int
) -> None:
    pattern = NofM(n, n + more)
    final = pattern.least_sparsity + extra * (1 - pattern.least_sparsity)
    model = Bare(shape, seed)
    pruner = pruned_once(model, final, pattern=pattern, targets=outputs_first(len(shape)))
    mask = pruner.masks["weight"].mask
    assert int((~mask).sum()) == round(final * mask.numel())
    assert int(alive_per_group(mask, n + more).max()) <= n


@pytest.mark.parametrize("shape", [(6, 8), (5, 12, 3, 3), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("step_by_step", [False, True])
def test_n_of_m_keeps_the_best_of_each_group(shape: tuple[int, ...], step_by_step: bool) -> None:
    model = Bare(shape)
    rows = model.weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, 4)).numpy().copy()
    expected = np.argsort(np.argsort(-rows, axis=-1), axis=-1) < 2
    schedule = Polynomial(0.5, 0, 8, 1) if step_by_step else OneShot(0.5, 0)
    pruner = Pruner(schedule, pattern=NofM(2, 4), targets=outputs_first(len(shape)))
    pruner.attach(model)
    for step in range(9):
        pruner.after_step(step)
    found = pruner.masks["weight"].mask.movedim(1, -1).unflatten(-1, (-1, 4)).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("criterion", criteria_without_norm())
@pytest.mark.parametrize("scope", ideas("scope"))
def test_G3_n_of_m_reached_step_by_step_is_full_in_every_group(criterion: Any, scope: Any) -> None:
    """What is dead already must not take the place of one of the n best, whatever its score."""
    model = Bare((12, 16))
    ways: dict[str, Any] = {"criterion": criterion, "scope": scope, "targets": outputs_first(2)}
    pruner = Pruner(Polynomial(0.5, 0, 12, 2), pattern=NofM(2, 4), **ways)
    pruner.attach(model)
    for step in range(13):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        pruner.after_step(step)
    assert alive_per_group(pruner.masks["weight"].mask, 4).unique().tolist() == [2]


def test_n_of_m_of_equal_scores_keeps_the_earlier() -> None:
    protected = NofM(2, 4).protected(torch.tensor([[1.0, 2.0, 1.0, 1.0, 3.0, 3.0, 3.0]]))
    assert protected.tolist() == [[True, True, False, False, True, True, False]]


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose1d(8, 3, 5), nn.ConvTranspose2d(8, 6, 3), nn.ConvTranspose3d(8, 2, 2)],
    ids=lambda m: m._get_name(),
)
def test_n_of_m_runs_along_the_inputs_of_a_transposed_convolution(layer: nn.Module) -> None:
    pruner = pruned_once(layer, 0.5, pattern=NofM(2, 4))
    mask = pruner.masks["weight"].mask
    assert mask.shape == layer.weight.shape
    assert torch.equal(alive_per_group(mask.transpose(0, 1), 4), torch.full((mask.shape[1], *mask.shape[2:], 2), 2))


def test_n_of_m_of_a_weight_without_inputs_prunes_the_number_asked_for() -> None:
    model = nn.Linear(4, 10)
    pruned_once(model, 0.5, pattern=NofM(2, 4), targets=Targets(include=("bias",)))
    assert int((model.bias == 0).sum()) == 5


def test_G13_n_of_m_with_a_scope_that_leaves_a_layer_too_dense_is_refused() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    with pytest.raises(
        ValueError, match=r"scope=ERK\(\) takes 1.weight to a sparsity of 0.0000 only, and pattern=NofM\(n=2, m=4\)"
    ):
        Pruner(OneShot(0.5, 0), pattern=NofM(2, 4), scope=ERK()).attach(model)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2)])
def test_G13_n_of_m_that_keeps_nothing_or_all(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=rf"n={n}, m={m}"):
        NofM(n, m)
