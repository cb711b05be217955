"""What the weights in a file answer on the data of their run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_prune.cli import build, checkpoints, evaluation, trusted
from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.averaged import weights_for
from lightning_prune.cli.compressed import on_one_device
from lightning_prune.cli.errors import UserError, printable
from lightning_prune.cli.forward_inputs import forward_inputs
from lightning_prune.cli.run_files import step_of
from lightning_prune.cli.sweep import from_here
from lightning_prune.report import percent

if TYPE_CHECKING:
    from torch import Tensor

Stage = Literal["test", "validation"]
_SECTIONS = ("task", "data", "prune", "pruner", "rounds", "first", "pruning_hparams", "trainer")


@dataclass(frozen=True)
class Evaluated:
    """What came out.

    Attributes:
        file: the weights'.
        step: optimizer steps completed when they were saved; None where the file does not say.
        weights: which of the file's they are.
        zeros: among the entries of tensors of two or more dimensions.
        values: those entries.
        stage: whose metrics.
        metrics: name -> value.
    """

    file: Path
    step: int | None
    weights: str
    zeros: int
    values: int
    stage: Stage
    metrics: Mapping[str, float]

    @property
    def sparsity(self) -> float:
        """The share of zeros among the entries of tensors of two or more dimensions."""
        return self.zeros / self.values if self.values else 0.0

    def text(self) -> str:
        """Return a line for people."""
        when = "" if self.step is None else f"step {self.step:,}  "
        numbers = "  ".join(f"{printable(name)} {value:.4f}" for name, value in self.metrics.items())
        return f"{when}sparsity {percent(self.sparsity)}  {numbers}  ({self.weights}, {from_here(self.file)})"

    def json(self) -> str:
        """Return the same as a line of JSON."""
        facts = {
            "file": str(self.file),
            "step": self.step,
            "weights": self.weights,
            "sparsity": self.sparsity,
            "zeros": self.zeros,
            "values": self.values,
            "stage": self.stage,
            "metrics": dict(self.metrics),
        }
        return as_json(facts, indent=None)


class Evaluator:
    """Evaluates files of weights of one run, on the data of the run.

    Args:
        run: its folder.
        stage: test or validation; None for the test, or else the validation, whichever task and data have.
        trust: what the run's classes may be.

    Raises:
        UserError: the run cannot be built, or has no such stage.
    """

    def __init__(self, run: Path, stage: Stage | None, trust: trusted.Trust) -> None:
        self._run = run
        self._config = trusted.config_of(run, _SECTIONS, trust)
        if "download" in (self._config.data or {}):
            self._config.data.download = False
        self._parts = build.parts(self._config)
        stages: tuple[Stage, ...] = ("test", "validation") if stage is None else (stage,)
        found: list[Stage] = [each for each in stages if evaluation.has(self._parts, each)]
        if not found:
            raise UserError(
                f"{run} has no {' and no '.join(stages)}: the task needs a {stages[0]}_step, the data a loader for it"
            )
        self.stage: Stage = found[0]

    def __call__(self, file: Path) -> Evaluated:
        """Return what the weights in a file answer. Raises UserError if they are none of this run's model."""
        from lightning_prune.families import default

        content = checkpoints.load(file)
        default().seed_everything(self._config.seed, workers=True, verbose=False)  # should a loader draw something
        task = build.task(self._config)
        chosen, which = weights_for(content, task)
        try:
            build.put(chosen, file, task)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        metrics = self.metrics(task)
        if not metrics:
            other = "validation" if self.stage == "test" else "test"
            raise UserError(f"{self._run}: its {self.stage} has no metrics: try --stage {other}")
        zeros, values = _zeros(task.state_dict())
        return Evaluated(file, self._step(content, file), which, zeros, values, self.stage, metrics)

    def metrics(self, task: Any) -> dict[str, float]:
        """Return what a task of the run answers, as it is."""
        trainer = build.plain_trainer(on_one_device(self._config), task)
        return evaluation.metrics(trainer, replace(self._parts, task=task), self.stage)

    def inputs(self, task: Any, examples: int) -> list[Any]:
        """Return what the task's forward takes of the run's training data, for so many examples at least."""
        return forward_inputs(on_one_device(self._config), self._parts.data, task, self.stage, examples)

    def _step(self, content: Any, file: Path) -> int | None:
        """Return the steps that a checkpoint names, or for the weights at the run's end its report."""
        step = step_of(content)
        if step is not None or file.absolute().parent != self._run.absolute():
            return step
        try:
            steps = json.loads((self._run / "report.json").read_text(encoding="utf-8")).get("steps")
        except (OSError, ValueError, AttributeError):
            return None
        return steps if isinstance(steps, int) else None


def _zeros(state: Mapping[str, Tensor]) -> tuple[int, int]:
    again = checkpoints.tied(state.items())
    large = [tensor for name, tensor in state.items() if tensor.dim() >= 2 and name not in again]
    return sum(t.numel() - int(t.count_nonzero()) for t in large), sum(t.numel() for t in large)
