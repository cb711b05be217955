"""Where an output or an input channel of a layer lies in its tensors, and what the layer says of its own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

from lightning_prune.coupling.units import BIAS, IN, NORM, OUT, STAT

Entry = tuple[str, int, int, Any]
"""Attribute, dimension, position, and the `Role`."""


@dataclass(frozen=True)
class Layer:
    """A kind of layer.

    Attributes:
        outputs: how many output channels it has; None if its channels cannot be taken apart.
        outgoing: the entries that compute one output channel.
        incoming: the entries that read one input channel.
        size: the attributes that follow from the shapes of its tensors.
    """

    outputs: Callable[[Any], int | None]
    outgoing: Callable[[Any, int], Iterable[Entry]]
    incoming: Callable[[Any, int], Iterable[Entry]]
    size: Callable[[Any], dict[str, Any]]


def layer_of(module: nn.Module) -> Layer | None:
    """Return what is known of a layer, None for a kind that is not, and for one whose weights are made of others."""
    names = getattr(module, "_flat_weights_names", ("weight", "bias"))
    if any(name not in vars(module)["_parameters"] and getattr(module, name, None) is not None for name in names):
        return None
    for kind, layer in _LAYERS:
        if isinstance(module, kind):
            return layer
    # GPT-2's linear layer keeps its weight the other way round.
    return _CONV1D if type(module).__name__ == "Conv1D" and hasattr(module, "nf") else None


def mixes_channels(module: nn.Module) -> bool:
    """Whether it normalises over the channels, so that removing one would change the others."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups != module.num_channels
    return "Norm" in type(module).__name__ and not isinstance(module, (_BatchNorm, _InstanceNorm))


def _bias(module: Any, position: int) -> list[Entry]:
    return [] if getattr(module, "bias", None) is None else [("bias", 0, position, BIAS)]


def _linear_size(m: nn.Linear) -> dict[str, Any]:
    return {"out_features": m.weight.shape[0], "in_features": m.weight.shape[1]}


# Convolutions. In a grouped one all groups keep their size, so a unit takes the same place in each of them.


