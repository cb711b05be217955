"""A device simulated on the CPU, with CUDA's rules and counts of what is costly on a GPU.

    with simulated() as device:
        model.to(device.device)
        with device.counted() as counts:
            pruner.update(step)
        assert counts.synchronizations == 1, counts.where

A tensor on it says `simulated:0` and holds one on the CPU, with which each operation is carried out. Moved modules keep
their parameters, as on CUDA. Not simulated: the kernels' own rounding, autocast, streams, cuDNN and its RNNs; and what
asks for `"cuda"` by name takes the other branch.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from tests.device.counting import Counts, cost_of
from tests.device.drawing import Draws, Generators, generator_of
from tests.device.memory import Memory
from tests.device.rules import check_devices, check_generator, tensors_of

DEVICE = torch.device("lazy", 0)
"""A type that torch knows and that nothing here uses. Its backward runs in the thread that asks for it, and nothing has
to be registered with torch for it, so that other tests of the process see no accelerator."""


class SimulatedTensor(Tensor):
    """A tensor on the device."""

    held: Tensor
    on: Device
    __torch_function__ = cast(Any, torch._C._disabled_torch_function_impl)

    @staticmethod
    def __new__(cls, held: Tensor, on: Device) -> SimulatedTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=on.device,
        )

    def __init__(self, held: Tensor, on: Device) -> None:
        self.held, self.on = held, on

    @property
    def data(self) -> Tensor:
        return cast(Any, Tensor.data).__get__(self)

    @data.setter
    def data(self, value: Tensor) -> None:  # pyright: ignore
        cast(Any, Tensor.data).__set__(self, value)
        assert isinstance(value, SimulatedTensor)
        self.held = value.held

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:  # pyright: ignore
        return f"simulated {self.held!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone()
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        else:
            copied.requires_grad_(self.requires_grad)
        copied.grad = None if self.grad is None else self.grad.detach().clone()
        return memo.setdefault(id(self), copied)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Have a file hold a copy on the CPU."""
        return self.detach().cpu().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        on = next(t.on for t in tensors_of((args, kwargs)) if isinstance(t, SimulatedTensor))
        return on.carry_out(func, args, kwargs or {})


class Device:
    """The simulated device.

    Attributes:
        device: what to move models and tensors to.
        memory: how many bytes lie on it.
    """

    def __init__(self, draws: Draws) -> None:
        self.device = DEVICE
        self.memory = Memory()
        self.draws = draws
        self._counts: list[Counts] = []

    @contextmanager
    def counted(self) -> Generator[Counts, None, None]:
        """Count what is done on the device in the meantime."""
        counts = Counts(self.memory.now, self.memory.now)
        outer, self.memory.peak = self.memory.peak, self.memory.now
        self._counts.append(counts)
        try:
            yield counts
        finally:
            counts.peak = self.memory.peak
            self.memory.peak = max(outer, counts.peak)
            self._counts.remove(counts)

    def carry_out(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Check an operation, count it, and carry it out on the CPU."""
        here = [t for t in tensors_of((args, kwargs)) if isinstance(t, SimulatedTensor)]
        asked = kwargs.get("device")
        to_here = bool(here) if asked is None else torch.device(asked).type == self.device.type
        if not here and not to_here:
            return self._drawn(func, args, kwargs, to_here=False)
        check_devices(func, args, kwargs, self.device)
        for counts in self._counts:
            counts.add(func, cost_of(func, args, kwargs, self.device))
        if asked is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        given, named = tree_map(_held, args), tree_map(_held, kwargs)
        result = self._drawn(func, given, named, to_here)
        if func._schema.name == "aten::copy_":
            return args[0]
        if not to_here:
            return result
        known = {id(t.held): t for t in here}
        return tree_map(lambda value: known[id(value)] if id(value) in known else self._put(value), result)

    def _drawn(self, func: Any, args: Any, kwargs: dict[str, Any], to_here: bool) -> Any:
        """Carry out an operation, with the device's own random numbers where it draws some there."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        generator = generator_of(args, kwargs)
        if generator is not None:
            check_generator(func, to_here, self.draws.made(generator), self.device)
        elif to_here:
            with self.draws.own():
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _put(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, SimulatedTensor):
            return value
        self.memory.add(value)
        return SimulatedTensor(value, self)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, SimulatedTensor) else value


class _Mode(TorchDispatchMode):
    """Sees what makes tensors on the device out of none that is there."""

    def __init__(self, on: Device) -> None:
        super().__init__()
        self.on = on

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.on.carry_out(func, args, kwargs or {})


@contextmanager
def simulated(same_draws: bool = False) -> Generator[Device, None, None]:
    """Offer a simulated device for as long as the context lasts.

    Args:
        same_draws: generators of the device draw what those of the CPU draw from the same seed. On CUDA they do not.
    """
    on = Device(Draws(same_draws))
    with _as_on_cuda(on.device.type), Generators(on.draws, on.device), _Mode(on):
        yield on


@contextmanager
def _as_on_cuda(device_type: str) -> Generator[None, None, None]:
    """Have torch treat the device as it treats CUDA where it asks for a tensor's class, or for what it can swap."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    lifts = torch._C._only_lift_cpu_tensors()
    places: list[Any] = [_foreach_utils, sys.modules[Optimizer.__module__]]
    devices = _foreach_utils._get_foreach_kernels_supported_devices
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)
    for place in places:
        place._foreach_supported_types.append(SimulatedTensor)
        place._get_foreach_kernels_supported_devices = lambda: [*devices(), device_type]
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        torch._C._set_only_lift_cpu_tensors(lifts)
        for place in places:
            place._foreach_supported_types.remove(SimulatedTensor)
            place._get_foreach_kernels_supported_devices = devices
