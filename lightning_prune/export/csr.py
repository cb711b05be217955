"""Linear layers in torch's CSR format, each where it was measured to be faster on this CPU."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.example import (
    answer,
    call,
    copy_of,
    distance,
    example_of,
    examples_in,
    own_randomness,
    tensors,
    with_batch,
)
from lightning_prune.export.csr_linear import CsrLinear
from lightning_prune.export.csr_report import Csr, CsrLayer
from lightning_prune.export.in_turns import Timer, in_turns
from lightning_prune.export.semi_structured import owners_of
from lightning_prune.report import percent

_GAIN = 1.05
"""So many times as fast a layer has to be: less is noise."""


def to_csr(
    model: nn.Module,
    example_inputs: Any = None,
    batch: int | None = None,
    threads: int | None = None,
    tolerance: float = 1e-4,
    timer: Timer = in_turns,
) -> Csr:
    """Return a copy of a stripped model whose linear layers are in CSR where that is faster, on this CPU.

    Each `nn.Linear` with zeros is timed with its dense weight and with a CSR one, in turns, on what it reads in a
    forward of the example inputs. One that is not at least a twentieth faster stays dense, and its reason says the
    figure. What is faster depends on the machine, the batch and the threads. The model given stays as it is.

    Args:
        model: any module, with its zeros in place.
        example_inputs: what one forward takes; None for the module's `example_input_array`.
        batch: how many examples the forward has; None for as many as the example inputs have.
        threads: how many threads of the CPU to use meanwhile; None for as many as torch uses now.
        tolerance: largest difference allowed from the dense model's outputs, as a share of the largest of them.
        timer: from calls to the milliseconds of each.

    Raises:
        ValueError: there are no example inputs, or `batch` or `threads` is below 1.
    """
    for name, value in (("batch", batch), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    root = nn.ModuleDict({"model": copy_of(model).cpu().eval().requires_grad_(False)})
    inputs = example_of(root["model"], example_inputs)
    inputs = inputs if batch is None else with_batch(inputs, batch)
    size, before = examples_in(inputs), torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        layers = _Conversion(root, inputs, tolerance, timer).layers()
        times: list[float | None] = [None, None]
        if any(layer.reason is None for layer in layers):
            dense = copy_of(model).cpu().eval()
            with torch.inference_mode(), own_randomness():
                times = list(timer([lambda each=each: call(each, inputs) for each in (dense, root["model"])]))
    finally:
        torch.set_num_threads(before)
    return Csr(root["model"], layers, size, threads or before, times[0], times[1])


def convert_named(model: nn.Module, names: Collection[str]) -> nn.Module:
    """Return a model with these of its linear layers in CSR, whatever that brings; it is changed itself.

    Raises:
        ValueError: a name is of no linear layer of the model.
    """
    root = nn.ModuleDict({"model": model.eval().requires_grad_(False)})
    modules = dict(model.named_modules())
    for name in names:
        if type(modules.get(name)) is not nn.Linear:
            raise ValueError(f"{name!r} is no nn.Linear of {type(model).__name__}: the layers are of another model")
    for name in names:
        layer: Any = modules[name]
        _replace(root, layer, CsrLinear.of(layer))
    return root["model"]


class _Conversion:
    """Layers converted one after the other, each looked at in the whole model."""

    def __init__(self, root: nn.ModuleDict, inputs: Any, tolerance: float, timer: Timer) -> None:
        self._root = root
        self._inputs = inputs
        self._batch = examples_in(inputs)
        self._tolerance = tolerance
        self._timer = timer
        self._owners = owners_of(root["model"])
        self._expected = answer(root["model"], inputs)
        self._read = _read_by_layers(root["model"], inputs)

    def layers(self) -> list[CsrLayer]:
        """Convert what gains, and return every layer with a weight of two or more dimensions."""
        found: list[CsrLayer] = []
        for name, layer in list(self._root["model"].named_modules()):
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() >= 2:
                zeros = weight.numel() - int(weight.count_nonzero())
                sparsity = zeros / weight.numel() if weight.numel() else 0.0
                times: list[float] = []
                reason = self._why_not(name, layer, weight, zeros) or self._convert(name, layer, sparsity, times)
                found.append(CsrLayer(name, tuple(weight.shape), sparsity, reason, *times))
        return found

    def _why_not(self, name: str, layer: nn.Module, weight: Tensor, zeros: int) -> str | None:
        if type(layer) is not nn.Linear:
            return f"only nn.Linear is converted, not {type(layer).__name__}"
        if not isinstance(weight, nn.Parameter):
            return "its weight is no parameter but computed before each forward"
        if len(self._owners[weight]) > 1:
            return f"its weight is shared: {', '.join(self._owners[weight])}"
        if not zeros:
            return "none of its weights is zero"
        if name not in self._read:
            return "no forward of the example inputs calls it"
        return None

    def _convert(self, name: str, layer: Any, sparsity: float, times: list[float]) -> str | None:
        """Convert a layer where that is right and faster, and return why not, if not; both times go into a list."""
        read = self._read[name]
        with torch.inference_mode():
            try:
                made = CsrLinear.of(layer)
                difference = distance([layer(read)], [made(read)])[1]
            except RuntimeError as error:
                return f"torch refuses it: {' '.join(str(error).split())[:120]}"
            if not difference <= self._tolerance:
                return f"its outputs differ by {difference:.1e} of the largest"
            times += self._timer([lambda: layer(read), lambda: made(read)])
        dense_ms, csr_ms = times
        if not csr_ms * _GAIN <= dense_ms:
            longer = f"CSR takes {csr_ms / dense_ms:.2g} times as long at {percent(sparsity)}, batch {self._batch}"
            return f"{longer}, which may be noise" if csr_ms < dense_ms else longer
        _replace(self._root, layer, made)
        why = self._differs()
        if why is not None:
            _replace(self._root, made, layer)
        return why

    def _differs(self) -> str | None:
        """Return why the model as it is now does not do, if it does not."""
        try:
            difference = distance(self._expected, answer(self._root["model"], self._inputs))[1]
        except Exception as error:  # the model's own code, which may look at the layer
            return f"the model does not run with it: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return (
            None if difference <= self._tolerance else f"the model's outputs differ by {difference:.1e} of the largest"
        )


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another one, everywhere."""
    places = [name for name, module in root.named_modules(remove_duplicate=False) if module is old]
    for place in places:
        parent, _, key = place.rpartition(".")
        setattr(root.get_submodule(parent), key, new)


def _read_by_layers(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """Return the rows that each linear layer reads when it is called first, by the layer's name."""
    found: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            given = next(tensors([args, kwargs]), None)
            if given is not None and name not in found:
                found[name] = given.detach().flatten(0, -2) if given.dim() > 1 else given.detach().unsqueeze(0)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if type(module) is nn.Linear:
                stack.callback(module.register_forward_pre_hook(note(name), with_kwargs=True).remove)
        answer(model, inputs)
    return found
