"""A smaller model as files, and a plain model with its shapes: the recipe of a shrunk model, written and followed."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune import saved
from lightning_prune.coupling.remove import Attributes, put, set_attributes
from lightning_prune.coupling.units import tensors_of
from lightning_prune.export import load_safetensors
from lightning_prune.shrink.recipe_schema import check_recipe, check_weights
from lightning_prune.shrink.report import ShrinkReport
from lightning_prune.shrink.taken import Taken, take_out
from lightning_prune.targets import plain_name

RECIPE_VERSION = 2  # 2 says which entries were taken out; 1 says the shapes alone
WEIGHTS, RECIPE = "model.safetensors", "shrunk.json"
SHRUNK = "shrunk"
"""The key of recipes in checkpoints and in compact files."""


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, what was done, and the recipe that makes a plain model of the same shapes."""

    model: nn.Module
    report: ShrinkReport
    recipe: dict[str, Any]


def recipe_of(
    model: nn.Module, attributes: Attributes, report: ShrinkReport, taken: Taken | None = None
) -> dict[str, Any]:
    """Return plain values from which `rebuild` makes a plain model of this one's shapes.

    Args:
        model: the smaller model.
        attributes: what changed of its modules' attributes.
        report: what was done.
        taken: which entries were taken out; None for a model that lost none.
    """
    taken = taken or Taken({}, {})
    passing = _passing(model) - set(taken.removed)
    tensors = {plain_name(n): list(t.shape) for n, t in tensors_of(model).items() if plain_name(n) not in passing}
    return {
        "version": RECIPE_VERSION,
        "model": type(model).__name__,
        "tensors": tensors,
        "attributes": attributes,
        **taken.to_dict(),
        "report": report.to_dict(),
    }


def shapes_recipe(model: nn.Module, attributes: Attributes) -> dict[str, Any]:
    """Return the recipe of a model of which nobody knows what was taken out: shapes and attributes alone."""
    passing = _passing(model)
    tensors = {plain_name(n): list(t.shape) for n, t in tensors_of(model).items() if plain_name(n) not in passing}
    return {"version": RECIPE_VERSION, "model": type(model).__name__, "tensors": tensors, "attributes": attributes}


def _passing(model: nn.Module) -> set[str]:
    """Return the buffers that no state_dict holds: the model makes them anew, in whatever shape it needs."""
    held = {plain_name(name) for name in model.state_dict(keep_vars=True)}
    return {plain_name(name) for name, _ in model.named_buffers()} - held


def rebuild(model: nn.Module, recipe: Mapping[str, Any]) -> nn.Module:
    """Give a plain model the shapes of a recipe, in place. Its weights are to be loaded after that.

    Raises:
        ValueError: the recipe is of a newer version, of another model, or damaged; nothing is changed then.
    """
    check_shapes(model, recipe)
    tensors, shapes = tensors_of(model), _shapes(model, recipe)
    names = {plain_name(name): name for name in tensors}
    smaller = {names[n]: tensors[names[n]].detach().new_zeros(s) for n, s in shapes.items()}
    # No file brings the values of buffers that a state_dict leaves out.
    held = {n: tensors[names[n]].detach() for n in _passing(model) & set(recipe.get("removed", {}))}
    take_out(held, {**recipe, "zeros": {}}, {n: n for n in held if list(held[n].shape) != list(shapes[n])})
    smaller |= {names[n]: tensor.clone() for n, tensor in held.items()}
    put(model, {n: t for n, t in smaller.items() if t.shape != tensors[n].shape})
    set_attributes(model, recipe["attributes"])
    return model


