"""From zeros to a smaller model: dead units are taken out, and the outputs stay what they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.couple import couple, plain_copy
from lightning_prune.coupling.example import answer, distance, example_of, in_full
from lightning_prune.coupling.remove import put, remove, set_attributes
from lightning_prune.coupling.trace import import_torch_pruning
from lightning_prune.coupling.units import Group, Part, slices_of, tensors_of
from lightning_prune.shrink.pretrained import pretrained_in, say_sizes
from lightning_prune.shrink.report import ShrinkReport, ShrunkGroup
from lightning_prune.shrink.stored import Shrunk, recipe_of
from lightning_prune.shrink.taken import taken_of


class NotEqualError(ValueError):
    """A smaller model does not give the outputs of the larger one."""


def shrink(model: nn.Module, example_inputs: Any = None, tolerance: float = 1e-4) -> Shrunk:
    """Return a smaller model without the units that are dead: those that nobody reads, or that nothing computes.

    The model given stays as it is, and the new one is dense and trains on. A group keeps one unit at least.

    Args:
        model: a model with zeros, as a structured pattern leaves it.
        example_inputs: what one forward takes: a tensor, a tuple of arguments or a dict of keywords; None for the
            module's `example_input_array`.
        tolerance: how far an output may move, as a share of the largest.

    Raises:
        NotEqualError: the smaller model's outputs are off by more than that, in evaluation or in training mode.
        ValueError: there are no example inputs, or the model does not run on them.
        ModuleNotFoundError: Torch-Pruning is not installed.
    """
    example = example_of(model, example_inputs)
    coupling = couple(model, example)
    smaller = plain_copy(model)
    for parameter, original in zip(smaller.parameters(), model.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    tensors = tensors_of(model)
    unread = [_unread(group, tensors) for group in coupling.groups]
    silent = [_silent(group, tensors) for group in coupling.groups]
    training = _trains(model, example)
    before = _answers(model, example, training)
    keeps, reasons = _settled(smaller, example, before, coupling.groups, unread, silent, tolerance, training)
    taken = taken_of(model, coupling.groups, keeps)
    attributes = remove(smaller, coupling.groups, keeps)
    difference, relative = distance(before, _answers(smaller, example, training))
    if not relative <= tolerance:
        raise NotEqualError(
            f"without its dead units the outputs of {type(model).__name__} differ by {difference:.3g}, {relative:.3g} "
            f"of the largest; tolerance={tolerance}"
        )
    groups = [
        ShrunkGroup(group.name, group.units, int(keep.sum()), reason)
        for group, keep, reason in zip(coupling.groups, keeps, reasons, strict=True)
    ]
    sizes = tuple(sum(p.numel() for p in each.parameters()) for each in (model, smaller))
    report = ShrinkReport(
        groups,
        coupling.refused | _frozen(model, smaller),
        (sizes[0], sizes[1]),
        difference,
        relative,
        say_sizes(smaller),
    )
    return Shrunk(smaller, report, recipe_of(smaller, attributes, report, taken))


def shrink_(
    model: nn.Module, example_inputs: Any = None, tolerance: float = 1e-4
) -> tuple[ShrinkReport, dict[str, Any]]:
    """Shrink a model in place, and return the report and the recipe. Raises what `shrink` raises, before any change."""
    shrunk = shrink(model, example_inputs, tolerance)
    old = tensors_of(model)
    put(model, {n: t for n, t in tensors_of(shrunk.model).items() if t.shape != old[n].shape})
    set_attributes(model, shrunk.recipe["attributes"])
    for path, module in pretrained_in(shrunk.model).items():
        vars(model.get_submodule(path).config).update(vars(module.config))  # pyright: ignore[reportArgumentType]
    return shrunk.report, shrunk.recipe


def check_shrinkable(model: nn.Module, example_inputs: Any = None) -> None:
    """Raise, before any training, what would keep `shrink` from beginning.

    Raises:
        ValueError: there are no example inputs.
        ModuleNotFoundError: Torch-Pruning is not installed.
    """
    example_of(model, example_inputs)
    import_torch_pruning()


def _answers(model: nn.Module, example: Any, training: bool) -> list[Tensor]:
    """Return the outputs in evaluation mode, and in training mode without dropout where it is to be tried."""
    model, example = in_full(model, example)
    return [t for mode in ((False, True) if training else (False,)) for t in answer(model, example, mode)]


def _trains(model: nn.Module, example: Any) -> bool:
    """Whether the model gives outputs for its example inputs in training mode; it may ask for targets there."""
    try:
        answer(*in_full(model, example), training=True)
    except Exception:  # the model's own code, asked for what it may not be able to do
        return False
    return True


def _settled(
    model: nn.Module,
    example: Any,
    before: list[Tensor],
    groups: Sequence[Group],
    unread: Sequence[Tensor],
    silent: Sequence[Tensor],
    tolerance: float,
    training: bool,
) -> tuple[list[Tensor], list[str]]:
    """Return which units to keep. Nobody misses a unit that is not read; one that is silent is tried."""

    def fits(dead: Sequence[Tensor]) -> bool:
        trial = plain_copy(model)
        remove(trial, groups, [_kept(d) for d in dead])
        return distance(before, _answers(trial, example, training))[1] <= tolerance

    dead, reasons = list(unread), [""] * len(groups)
    more = [i for i, (u, s) in enumerate(zip(unread, silent, strict=True)) if bool((s & ~u).any())]
    if more and fits([u | s for u, s in zip(unread, silent, strict=True)]):
        dead, more = [u | s for u, s in zip(unread, silent, strict=True)], []
    for i in more:
        tried = [*dead[:i], unread[i] | silent[i], *dead[i + 1 :]]
        if fits(tried):
            dead = tried
        else:
            number = int((silent[i] & ~unread[i]).sum())
            reasons[i] = f"{number} units have no weights left, but what follows turns their 0 into something else"
    for i, group in enumerate(groups):
        if dead[i].all():
            reasons[i] = f"all {group.units} units are dead; one stays"
    return [_kept(d) for d in dead], reasons


def _frozen(model: nn.Module, smaller: nn.Module) -> dict[str, str]:
    """Return the frozen weights that kept their shape, and the reason."""
    pairs = zip(model.named_parameters(), smaller.parameters(), strict=True)
    return {n: "frozen" for (n, p), q in pairs if not p.requires_grad and p.dim() > 1 and p.shape == q.shape}


def _kept(dead: Tensor) -> Tensor:
    keep = ~dead
    if not keep.any():
        keep[0] = True
    return keep


def _unread(group: Group, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return which units nobody reads: all that multiplies them is zero."""
    return ~_any(group, list(group.of("in")), tensors)


def _silent(group: Group, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return which units are 0 whatever comes in: no weights and no bias, or a norm that scales and shifts to 0."""
    norms, biases = list(group.of("norm")), list(group.of("bias"))
    norm_modules = {part.name.rpartition(".")[0] for part in norms}
    shifts = [part for part in biases if part.name.rpartition(".")[0] in norm_modules]
    scaled = _any(group, [*norms, *shifts], tensors) if norms else torch.ones(group.units, dtype=torch.bool)
    computed = _any(group, [*group.of("out"), *biases], tensors)
    return ~(scaled & computed) if norms else ~computed


def _any(group: Group, parts: Sequence[Part], tensors: Mapping[str, Tensor]) -> Tensor:
    found = torch.zeros(group.units, dtype=torch.bool)
    for part in parts:
        found |= (slices_of(tensors[part.name].detach(), part) != 0).any(1).cpu()
    return found
