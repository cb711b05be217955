"""How many multiply-adds an example takes where what gates leave out is not computed: at most, or counted on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from lightning_prune.cost.macs import macs
from lightning_prune.coupling.example import call, example_of
from lightning_prune.dynamic.gate import ChannelGate
from lightning_prune.dynamic.links import links_on, norms_of
from lightning_prune.dynamic.readers import PRODUCTS, Block, reads_of
from lightning_prune.dynamic.sites import Site, bare


@dataclass(frozen=True)
class Counted:
    """The multiply-adds of one example.

    Only products count, as in `lightning_prune.cost`. They are what an implementation has to make that leaves out the
    channels that are gated off and, in the layers that read them, their part: torch's own kernels make them all.

    Attributes:
        dense: of the model without gates.
        executed: of the model with gates, the predictors' own left out; an average over the examples.
        predictors: of the predictors.
        examples: how many were counted; 0: no data were seen, and it is the most that any example takes.
        layers: name of a layer -> its dense and its executed ones.
    """

    dense: float
    executed: float
    predictors: float
    examples: int
    layers: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    @property
    def total(self) -> float:
        """All that an example takes, the predictors' among it."""
        return self.executed + self.predictors

    def __str__(self) -> str:
        """Return a line for people."""
        how = f"{self.total:,.0f} on average over {self.examples:,} examples" if self.examples else self._most()
        return f"MACs an example: {self.dense:,.0f} dense, {how}, {self.predictors:,.0f} of them for the predictors"

    def _most(self) -> str:
        return f"{self.total:,.0f} at most"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values that JSON can hold."""
        return asdict(self) | {"total": self.total, "layers": {k: list(v) for k, v in self.layers.items()}}


class Structure:
    """What of a model's products follows which gates.

    Args:
        model: the model; it stays as it is.
        sites: its gated layers.
        example_inputs: what one forward takes.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], example_inputs: Any) -> None:
        self.sites = tuple(sites)
        self.reads: Mapping[str, Sequence[Block]] = reads_of(model, sites, example_inputs)
        plain = bare(model)
        examples = _examples(plain, sites[0].layer, example_inputs)
        self.dense = {name: count / examples for name, count in macs(plain, example_of(plain, example_inputs)).items()}
        self.shapes = {
            name: (_width(module), _outputs(module), module.groups if isinstance(module, _ConvNd) else 1)
            for name, module in plain.named_modules()
            if isinstance(module, PRODUCTS)
        }

    def most(self, kept: Mapping[str, int]) -> Counted:
        """Return the most that an example takes where so many channels of each gated layer are kept."""
        layers: dict[str, tuple[float, float]] = {}
        for name, dense in self.dense.items():
            share = 1.0
            if name in self.shapes:
                width, outputs, groups = self.shapes[name]
                blocks = self.reads.get(name, ()) if groups == 1 else ()  # which groups they fall into nobody knows
                off = sum(b.each * (self.shapes[b.layer][1] - kept[b.layer]) for b in blocks)
                share = (width - off) / width * kept.get(name, outputs) / outputs
            layers[name] = dense, dense * share
        return self._counted(layers, 0)

    def _counted(self, layers: Mapping[str, tuple[float, float]], examples: int) -> Counted:
        predictors = sum(self.shapes[s.layer][0] * self.shapes[s.layer][1] for s in self.sites)
        shown = {name: both for name, both in layers.items() if both[0]}
        dense, executed = (sum(both[i] for both in layers.values()) for i in (0, 1))
        return Counted(dense, executed, float(predictors), examples, shown)

    def measured(self, shares: Mapping[str, float], examples: int) -> Counted:
        """Return what an example takes where these shares of layers' products were executed on average."""
        layers = {name: (dense, dense * shares.get(name, 1.0)) for name, dense in self.dense.items()}
        return self._counted(layers, examples)


class Counting:
    """Counts what gates let through while a model runs, whatever runs it: `with Counting(model) as counting: ...`.

    Args:
        model: with gates, trained or in training.
        example_inputs: what one forward takes; None for the module's `example_input_array`.

    Raises:
        ValueError: it has no gates.
    """

    def __init__(self, model: nn.Module, example_inputs: Any = None) -> None:
        self._model = model
        self._gates = {name: link.gate for name, link in links_on(model)}
        if not self._gates:
            raise ValueError(f"{type(model).__name__} has no gates")
        norms = norms_of(model)
        self.structure = Structure(model, [Site(f"{n}.weight", n, norms[n]) for n in self._gates], example_inputs)
        self._on: dict[str, Tensor] = {}
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Counting:
        """Begin."""
        for name, gate in self._gates.items():
            self._handles.append(gate.register_forward_hook(self._noting(name)))
        for name, module in self._model.named_modules():
            if name in self.structure.shapes:
                self._handles.append(module.register_forward_hook(self._adding(name), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        """End; `result` has the numbers."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._on.clear()

    @property
    def result(self) -> Counted:
        """The average over all examples that have run. Raises ValueError where none has."""
        if not self._sums:
            raise ValueError("nothing has run yet: call the model inside of `with`")
        shares = {name: float(total) / count for name, (total, count) in self._sums.items()}
        return self.structure.measured(shares, self._sums[next(iter(self._gates))][1])

    def _noting(self, name: str) -> Any:
        def hook(gate: ChannelGate, args: Any, said: Tensor) -> None:
            self._on[name] = (said != 0).detach()

        return hook

    def _adding(self, name: str) -> Any:
        width, outputs, groups = self.structure.shapes[name]
        blocks = self.structure.reads.get(name, ())

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x: Tensor = args[0] if args else kwargs["input"]
            examples = len(x)
            reads = torch.ones(examples, width, dtype=torch.bool, device=x.device)
            for b in blocks:
                on = self._on[b.layer].repeat_interleave(b.each, 1)
                reads[:, b.start : b.start + on.shape[1]] = on
            made = self._on[name] if name in self._gates else reads.new_ones(examples, outputs)
            pairs = reads.view(examples, groups, -1).sum(2) * made.view(examples, groups, -1).sum(2)
            share = pairs.sum().double() / (width * outputs / groups)
            total, count = self._sums.get(name, (share.new_zeros(()), 0))
            self._sums[name] = total + share, count + examples

        return hook


def _width(layer: nn.Module) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels  # pyright: ignore


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # pyright: ignore


def _examples(model: nn.Module, layer: str, example_inputs: Any) -> int:
    """Return how many examples a layer reads in a forward of the example inputs."""
    sizes: list[int] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *given: sizes.append(len(given[2])))
    try:
        with torch.no_grad():
            call(model, example_of(model, example_inputs))
    finally:
        handle.remove()
    return sizes[0]
