"""The trial of groups: how many forwards it takes, what it sees, and what it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.coupling.couple import couple
from lightning_prune.pattern import Channel
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot
from tests.coupling.nets.sequences import GPT


class Blocks(nn.Module):
    """Residual blocks of hidden units, with what may stand between their two layers. Counts its forwards."""

    def __init__(self, blocks: int, hidden: int = 6, middle: nn.Module | None = None, every: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(8),
                nn.Linear(8, hidden),
                (middle or nn.Identity()) if i % every == 0 else nn.ReLU(),
                nn.Linear(hidden, 8),
            )
            for i in range(blocks)
        )
        self.head, self.forwards = nn.Linear(8, 3), 0

    def __deepcopy__(self, memo: dict[int, object]) -> Blocks:
        copied = self.__new__(type(self))
        memo[id(self)] = copied
        nn.Module.__init__(copied)
        copied.blocks, copied.head = (_copied(m, memo) for m in (self.blocks, self.head))
        copied.root = [getattr(self, "root", [self])[0]]  # pyright: ignore
        return copied.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        root = getattr(self, "root", [self])[0]
        root.forwards += 1
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def _copied(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    import copy

    return copy.deepcopy(module, memo)


@pytest.mark.parametrize("blocks", [20, 40, 80])
def test_how_many_forwards_it_takes_does_not_grow_with_the_number_of_blocks(blocks: int) -> None:
    model = Blocks(blocks)
    assert len(couple(model, torch.randn(2, 8)).groups) == blocks
    assert model.forwards <= 12


@pytest.mark.parametrize(("blocks", "every"), [(20, 10), (40, 20)])
def test_a_few_that_fail_are_found_by_halves(blocks: int, every: int) -> None:
    model = Blocks(blocks, middle=Relative(), every=every)
    coupling = couple(model, torch.randn(2, 8))
    assert len(coupling.groups) == blocks - 2
    assert {f"blocks.{n}.1.weight" for n in (0, every)} <= set(coupling.refused)
    assert model.forwards <= 12 + 2 * 12 * 5


def test_many_that_fail_take_as_many_forwards_as_there_are() -> None:
    model = Blocks(12, middle=Relative())
    coupling = couple(model, torch.randn(2, 8))
    assert not coupling.groups
    assert model.forwards <= 12 + 3 * 12


class Relative(nn.Module):
    """Each channel against the mean of all (the heart of ConvNeXtV2's GRN)."""

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        norms = x.abs() if x.dim() == 2 else x.norm(p=2, dim=1, keepdim=True)
        return x + x * (norms / (norms.mean(-1, keepdim=True) + 1e-6)) ** self.power


class OverMean(nn.Module):
    """y / mean(|y|)."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.abs().mean(-1, keepdim=True) + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("middle", [Relative(), OverMean()], ids=["grn", "over_mean"])
def test_units_that_a_mean_mixes_are_refused_before_training(middle: nn.Module) -> None:
    """With as many units a mean over those that are left is that over all, unless the dead ones are zero."""
    model = Blocks(12, 2048, middle)
    coupling = couple(model, torch.randn(2, 8))
    assert not coupling.groups
    assert coupling.refused["blocks.11.1.weight"] == "its channels act on others by a way that the graph does not show"


def test_a_run_whose_units_are_mixed_never_begins() -> None:
    pruner = Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=torch.randn(2, 8)))
    with pytest.raises(ValueError, match=r"no units that can be removed.*by a way that the graph does not show"):
        pruner.attach(Blocks(2, 64, OverMean()), 10)


class Growing(nn.Module):
    """A stream that each block multiplies, so that it is far larger than the last branch, behind a LayerNorm."""

    def __init__(self, blocks: int, factor: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Linear(8, 8) for _ in range(blocks))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(1, 8)) for _ in range(factor))
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + 3 * conv(x)
        return x + self.fc2(self.fc1(self.norm(x)).relu())


@pytest.mark.parametrize("blocks", [6, 8])
def test_a_branch_beside_a_large_stream_is_not_refused_for_being_small(blocks: int) -> None:
    coupling = couple(Growing(blocks, 1), torch.randn(2, 8))
    assert "fc1.weight" in {group.name for group in coupling.groups}


def test_the_reason_of_a_residual_stream_behind_a_norm_of_its_own_is_the_norm() -> None:
    class RMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    model = GPT()
    for block in model.blocks:
        block.norm1, block.norm2 = RMSNorm(), RMSNorm()
    model.norm = RMSNorm()  # pyright: ignore
    coupling = couple(model, torch.randint(0, 11, (2, 6)))
    for name in ("blocks.0.mlp.fc2.weight", "blocks.1.mlp.fc2.weight", "wte.weight"):
        assert coupling.refused[name].endswith("normalises over its channels"), coupling.refused[name]
    assert {"blocks.0.attn.c_attn.weight", "blocks.1.mlp.fc1.weight"} <= {group.name for group in coupling.groups}


def test_a_module_that_keeps_a_result_of_its_forward_is_coupled_and_pruned() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.features = {"relu": [torch.relu(self.a(x))]}
            return self.b(self.features["relu"][0])

    net, x = Keeping(), torch.randn(2, 8)
    found = couple(net, x)
    assert [group.name for group in found.groups] == ["a.weight"]
    net(x)
    assert [group.name for group in couple(net, x).groups] == ["a.weight"], "also where the model itself has kept one"
    assert net.features["relu"][0].grad_fn is not None
