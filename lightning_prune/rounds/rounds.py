"""Rounds of prune, shrink and fine-tune, each fine-tuning a fit of a Trainer of its own."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from lightning_prune import given
from lightning_prune.cost import count
from lightning_prune.criterion import Criterion, FilterNorm, SitedCriterion
from lightning_prune.pattern import Channel, CoupledPattern
from lightning_prune.pruning.checks import check_readers, check_weights_tell
from lightning_prune.pruning.unit_targets import units_of
from lightning_prune.report import percent
from lightning_prune.rounds import record
from lightning_prune.rounds.best_units import choose, keep_best, named
from lightning_prune.rounds.record import History, Round, folder_of, share_gone
from lightning_prune.rounds.trainer import (
    LightningDataModule,
    LightningModule,
    MakeTrainer,
    evaluate,
    is_first_rank,
    new_trainer,
    say,
    seed_everything,
    train,
)
from lightning_prune.shrink import (
    RECIPE,
    WEIGHTS,
    ShrinkReport,
    Shrunk,
    followed_by,
    load_shrunk,
    recipe_of,
    save_shrunk,
    shrink_,
)
from lightning_prune.targets import Targets


@dataclass(frozen=True)
class PruningRounds:
    """Prune, shrink, fine-tune, and so on until a condition says stop.

    In each round a group of n units keeps clip(ceil(n factor), 1, n), the best by the criterion. The others leave the
    model for good, in all layers that share their channel, and a new Trainer with a new optimizer fine-tunes what is
    left. After Ridurre, iterative filter pruning; criteria `Random` and `KMeans` are its two.

    It ends when a round would remove nothing, when more than `maximum_share` of the units are gone (the last round may
    go past it), or after `maximum_rounds`, whichever comes first.

    Args:
        factor: the share of its units that each group keeps in a round; a list has one for each round, and the last
            holds from then on.
        maximum_rounds: how many rounds at most; None for no limit.
        maximum_share: no further round when more than this share of all units is gone; None for no limit.
        criterion: what a weight is worth; a unit is worth the sum over its weights of their mean.
        pattern: finds the units; its `multiple` rounds the number that a group keeps up.
        targets: which weights may lose outputs; units go only where all weights that compute them may.
        layers: which groups of units: regexes searched in the names of the weights that compute them, or positions in
            the model's order as `plan` shows them; empty for all.
        bins: width -> factor, for groups of at most so many units when the round begins; wider ones than the last
            have `factor`.
        schedule: (factor of the round before, round) -> factor of this round. The first round is 1, and is given
            `factor`; bins stay as they are.
        tolerance: how far shrinking may move an output, as a share of the largest.
        seed: seeds everything anew, by seed and round, before each round is trained, so that rounds that go on after a
            stop are those that would have been; None leaves the random state alone.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    factor: float | Sequence[float] = 0.8
    maximum_rounds: int | None = None
    maximum_share: float | None = None
    criterion: Criterion | SitedCriterion = FilterNorm()
    pattern: CoupledPattern = Channel()
    targets: Targets = Targets()
    layers: Sequence[str | int] = ()
    bins: Mapping[int, float] = field(default_factory=dict[int, float])
    schedule: Callable[[float, int], float] | None = None
    tolerance: float = 1e-4
    seed: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.bins, Mapping):
            raise ValueError(f"bins={self.bins!r} must map numbers of units to the share to keep: {{64: 0.9}}")
        factors = [self.factor] if isinstance(self.factor, (int, float)) else list(self.factor)
        if not factors:
            raise ValueError("factor=[] must hold a factor for the first round at least")
        for name, value in [("factor", f) for f in factors] + [(f"bins[{w}]", f) for w, f in self.bins.items()]:
            given.number(name, value, above=0, most=1, hint=", the share of units to keep")
        for width in self.bins:
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise ValueError(f"bins has {width!r}, which must be a number of units")
        if self.schedule is not None and not isinstance(self.factor, (int, float)):
            raise ValueError(f"factor={self.factor!r} is a schedule already: give one factor, or no schedule")
        rounds, share = self.maximum_rounds, self.maximum_share
        if rounds is not None:
            given.whole("maximum_rounds", rounds, 0, hint=", or None")
        if share is not None:
            given.number("maximum_share", share, least=0, most=1, hint=", a share of the units, or None")
        given.number("tolerance", self.tolerance, least=0)
        if self.seed is not None:
            given.whole("seed", self.seed, hint=", or None")
        if self.schedule is not None and not callable(self.schedule):
            raise ValueError(f"schedule={self.schedule!r} must be a function of factor and round, or None")
        if not isinstance(self.pattern, CoupledPattern):
            raise ValueError(f"pattern={self.pattern!r} does not say what can be removed: use Channel(...)")
        check_readers(self.pattern, self.criterion)
        check_weights_tell(self.criterion, "rounds prune between trainings")
        if self.targets.follow:
            raise ValueError(f"targets has follow={dict(self.targets.follow)}, which rounds do not know: leave it out")
        if self.targets.sparsity:
            raise ValueError(f"targets has sparsity={dict(self.targets.sparsity)}, which rounds do not know: use bins")
        if isinstance(self.layers, (str, int)):
            raise ValueError(f"layers={self.layers!r} must be a list: [{self.layers!r}]")

    # Numbers

    def factor_of(self, number: int) -> float:
        """Return the factor of a round; the first is 1. Raises ValueError if a schedule's answer is not in (0, 1]."""
        if not isinstance(self.factor, (int, float)):
            return self.factor[min(number, len(self.factor)) - 1]
        factor = float(self.factor)
        for each in range(1, number + 1) if self.schedule is not None else ():
            factor = self.schedule(factor, each)  # pyright: ignore[reportOptionalCall]
            if not 0 < factor <= 1:
                raise ValueError(
                    f"schedule={record.said(self.schedule)} gave {factor!r} for round {each}, not in (0, 1]"
                )
        return factor

    def keep(self, units: int, number: int) -> int:
        """Return how many of so many units a group keeps in a round."""
        widths = [width for width in self.bins if units <= width]
        factor = self.bins[min(widths)] if widths else self.factor_of(number)
        wanted = math.ceil(units * factor - 1e-9)  # 30 * 0.1 is a little more than 3
        multiple = self.pattern.multiple
        return max(1, min(units, -(-wanted // multiple) * multiple))

    def plan(self, model: nn.Module) -> tuple[list[dict[str, int]], str]:
        """Return the units by group in each round, the first without pruning, and why it ends; trains nothing."""
        steps = [self._chosen(model)]
        while not (reason := self._reason(len(steps) - 1, steps[0], steps[-1])):
            steps.append({name: self.keep(units, len(steps)) for name, units in steps[-1].items()})
        return steps, reason

    def _reason(self, done: int, dense: Mapping[str, int], left: Mapping[str, int]) -> str:
        """Return why there is no further round, "" if there is one."""
        after = f"stopped after round {done}: "
        if self.maximum_rounds is not None and done >= self.maximum_rounds:
            return after + f"maximum_rounds={self.maximum_rounds} is reached"
        gone = share_gone(dense, left)
        if self.maximum_share is not None and gone > self.maximum_share + 1e-12:
            return after + f"{percent(gone)} of the units are gone, more than maximum_share={self.maximum_share:g}"
        if all(self.keep(units, done + 1) == units for units in left.values()):
            if max(left.values()) == 1:
                return after + "nothing is left to prune, every group is down to one unit"
            factors = "these bins" if self.bins else f"a factor of {self.factor_of(done + 1):g}"
            return after + f"nothing is left to prune, with {factors} every group keeps all its units"
        return ""

    # The model

    def _chosen(self, model: nn.Module) -> dict[str, int]:
        """Return the groups that `layers` names and their units, in the model's order."""
        groups = choose(model, units_of(model, self.pattern, self.targets).groups, self.layers)
        return {name: group.units for name, group in groups.items()}

    def _prune(self, model: nn.Module, left: Mapping[str, int], number: int) -> tuple[ShrinkReport, Any]:
        """Take units out of the model, in place."""
        keep_best(
            model,
            units_of(model, self.pattern, self.targets),
            {name: self.keep(units, number) for name, units in left.items()},
            self.criterion,
            self.pattern,
            number,
        )
        return shrink_(model, self.pattern.example_inputs, self.tolerance)

    # The loop

    def run(
        self,
        model: LightningModule,
        make_trainer: MakeTrainer,
        datamodule: LightningDataModule | None = None,
        folder: str | Path | None = None,
        first: MakeTrainer | None = None,
    ) -> History:
        """Prune and fine-tune in rounds; the model given comes out smaller.

        Args:
            model: trained, with an `example_input_array` where the pattern has no example inputs.
            make_trainer: makes the Trainer of each round, with callbacks and loggers of its own.
            datamodule: the data; None where the model has its loaders.
            folder: where each round's model goes, with `rounds.json`; a run that finds finished rounds there loads the
                last of them into the model, which must have its first shape then, and goes on after it. None saves
                nothing.
            first: makes the Trainer that trains the model before the first round; None if it is trained already.

        Raises:
            ValueError: no units to prune, a layer that is not there, a Trainer that is not new, or a folder with rounds
                made otherwise.
        """
        place = None if folder is None else Path(folder)
        history = History(self._settings()) if place is None else record.load(place, self._settings())
        recipe: dict[str, Any] = {}
        if history.rounds and place is not None:
            recipe = _load(model, folder_of(place, len(history.rounds) - 1))
            say(f"rounds: going on after round {history.rounds[-1].number}, from {place}")
        else:
            history, recipe = self._begin(model, history, first, make_trainer, datamodule, place)
        while not (reason := self._reason(len(history.rounds) - 1, history.rounds[0].left, history.left)):
            number = len(history.rounds)
            report, new = self._prune(model, history.left, number)
            recipe = followed_by(recipe, new)
            sizes = {name: group.after for name, group in named(report.groups).items()}
            units = {name: (n, sizes.get(name, n)) for name, n in history.left.items()}
            if all(before == after for before, after in units.values()):
                raise ValueError(f"round {number} took nothing out: {report.table()}")
            say(f"round {number}: shrunk\n{report.table()}")
            metrics = self._train(model, make_trainer, datamodule, number)
            history = history.then(self._record(model, number, units, metrics))
            _save(Shrunk(model, report, recipe), history, place)
        history = replace(history, stopped=reason)
        if place is not None and is_first_rank(model):
            for name in (WEIGHTS, RECIPE):
                shutil.copyfile(folder_of(place, len(history.rounds) - 1) / name, place / name)
            record.save(history, place)
        say(f"rounds: {reason}")
        return history

    def _begin(
        self,
        model: LightningModule,
        history: History,
        first: MakeTrainer | None,
        make_trainer: MakeTrainer,
        datamodule: LightningDataModule | None,
        place: Path | None,
    ) -> tuple[History, dict[str, Any]]:
        """Train the model as it is, or evaluate it, as round 0."""
        units = {name: (n, n) for name, n in self._chosen(model).items()}
        if first is not None:
            metrics = self._train(model, first, datamodule, 0)
        else:
            metrics = evaluate(new_trainer(make_trainer, model), model, datamodule, ("validate", "test"))
        size = sum(parameter.numel() for parameter in model.parameters())
        report = ShrinkReport([], {}, (size, size), 0.0, 0.0)
        recipe = recipe_of(model, {}, report)
        history = history.then(self._record(model, 0, units, metrics))
        _save(Shrunk(model, report, recipe), history, place)
        return history, recipe

    def _train(
        self, model: LightningModule, make: MakeTrainer, data: LightningDataModule | None, number: int
    ) -> dict[str, float]:
        if self.seed is not None:
            seed_everything((self.seed * 1009 + number) % 2**32)
        return train(new_trainer(make, model), model, data)

    def _record(
        self,
        model: LightningModule,
        number: int,
        units: Mapping[str, tuple[int, int]],
        metrics: Mapping[str, float],
    ) -> Round:
        cost = count(model, self.pattern.example_inputs)
        return Round(number, self.factor_of(number) if number else None, units, cost.parameters, cost.macs, metrics)

    def _settings(self) -> dict[str, Any]:
        """Return, as plain values, all that decides what a round does."""
        left_out = {"maximum_rounds", "maximum_share"}
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        return {name: record.said(value) for name, value in values.items()}


def _save(shrunk: Shrunk, history: History, place: Path | None) -> None:
    if place is not None and is_first_rank(shrunk.model):
        save_shrunk(shrunk, folder_of(place, history.rounds[-1].number))
        record.save(history, place)


def _load(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Load a round's model, and return its recipe."""
    load_shrunk(model, folder)
    return json.loads((folder / RECIPE).read_text(encoding="utf-8"))
