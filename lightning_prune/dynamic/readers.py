"""Which channels that a layer reads are zero where a gate is: found by forwards in which gates let through a pattern.

Each gated layer lets a random half of its channels through, then the other half, a few times over. A position that a
layer reads follows a channel if it was zero when, and only when, that channel was. That holds through activations that
keep zeros, pooling, flattening and concatenation. Behind a norm, a sum with what is not gated, or a sigmoid, positions
are never zero, and count as read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from lightning_prune.coupling.example import call, example_of, in_full, own_randomness
from lightning_prune.dynamic.sites import Site, bare, channels_of

PRODUCTS = (_ConvNd, nn.Linear)
"""The layers whose products are counted channel by channel."""
_ROUNDS = 6


@dataclass(frozen=True)
class Block:
    """Positions that a layer reads, `each` in a row for every channel of a gated layer, from `start` on."""

    layer: str
    start: int
    each: int


Reads = Mapping[str, Sequence[Block]]
"""Name of a layer -> what of it follows gated channels."""


def reads_of(model: nn.Module, sites: Sequence[Site], example_inputs: Any) -> dict[str, list[Block]]:
    """Return for every layer with products which positions that it reads follow gated channels; the model stays."""
    copied, example = in_full(bare(model), example_of(model, example_inputs))
    modules = dict(copied.named_modules())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), own_randomness():
        torch.manual_seed(0)
        for tensor in [*copied.parameters(), *copied.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)  # so that nothing is zero but what a gate has made so
        codes: dict[str, list[Tensor]] = {site.layer: [] for site in sites}
        seen: dict[str, list[Tensor]] = {}
        for _ in range(_ROUNDS):
            halves = {site.layer: _half(channels_of(modules[site.layer]), generator) for site in sites}
            for through in (halves, {layer: ~half for layer, half in halves.items()}):
                _forward(copied, example, sites, through, seen)
                for layer, half in through.items():
                    codes[layer].append(half)
    return {name: _blocks(torch.stack(rounds), codes) for name, rounds in seen.items() if len(rounds) == 2 * _ROUNDS}


def _half(channels: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(channels, generator=generator) * 2 < channels


def _forward(
    model: nn.Module, example: Any, sites: Sequence[Site], through: Mapping[str, Tensor], seen: dict[str, list[Tensor]]
) -> None:
    """Note which positions every layer reads that are not zero, where gates let these channels through."""
    modules = dict(model.named_modules())
    handles: list[Any] = []

    def let(half: Tensor) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return half.to(output).view(1, -1, *[1] * (output.dim() - 2)).expand_as(output)

        return hook

    def look(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.setdefault(name, []).append(positions(module, args[0] if args else kwargs["input"]).any(0).cpu())

        return hook

    for site in sites:
        handles.append(modules[site.norm].register_forward_hook(let(through[site.layer])))
    for name, module in modules.items():
        if isinstance(module, PRODUCTS):
            handles.append(module.register_forward_pre_hook(look(name, module), with_kwargs=True))
    try:
        call(model, example)
    finally:
        for handle in handles:
            handle.remove()


def positions(layer: nn.Module, x: Tensor) -> Tensor:
    """Return which positions that a layer reads are not all zero, (examples, positions)."""
    if isinstance(layer, nn.Linear):
        return (x != 0).flatten(1, -2).any(1) if x.dim() > 2 else (x != 0).view(-1, x.shape[-1])
    return (x != 0).flatten(2).any(2)


def _blocks(rounds: Tensor, codes: Mapping[str, Sequence[Tensor]]) -> list[Block]:
    """Return where the positions of a layer follow channels.

    Args:
        rounds: (rounds, positions) bools: not zero.
        codes: name of a gated layer -> which of its channels were let through, in each round.
    """
    found: list[Block] = []
    taken = torch.zeros(rounds.shape[1], dtype=torch.bool)
    for layer, code in codes.items():
        pattern = torch.stack(list(code))
        width, channels = rounds.shape[1], pattern.shape[1]
        if channels < 2 or channels > width:  # one channel alone is told from nothing
            continue
        sizes = {1, width // channels} if width % channels == 0 else {1}
        for each in sizes:
            wide = pattern.repeat_interleave(each, 1)
            same = (rounds.unfold(1, channels * each, 1) == wide[:, None]).all(2).all(0)
            for start in same.nonzero().flatten().tolist():
                if not bool(taken[start : start + channels * each].any()):
                    taken[start : start + channels * each] = True
                    found.append(Block(layer, start, each))
    return found
