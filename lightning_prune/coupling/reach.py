"""Which weights the outputs depend on, in evaluation and in training mode, and by which kind of way."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_prune.coupling.example import call, own_randomness, tensors
from lightning_prune.coupling.layers import layer_of
from lightning_prune.coupling.training import mode


@dataclass(frozen=True)
class Reach:
    """What a forward comes by.

    Attributes:
        parameters: the names of those on which the outputs depend.
        ways: how many operations of each kind lead to the outputs.
    """

    parameters: frozenset[str]
    ways: Counter[str]


def reach_of(model: nn.Module, example_inputs: Any, training: bool = False) -> Reach:
    """Return what the outputs for the example inputs depend on.

    Args:
        model: a model all of whose parameters require gradients.
        example_inputs: what one forward takes.
        training: in training mode; else in evaluation mode.
    """
    with warnings.catch_warnings(), torch.enable_grad(), own_randomness(), mode(model, training):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        waiting: list[Any] = [t.grad_fn for t in tensors(call(model, example_inputs)) if t.grad_fn is not None]
    seen: set[Any] = set(waiting)
    found: set[int] = set()
    ways: Counter[str] = Counter()
    while waiting:
        node = waiting.pop()
        ways[type(node).__name__] += 1
        found.add(id(getattr(node, "variable", None)))
        later = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= later
        waiting += later
    return Reach(frozenset(name for name, p in model.named_parameters() if id(p) in found), ways)


def both_ways(model: nn.Module, example_inputs: Any) -> tuple[Reach, Reach | None]:
    """Return what is reached in evaluation mode, and in training mode where another way is taken there.

    None also stands for a model that does not run in training mode on its example inputs, without targets for one.

    Raises:
        ValueError: the model does not run on the example inputs in evaluation mode.
    """
    try:
        evaluated = reach_of(model, example_inputs)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} could not be traced on its example inputs: {type(error).__name__}: {error}"
        ) from error
    try:
        trained = reach_of(model, example_inputs, training=True)
    except Exception:  # the model's own code, asked for what it may not be able to do
        return evaluated, None
    return evaluated, trained if trained != evaluated else None


def unreached(model: nn.Module, reached: Sequence[Reach]) -> dict[str, str]:
    """Return the parameters of two or more dimensions that no forward came by, and the reason for each."""
    found = frozenset[str]().union(*(reach.parameters for reach in reached))
    return {n: "the outputs do not depend on it" for n, p in model.named_parameters() if p.dim() > 1 and n not in found}


def widths_unread(model: nn.Module, reached: Sequence[Reach]) -> dict[int, str]:
    """Return how many channels each layer reads that no forward came by -> the layer. What it reads is not known.

    A layer of a part that no forward comes by at all, such as a teacher, is taken to read what a layer before it in
    that part gives, where one gives as many channels.
    """
    found = frozenset[str]().union(*(reach.parameters for reach in reached))
    names = {id(p): n for n, p in model.named_parameters()}
    widths: dict[int, str] = {}
    given: dict[str, set[int]] = {}
    for path, module in model.named_modules():
        own = [names[id(p)] for p in vars(module)["_parameters"].values() if p is not None]
        if not own or any(name in found for name in own):
            continue
        inside = given.setdefault(_part(model, path, names, found), set())
        for width in set(_reads(module)) - inside:
            widths.setdefault(width, path)
        inside |= set(_gives(module))
    return widths


def _part(model: nn.Module, path: str, names: Mapping[int, str], found: frozenset[str]) -> str:
    """Return the largest part of a model around a module that no forward came by."""
    keys = path.split(".")
    for end in range(1, len(keys)):
        part = model.get_submodule(".".join(keys[:end]))
        if not any(names[id(p)] in found for p in part.parameters()):
            return ".".join(keys[:end])
    return path


def _gives(module: nn.Module) -> tuple[int, ...]:
    if isinstance(module, nn.Embedding):
        return (module.embedding_dim,)
    if isinstance(module, nn.RNNBase):
        return (module.hidden_size * (2 if module.bidirectional else 1),)
    outputs = ("out_features", "out_channels", "nf", "embed_dim")
    return tuple(int(getattr(module, name)) for name in outputs if isinstance(getattr(module, name, None), int))


def _reads(module: nn.Module) -> tuple[int, ...]:
    if isinstance(module, nn.Embedding):
        return ()
    if isinstance(module, nn.MultiheadAttention):
        return (module.embed_dim, module.kdim, module.vdim)
    if isinstance(module, nn.RNNBase):
        return (module.input_size,)
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return (module.normalized_shape[-1],)
    layer = layer_of(module)
    if layer is None:
        return ()
    sizes = layer.size(module)
    inputs = ("in_features", "in_channels", "nx", "num_features", "num_channels")
    return tuple(sizes[name] for name in inputs if name in sizes)
