"""The numbers of a pruner on a model, as they are now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from lightning_prune.masks import Masks
from lightning_prune.pruning.chosen import Chosen
from lightning_prune.pruning.held_update import note_of_held
from lightning_prune.pruning.ideas import Ideas
from lightning_prune.pruning.measured import Measured, note_of_measured
from lightning_prune.pruning.telling import note_of_told
from lightning_prune.pruning.weight_reports import weight_reports
from lightning_prune.report import Report


def report_of(
    ideas: Ideas,
    updates: Sequence[Any],
    masks: Masks,
    chosen: Chosen,
    *,
    counted: Collection[str],
    parameters: int,
    step: int | None,
    measured: Measured | None,
    notes: Sequence[str],
    counting: bool,
) -> Report:
    """Return what is asked for and reached.

    Args:
        ideas: the pruner's.
        updates: one for the targets without a rule of their own, and one for each rule.
        masks: of the model.
        chosen: which weights, and what was left out.
        counted: the names of those that are weights of the rule.
        parameters: how many the model has.
        step: of the latest update.
        measured: what the budget goes by, where it is measured.
        notes: what else the plan says.
        counting: look at the weights; otherwise the numbers are those of the masks.
    """
    asked = final = 0.0
    finals: dict[str, float] = {}
    pools: dict[str, float] = {}
    for update in updates:
        asked += update.size * (0.0 if step is None else update.likely(update.schedule.sparsity(step)))
        final += update.size * update.likely(update.schedule.final_sparsity)
        finals |= update.final_sparsities()
        pools |= update.asked()
    weights = weight_reports(masks, counted, finals=finals, counting=counting)
    total = sum(weight.size for weight in weights)
    grains = [update.grain for update in updates]
    bound = f"that is the most: {ideas.selection} may take less"
    return Report(
        weights,
        chosen.skipped,
        asked / total,
        final / total,
        parameters,
        step,
        max(grains) if chosen.units is None else sum(grains),
        reachable=sum(update.most for update in updates) / total,
        notes=[
            *chosen.notes,
            *note_of_held(updates),
            *note_of_told(ideas.schedule),
            *note_of_measured(measured, ideas.schedule),
            *([bound] if getattr(ideas.selection, "at_most", False) else []),
            *notes,
        ],
        asked=pools,
        open_end="by metric" if note_of_told(ideas.schedule) else "",
        spent=updates[0].spent(),
    )
