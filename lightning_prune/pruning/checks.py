"""What must hold between ideas, a run and a saved state, each checked before anything is changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from lightning_prune.budget import Weights
from lightning_prune.criterion import CorrectingCriterion, ObservingCriterion, RememberingCriterion
from lightning_prune.gate import ThresholdGate
from lightning_prune.pattern import CoupledPattern, SitedPattern
from lightning_prune.schedule import HoldingSchedule, Schedule, ToldSchedule, TurnSchedule
from lightning_prune.targets import Targets


def check_ideas(
    schedule: Any, criterion: Any, pattern: Any, scope: Any, selection: Any, targets: Targets, regularizer: Any
) -> None:
    """Raise ValueError if an argument is no such idea, or if pattern, selection and sparsities do not go together."""
    ideas = {"schedule": schedule, "criterion": criterion, "pattern": pattern, "scope": scope, "selection": selection}
    verbs = {"schedule": ("last_update",), "criterion": ("__call__", "at"), "pattern": ("units", "at", "couple")}
    for key, idea in (ideas | {"targets": targets, "regularizer": regularizer}).items():
        if isinstance(idea, type):
            raise ValueError(f"{key}={idea.__name__} is a class: pass an instance, {idea.__name__}(...)")
    for key, idea in ideas.items():
        if not any(hasattr(idea, verb) for verb in verbs.get(key, ("__call__",))):
            raise ValueError(f"{key}={idea!r} is no {key}; see lightning_prune.{key}.{key.title()}")
    if regularizer is not None and not callable(regularizer):
        raise ValueError(f"regularizer={regularizer!r} is no regularizer; see lightning_prune.regularizer.Regularizer")
    if not hasattr(targets, "find"):
        raise ValueError(f"targets={targets!r} must be a Targets(include=..., exclude=...)")
    check_turns(schedule, selection)
    check_readers(pattern, criterion)
    check_observed(pattern, criterion)
    if isinstance(pattern, (SitedPattern, CoupledPattern)):
        return
    least = pattern.least_sparsity
    if least and not selection.exact:
        raise ValueError(f"pattern={pattern} needs an exact selection; selection={selection} cannot keep to it")
    for key, final in [("final_sparsity", schedule.final_sparsity), *targets.sparsity.items()]:
        if 0.0 < final < least - 1e-12:
            raise ValueError(f"{key}={final} is too low: pattern={pattern} holds from a sparsity of {least:g} on")


def check_turns(schedule: Any, selection: Any) -> None:
    """Raise ValueError if layers are pruned one after the other, and the selection keeps to no number."""
    if isinstance(schedule, TurnSchedule) and not selection.exact:
        raise ValueError(
            f"schedule={schedule} gives each layer a number that is to go at its turn, and selection={selection} does "
            "not keep to one: use Exact()"
        )


def check_holding(schedule: Any, targets: Targets, regularizer: Any, reversible: bool, budget: Any) -> None:
    """Raise ValueError if zeros are to be held, and another argument asks for more, or for less."""
    if not isinstance(schedule, HoldingSchedule):
        return
    if targets.sparsity:
        raise ValueError(
            f"Targets(sparsity={dict(targets.sparsity)}) asks for sparsities, and {schedule} holds those that the "
            "weights came with: leave it out, or use another schedule"
        )
    if reversible:
        raise ValueError(f"reversible=True lets pruned weights return, and {schedule} holds them: leave one out")
    if not isinstance(budget, Weights):
        raise ValueError(f"budget={budget} says what is to go, and with {schedule} nothing goes: leave it out")
    if getattr(regularizer, "needs_going", False):
        raise ValueError(f"regularizer={regularizer} acts on what is to go, and with {schedule} nothing goes")


def check_told(schedule: Any, criterion: Any, targets: Targets, reversible: bool) -> None:
    """Raise ValueError if a schedule follows a metric, and another argument needs to know updates before they come."""
    if not isinstance(schedule, ToldSchedule):
        return
    if isinstance(criterion, ObservingCriterion) and criterion.window is not None:
        raise ValueError(
            f"criterion={criterion} looks at the steps before an update, and {schedule} decides about one when a "
            "validation is over: use a criterion of weights, or window=None where it takes that"
        )
    if targets.sparsity:
        raise ValueError(
            f"Targets(sparsity={dict(targets.sparsity)}) asks for sparsities, and {schedule} finds its own"
        )
    if reversible:
        raise ValueError(f"reversible=True does not go with {schedule}, which puts weights back itself: leave it out")


def check_told_masks(split: bool, schedule: Any) -> None:
    """Raise ValueError if a schedule remembers whole weights, and those are taken apart over ranks."""
    if split:
        raise ValueError(f"{schedule} remembers whole weights, which are taken apart over ranks here: prune under DDP")


def check_budget(budget: Any, pattern: Any, targets: Targets) -> None:
    """Raise ValueError if an argument is no budget, or one that single weights, or several rules, cannot keep to."""
    if isinstance(budget, type) or not hasattr(budget, "price"):
        raise ValueError(f"budget={budget!r} is no budget; see lightning_prune.budget.Budget")
    if isinstance(budget, Weights):
        return
    if not isinstance(pattern, CoupledPattern):
        raise ValueError(
            f"budget={budget} is paid by whole units, and pattern={pattern} leaves the layers as large as they are: "
            "use pattern=Channel(), or leave budget out"
        )
    if targets.sparsity:
        raise ValueError(
            f"budget={budget} is of the whole model, and Targets(sparsity={dict(targets.sparsity)}) is of some "
            "weights: leave one out"
        )


def check_speedup(budget: Any, schedule: Any, criterion: Any) -> None:
    """Raise ValueError if copies pruned before training are to be measured, and what prunes them knows only then."""
    if getattr(budget, "speedup", None) is None:
        return
    if isinstance(schedule, ToldSchedule):
        raise ValueError(f"budget={budget} finds how much is to go, and so does {schedule}: leave one out")
    if isinstance(criterion, (ObservingCriterion, RememberingCriterion)):
        raise ValueError(
            f"budget={budget} measures copies that are pruned before training, and {criterion} looks at training: use "
            "a criterion of weights alone, such as Magnitude(), or leave speedup out and go by the table"
        )


def check_corrected(criterion: Any, reversible: bool) -> None:
    """Raise ValueError if pruned weights may return, and those that stay are corrected for them."""
    if reversible and isinstance(criterion, CorrectingCriterion):
        raise ValueError(
            f"reversible=True lets pruned weights return, and {criterion} has corrected those that stay for them: "
            "leave one out"
        )


def check_readers(pattern: Any, criterion: Any) -> None:
    """Raise ValueError if units are to be scored by what reads them, and the criterion tells no two of those apart."""
    if getattr(pattern, "readers", False) and getattr(criterion, "of_outputs", False):
        raise ValueError(
            f"readers=True has no effect with {criterion}, which scores whole outputs: use a criterion of single "
            "weights, such as Magnitude()"
        )


def check_observed(pattern: Any, criterion: Any) -> None:
    """Raise ValueError if a criterion looks at units where layers read them, and the pattern has no such units."""
    observes = getattr(criterion, "observes", None)
    if observes in ("activation", "saliency") and not isinstance(pattern, CoupledPattern):
        raise ValueError(
            f"criterion={criterion} scores units by their values where layers read them, and pattern={pattern} knows "
            "of no layer that reads: use pattern=Channel()"
        )


def check_foreseen(regularizer: Any, criterion: Any) -> None:
    """Raise ValueError if a regularizer acts on what goes next, which a criterion knows when it has seen more alone."""
    if getattr(regularizer, "needs_going", False) and isinstance(criterion, ObservingCriterion):
        raise ValueError(
            f"regularizer={regularizer} acts on what is to go next, which {criterion} knows only when it has seen the "
            "steps before: use a criterion of weights, or another regularizer"
        )


def check_weights_tell(criterion: Any, where: str) -> None:
    """Raise ValueError if a criterion looks at training, where it is asked outside of it."""
    if isinstance(criterion, ObservingCriterion):
        raise ValueError(
            f"criterion={criterion} looks at training, and {where}: use a criterion of weights alone, such as "
            "FilterNorm(), or a PruningCallback"
        )


def check_learned(schedule: Any, gate: Any, mask_regularizer: Any, pattern: Any, targets: Targets) -> None:
    """Raise ValueError if an argument of learned masks is no such idea, or if they do not go together."""
    gating = "at" if isinstance(gate, ThresholdGate) else "sample"
    ideas = (("schedule", schedule, "last_update"), ("gate", gate, gating))
    for key, idea, verb in (*ideas, ("mask_regularizer", mask_regularizer, "needs_schedule")):
        if isinstance(idea, type) or not (hasattr(idea, verb) or (idea is None and key != "gate")):
            raise ValueError(f"{key}={idea!r} is no {key.replace('_', ' ')}; see lightning_prune.{key}")
    if not (isinstance(pattern, CoupledPattern) or getattr(pattern, "single", False)):
        raise ValueError(f"pattern={pattern!r}: learned masks are on units, Channel(...), or on weights, Element()")
    if isinstance(gate, ThresholdGate) and isinstance(pattern, CoupledPattern):
        raise ValueError(f"gate={gate!r} learns thresholds on weights: it needs pattern=Element()")
    if getattr(pattern, "readers", False):
        raise ValueError(f"pattern={pattern!r}: readers=True scores units, and learned masks have no scores")
    if isinstance(schedule, HoldingSchedule):
        raise ValueError(
            f"schedule={schedule}: learned masks find their own zeros; use a Pruner to hold those there are"
        )
    if isinstance(schedule, TurnSchedule):
        raise ValueError(f"schedule={schedule}: learned masks are learned in all layers at once; use a Pruner")
    if targets.sparsity:
        raise ValueError("Targets(sparsity=...) does not go with learned masks, which have one final sparsity")
    if getattr(targets, "follow", None):
        raise ValueError("Targets(follow=...) does not go with learned masks, which are on what layers read")
    if schedule is None and mask_regularizer is not None and mask_regularizer.needs_schedule:
        raise ValueError(
            f"mask_regularizer={mask_regularizer} follows a schedule, and there is none: give schedule=..."
        )


def check_window(schedule: Schedule, total_steps: int | None) -> None:
    """Raise ValueError if the window begins past the end of the run; warn if it ends there."""
    if total_steps is None or schedule.final_sparsity == 0:
        return
    if schedule.begin_step >= max(1, total_steps):  # a run of no steps prunes what it is given, at step 0
        raise ValueError(
            f"begin_step={schedule.begin_step} is at or past the end of the run, "
            f"which takes {total_steps} optimizer steps: nothing would be pruned"
        )
    if schedule.end_step > total_steps:
        last = schedule.last_update(total_steps)
        reached = 0.0 if last is None else schedule.sparsity(last)
        warnings.warn(
            f"end_step={schedule.end_step} is past the end of the run, which takes {total_steps} optimizer steps: "
            f"it will reach a sparsity of {reached:.4f}, not {schedule.final_sparsity}",
            stacklevel=3,
        )


def with_final(schedule: Schedule, rule: str | None, sparsity: Mapping[str, float]) -> Schedule:
    """Return the schedule with the final sparsity of a rule. Raises ValueError if they do not go together."""
    if rule is None:
        return schedule
    try:
        return replace(cast(Any, schedule), final_sparsity=sparsity[rule])
    except ValueError as error:
        raise ValueError(f"Targets.sparsity[{rule!r}] does not go with the schedule: {error}") from None


def check_masks(shapes: Mapping[str, tuple[int, ...]], masks: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the saved masks, by their shapes, are those of the targets."""
    missing, unknown = sorted(set(shapes) - set(masks)), sorted(set(masks) - set(shapes))
    if missing or unknown:
        raise ValueError(
            f"the pruning state belongs to other weights: not in the state {missing}, not among the targets {unknown}"
        )
    for name, shape in shapes.items():
        if masks[name] != shape:
            raise ValueError(f"the saved mask of '{name}' has shape {masks[name]}, its weight {shape}")
