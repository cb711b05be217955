"""What the saved state of gates must be made of: checked in full before anything of it is taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_prune import saved
from lightning_prune.dynamic.gate import ChannelGate

_STATE = "the pruning state"


def check_gates(
    state: Mapping[str, Any],
    gates: Mapping[str, ChannelGate],
    own: Mapping[str, Any],
    parameters: Sequence[nn.Parameter],
) -> None:
    """Look at the predictors of a state, and at what their optimizer remembers.

    Args:
        state: with a header that has been checked.
        gates: those of the model, by layer.
        own: the state of their optimizer.
        parameters: that it steps.

    Raises:
        ValueError: a field is missing or of another type, or belongs to other layers.
    """
    found = saved.mapping(f"{_STATE}: gates", saved.at(_STATE, state, "gates"))
    if set(found) != set(gates):
        raise ValueError(f"{_STATE}: its gates are of {sorted(found)}, the model's of {sorted(gates)}")
    for layer, gate in gates.items():
        where = f"{_STATE}: gates[{layer!r}]"
        tensors = saved.mapping(where, found[layer])
        for key, parameter in gate.named_parameters():
            saved.tensor(f"{where}.{key}", saved.at(where, tensors, key), tuple(parameter.shape))
        kept = saved.at(where, tensors, "kept")
        if not isinstance(kept, Tensor) or kept.dim() or kept.is_floating_point():
            raise ValueError(f"{where}.kept must be a tensor of one int")
        saved.integer(f"{where}.kept", int(kept), 1, len(gate.bias))
    _check_moments(saved.mapping(f"{_STATE}: optimizer", saved.at(_STATE, state, "optimizer")), own, parameters)


def _check_moments(found: Mapping[str, Any], own: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> None:
    where = f"{_STATE}: optimizer"
    given = saved.sequence(f"{where}.param_groups", saved.at(where, found, "param_groups"))
    groups, ours = [saved.mapping(where, group) for group in given], own["param_groups"]
    if [saved.at(where, group, "params") for group in groups] != [group["params"] for group in ours]:
        raise ValueError(f"{where} is one of other gates")
    missing = sorted(set(ours[0]) - set(groups[0]))
    if missing:
        raise ValueError(f"{where}.param_groups has no {missing[0]!r}")
    saved.moments(where, found, parameters)
