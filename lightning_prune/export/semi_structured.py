"""Linear layers of pattern 2:4 in the format that sparse tensor cores multiply."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import to_sparse_semi_structured

from lightning_prune.coupling.example import copy_of, distance
from lightning_prune.report import columns

_CAPABILITY = (8, 0)
_BATCH = 64
"""Rows of the random batch on which a layer is compared."""


@dataclass(frozen=True)
class LayerExport:
    """One layer with a weight of two or more dimensions.

    Attributes:
        name: dotted name.
        shape: of its weight.
        reason: why it stays dense; None if it was converted.
        difference: largest difference from the dense layer's outputs, as a share of the largest of them; None where
            nothing was compared.
    """

    name: str
    shape: tuple[int, ...]
    reason: str | None
    difference: float | None


@dataclass(frozen=True)
class SemiStructured:
    """A model in torch's 2:4 format.

    Attributes:
        model: a copy whose converted layers multiply on sparse tensor cores, in evaluation mode, for inference.
        layers: every layer, in the model's order, with the reason if it stays dense.
    """

    model: nn.Module
    layers: Sequence[LayerExport]

    @property
    def converted(self) -> list[str]:
        """The names of the layers that were converted."""
        return [layer.name for layer in self.layers if layer.reason is None]

    def table(self) -> str:
        """Return a table for people."""
        rows = [("layer", "shape", "difference", "2:4")]
        for layer in self.layers:
            difference = "" if layer.difference is None else f"{layer.difference:.1e}"
            shape = "x".join(map(str, layer.shape))
            rows.append(
                (
                    layer.name or "(the model itself)",
                    shape,
                    difference,
                    "converted" if layer.reason is None else layer.reason,
                )
            )
        return columns(rows, rules={1})


def to_semi_structured(
    model: nn.Module, tolerance: float = 1e-2, only: Collection[str] | None = None
) -> SemiStructured:
    """Return a copy of a stripped model whose linear layers of pattern 2:4 are in the format of sparse tensor cores.

    Converted are `nn.Linear` layers with at most two nonzero weights in every four along the inputs, whose shape and
    dtype torch's kernel takes (which those are depends on torch and on the GPU; cuSPARSELt takes float16 and bfloat16,
    not float32), and whose outputs on a random batch stay within the tolerance. The model given stays as it is. The
    copy is for inference; save the dense one, with `save_semi_structured`.

    Args:
        model: a model on a CUDA GPU of compute capability 8.0 or later.
        tolerance: largest difference allowed from a layer's dense outputs, as a share of the largest of them.
        only: names of the layers to convert; None for all that can be.

    Raises:
        RuntimeError: there is no such GPU, or the model is not on it.
        ValueError: no layer can be converted, or `only` names one that cannot; with the reasons.
    """
    check_gpu(model)
    return convert_layers(copy_of(model), tolerance, only)


def holds_two_of_four(weight: Tensor) -> bool:
    """Return whether at most two of every four consecutive weights along the inputs are not zero."""
    if weight.dim() != 2 or weight.shape[1] % 4:
        return False
    return bool((weight.unflatten(1, (-1, 4)).count_nonzero(dim=-1) <= 2).all())


def check_gpu(model: nn.Module | None = None) -> None:
    """Raise a RuntimeError that says why there is no GPU for the 2:4 format here, or why the model is not on it."""
    needs = f"the 2:4 format needs a CUDA GPU of compute capability {_CAPABILITY[0]}.{_CAPABILITY[1]} or later"
    if not torch.cuda.is_available():
        raise RuntimeError(f"{needs}, and there is no CUDA GPU here")
    if model is None:
        return
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if device.type != "cuda":
        raise RuntimeError(f"{needs}, and the model is on {device}: move it there with model.cuda()")
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise RuntimeError(f"{needs}, and {name} has {capability[0]}.{capability[1]}")


def convert_layers(model: nn.Module, tolerance: float, only: Collection[str] | None) -> SemiStructured:
    """Convert a model in place; arguments as for `to_semi_structured`, names too."""
    model.eval().requires_grad_(False)
    owners = owners_of(model)
    layers: list[LayerExport] = []
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() >= 2:
            wanted = only is None or name in only
            reason, difference = _convert(layer, owners, tolerance) if wanted else ("not asked for", None)
            layers.append(LayerExport(name, tuple(weight.shape), reason, difference))
    result = SemiStructured(model, layers)
    _check_converted(result, only)
    return result


def _convert(layer: nn.Module, owners: dict[Tensor, list[str]], tolerance: float) -> tuple[str | None, float | None]:
    """Convert a layer in place; return why not, if not, and by how much its outputs differ."""
    if type(layer) is not nn.Linear:
        return f"the kernel takes nn.Linear, not {type(layer).__name__}", None
    weight = layer.weight
    if not isinstance(weight, nn.Parameter):
        return "its weight is no parameter but computed before each forward", None
    if len(owners[weight]) > 1:
        return f"its weight is shared: {', '.join(owners[weight])}", None
    if not holds_two_of_four(weight):
        return "its weight does not hold the pattern 2:4", None
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(_BATCH, layer.in_features, generator=generator).to(weight.device, weight.dtype)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor")
        expected = F.linear(batch, weight, layer.bias)
        try:
            layer.weight = nn.Parameter(to_sparse_semi_structured(weight.contiguous()), requires_grad=False)
            found = F.linear(batch, layer.weight, layer.bias)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            layer.weight = weight
            return f"torch refuses it: {' '.join(str(error).split())}", None
    difference = distance([expected.float()], [found.float()])[1]
    if not difference <= tolerance:
        layer.weight = weight
        return f"its outputs differ by more than {tolerance:g} of the largest", difference
    return None, difference


def _check_converted(result: SemiStructured, only: Collection[str] | None) -> None:
    reasons = {layer.name: layer.reason for layer in result.layers}
    failed = {name: reasons.get(name, "there is no such layer") for name in only or () if name not in result.converted}
    if failed or not result.converted:
        said = "; ".join(f"{name}: {reason}" for name, reason in (failed or reasons).items())
        what = "these layers cannot be converted" if failed else "no layer was converted"
        raise ValueError(f"{what} to 2:4: {said or 'there is no linear layer'}")


def owners_of(model: nn.Module) -> dict[Tensor, list[str]]:
    """Return the names of each parameter, one for each module that holds it."""
    owners: dict[Tensor, list[str]] = {}
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            owners.setdefault(parameter, []).append(f"{name}.{key}")
    return owners