def check_shapes(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Raise ValueError if the recipe is of a newer version, of another model, or damaged."""
    version = saved.mapping("the recipe", recipe).get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= RECIPE_VERSION:
        raise ValueError(
            f"the recipe has version {version!r}, this lightning_prune reads up to {RECIPE_VERSION}: update it"
        )
    saved.mapping("the recipe: tensors", saved.at("the recipe", recipe, "tensors"))
    saved.mapping("the recipe: removed", recipe.get("removed", {}))
    tensors, shapes = tensors_of(model), _shapes(model, recipe)
    names = {plain_name(name): name for name in tensors}
    missing, unknown = sorted(set(shapes) - set(names)), sorted(set(names) - set(shapes))
    if missing or unknown:
        raise ValueError(
            f"the recipe belongs to another model ({recipe.get('model')}): {type(model).__name__} has no "
            f"{missing[:4]}, the recipe has no {unknown[:4]}"
        )
    check_recipe(model, recipe)
    for name, shape in shapes.items():
        own = tensors[names[name]]
        if not _shrinks(own, shape):
            raise ValueError(f"'{name}' has shape {tuple(own.shape)}, which does not shrink to {tuple(shape)}")


def _shapes(model: nn.Module, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shapes that a recipe asks for, and those of buffers that the model makes anew."""
    own = {plain_name(name): list(tensor.shape) for name, tensor in tensors_of(model).items()}
    return {**recipe["tensors"], **{name: own[name] for name in _passing(model) - set(recipe.get("removed", {}))}}


def _shrinks(own: Tensor, shape: Sequence[int]) -> bool:
    """Whether a tensor can become one of the shape by losing entries."""
    return len(shape) == own.dim() and all(new <= old for new, old in zip(shape, own.shape, strict=True))


def save_shrunk(shrunk: Shrunk, folder: str | Path) -> None:
    """Write weights (safetensors) and recipe (JSON) into a folder; nothing in it is pickled."""
    write(shrunk.model, shrunk.recipe, Path(folder))


def write(model: nn.Module, recipe: Mapping[str, Any], folder: Path) -> None:
    """Write the weights of a smaller model and its recipe into a folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: t.detach().contiguous() for n, t in _saved(model).items()}, folder / WEIGHTS)
    (folder / RECIPE).write_text(json.dumps(recipe, indent=1), encoding="utf-8")


def load_shrunk(plain_model: nn.Module, folder: str | Path) -> nn.Module:
    """Return the plain model, in place, with the shapes and weights that were saved.

    Args:
        plain_model: the model as its class makes it, not shrunk.
        folder: where `save_shrunk` wrote; or a Lightning checkpoint of a run with `PruningCallback(shrink=True)`; or a
            compact file of a shrunk model that `lightning-prune export` wrote.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it holds no shrunk model, one of another class, or is damaged; the model is as it was then.
    """
    path = Path(folder)
    if path.is_file():
        read = from_safetensors if path.suffix == ".safetensors" else saved.load
        checkpoint = saved.mapping(str(path), read(path))
        recipes = recipes_in(checkpoint, str(path))
        if not recipes:
            raise ValueError(f"{path} holds no recipe of a shrunk model: {_why_none(checkpoint, path)}")
        weights = saved.at(str(path), checkpoint, "state_dict")
        trial = plain_model if len(recipes) == 1 else copy.deepcopy(plain_model)  # nothing is changed before all fits
        for recipe in recipes[:-1]:
            rebuild(trial, recipe)
        _check(trial, recipes[-1], str(path), weights, every=True)
        for recipe in recipes:
            rebuild(plain_model, recipe)
        plain_model.load_state_dict(weights)
        return plain_model
    for name in (WEIGHTS, RECIPE):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path / name} is missing: save_shrunk(shrunk, folder) writes it")
    recipe = saved.load_json(path / RECIPE)
    loaded = load_safetensors(path / WEIGHTS).tensors
    _check(plain_model, recipe, str(path / WEIGHTS), loaded, every=False)
    target = _saved(rebuild(plain_model, recipe))
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(loaded[name])
    return plain_model


def _check(model: nn.Module, recipe: Mapping[str, Any], where: str, weights: Any, every: bool) -> None:
    """Raise ValueError unless the weights are those of the model in the shapes of the recipe."""
    check_shapes(model, recipe)
    check_weights(where, model, _shapes(model, recipe), weights, every)


def recipes_in(checkpoint: Mapping[str, Any], where: str = "the checkpoint") -> list[dict[str, Any]]:
    """Return the recipes in a Lightning checkpoint, in the order in which they were followed; none if not shrunk."""
    states = saved.mapping(f"{where}: callbacks", checkpoint.get("callbacks", {})).values()
    return [state[SHRUNK] for state in states if isinstance(state, Mapping) and SHRUNK in state]


def from_safetensors(file: Path) -> dict[str, Any]:
    """Return what a .safetensors file holds: its tensors, or a checkpoint of these and of the recipes kept beside them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    content = load_safetensors(file)
    if SHRUNK not in content.extra:
        return dict(content.tensors)
    recipes = saved.sequence(f"{file}: {SHRUNK}", content.extra[SHRUNK])
    return {"state_dict": content.tensors, "callbacks": {str(i): {SHRUNK: each} for i, each in enumerate(recipes)}}


def _why_none(checkpoint: Mapping[str, Any], path: Path) -> str:
    if not any(key.startswith("PruningCallback") for key in checkpoint.get("callbacks", {})):
        return "there was no PruningCallback in its run"
    beside = sorted(path.parent.glob("shrunk*.ckpt"))
    small = f"; {beside[-1]} beside it holds the shrunk one" if beside else ""
    return (
        "it was written before its run shrank the model, or by a run without shrink=True, and holds the plain model's "
        f"shapes: plain_model.load_state_dict(torch.load({path.name!r})['state_dict']){small}"
    )


def _saved(model: nn.Module) -> dict[str, Tensor]:
    """Return what a state_dict holds, tied tensors once."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors
