"""What comes out of shrinking and of a file: which parameters train, and buffers that no file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.shrink import followed_by, larger, load_shrunk, save_shrunk, shrink, shrink_, take_out


def net(width: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def kill(model: nn.Module, first: list[int], second: list[int]) -> None:
    layers: Any = model
    with torch.no_grad():
        layers[3].weight[:, first] = 0
        layers[5].weight[:, second] = 0


@pytest.mark.parametrize("frozen", [("0.bias", "3.weight"), ("0.weight", "1.weight", "5.bias")])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_was_frozen_is_and_what_was_not_is_not(frozen: tuple[str, ...], in_place: bool) -> None:
    model, x = net(), torch.randn(4, 6)
    kill(model, [1, 2, 7], [0])
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    flags = {name: name not in frozen for name, _ in model.named_parameters()}
    smaller = model if in_place else shrink(model, x).model
    if in_place:
        shrink_(model, x)
    assert {name: p.requires_grad for name, p in smaller.named_parameters()} == flags
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert smaller.get_parameter("0.weight").shape == (7, 6)


class Remade(nn.Module):
    """Its positions are made by the first forward, for as many tokens as come, and are in no state_dict (ConViT)."""

    relative: Tensor

    def __init__(self, start: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 3)
        self.register_buffer("relative", torch.zeros(start), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.relative.shape[0] != x.shape[1]:
            self.relative = torch.arange(float(x.shape[1]))
        return self.second(self.first(x).relu()) * self.relative[:, None]


@pytest.mark.parametrize("start", [1, 9])
def test_a_buffer_that_the_first_forward_makes_anew(tmp_path: Path, start: int) -> None:
    model, x = Remade(start), torch.randn(2, 5, 6)
    with torch.no_grad():
        model.second.weight[:, :4] = 0
    model(x)
    shrunk = shrink(model, x)
    save_shrunk(shrunk, tmp_path)
    loaded = load_shrunk(Remade(start), tmp_path)
    assert torch.equal(loaded(x), shrunk.model(x))
    shrunk.recipe["version"] = 1  # as it was written before
    shrunk.recipe["tensors"]["relative"] = [5]
    save_shrunk(shrunk, tmp_path)
    assert torch.equal(load_shrunk(Remade(start), tmp_path)(x), shrunk.model(x))


class Scaled(nn.Module):
    """A constant factor a channel, in no state_dict, is cut with its channel."""

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Linear(10, 3)
        mean = self.norm.running_mean
        assert mean is not None
        del self.norm.running_mean
        self.norm.register_buffer("running_mean", torch.arange(10.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)).relu())


def test_a_buffer_that_no_file_holds_is_cut_with_its_channels(tmp_path: Path) -> None:
    model, x = Scaled(), torch.randn(4, 6)
    with torch.no_grad():
        model.second.weight[:, [0, 3, 8]] = 0
    shrunk = shrink(model.eval(), x)
    save_shrunk(shrunk, tmp_path)
    loaded: Any = load_shrunk(Scaled(), tmp_path)
    assert loaded.norm.running_mean.tolist() == [1, 2, 4, 5, 6, 7, 9]
    assert torch.equal(loaded.eval()(x), shrunk.model(x))


def test_two_recipes_one_after_the_other_are_one() -> None:
    first, x = net(), torch.randn(4, 6)
    kill(first, [1, 2, 7], [0])
    once = shrink(first.eval(), x)
    kill(once.model, [0, 6], [3, 4])
    twice = shrink(once.model, x)
    both = followed_by(once.recipe, twice.recipe)
    assert larger(both) == {n: tuple(t.shape) for n, t in first.state_dict().items() if n in larger(both)}
    kill(first, [0, 9], [4, 5])  # the same units, as they are numbered here
    state = dict(first.state_dict())
    take_out(state, both, {name: name for name in state})
    assert all(torch.equal(t, state[name]) for name, t in twice.model.state_dict().items())
