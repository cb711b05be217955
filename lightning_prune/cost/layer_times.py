"""Time the layers of a model at several widths: copies of it without some units, run for a moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import nn

from lightning_prune.cost.latency import described, device_of, wait
from lightning_prune.cost.latency_table import LatencyTable, LayerTimes, never_slower
from lightning_prune.cost.layer_places import Axis, Call, Place, calls_of, is_alone, places_of
from lightning_prune.coupling.couple import couple, eagerly, plain_copy
from lightning_prune.coupling.example import call, example_of, examples_in, own_randomness, tensors, with_batch
from lightning_prune.coupling.remove import remove
from lightning_prune.coupling.units import Group
from lightning_prune.targets import plain_name

_POINTS = 5
"""At how many widths a group is measured: with one unit, with all, and evenly between."""
_BLOCKS, _BLOCK_MS, _CALLS = 7, 1.0, 100
"""Of how many blocks the least counts, how long one is to take, and how many calls it has at most."""
_TURNS = 3
"""How often whole forwards are measured at all widths."""
_FEWEST, _LONGEST_MS = 3, 100.0
"""Where blocks take long, as few as so many count, and no more than fit into so many milliseconds."""


def measure_latency(
    model: nn.Module, example_inputs: Any = None, batch: int | None = None, threads: int | None = None
) -> LatencyTable:
    """Return how long a model's layers take at several widths, here and now, where the model is.

    Each layer that can lose units is run by itself on what it gets in a forward, in copies of the model that keep one
    unit, all, or a share between of those that it computes and of those that it reads. Whole forwards, with the same
    share of all units, say what is not inside of such layers; it is shared out to them by the size of their outputs.
    Everything is run in evaluation mode, and uncompiled. The model stays as it is, and so do random states.

    Args:
        model: any module.
        example_inputs: as for `count`.
        batch: how many examples a forward has; None for as many as the example inputs have.
        threads: how many threads of the CPU to use; None for as many as torch uses now.

    Raises:
        ValueError: there are no example inputs, no units that can be taken out, or no layer that can be run by itself.
        ModuleNotFoundError: Torch-Pruning is not installed.
    """
    example = example_of(model, example_inputs)
    groups = couple(model, example).groups
    inputs = example if batch is None else with_batch(example, batch)
    with ExitStack() as stack:
        for context in (own_randomness(), using(threads), eagerly(model)):
            stack.enter_context(context)
        return _Measuring(plain_copy(model).eval(), groups, inputs).table()


class _Measuring:
    """One model, its groups of units, and what a forward takes."""

    def __init__(self, model: nn.Module, groups: Sequence[Group], inputs: Any) -> None:
        self._model, self._groups, self._inputs = model, groups, inputs
        self._device = device_of(model)
        self._known: dict[Any, tuple[float, ...]] = {}

    def table(self) -> LatencyTable:
        whole = never_slower([_POINTS], self._forwards())
        found = places_of(self._model, self._groups)
        names = [name for name, _ in self._model.named_modules()]
        calls = calls_of(self._model, names, self._inputs, [place.module for place in found])
        places = [place for place in found if is_alone(place.module, calls)]
        if not places:
            raise ValueError(
                f"no layer of {type(self._model).__name__} that can lose units can be run by itself: its latency by "
                "width cannot be measured; use budget=MACs()"
            )
        layers = [self._times(place, calls[place.module]) for place in places]
        sizes = [sum(c.values for c in calls[p.module]) if p.axes[0].computes else 0 for p in places]
        layers = self._with_rest(layers, places, sizes, whole)
        named = tuple(replace(layer, weight=plain_name(layer.weight)) for layer in layers)
        return LatencyTable(
            described(self._device), examples_in(self._inputs), torch.get_num_threads(), whole[-1], named
        )

    def _with_rest(
        self, layers: Sequence[LayerTimes], places: Sequence[Place], sizes: Sequence[int], whole: Sequence[float]
    ) -> list[LayerTimes]:
        """Return times that add up to those of whole forwards, where all groups have the same share of their units."""
        alone = sum(layer.ms[-1] for layer in layers)
        scale = min(1.0, whole[-1] / alone) if alone else 1.0
        layers = [replace(layer, ms=tuple(scale * ms for ms in layer.ms)) for layer in layers]
        left = [self._lengths(places, self._at(point)) for point in range(_POINTS)]
        inside = [sum(layer(at[layer.weight]) for layer in layers) for at in left]
        rest = never_slower([_POINTS], [max(0.0, ms - own) for ms, own in zip(whole, inside, strict=True)])
        found: list[LayerTimes] = []
        for layer, place, size in zip(layers, places, sizes, strict=True):
            axis, share = place.axes[0], size / max(1, sum(sizes))
            points = {self._length(place.weight, axis, self._at(point)): point for point in range(_POINTS)}
            more = [share * rest[points[length]] for length in layer.lengths[0]]
            inner = len(layer.ms) // len(more)
            found.append(replace(layer, ms=tuple(ms + more[i // inner] for i, ms in enumerate(layer.ms))))
        return found

    def _times(self, place: Place, calls: Sequence[Call]) -> LayerTimes:
        """Return the times of a layer, those of one that is the same in all that matters where there is one."""
        module = self._model.get_submodule(place.module)
        points = [self._points(place.weight, axis) for axis in place.axes]
        lengths = tuple(tuple(some) for some in points)
        shapes = [tuple(t.shape) for c in calls for t in tensors([c.args, c.kwargs])]
        alike = (type(module), repr(module), str(shapes), lengths, tuple(axis.dim for axis in place.axes))
        if alike not in self._known:
            grid = [self._alone(place, at) for at in product(*(some.values() for some in points))]
            self._known[alike] = tuple(never_slower([len(some) for some in lengths], grid))
        return LayerTimes(place.weight, tuple(axis.dim for axis in place.axes), lengths, self._known[alike])

    def _alone(self, place: Place, points: Sequence[int]) -> float:
        """Return the milliseconds of a layer's calls with so many of the units along each of its axes."""
        left = [group.units for group in self._groups]
        for axis, point in zip(place.axes, points, strict=True):
            for number in axis.groups:
                left[number] = self._at(point)[number]
        with self._smaller(left) as smaller:
            module = smaller.get_submodule(place.module)
            calls = calls_of(smaller, [place.module], self._inputs, [place.module])[place.module]

            def run() -> None:
                for each in calls:
                    module(*each.args, **each.kwargs)

            return self._least(run)

    def _forwards(self) -> list[float]:
        """Return the milliseconds of whole forwards at each width: the least of a few times, to and fro.

        What else the machine does for a while meets other widths each time.
        """
        found = [math.inf] * _POINTS
        for turn in range(_TURNS):
            for point in range(_POINTS) if turn % 2 else reversed(range(_POINTS)):
                found[point] = min(found[point], self._forward(self._at(point)))
        return found

    def _forward(self, left: Sequence[int]) -> float:
        """Return the milliseconds of a whole forward with so many units of each group."""
        with self._smaller(left) as smaller:
            return self._least(lambda: call(smaller, self._inputs))

    def _least(self, run: Callable[[], object]) -> float:
        with torch.inference_mode():
            return least_ms(run, self._device)

    @contextmanager
    def _smaller(self, left: Sequence[int]) -> Generator[nn.Module, None, None]:
        """Give a copy with so many units of each group, the first ones, and name them where it does not run."""
        copy = plain_copy(self._model)
        keeps = [torch.arange(group.units) < units for group, units in zip(self._groups, left, strict=True)]
        try:
            if not all(bool(keep.all()) for keep in keeps):  # a whole one may take ways that no smaller one can
                remove(copy, self._groups, keeps)
            yield copy
        except Exception as error:  # the model's own code, at a width that it was not written for
            every = sum(group.units for group in self._groups)
            raise ValueError(
                f"{type(self._model).__name__} cannot be timed with {sum(left)} of its {every} units: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _at(self, point: int) -> list[int]:
        """Return how many units each group has left at one of the widths that are measured."""
        return [max(1, round(group.units * point / (_POINTS - 1))) for group in self._groups]

    def _points(self, weight: str, axis: Axis) -> dict[int, int]:
        """Return the lengths along an axis that are measured, each with the width at which it has it; ascending."""
        return {self._length(weight, axis, self._at(point)): point for point in range(_POINTS)}

    def _length(self, weight: str, axis: Axis, left: Sequence[int]) -> int:
        gone = sum(each * (self._groups[number].units - left[number]) for number, each in axis.groups.items())
        return self._model.get_parameter(weight).shape[axis.dim] - gone

    def _lengths(self, places: Sequence[Place], left: Sequence[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place in places:
            found[place.weight] = list(self._model.get_parameter(place.weight).shape)
            for axis in place.axes:
                found[place.weight][axis.dim] = self._length(place.weight, axis, left)
        return found


def least_ms(run: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds that one call takes in the fastest of a few blocks of calls."""
    run()
    calls = max(1, min(_CALLS, math.ceil(_BLOCK_MS / max(_block_ms(run, device, 1), 1e-6))))
    times: list[float] = []
    while len(times) < _BLOCKS and (len(times) < _FEWEST or calls * sum(times) < _LONGEST_MS):
        times.append(_block_ms(run, device, calls))
    return min(times)


def _block_ms(run: Callable[[], object], device: torch.device, calls: int) -> float:
    wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    wait(device)
    return 1e3 * (time.perf_counter() - start) / calls


@contextmanager
def using(threads: int | None) -> Generator[None, None, None]:
    """Have torch use so many threads of the CPU for a while; None for as many as it does."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)
