"""What the recipe of a shrunk model must be made of, and its weights: checked before the model is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_prune import saved
from lightning_prune.coupling.units import tensors_of
from lightning_prune.targets import plain_name

_RECIPE = "the recipe"


def check_recipe(model: nn.Module, recipe: Mapping[str, Any]) -> None:
    """Look at the shapes and attributes of a recipe for a model.

    Raises:
        ValueError: a field is missing or of another type, a shape is none, or an attribute is not one that the model
            has a whole number in.
    """
    shapes = saved.mapping(f"{_RECIPE}: tensors", saved.at(_RECIPE, recipe, "tensors"))
    for name, shape in shapes.items():
        for size in saved.sequence(f"{_RECIPE}: tensors[{name!r}]", shape):
            saved.integer(f"{_RECIPE}: tensors[{name!r}]: a size", size)
    for kind in ("removed", "zeros"):
        _check_positions(f"{_RECIPE}: {kind}", saved.mapping(f"{_RECIPE}: {kind}", recipe.get(kind, {})), shapes)
    modules = dict(model.named_modules(remove_duplicate=False))
    attributes = saved.mapping(f"{_RECIPE}: attributes", saved.at(_RECIPE, recipe, "attributes"))
    for path, values in attributes.items():
        where = f"{_RECIPE}: attributes[{path!r}]"
        if path not in modules:
            raise ValueError(f"{where} is of a module that {type(model).__name__} does not have")
        for key, value in saved.mapping(where, values).items():
            own = getattr(modules[path], key, None)
            if isinstance(own, bool) or not isinstance(own, int):
                raise ValueError(f"{where} sets {key!r}, in which {type(modules[path]).__name__} has no whole number")
            saved.integer(f"{where}[{key!r}]", value, 1, max(1, own))


def _check_positions(where: str, named: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Raise ValueError unless these are positions along dimensions of the recipe's tensors, such as "0-3,7"."""
    for name, dims in named.items():
        if name not in shapes:
            raise ValueError(f"{where} has {name!r}, which is not among its tensors")
        for dim, positions in saved.mapping(f"{where}[{name!r}]", dims).items():
            if not dim.isdecimal() or int(dim) >= len(shapes[name]):
                raise ValueError(f"{where}[{name!r}] has a dimension {dim!r} that the tensor does not have")
            said = saved.text(f"{where}[{name!r}][{dim!r}]", positions)
            if said and not re.fullmatch(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*", said):
                raise ValueError(f"{where}[{name!r}][{dim!r}] is {said[:40]!r}; it must be positions such as '0-3,7'")


def check_weights(where: str, model: nn.Module, shapes: Mapping[str, Any], weights: Any, every: bool) -> None:
    """Look at the weights that are to be loaded into a model once it has the shapes of a recipe.

    Args:
        where: the file.
        model: the plain model.
        shapes: plain name -> the shape that the recipe asks for, checked.
        weights: name -> tensor.
        every: tied tensors are there under each of their names.

    Raises:
        ValueError: they are not the tensors of that model in these shapes.
    """
    found = saved.mapping(where, weights)
    first = {id(tensor): name for name, tensor in tensors_of(model).items()}
    expected: dict[str, Any] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if every or id(value) not in seen:
            expected[name] = value
        seen.add(id(value))
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{where} holds other tensors than its recipe: it has no {missing[:4]}, the model has no {unknown[:4]}"
        )
    for name, own in expected.items():
        if not isinstance(own, Tensor):
            continue
        shape = tuple(shapes.get(plain_name(first.get(id(own), name)), own.shape))
        value = found[name]
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"{where}: {name!r} has {what}, its recipe {shape}")
        if value.is_floating_point() != own.is_floating_point():
            raise ValueError(f"{where}: {name!r} has values of {value.dtype}, the model of {own.dtype}")
