"""Each layer at a sparsity of its own, given by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_prune.given import plain
from lightning_prune.scope.protocol import Layer, Pool
from lightning_prune.steps import check_sparsity


@dataclass(frozen=True)
class ByLayer:
    """Prune each layer to the share that is given for it.

    The layers named are at their shares when the schedule asks for what these come to together. Before that each is at
    the same part of its share; past it, each gives up the same part of what it would have left. Layers that are not
    named are pruned to what the schedule asks for. `lightning-prune sensitivity` makes such shares.

    Args:
        sparsity: name of a layer, as the plan shows it -> its share of zeros at the end; with a pattern of coupled
            units the name of the first weight that computes them -> the share of its units that go.

    Raises:
        ValueError: a share is none; and when it is asked, a name is that of no layer.
    """

    sparsity: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        given: Any = self.sparsity
        if not isinstance(given, Mapping):
            raise ValueError(f"sparsity={given!r} must map names of layers to shares: {{'net.0.weight': 0.8}}")
        object.__setattr__(self, "sparsity", {str(name): plain(value) for name, value in given.items()})
        for name, value in self.sparsity.items():
            check_sparsity(f"sparsity[{name!r}]", value)

    def __call__(self, layers: Sequence[Layer], sparsity: float) -> list[Pool]:
        """Return a pool for each layer. Raises ValueError if a name is that of no layer."""
        sizes = {layer.name: layer.size for layer in layers}
        for name in self.sparsity:
            if layers and name not in sizes:
                near = difflib.get_close_matches(name, sizes, cutoff=0.3) or list(sizes)[:3]
                raise ValueError(
                    f"scope=ByLayer(sparsity=...) has {name!r}, which is no layer that is pruned here; near matches: "
                    f"{', '.join(near)}"
                )
        size = sum(sizes[name] for name in self.sparsity if name in sizes)
        together = sum(share * sizes[name] for name, share in self.sparsity.items() if name in sizes) / max(1, size)
        shares = {name: _share(final, together, sparsity) for name, final in self.sparsity.items()}
        each = [(layer, shares.get(layer.name, sparsity)) for layer in layers]
        return [Pool((layer.name,), round(share * layer.size), share) for layer, share in each]


def _share(final: float, together: float, asked: float) -> float:
    """Return a layer's share when so much is asked for of all: 0, its own and 1 where it is 0, `together` and 1."""
    if asked <= together:
        return final * (asked / together) if together else 0.0
    left = (1.0 - asked) / (1.0 - together)
    return 1.0 - (1.0 - final) * left
