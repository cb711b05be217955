"""Run a model once, and read its dependency graph with Torch-Pruning."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lightning_prune.coupling.example import call, own_randomness, tensors
from lightning_prune.coupling.heads import attentions
from lightning_prune.coupling.layers import layer_of
from lightning_prune.coupling.readable import Constant, Mixed, Traced, constants_of


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


def trace(model: nn.Module, example_inputs: Any) -> Any:
    """Return Torch-Pruning's dependency graph of a `Traced` model, positions mapped from edge to edge.

    Args:
        model: a copy that may be changed: it is put into evaluation mode, and all of it requires gradients.
        example_inputs: what one forward takes.

    Raises:
        ModuleNotFoundError: Torch-Pruning is not installed.
        ValueError: the model does not run on the example inputs.
    """
    tp = import_torch_pruning()

    class Opaque(tp.BasePruningFunc):  # tells the graph how many channels pass, and prunes nothing
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

    ours: dict[Any, Any] = {kind: Opaque() for kind in (nn.LSTM, nn.GRU, nn.RNN, nn.LocalResponseNorm, Constant)}
    ours |= {type(m): Opaque() for m in model.modules() if type(m).__name__ == "Conv1D" and layer_of(m)}
    _leave_comparable(model)
    attention = {type(model.get_submodule(path)) for path in attentions(model)}
    ours |= {kind: Opaque() for kind in attention}
    model.requires_grad_(True)
    for module in model.modules():  # one node of the graph each, instead of one a time step, or of many that cross
        if isinstance(module, nn.RNNBase):
            module.forward = partial(_recurrent, module)
        elif type(module) in attention:
            module.forward = partial(_attention, module)
    with warnings.catch_warnings(), torch.enable_grad(), own_randomness():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph()
        try:
            graph.build_dependency(
                Traced(model.eval(), constants_of(model, example_inputs)),
                example_inputs,
                forward_fn=call,
                output_transform=lambda out: [t for t in tensors(out) if t.grad_fn is not None],  # pyright: ignore
                customized_pruners=ours,
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


class _Flow(torch.autograd.Function):
    """All of a recurrent layer's answers, from one function: shapes are right, values are not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.RNNBase, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ways, batched = 1 + module.bidirectional, x.dim() == 3
        batch = (x.shape[0 if module.batch_first else 1],) if batched else ()
        layers, width = (module.num_layers * ways, *batch), module.proj_size or module.hidden_size
        out, hidden = x.new_zeros(*x.shape[:-1], ways * width), x.new_zeros(*layers, width)
        return out, hidden, x.new_zeros(*layers, module.hidden_size)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError  # the graph is read, never run


def _attention(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        out = type(module).forward(module, *args, **kwargs)
    mixed = [t for t in tensors((args, kwargs)) if t.requires_grad]
    if isinstance(out, Tensor):
        return Mixed.apply(out, *mixed, *module.parameters())
    return (Mixed.apply(out[0], *mixed, *module.parameters()), *out[1:])


def _recurrent(module: nn.RNNBase, x: Any, *state: Any) -> Any:
    if isinstance(x, PackedSequence):
        rows, hidden, cell = _Flow.apply(x.data, module, *module.parameters())  # pyright: ignore
        hidden, cell = (s[:, None].expand(-1, int(x.batch_sizes[0]), -1) for s in (hidden, cell))
        out: Any = x._replace(data=rows)
    else:
        out, hidden, cell = _Flow.apply(x, module, *module.parameters())  # pyright: ignore
    return (out, (hidden, cell)) if isinstance(module, nn.LSTM) else (out, hidden)
