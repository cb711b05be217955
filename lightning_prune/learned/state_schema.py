"""What the saved state of learned masks must be made of: checked in full before anything of it is taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_prune import saved
from lightning_prune.pruning.state_schema import Shapes, check_body, check_thresholds

_STATE = "the pruning state"


def check_learned(
    state: Mapping[str, Any],
    shapes: Shapes,
    own: Mapping[str, Any],
    keeps: Sequence[tuple[int, ...]],
) -> None:
    """Look at what is learned, and at the masks and weights that go with it.

    Args:
        state: with a header that has been checked.
        shapes: of the masked tensors.
        own: the state of the logits of now.
        keeps: the shape of each group's units.

    Raises:
        ValueError: a field is missing or of another type, or belongs to other units.
    """
    if state.get("stripped"):
        check_thresholds(state, shapes)
        _check_probabilities(state, None)
        return
    check_body(state, shapes)
    logits: Mapping[str, Tensor] = own["logits"]
    found = saved.mapping(f"{_STATE}: logits", saved.at(_STATE, state, "logits"))
    for name, value in found.items():
        saved.tensor(f"{_STATE}: logits[{name!r}]", value)
    counts = {name: value.numel() for name, value in found.items()}
    sizes = {name: value.numel() for name, value in logits.items()}
    if counts != sizes:
        raise ValueError(f"the state's learned masks are of other units: it has {counts}, the model {sizes}")
    for name, value in found.items():
        saved.tensor(f"{_STATE}: logits[{name!r}]", value, tuple(logits[name].shape))
    saved.integer(f"{_STATE}: step", saved.at(_STATE, state, "step"))
    saved.number(f"{_STATE}: progress", saved.at(_STATE, state, "progress"), 0.0, 1.0)
    _check_optimizer(saved.at(_STATE, state, "optimizer"), own["optimizer"], list(logits.values()))
    if state["finished"]:
        _check_probabilities(state, logits)
        return
    kept = saved.sequence(f"{_STATE}: keeps", saved.at(_STATE, state, "keeps"))
    if len(kept) != len(keeps):
        raise ValueError(f"{_STATE}: keeps has {len(kept)} groups, the model {len(keeps)}")
    for number, (keep, shape) in enumerate(zip(kept, keeps, strict=True)):
        saved.tensor(f"{_STATE}: keeps[{number}]", keep, shape, bools=True)
    _check_history(saved.at(_STATE, state, "history"))
    missing = sorted(set(shapes) - set(saved.at(_STATE, state, "dense")))
    if missing:
        raise ValueError(f"{_STATE}: dense has none for {missing[:4]}")


def _check_history(value: Any) -> None:
    for number, entry in enumerate(saved.sequence(f"{_STATE}: history", value)):
        where = f"{_STATE}: history[{number}]"
        note = saved.mapping(where, entry)
        saved.integer(f"{where}.step", saved.at(where, note, "step"))
        saved.number(f"{where}.undecided", saved.at(where, note, "undecided"), 0.0, 1.0)
        for name, counts in saved.mapping(f"{where}.counts", saved.at(where, note, "counts")).items():
            for count in saved.sequence(f"{where}.counts[{name!r}]", counts):
                saved.integer(f"{where}.counts[{name!r}]: a count", count)


def _check_probabilities(state: Mapping[str, Any], logits: Mapping[str, Tensor] | None) -> None:
    found = saved.mapping(f"{_STATE}: probabilities", saved.at(_STATE, state, "probabilities"))
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{_STATE}: probabilities[{name!r}] is a {type(value).__name__}; it must be a tensor")
    if logits is not None and set(found) != set(logits):
        raise ValueError(f"{_STATE}: probabilities are of {sorted(found)}, the model's groups are {sorted(logits)}")


def _check_optimizer(value: Any, own: Mapping[str, Any], logits: Sequence[Tensor]) -> None:
    where = f"{_STATE}: optimizer"
    found = saved.mapping(where, value)
    groups = saved.sequence(f"{where}.param_groups", saved.at(where, found, "param_groups"))
    sizes = [len(saved.at(where, saved.mapping(where, group), "params")) for group in groups]
    if sizes != [len(group["params"]) for group in own["param_groups"]]:
        raise ValueError(f"{where} is one of other logits: it has groups of {sizes}")
    for group, ours in zip(groups, own["param_groups"], strict=True):
        missing = sorted(set(ours) - set(group))
        if missing:
            raise ValueError(f"{where}.param_groups has no {missing[0]!r}")
    saved.moments(where, found, logits)
