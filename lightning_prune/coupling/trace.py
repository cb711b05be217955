"""Run a model once, and read its dependency graph with Torch-Pruning."""

from __future__ import annotations

import warnings
from contextlib import suppress
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lightning_prune.coupling.example import call, own_randomness, tensors
from lightning_prune.coupling.heads import attentions
from lightning_prune.coupling.layers import layer_of
from lightning_prune.coupling.readable import Constant, Traced, constants_of, stand_in


def import_torch_pruning() -> ModuleType:
    """Return Torch-Pruning.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "coupled channels are found by Torch-Pruning: pip install 'lightning-prune[structured]'", name=error.name
        ) from error
    return torch_pruning


def trace(model: nn.Module, example_inputs: Any, training: bool = False) -> Any:
    """Return Torch-Pruning's dependency graph of a `Traced` model, positions mapped from edge to edge.

    Args:
        model: a copy that may be changed: all of it requires gradients after that.
        example_inputs: what one forward takes.
        training: by the ways of training mode; else in evaluation mode.

    Raises:
        ModuleNotFoundError: Torch-Pruning is not installed.
        ValueError: the model does not run on the example inputs.
    """
    tp = import_torch_pruning()
    _leave_comparable(model)
    whole = {type(model.get_submodule(path)) for path in attentions(model)}
    whole |= {type(m) for m in model.modules() if _is_own_norm(m)}
    kinds = {nn.LSTM, nn.GRU, nn.RNN, nn.LocalResponseNorm, Constant, *whole}
    kinds |= {type(m) for m in model.modules() if type(m).__name__ == "Conv1D" and layer_of(m)}
    opaque = _opaque(tp)
    model.requires_grad_(True)
    stand_in(model, whole)
    with warnings.catch_warnings(), torch.enable_grad(), own_randomness():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph()
        try:
            graph.build_dependency(
                Traced(model, constants_of(model, example_inputs, training), training),
                example_inputs,
                forward_fn=call,
                output_transform=lambda out: [t for t in tensors(out) if t.grad_fn is not None],  # pyright: ignore
                customized_pruners={kind: opaque() for kind in kinds},
                verbose=False,
            )
        except Exception as error:
            nodes = getattr(graph, "module2node", {}).values()
            if not any(node.dependencies for node in nodes):  # else it fails where it maps positions, its last step
                raise ValueError(
                    f"{type(model).__name__} could not be traced on its example inputs: {type(error).__name__}: {error}"
                ) from error
            _map_positions(tp.dependency.index_mapping, graph)
    return graph


def _is_own_norm(module: nn.Module) -> bool:
    """Whether it normalises over its channels by code of its own, as the RMSNorm of a language model does."""
    name = type(module).__name__
    return ("RMSNorm" in name or "LayerNorm" in name) and not isinstance(module, nn.LayerNorm)


def _opaque(tp: ModuleType) -> type[Any]:
    """Return a class that tells the graph how many channels pass a layer, and prunes nothing."""

    class Opaque(tp.BasePruningFunc):
        def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
            return layer

        def prune_in_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
            return layer

        def get_out_channels(self, layer: nn.Module) -> int | None:
            if isinstance(layer, Constant):
                return layer.channels
            known = layer_of(layer)
            return known.outputs(layer) if known else None

        def get_in_channels(self, layer: Any) -> int | None:
            if isinstance(layer, nn.RNNBase):
                return layer.input_size
            return layer.weight.shape[0] if layer_of(layer) else None

    return Opaque


def _leave_comparable(model: nn.Module) -> None:
    """Take modules that answer every `==` with yes, as torchmetrics' metrics do, out of the graph's sight, in place.

    Attributes still find them. The graph compares modules, and would find such a one everywhere.
    """
    for parent in list(model.modules()):
        own: dict[str, nn.Module] = vars(parent)["_modules"]
        for name, module in list(own.items()):
            if module is not None and type(module).__eq__ is not object.__eq__:
                del own[name]
                object.__setattr__(parent, name, module)


def _map_positions(maps: Any, graph: Any) -> None:
    """Map positions along the edges of each node apart. Where that fails they stay as they are: the trial will tell."""
    for node in graph.module2node.values():
        for kind in ("concat", "split", "reshape", "unbind", "expand", "slice"):
            with suppress(Exception):
                getattr(maps, f"update_{kind}_index_mapping")(graph, node)
