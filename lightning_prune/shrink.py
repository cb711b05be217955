"""From zeros to a smaller model: dead units are taken out, and the outputs stay what they were."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.couple import couple, plain_copy
from lightning_prune.coupling.example import answer, distance, example_of, in_full
from lightning_prune.coupling.remove import Attributes, put, remove, set_attributes
from lightning_prune.coupling.trace import import_torch_pruning
from lightning_prune.coupling.units import Group, Part, slices_of, tensors_of
from lightning_prune.shrink_report import ShrinkReport, ShrunkGroup
from lightning_prune.targets import plain_name

RECIPE_VERSION = 1
WEIGHTS, RECIPE = "model.safetensors", "shrunk.json"


class NotEqualError(ValueError):
    """A smaller model does not give the outputs of the larger one."""


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, what was done, and the recipe that makes a plain model of the same shapes."""

    model: nn.Module
    report: ShrinkReport
    recipe: dict[str, Any]


def shrink(model: nn.Module, example_inputs: Any = None, tolerance: float = 1e-4) -> Shrunk:
    """Return a smaller model without the units that are dead: those that nobody reads, or that nothing computes.

    The model given stays as it is, and the new one is dense and trains on. A group keeps one unit at least.

    Args:
        model: a model with zeros, as a structured pattern leaves it.
        example_inputs: what one forward takes: a tensor, a tuple of arguments or a dict of keywords; None for the
            module's `example_input_array`.
        tolerance: how far an output may move, as a share of the largest.

    Raises:
        NotEqualError: the smaller model's outputs are off by more than that.
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
    before = answer(*in_full(model, example))
    keeps, reasons = _settled(smaller, example, before, coupling.groups, unread, silent, tolerance)
    attributes = remove(smaller, coupling.groups, keeps)
    difference, relative = distance(before, answer(*in_full(smaller, example)))
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
        groups, coupling.refused | _frozen(model, smaller), (sizes[0], sizes[1]), difference, relative
    )
    return Shrunk(smaller, report, recipe_of(smaller, attributes, report))


def shrink_(
    model: nn.Module, example_inputs: Any = None, tolerance: float = 1e-4
) -> tuple[ShrinkReport, dict[str, Any]]:
    """Shrink a model in place, and return the report and the recipe. Raises what `shrink` raises, before any change."""
    shrunk = shrink(model, example_inputs, tolerance)
    old = tensors_of(model)
    put(model, {n: t for n, t in tensors_of(shrunk.model).items() if t.shape != old[n].shape})
    set_attributes(model, shrunk.recipe["attributes"])
    return shrunk.report, shrunk.recipe


def check_shrinkable(model: nn.Module, example_inputs: Any = None) -> None:
    """Raise, before any training, what would keep `shrink` from beginning.

    Raises:
        ValueError: there are no example inputs.
        ModuleNotFoundError: Torch-Pruning is not installed.
    """
    example_of(model, example_inputs)
    import_torch_pruning()


def recipe_of(model: nn.Module, attributes: Attributes, report: ShrinkReport) -> dict[str, Any]:
    """Return plain values from which `rebuild` makes a plain model of this one's shapes."""
    tensors = {plain_name(name): list(tensor.shape) for name, tensor in tensors_of(model).items()}
    return {
        "version": RECIPE_VERSION,
        "model": type(model).__name__,
        "tensors": tensors,
        "attributes": attributes,
        "report": report.to_dict(),
    }


def rebuild(model: nn.Module, recipe: Mapping[str, Any]) -> nn.Module:
    """Give a plain model the shapes of a recipe, in place. Its weights are to be loaded after that.

    Raises:
        ValueError: the recipe is of a newer version, or of another model; nothing is changed then.
    """
    version = recipe.get("version")
    if not isinstance(version, int) or version > RECIPE_VERSION:
        raise ValueError(
            f"the recipe has version {version!r}, this lightning_prune reads up to {RECIPE_VERSION}: update it"
        )
    tensors, shapes = tensors_of(model), recipe["tensors"]
    missing, unknown = sorted(set(shapes) - set(tensors)), sorted(set(tensors) - set(shapes))
    if missing or unknown:
        raise ValueError(
            f"the recipe belongs to another model ({recipe.get('model')}): {type(model).__name__} has no "
            f"{missing[:4]}, the recipe has no {unknown[:4]}"
        )
    for name, shape in shapes.items():
        own = tensors[name].shape
        if len(shape) != len(own) or any(new > old for new, old in zip(shape, own, strict=True)):
            raise ValueError(f"'{name}' has shape {tuple(own)}, which does not shrink to {tuple(shape)}")
    put(model, {n: tensors[n].detach().new_zeros(s) for n, s in shapes.items() if list(tensors[n].shape) != list(s)})
    set_attributes(model, recipe["attributes"])
    return model


def save_shrunk(shrunk: Shrunk, folder: str | Path) -> None:
    """Write weights (safetensors) and recipe (JSON) into a folder; nothing in it is pickled."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: t.detach().contiguous() for n, t in _saved(shrunk.model).items()}, folder / WEIGHTS)
    (folder / RECIPE).write_text(json.dumps(shrunk.recipe, indent=1))


def load_shrunk(plain_model: nn.Module, folder: str | Path) -> nn.Module:
    """Return the plain model, in place, with the shapes and weights that were saved.

    Args:
        plain_model: the model as its class makes it, not shrunk.
        folder: where `save_shrunk` wrote; or a Lightning checkpoint of a run with `PruningCallback(shrink=True)`.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it holds no shrunk model, or one of another class.
    """
    path = Path(folder)
    if path.is_file():
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        recipe = next((s["shrunk"] for s in checkpoint.get("callbacks", {}).values() if "shrunk" in s), None)
        if recipe is None:
            raise ValueError(f"{path} holds no recipe of a shrunk model: was PruningCallback(shrink=True) in its run?")
        rebuild(plain_model, recipe).load_state_dict(checkpoint["state_dict"])
        return plain_model
    for name in (WEIGHTS, RECIPE):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path / name} is missing: save_shrunk(shrunk, folder) writes it")
    from safetensors.torch import load_file

    rebuild(plain_model, json.loads((path / RECIPE).read_text()))
    target, loaded = _saved(plain_model), load_file(path / WEIGHTS)
    if set(target) != set(loaded):
        raise ValueError(f"{path / WEIGHTS} holds other tensors than its recipe: {sorted(set(target) ^ set(loaded))}")
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(loaded[name])
    return plain_model


def _saved(model: nn.Module) -> dict[str, Tensor]:
    """Return what a state_dict holds, tied tensors once."""
    saved: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            saved[name] = tensor
    return saved


def _settled(
    model: nn.Module,
    example: Any,
    before: list[Tensor],
    groups: Sequence[Group],
    unread: Sequence[Tensor],
    silent: Sequence[Tensor],
    tolerance: float,
) -> tuple[list[Tensor], list[str]]:
    """Return which units to keep. Nobody misses a unit that is not read; one that is silent is tried."""

    def fits(dead: Sequence[Tensor]) -> bool:
        trial = plain_copy(model)
        remove(trial, groups, [_kept(d) for d in dead])
        return distance(before, answer(*in_full(trial, example)))[1] <= tolerance

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
