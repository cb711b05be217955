"""Whether zeros of a weight are zeros of what its layer computes with: layers with a forward of their own are tried.

A convolution that standardises its weight subtracts a mean in each forward, so a pruned entry is not zero there. A
layer that scales, casts or rounds its weight keeps zeros. Which it is shows in one forward of a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune.coupling.couple import plain_copy
from lightning_prune.coupling.example import call, example_of, own_randomness

_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)
_PRODUCTS = ("conv", "mm", "mv", "dot", "linear")
"""Parts of the names of operators that multiply inputs by weights."""


class Forwards:
    """The forwards of a model's layers, tried where they are not torch's own.

    A layer is tried alone, on random weights and a random input; if that is not possible, on what the model gives it
    when it runs on its `example_input_array`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._given: Mapping[nn.Module, Sequence[Any]] | None = None

    def why_lost(self, layer: nn.Module, attribute: str) -> str | None:
        """Return why zeros in a weight need not count in its layer's forward, None if they do."""
        if attribute != "weight" or not isinstance(layer, _LAYERS) or _runs_as_torch_does(type(layer)):
            return None
        with own_randomness():
            torch.manual_seed(0)
            stay = _zeros_stay(layer, _inputs(layer))
            if stay is None:
                self._given = _given(self._model) if self._given is None else self._given
                stay = _zeros_stay(layer, self._given[layer]) if layer in self._given else None
        if stay is None:
            return (
                f"{type(layer).__name__} has a forward of its own, and a trial did not show that it computes with this "
                "weight: include it by name to prune it"
            )
        return None if stay else f"{type(layer).__name__} computes with a weight made of it, where zeros do not stay"


def _runs_as_torch_does(kind: type[nn.Module]) -> bool:
    """Whether forward and what a convolution's forward calls are those of torch.nn."""
    found = [next((c for c in kind.__mro__ if verb in vars(c)), None) for verb in ("forward", "_conv_forward")]
    return all(c is None or c.__module__.startswith("torch.nn.modules.") for c in found)


def _inputs(layer: nn.Module) -> list[Tensor]:
    """Return random inputs that a layer of its kind takes: a batch of two."""
    if isinstance(layer, nn.Bilinear):
        return [torch.rand(2, layer.in1_features), torch.rand(2, layer.in2_features)]
    if isinstance(layer, _ConvNd):
        sizes = [d * (k - 1) + 2 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        return [torch.rand(2, layer.in_channels, *sizes)]
    assert isinstance(layer, nn.Linear)
    return [torch.rand(2, layer.in_features)]


@torch.no_grad()
def _zeros_stay(layer: nn.Module, inputs: Sequence[Any]) -> bool | None:
    """Whether zeros of the weight are zeros of what the layer multiplies by, in evaluation and in training.

    None if the trial fails, or nothing of the weight's size is multiplied by.
    """
    verdicts: list[bool | None] = []
    try:
        tried = _drawn_anew(layer)
        assert isinstance(tried.weight, Tensor)
        given = [_to_float(value, tried.weight.device) for value in inputs]
        for training in (False, True):
            with _Products(tried.weight) as seen:
                type(tried).forward(tried.train(training), *given)  # not its hooks: they may be somebody's
            verdicts.append(seen.verdict)
    except Exception:  # whatever a forward of somebody's own raises on inputs that it was not written for
        return None
    return None if None in verdicts else all(verdicts)


def _drawn_anew(layer: nn.Module) -> nn.Module:
    """Return a copy in float32 with random weights, half of them zero, so that what happens to zeros shows."""
    drawn: dict[int, Any] = {}
    for parameter in layer.parameters():
        device = torch.device("cpu") if parameter.is_meta else parameter.device
        value = torch.rand(parameter.shape, device=device) + 0.5
        drawn[id(parameter)] = nn.Parameter(value, requires_grad=False)
    tried = copy.deepcopy(layer, drawn).float()
    assert isinstance(tried.weight, Tensor)
    tried.weight.normal_()
    tried.weight.masked_fill_(tried.weight.abs() < 0.67, 0.0)
    return tried


class _Products(TorchDispatchMode):
    """Look at what products are made of while a layer runs.

    Attributes:
        verdict: True if one operand is the weight, or something made of it that is zero wherever it is; False if there
            are only others of its size; None if there are none.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.verdict: bool | None = None
        self._weight = weight

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(part in func._schema.name for part in _PRODUCTS):
            for operand in args:
                if isinstance(operand, Tensor) and operand.numel() == self._weight.numel():
                    self.verdict = self.verdict or self._keeps_zeros(operand)
        return func(*args, **(kwargs or {}))

    def _keeps_zeros(self, operand: Tensor) -> bool:
        weight = self._weight
        if operand.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr():
            return True
        views = [operand.reshape(weight.shape)]
        if operand.dim() > 1:
            views.append(operand.mT.reshape(weight.shape))
        return any(bool((view[weight == 0] == 0).all()) for view in views)


def _given(model: nn.Module) -> Mapping[nn.Module, Sequence[Any]]:
    """Return what layers with a forward of their own get when a copy of the model runs on its example inputs."""
    given: dict[nn.Module, Sequence[Any]] = {}
    try:
        example, tried = example_of(model), plain_copy(model).eval()
        handles = [
            twin.register_forward_pre_hook(lambda _, args, layer=layer: given.setdefault(layer, args) and None)
            for layer, twin in zip(model.modules(), tried.modules(), strict=True)
            if isinstance(layer, _LAYERS) and not _runs_as_torch_does(type(layer))
        ]
        with torch.no_grad():
            call(tried, example)
        for handle in handles:
            handle.remove()
    except Exception:  # no example, or none that runs: then nothing is known of these layers
        return given
    return given


def _to_float(value: Any, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, torch.float32) if value.is_floating_point() else value.to(device)
