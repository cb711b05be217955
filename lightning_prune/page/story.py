"""A run in one sentence, and in a few figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_prune.page import words
from lightning_prune.page.costs import Cost, costs
from lightning_prune.page.run import Run

Sentence = list[tuple[str, bool]]
"""Pieces of text, and whether each is one of the figures."""


@dataclass(frozen=True)
class Fact:
    """A figure: its name, its value, and what it is beside."""

    name: str
    value: str
    note: str = ""


def sentence(run: Run) -> Sentence:
    """Return what was pruned, in one sentence."""
    if run.state == "unfinished":
        return _unfinished(run)
    found = _of_rounds(run) if run.rounds else _of_weights(run)
    found += _smaller(run)
    metric = quality(run)
    if metric:
        found += [("; ", False), (metric[0].replace("/", " "), False), (" is ", False)]
        found += [(words.value_of(*metric), True)]
    if run.state == "interrupted":
        found += [(f". It was interrupted after {run.report.get('steps')} steps", False)]
    return [*found, (".", False)]


def quality(run: Run) -> tuple[str, float] | None:
    """Return the metric that says how good the model is: an accuracy, or else the first; None without any."""
    names = sorted(run.tested, key=lambda name: not words.is_share(name))
    return (names[0], float(run.tested[names[0]])) if names else None


def facts(run: Run) -> list[Fact]:
    """Return the figures of a run."""
    found: list[Fact] = []
    asked = asked_for(run)
    if run.layers:
        size, zeros = _sizes(run)
        found.append(Fact("sparsity", words.share(zeros / size if size else 0.0), _beside(run, asked)))
    metric = quality(run)
    if metric:
        found.append(Fact(metric[0].replace("/", " "), words.value_of(*metric), "after pruning"))
    for cost in costs(run)[0]:
        found.append(_cost(cost))
    return found


def asked_for(run: Run) -> float | None:
    """Return the sparsity that was asked for in the end, None where none was."""
    told = any(str(value).endswith("AccuracyBudget") for value in run.keys.values())
    learned = any(key.endswith("_target_") and str(value).endswith("LearnedMasks") for key, value in run.keys.items())
    final: Any = run.report.get("final_sparsity")
    return None if told or learned or run.rounds or run.report.get("spent") else final


def _beside(run: Run, asked: float | None) -> str:
    spent = run.report.get("spent")
    if isinstance(spent, dict):
        gone, wanted = (words.share(float(spent[key])) for key in ("gone", "asked"))
        return f"{gone} of the {spent['unit']} gone, {wanted} asked for"
    return "as far as it went by itself" if asked is None else f"{words.share(asked)} asked for"


def _cost(cost: Cost) -> Fact:
    same = cost.dense == cost.pruned
    name = cost.name.removesuffix(" that are not zero").removesuffix(" by weights")
    dense, pruned = cost.short
    note = "as the dense model" if same else f"of {dense}"
    return Fact(name if cost.name == name else f"{name} left", pruned, note)


def _unfinished(run: Run) -> Sentence:
    reached = run.curves.get("pruning/sparsity")
    found: Sentence = [(f"{run.name} has not come to an end, or has failed", False)]
    if reached:
        step, share = reached[-1]
        found += [("; it had pruned ", False), (words.share(share), True), (f" of its weights by step {step:,}", False)]
    return [*found, (".", False)]


def _of_weights(run: Run) -> Sentence:
    size, zeros = _sizes(run)
    asked = asked_for(run)
    verb, what = ("leaves out", "channels at each example") if run.gated else ("lost", "prunable weights")
    found: Sentence = [
        (f"{run.name} {verb} ", False),
        (words.count(zeros), True),
        (f" of its {words.count(size)} {what}, ", False),
        (words.share(zeros / size if size else 0.0), True),
    ]
    spent = run.report.get("spent")
    if isinstance(spent, dict):
        found += [(", and ", False), (words.share(float(spent["gone"])), True), (f" of its {spent['unit']}", False)]
    elif asked is not None:
        found += [(" where ", False), (words.share(asked), True), (" was asked for", False)]
    steps = [step for step, _ in run.curves.get("pruning/sparsity", [])]
    total = run.report.get("steps")
    if steps and isinstance(total, int):
        between = f"at step {steps[0]:,}" if steps[0] == steps[-1] else f"between steps {steps[0]:,} and {steps[-1]:,}"
        found += [(f", {between} of {total:,}", False)]
    return found


def _of_rounds(run: Run) -> Sentence:
    number = len(run.rounds) - 1
    found: Sentence = [(f"{run.name} was pruned in {number} round{'' if number == 1 else 's'}", False)]
    whole = [sum(pair[0] for pair in run.rounds[0]["units"].values()), 0]
    whole[1] = sum(pair[1] for pair in run.rounds[-1]["units"].values())
    return [
        *found,
        (" and keeps ", False),
        (words.count(whole[1]), True),
        (f" of {words.count(whole[0])} units", False),
    ]


def _smaller(run: Run) -> Sentence:
    found: Sentence = []
    if run.rounds or run.report.get("cost"):
        by_name = {cost.name: cost for cost in costs(run)[0]}
        lead = "; it has "
        for name in ("parameters", "MACs"):
            cost = by_name.get(name)
            if cost is not None and cost.pruned:
                found += [(lead, False), (f"{cost.dense / cost.pruned:.2f} times", True), (f" fewer {name}", False)]
                lead = " and "
        cost = by_name.get("latency")
        if cost is not None and cost.pruned:
            faster = cost.dense / cost.pruned
            found += [(", and runs ", False), (f"{max(faster, 1 / faster):.2f} times", True)]
            found += [(" faster" if faster >= 1 else " slower", False)]
    return found


def _sizes(run: Run) -> tuple[int, int]:
    return sum(layer.size for layer in run.layers), sum(layer.zeros for layer in run.layers)
