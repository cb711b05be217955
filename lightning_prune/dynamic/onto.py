"""Gates from a file, put on a plain model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from lightning_prune.dynamic.gate import ChannelGate
from lightning_prune.dynamic.links import CHILD, Link, gates_in, put, take_off
from lightning_prune.dynamic.sites import norms_behind
from lightning_prune.observing.compiled import forget_compiled


def put_gates(model: nn.Module, state: Mapping[str, Any], example_inputs: Any = None) -> nn.Module:
    """Put the gates that a state_dict has on a plain model, so that it loads: `put_gates(net, state)` comes first.

    Gates that the model has already are replaced. Their values come with `model.load_state_dict(state)`.

    Args:
        model: of the class and sizes of the one that was saved.
        state: its state_dict.
        example_inputs: what one forward takes; None for the module's `example_input_array`.

    Returns:
        The model.

    Raises:
        ValueError: the state has no gates, or the model no layer with a norm for one; the model is as it was then.
    """
    found = gates_in(state)
    if not found:
        raise ValueError(f"there are no gates in the state: no key has .{CHILD}. in it")
    modules = dict(model.named_modules())
    behind = norms_behind(model, example_inputs)
    for layer, tensors in found.items():
        module = modules.get(layer)
        shape = tuple(tensors["weight"].shape) if "weight" in tensors else None
        if not isinstance(module, _ConvNd) or layer not in behind:
            raise ValueError(f"the state has a gate of '{layer}', which is no layer of this model with a norm behind")
        if shape != (module.out_channels, module.in_channels):
            raise ValueError(
                f"the state's gate of '{layer}' has a weight of shape {shape}, and the layer reads "
                f"{module.in_channels} channels and computes {module.out_channels}"
            )
    take_off(model)
    for layer in found:
        module: Any = modules[layer]
        gate = ChannelGate(module.in_channels, module.out_channels, module.weight)
        put(module, modules[behind[layer]], Link(layer, gate, shared=False))
    forget_compiled()
    return model
