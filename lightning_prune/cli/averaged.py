"""Which weights of a checkpoint answer for the model: its average, where a run averages weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

_SWA = "StochasticWeightAveraging"
_MODULE = "module."


def weights_for(content: Any, model: nn.Module) -> tuple[Any, str]:
    """Return what a file holds with the average in place of the weights, and which weights they are, in words.

    `WeightAveraging` saves its average as the checkpoint's weights. `StochasticWeightAveraging` saves it beside them
    and puts it into the model when training ends; where BatchNorm's statistics are made for it only then, it cannot
    answer before.

    Args:
        content: of any file of weights.
        model: whose weights they are.
    """
    if not isinstance(content, Mapping):
        return content, "as saved"
    if "averaging_state" in content:
        return content, "weight average"
    average = _average(content)
    if average is None:
        return content, "as saved"
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):  # pyright: ignore
        return content, "as saved: BatchNorm has no statistics for the average before the run's end"
    own = {str(key).removeprefix(_MODULE): value for key, value in average.items()}
    state = {key: own.get(key, value) for key, value in content["state_dict"].items()}
    return {**content, "state_dict": state}, "weight average"


def _average(content: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """Return the average that a `StochasticWeightAveraging` has begun, if any."""
    states = content.get("callbacks")
    state = states.get(_SWA) if isinstance(states, Mapping) else None
    if not isinstance(state, Mapping) or not state.get("n_averaged"):
        return None
    average = state.get("average_model_state")
    return average if isinstance(average, Mapping) and isinstance(content.get("state_dict"), Mapping) else None
