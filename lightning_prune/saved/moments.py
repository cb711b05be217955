"""What an optimizer remembers of its parameters, as a file has brought it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .fields import at, integer, mapping


def moments(where: str, optimizer: Mapping[str, Any], parameters: Sequence[Tensor]) -> None:
    """Raise ValueError unless the `state` of an optimizer's state is of these parameters, by index and shape.

    Args:
        where: what the state is called in messages.
        optimizer: what `Optimizer.state_dict` gave, or is said to have given.
        parameters: the optimizer's own, in order.
    """
    state = at(where, optimizer, "state")
    if not isinstance(state, Mapping):
        raise ValueError(f"{where}.state is a {type(state).__name__}; it must be a mapping")
    for index, entry in state.items():
        integer(f"{where}.state: key", index, 0, len(parameters) - 1)
        for key, moment in mapping(f"{where}.state[{index}]", entry).items():
            if isinstance(moment, Tensor) and moment.dim() and moment.shape != parameters[index].shape:
                raise ValueError(f"{where}.state[{index}][{key!r}] has shape {tuple(moment.shape)}")
