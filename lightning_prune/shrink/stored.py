"""A smaller model as files, and a plain model with its shapes: the recipe of a shrunk model, written and followed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune import saved
from lightning_prune.coupling.remove import Attributes, put, set_attributes
from lightning_prune.coupling.units import tensors_of
from lightning_prune.shrink.recipe_schema import check_recipe, check_weights
from lightning_prune.shrink.report import ShrinkReport
from lightning_prune.targets import plain_name

RECIPE_VERSION = 1
WEIGHTS, RECIPE = "model.safetensors", "shrunk.json"


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, what was done, and the recipe that makes a plain model of the same shapes."""

    model: nn.Module
    report: ShrinkReport
    recipe: dict[str, Any]


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
        ValueError: the recipe is of a newer version, of another model, or damaged; nothing is changed then.
    """
    check_shapes(model, recipe)
    tensors, shapes = tensors_of(model), recipe["tensors"]
    put(model, {n: tensors[n].detach().new_zeros(s) for n, s in shapes.items() if list(tensors[n].shape) != list(s)})
    set_attributes(model, recipe["attributes"])
    return model


def check_shapes(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Raise ValueError if the recipe is of a newer version, of another model, or damaged."""
    version = saved.mapping("the recipe", recipe).get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= RECIPE_VERSION:
        raise ValueError(
            f"the recipe has version {version!r}, this lightning_prune reads up to {RECIPE_VERSION}: update it"
        )
    check_recipe(model, recipe)
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
        ValueError: it holds no shrunk model, one of another class, or is damaged; the model is as it was then.
    """
    path = Path(folder)
    if path.is_file():
        checkpoint = saved.mapping(str(path), saved.load(path))
        states = saved.mapping(f"{path}: callbacks", checkpoint.get("callbacks", {})).values()
        recipe = next((s["shrunk"] for s in states if isinstance(s, Mapping) and "shrunk" in s), None)
        if recipe is None:
            raise ValueError(f"{path} holds no recipe of a shrunk model: was PruningCallback(shrink=True) in its run?")
        weights = saved.at(str(path), checkpoint, "state_dict")
        _check(plain_model, recipe, str(path), weights, every=True)
        rebuild(plain_model, recipe).load_state_dict(weights)
        return plain_model
    for name in (WEIGHTS, RECIPE):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path / name} is missing: save_shrunk(shrunk, folder) writes it")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    recipe = saved.load_json(path / RECIPE)
    try:
        loaded = load_file(path / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{path / WEIGHTS} is no safetensors file, or damaged: {error}") from error
    _check(plain_model, recipe, str(path / WEIGHTS), loaded, every=False)
    target = _saved(rebuild(plain_model, recipe))
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(loaded[name])
    return plain_model


def _check(model: nn.Module, recipe: Mapping[str, Any], where: str, weights: Any, every: bool) -> None:
    """Raise ValueError unless the weights are those of the model in the shapes of the recipe."""
    check_shapes(model, recipe)
    check_weights(where, model, recipe, weights, every)


def _saved(model: nn.Module) -> dict[str, Tensor]:
    """Return what a state_dict holds, tied tensors once."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors
