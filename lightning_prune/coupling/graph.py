"""From a model and example inputs to groups of units: a walk through Torch-Pruning's dependency graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from lightning_prune.coupling.layers import layer_of, mixes_channels
from lightning_prune.coupling.ties import Ties
from lightning_prune.coupling.trace import trace
from lightning_prune.coupling.units import Group

OUTPUT = "its channels are the model's output"
ALONE = "it has one channel"


class Place(NamedTuple):
    """A position in a node of the graph, reached from an output channel of the layer where the walk began."""

    idx: int
    root_idx: int


def groups_of(
    model: nn.Module, example_inputs: Any, in_training: nn.Module | None = None
) -> tuple[list[Group], dict[str, str]]:
    """Return the groups of output channels that the graph shows, and why other weights are in none.

    Args:
        model: a copy that may be changed: all of it requires gradients after that.
        example_inputs: what one forward takes.
        in_training: another copy, where other ways are taken in training mode: what hangs together by one of the two
            hangs together.

    Raises:
        ModuleNotFoundError: Torch-Pruning is not installed.
        ValueError: the model does not run on the example inputs.
    """
    ties = Ties(model)
    _tie_all(ties, model, trace(model, example_inputs))
    if in_training is not None:
        _tie_all(ties, in_training, trace(in_training, example_inputs, training=True))
    return ties.groups(), ties.refused()


def _tie_all(ties: Ties, model: nn.Module, graph: Any) -> None:
    """Tie what the graph of a model shows to hang together."""
    names = {module: path for path, module in model.named_modules()}
    parameters = {parameter: name for name, parameter in model.named_parameters()}
    seen = set[tuple[nn.Module, int]]()
    limit = 1 + max((size for p in model.parameters() for size in p.shape), default=0)
    for module, node in list(graph.module2node.items()):
        layer = layer_of(module) if module in names else None
        number = layer.outputs(module) if layer is not None else None
        if not number or all((module, i) in seen for i in range(number)):
            continue
        root = (names[module], module)
        if number == 1:  # it stays, and where others meet it they do not hang on it: it is spread over all of them
            leaves = any(_is_output(target) for target, *_ in _walk(graph, node, 1, limit))
            ties.refuse(ties.of(*root, 0), OUTPUT if leaves else ALONE)
            continue
        for target, way_out, places, met in _walk(graph, node, number, limit):
            for one, other in met:
                ties.join(ties.of(*root, one), ties.of(*root, other))
            if target.module in names:
                _tie_layer(ties, target, way_out, places, names, root)
                seen |= {(target.module, place.idx) for place in places if way_out}
            else:
                _tie_other(ties, parameters, target, places, root)


def _walk(
    graph: Any, start: Any, number: int, limit: int
) -> Iterator[tuple[Any, bool, list[Place], list[tuple[int, int]]]]:
    """Iterate over what the channels of a layer reach: the node, whether as its outputs, positions reached first.

    Channels that reach a position later go no further; they are paired with the channel that was there before.
    Torch-Pruning's own walk forgets who meets in a position, and takes forever where paths cross often.

    Args:
        graph: the graph.
        start: the layer's node.
        number: how many output channels it has.
        limit: positions lie below it; others come from a wrong guess, and might grow from round to round.
    """
    output = graph.get_pruner_of_module(start.module).prune_out_channels
    waiting = [(start, output, [Place(i, i) for i in range(number)])]
    first: dict[tuple[Any, Any, int], int] = {}  # who was there first
    while waiting:
        node, handler, reached = waiting.pop()
        places: list[Place] = []
        met: list[tuple[int, int]] = []
        for place in reached:
            before = first.get((node, handler, place.idx))
            if before is None:
                first[node, handler, place.idx] = place.root_idx
                places.append(place)
            elif before != place.root_idx:
                met.append((before, place.root_idx))
        yield node, graph.is_out_channel_pruning_fn(handler), places, met
        for dependency in node.dependencies if places else ():
            if dependency.is_triggered_by(handler) and not _spread(graph, dependency):
                there = [place for place in _mapped(dependency, places) if 0 <= place.idx < limit]
                waiting.append((dependency.target, dependency.handler, there))


def _spread(graph: Any, dependency: Any) -> bool:
    """Whether the way leads back to a layer of one channel, which is spread over all of those that meet it."""
    module = dependency.target.module
    layer = layer_of(module) if isinstance(module, nn.Module) else None
    return layer is not None and layer.outputs(module) == 1 and graph.is_out_channel_pruning_fn(dependency.handler)


def _is_output(node: Any) -> bool:
    return type(node.module).__name__ == "_OutputOp"


def _mapped(dependency: Any, places: list[Place]) -> list[Place]:
    """Return the positions at the other end of an edge; none where the graph cannot say: the trial will tell."""
    found: Any = places
    try:
        for mapping in dependency.index_mapping:
            found = found if mapping is None else mapping(found)
    except (ArithmeticError, IndexError):  # a size that was guessed as 0, a position that was guessed wrong
        return []
    return [Place(place.idx, place.root_idx) for place in found if place.root_idx is not None]


def _tie_layer(
    ties: Ties, node: Any, way_out: bool, places: list[Place], names: Mapping[Any, str], root: tuple[str, nn.Module]
) -> None:
    """Tie what a layer has for its channels to the root's."""
    name, module = names[node.module], node.module
    layer, reason = layer_of(module), None
    if mixes_channels(module):
        reason = f"{name} normalises over its channels"
    elif layer is None:
        reason = f"{name} ({type(module).__name__}) is a layer whose channels cannot be taken apart"
    elif way_out and not node.outputs:
        reason = OUTPUT
    entries = None if layer is None else layer.outgoing if way_out else layer.incoming
    for position, channel in places:
        unit = ties.of(*root, channel)
        if reason:
            ties.refuse(unit, reason)
        for attribute, dim, place, role in entries(module, position) if entries else ():
            ties.tie(unit, name, attribute, dim, place, role)


def _tie_other(
    ties: Ties, parameters: Mapping[Any, str], node: Any, places: list[Place], root: tuple[str, nn.Module]
) -> None:
    """Tie a parameter that belongs to no layer, or see that channels leave the model."""
    if isinstance(node.module, nn.Parameter):
        name, dim = parameters[node.module], node.pruning_dim % node.module.dim()
        for position, channel in places:
            ties.tie(ties.of(*root, channel), "", name, dim, position, "norm")
    elif _is_output(node):
        for place in places:
            ties.refuse(ties.of(*root, place.root_idx), OUTPUT)
