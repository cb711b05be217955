"""`lightning-prune plan`: what would be pruned, and when, without training."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from lightning_prune.cli.arguments import listing, read
from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import one_line
from lightning_prune.cli.quiet import quiet
from lightning_prune.report import columns, percent

if TYPE_CHECKING:
    from lightning_prune.cli.build import Parts
    from lightning_prune.learned import LearnedMasks
    from lightning_prune.pruning import Pruner
    from lightning_prune.report import Report
    from lightning_prune.schedule import Schedule

HELP = """\
usage: lightning-prune plan -cn RECIPE [--config-dir FOLDER] [--json] [key=value ...]

Build what the recipe names, and show which weights would be pruned, at which steps and how far; with --json for
programs. Nothing is trained and nothing written. Takes the arguments of train, without Hydra's options, and imports and
calls what the config names.

recipes:
"""
_SHOWN = 8
_PARTS = 10_000
"""Into how many steps a run of unknown length is divided, to show its schedule in shares of the run."""


def main(argv: list[str]) -> int:
    """Run the command."""
    if "-h" in argv or "--help" in argv:
        print(HELP + listing(argv))
        return 0
    machine = "--json" in argv
    arguments = read([word for word in argv if word != "--json"])
    from lightning_prune.cli import compose, family

    with compose.composed(arguments) as config, nullcontext(family.begin(config)), quiet():
        from lightning_prune.cli import build

        parts = build.parts(config)
        if config.get("rounds") is not None:
            from lightning_prune.cli import rounds

            print(as_json(rounds.plan_facts(parts)) if machine else rounds.plan(parts))
            return 0
        build.load_weights(config, parts.task)
        try:
            steps = _fit_start(config, parts)
            unknown = None
        except FileNotFoundError as error:  # the tasks' DataNotFound among them
            steps, unknown = None, one_line(str(error))
            parts.prune.pruner.attach(parts.task, _PARTS, trial=True)
            parts.prune.pruner.strip()
    pruner, report = parts.prune.pruner, parts.prune.pruner.report()
    if machine:
        print(as_json(_facts(report, pruner, steps)))
        return 0
    if pruner.schedule is None:  # pyright: ignore[reportUnnecessaryComparison]
        print(f"{report.plan()}\n\nno sparsity is asked for: {pruner.selection} decides at the end")
        return 0
    print(f"{report.plan()}\n\n{pruner.schedule}")
    if pruner.waits_for_metric is not None:  # nobody knows its updates
        return 0
    if unknown is not None:
        print(f"the run's length is not known, so the schedule is shown in shares of the run: {unknown}")
    print(_schedule(pruner.resolved_schedule, steps, in_shares=unknown is not None and _has_shares(pruner.schedule)))
    return 0


def _facts(report: Report, pruner: Pruner | LearnedMasks, steps: int | None) -> dict[str, Any]:
    """Return the plan as plain values that JSON can hold; where `steps` is None, in ten thousandths of the run."""
    schedule, asks = pruner.resolved_schedule, pruner.schedule is not None
    updates = _updates(schedule, steps) if asks else []
    return report.to_dict() | {
        "steps": steps,
        "schedule": str(pruner.schedule) if asks else None,
        "updates": [{"step": step, "sparsity": schedule.sparsity(step)} for step in updates],
        "notes": list(report.notes),
    }


def _fit_start(config: Any, parts: Parts) -> int | None:
    """Take the run up to where training would start, and return its number of optimizer steps, None if nobody knows."""
    from lightning_prune.callbacks.run_length import run_length
    from lightning_prune.cli import build
    from lightning_prune.families import Callback

    class Stop(Callback):
        steps: int | None = None

        def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
            self.on_train_start(trainer, pl_module)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.steps = run_length(trainer)
            raise _Planned

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # trainer.max_steps=0
            self.on_train_start(trainer, pl_module)

    stop = Stop()
    try:
        # The first callback, so that no update that is due before the first step is made.
        build.plain_trainer(config, parts.task, stop, parts.prune).fit(parts.task, datamodule=parts.data)
    except _Planned:
        return stop.steps
    raise AssertionError("the fit went past its start")


class _Planned(Exception):  # noqa: N818 - no error
    """All that a plan needs is there."""


def _schedule(schedule: Schedule, steps: int | None, in_shares: bool) -> str:
    """Return the update steps, and the sparsity at some of them."""
    updates = _updates(schedule, steps)
    if not updates:
        return "no update falls into the run"
    every = max(1, (len(updates) - 1) / (_SHOWN - 1))
    shown = sorted(
        {updates[round(i * every)] for i in range(_SHOWN) if round(i * every) < len(updates)} | {updates[-1]}
    )
    rows = [("" if in_shares else "step", "share of the run", "sparsity")]
    for step in shown:
        length = _PARTS if in_shares else steps
        share = f"{100 * step / length:.1f} %" if length else ""
        rows.append(("" if in_shares else f"{step:,}", share, percent(schedule.sparsity(step))))
    run = f"of {steps:,} steps" if steps is not None else "in steps"
    if len(updates) == 1:
        head = f"1 update {run}, at step {updates[0]:,}"
    else:
        head = f"{len(updates):,} updates {run}, the first at step {updates[0]:,}, the last at step {updates[-1]:,}"
    table = columns([row[1:] if in_shares else row for row in rows], rules={1})
    return table if in_shares else f"{head}\n\n{table}"


def _updates(schedule: Schedule, steps: int | None) -> list[int]:
    """Return the steps of all updates, in order."""
    found: list[int] = []
    step = int(schedule.end_step) if steps is None else steps
    while step >= 0 and (update := schedule.last_update(step)) is not None:
        found.append(update)
        step = update - 1
    return found[::-1]


def _has_shares(schedule: Any) -> bool:
    return any(isinstance(getattr(schedule, key), float) for key in ("begin_step", "end_step"))