def _conv_outgoing(m: Any, i: int) -> list[Entry]:
    out, depthwise = m.out_channels, _depthwise(m)
    places = [i] if m.groups == 1 or depthwise else range(i % (out // m.groups), out, out // m.groups)
    dim = 1 if m.transposed and not depthwise else 0
    if m.transposed and m.groups > 1 and not depthwise:  # (in, out / groups, ...)
        return [("weight", 1, i % (out // m.groups), OUT), *(e for p in places for e in _bias(m, p))]
    return [entry for p in places for entry in (("weight", dim, p, OUT), *_bias(m, p))]


def _conv_incoming(m: Any, i: int) -> list[Entry]:
    if _depthwise(m):
        return _conv_outgoing(m, i)
    per_group = m.in_channels // m.groups
    if m.transposed:
        return [("weight", 0, p, IN) for p in range(i % per_group, m.in_channels, per_group)]
    return [("weight", 1, i % per_group, IN)]


def _depthwise(m: Any) -> bool:
    return m.groups > 1 and m.groups == m.in_channels == m.out_channels


def _conv_size(m: Any) -> dict[str, Any]:
    first, second = m.weight.shape[:2]
    if _depthwise(m):
        return {"in_channels": first, "out_channels": first, "groups": first}
    if m.transposed:
        return {"in_channels": first, "out_channels": second * m.groups}
    return {"in_channels": second * m.groups, "out_channels": first}


def _norm_entries(m: Any, i: int) -> list[Entry]:
    entries: list[Entry] = []
    for name, role in (("weight", NORM), ("bias", BIAS), ("running_mean", STAT), ("running_var", STAT)):
        if getattr(m, name, None) is not None:
            entries.append((name, 0, i, role))
    return entries


def _group_norm_size(m: nn.GroupNorm) -> dict[str, Any]:
    channels = m.weight.shape[0]
    return {"num_channels": channels, "num_groups": channels}


# Recurrent layers. All layers and directions of a module have one hidden size: a unit takes the same place in each.


def _recurrent_names(m: nn.RNNBase) -> list[tuple[str, int]]:
    """Return the suffix and the number of every layer and direction."""
    ways = ("", "_reverse") if m.bidirectional else ("",)
    return [(f"_l{layer}{way}", layer) for layer in range(m.num_layers) for way in ways]


def _recurrent_outgoing(m: nn.RNNBase, i: int) -> list[Entry]:
    hidden, unit, gates = m.hidden_size, i % m.hidden_size, _gates(m)
    entries: list[Entry] = []
    for suffix, layer in _recurrent_names(m):
        for gate in range(gates):
            row = gate * hidden + unit
            entries += [(f"weight_ih{suffix}", 0, row, OUT), (f"weight_hh{suffix}", 0, row, OUT)]
            if m.bias:
                entries += [(f"bias_ih{suffix}", 0, row, BIAS), (f"bias_hh{suffix}", 0, row, BIAS)]
        entries.append((f"weight_hh{suffix}", 1, unit, IN))
        if layer:
            entries += [(f"weight_ih{suffix}", 1, unit + way * hidden, IN) for way in range(1 + m.bidirectional)]
    return entries


def _recurrent_incoming(m: nn.RNNBase, i: int) -> list[Entry]:
    return [(f"weight_ih{suffix}", 1, i, IN) for suffix, layer in _recurrent_names(m) if layer == 0]


def _recurrent_size(m: nn.RNNBase) -> dict[str, Any]:
    rows, columns = m.weight_ih_l0.shape  # pyright: ignore
    return {"hidden_size": rows // _gates(m), "input_size": columns}


def _gates(m: nn.RNNBase) -> int:
    return {"LSTM": 4, "GRU": 3}.get(m.mode, 1)


_LAYERS: tuple[tuple[Any, Layer], ...] = (
    (
        nn.Linear,
        Layer(
            lambda m: m.weight.shape[0],
            lambda m, i: [("weight", 0, i, OUT), *_bias(m, i)],
            lambda m, i: [("weight", 1, i, IN)],
            _linear_size,
        ),
    ),
    (_ConvNd, Layer(lambda m: m.out_channels, _conv_outgoing, _conv_incoming, _conv_size)),
    (
        (_BatchNorm, _InstanceNorm),
        Layer(lambda m: None, _norm_entries, _norm_entries, lambda m: {"num_features": m.weight.shape[0]}),
    ),
    (nn.GroupNorm, Layer(lambda m: None, _norm_entries, _norm_entries, _group_norm_size)),
    (
        nn.PReLU,
        Layer(
            lambda m: None,
            lambda m, i: [("weight", 0, i, NORM)] if m.num_parameters > 1 else [],
            lambda m, i: [("weight", 0, i, NORM)] if m.num_parameters > 1 else [],
            lambda m: {"num_parameters": m.weight.shape[0]},
        ),
    ),
    (
        nn.Embedding,
        Layer(
            lambda m: m.embedding_dim,
            lambda m, i: [("weight", 1, i, OUT)],
            lambda m, i: [("weight", 1, i, OUT)],
            lambda m: {"embedding_dim": m.weight.shape[1]},
        ),
    ),
    (
        nn.RNNBase,
        Layer(
            lambda m: None if m.proj_size else m.hidden_size * (1 + m.bidirectional),
            _recurrent_outgoing,
            _recurrent_incoming,
            _recurrent_size,
        ),
    ),
)
_CONV1D = Layer(
    lambda m: m.weight.shape[1],
    lambda m, i: [("weight", 1, i, OUT), *_bias(m, i)],
    lambda m, i: [("weight", 0, i, IN)],
    lambda m: {"nx": m.weight.shape[0], "nf": m.weight.shape[1]},
)
