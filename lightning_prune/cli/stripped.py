"""What a checkpoint of the midst of a run comes to: plain weights with its masks folded in, or why that cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved
from lightning_prune.cli.errors import UserError, printable
from lightning_prune.pruning.saved_masks import check_saved_masks, from_weights
from lightning_prune.pruning.state_schema import check_header

_ORIGINAL, _MASK = "_orig", "_mask"
KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hparams_name", "hyper_parameters")
"""Of a checkpoint, what a plain one has beside its weights: load_from_checkpoint asks for it."""


@dataclass(frozen=True)
class Stripped:
    """What came out.

    Attributes:
        weights: a plain state_dict.
        zeros: name of a weight that was masked -> its zeros.
        masks: whose they were, in words.
    """

    weights: dict[str, Tensor]
    zeros: Mapping[str, int]
    masks: str


def stripped(content: Any) -> Stripped:
    """Return the plain weights of what a file holds: of this library's callbacks, or of `torch.nn.utils.prune`.

    Raises:
        UserError: there are no masks in it, or masks that are not those of its weights.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict", content), Mapping):
        raise UserError("it holds no state_dict")
    state: dict[str, Any] = {str(key): value for key, value in content.get("state_dict", content).items()}
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{printable(others[0])} is a {type(state[others[0]]).__name__}: a plain state_dict has tensors alone"
        )
    folded = _folded(state)
    if folded is not None:
        return folded
    zeros: dict[str, int] = {}
    found = list(_states(content))
    if not found:
        raise UserError(
            "there are no masks in it: no state of a PruningCallback, and no NAME_orig beside NAME_mask; "
            "lightning-prune inspect shows its zeros"
        )
    trained = content.get("current_model_state", state)  # where state_dict is an average, whose zeros may be others
    if not isinstance(trained, Mapping):
        raise UserError("its current_model_state is no state_dict")
    for key, callback in found:
        zeros |= _masked(key, callback, state, trained)
    return Stripped({name: tensor.clone() for name, tensor in state.items()}, zeros, ", ".join(key for key, _ in found))


def _states(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    states = content.get("callbacks")
    for key, state in states.items() if isinstance(states, Mapping) else ():
        if str(key).startswith("PruningCallback") and isinstance(state, Mapping) and "last_update" in state:
            yield printable(str(key)), state


def _masked(key: str, callback: Mapping[str, Any], state: dict[str, Any], trained: Mapping[str, Any]) -> dict[str, int]:
    """Put a callback's masks on weights, and return the zeros of each. Raises UserError where they do not fit.

    Args:
        key: of the callback's state.
        callback: its state.
        state: name -> weight; masked ones take their place.
        trained: the weights beside which the state was saved, whose zeros are its masks.
    """
    learned = "finished" in callback
    try:
        check_header(callback, learned)
        if callback.get("stripped"):
            raise UserError(f"{key} is stripped already: its masks are gone, and the file's weights are plain")
        if learned and not callback["finished"]:
            raise UserError(
                f"{key} still learns its masks: what goes is not decided before the end; let the run end, and its "
                "model.pt is plain"
            )
        masks = saved.mapping(f"{key}: masks", saved.at(key, callback, "masks"))
        missing = sorted(set(masks) - set(state))
        if missing:
            raise UserError(f"{key} has a mask of {printable(missing[0])}, and the file no such weight")
        if callback.get("version") == 1:
            _check_bools(key, masks, state)
        else:
            _check_shapes(key, check_saved_masks(f"{key}: masks", masks), state)
        read = from_weights(callback, {str(name): trained.get(name, state[name]) for name in masks})
    except ValueError as error:
        raise UserError(f"{key}: {str(error).partition('. Masks are read off')[0]}") from error
    for name, mask in read.items():
        state[name] = torch.where(mask, state[name], torch.zeros((), dtype=state[name].dtype))
    return {name: int((~mask).sum()) for name, mask in read.items()}


def _check_bools(key: str, masks: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        saved.tensor(f"{key}: masks[{name!r}]", mask, tuple(state[name].shape), bools=True)


def _check_shapes(key: str, shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            raise UserError(
                f"{key} has a mask of shape {list(shape)} for {printable(name)}, which is {list(state[name].shape)}"
            )


def _folded(state: Mapping[str, Tensor]) -> Stripped | None:
    """Return a state_dict of `torch.nn.utils.prune` with each mask multiplied into its weight; None if it is none."""
    names = [name.removesuffix(_ORIGINAL) for name in state if name.endswith(_ORIGINAL)]
    pairs = [name for name in names if f"{name}{_MASK}" in state]
    if not pairs:
        return None
    weights: dict[str, Tensor] = {}
    zeros: dict[str, int] = {}
    for name, tensor in state.items():
        own = name.removesuffix(_ORIGINAL) if name.endswith(_ORIGINAL) else name.removesuffix(_MASK)
        if name == own or own not in pairs:
            weights[name] = tensor.clone()
        elif name.endswith(_ORIGINAL):
            mask = state[f"{own}{_MASK}"]
            if mask.shape != tensor.shape:
                raise UserError(
                    f"{printable(own)}{_MASK} has shape {list(mask.shape)}, the weight {list(tensor.shape)}"
                )
            weights[own] = torch.where(mask != 0, tensor, torch.zeros((), dtype=tensor.dtype))
            zeros[own] = int((mask == 0).sum())
    return Stripped(weights, zeros, "torch.nn.utils.prune")
