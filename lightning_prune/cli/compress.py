"""`lightning-prune compress`: a trained checkpoint, made smaller to a target, in one command."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli.arguments import in_quotes, listing, read
from lightning_prune.cli.errors import UserError

if TYPE_CHECKING:
    from lightning_prune.cli.build import Parts
    from lightning_prune.pruning.target import CostTarget

HELP = """\
usage: lightning-prune compress CHECKPOINT -cn RECIPE TARGET [batch=N] [--config-dir FOLDER] [key=value ...]

Make a trained model smaller: find the sparsity at which it meets the target, prune whole units to it while the recipe's
trainer fine-tunes, take them out, and show the model before and after. A target that cannot be met is refused before
anything is trained. The run's folder, runs/RECIPE/TIME, is that of train, with the small weights in model.pt, their
shapes in shrunk.json, and the table at the end in compressed.json.

  CHECKPOINT             a .ckpt, a model.pt or a run's folder, whose weights fit the recipe's task
  -cn RECIPE             the task, its data, and how it is fine-tuned: one listed below, or of your own
  TARGET                 exactly one of
    macs=0.5             the share of the multiply-adds that may stay
    parameters=0.4       the share of the parameters that may stay
    speedup=2            how many times faster a forward is to be, where the recipe's trainer puts the model
  batch=N                forwards of so many examples are counted and timed; by default as many as the task's
                         example_input_array has
  --config-dir FOLDER    your own recipes and config groups; what is found there goes first
  key=value              as for train: trainer.max_epochs=5 task.lr=1e-4 pruner/scope=uniform hydra.run.dir=FOLDER

recipes:
"""
TARGETS = ("macs", "parameters", "speedup")
_OURS = {
    "weights": "CHECKPOINT stands for it",
    "ckpt_path": "CHECKPOINT stands for it",
    "resume": "a run that was stopped goes on by train RUN --resume",
    "pruning_hparams": "the target decides how sparse",
    "pruner.schedule.final_sparsity": "the target decides it",
    "prune.shrink": "dead units are always taken out",
}
"""Keys that compress sets itself, or that make no sense here -> why."""


@dataclass(frozen=True)
class Asked:
    """A command line read: the checkpoint's file, the target, the batch, and what is left for `train`."""

    checkpoint: Path
    target: CostTarget
    batch: int | None
    rest: tuple[str, ...]

    def words(self, weights: Path, sparsity: float) -> list[str]:
        """Return the words for `train` that prune these weights to a sparsity and take dead units out."""
        ours = (
            f"++weights={in_quotes(weights)}",
            f"++pruner.schedule.final_sparsity={sparsity}",
            "++prune.shrink=true",
        )
        return [*self.rest, "pruner/pattern=channel", *ours]


def main(argv: list[str]) -> int:
    """Run the command."""
    if "-h" in argv or "--help" in argv:
        print(HELP + listing(argv))
        return 0
    asked = _asked(argv)
    from lightning_prune.cli import train
    from lightning_prune.cli.compressed import compressed, evaluated
    from lightning_prune.pruning.target import sparsity_for

    with _built(asked.words(asked.checkpoint, 0.5)) as (config, parts):
        folder = _folder()
        pruner = _pruner(config, parts)
        inputs = _inputs(parts, asked.batch)
        before = evaluated(config, parts)
        device = _device(config, parts)
        found = sparsity_for(parts.task.to(device).eval(), pruner, asked.target, inputs)
    sparsity = -(-found.sparsity // 1e-5) / 1e5  # up, to what a command line can show
    met = asked.target.of_share(found.share)
    print(f"{asked.target}: a sparsity of {sparsity:g} comes to {met} without training")
    words = [*asked.words(asked.checkpoint, sparsity), f"hydra.run.dir={in_quotes(folder)}"]
    with _as_train(words):
        status = train.main(words)
    if status:
        return status
    with _built(asked.words(asked.checkpoint, sparsity)) as (_, parts):
        dense = parts.task
    with _built(asked.words(folder / "model.pt", sparsity)) as (config, parts):
        after = evaluated(config, parts)
        result = compressed(dense.to(device), parts.task.to(device), inputs, asked.target, found, (before, after))
    result.save(folder)
    print(f"\n{result.table()}")
    return 0


def _asked(argv: Sequence[str]) -> Asked:
    """Return the command line read. Raises UserError that says what is missing or too much."""
    from lightning_prune.cli import checkpoints
    from lightning_prune.pruning.target import CostTarget

    key = argv[0].partition("=")[0] if argv else "-"
    if key.startswith("-") or key in (*TARGETS, "batch"):
        raise UserError("which checkpoint? Name it first: lightning-prune compress CHECKPOINT -cn RECIPE speedup=2")
    given = [word.partition("=") for word in argv[1:] if word.partition("=")[0] in (*TARGETS, "batch")]
    rest = tuple(word for word in argv[1:] if word.partition("=")[0] not in (*TARGETS, "batch"))
    targets = [(kind, value) for kind, _, value in given if kind in TARGETS]
    if len(targets) != 1:
        named = " and ".join(f"{kind}={value}" for kind, value in targets)
        raise UserError(f"{named or 'no target'}: give exactly one of macs=0.5, parameters=0.4, speedup=2")
    for word in rest:
        if (name := word.partition("=")[0].lstrip("+~")) in _OURS:
            raise UserError(f"{name}: {_OURS[name]}, so leave it out")
    kind, value = targets[0]
    batch = next((_number(f"batch={text}", text) for key, _, text in given if key == "batch"), None)
    if batch is not None and (batch < 1 or batch != int(batch)):
        raise UserError(f"batch={batch:g} must be a whole number of at least 1")
    target = CostTarget(kind, _number(f"{kind}={value}", value))  # pyright: ignore[reportArgumentType]
    file = checkpoints.file_of(Path(argv[0]))
    if not file.is_file():
        raise UserError(f"{argv[0]}: there is no such checkpoint")
    return Asked(file, target, None if batch is None else int(batch), rest)


def _number(word: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{word} must be a number") from None


@contextmanager
def _built(words: Sequence[str]) -> Generator[tuple[Any, Parts], None, None]:
    """Give a config and what it names, with the weights loaded."""
    arguments = read(words)
    from omegaconf import OmegaConf

    from lightning_prune.cli import compose, family
    from lightning_prune.cli.quiet import quiet

    with compose.composed(arguments) as config, nullcontext(family.begin(config)), quiet():
        if config.get("rounds") is not None:
            raise UserError(f"{config.recipe} prunes in rounds, which have no one sparsity: name another recipe")
        if "LearnedMasks" in str(OmegaConf.select(config, "prune.pruner._target_")):
            raise UserError(
                f"{config.recipe} learns its masks, for which no sparsity can be set: choose pruner=default"
            )
        schedule = OmegaConf.select(config, "prune.pruner.schedule")
        if schedule is None or set(schedule) <= {"_target_", "final_sparsity"}:
            raise UserError(
                f"{config.recipe}: its schedule has no final_sparsity that could meet a target: choose another, such "
                "as pruner/schedule=polynomial"
            )
        from lightning_prune.cli import build

        parts = build.parts(config)
        build.load_weights(config, parts.task)
        yield config, parts


def _folder() -> Path:
    """Return where the run goes. Raises UserError if one is there already."""
    from hydra.core.hydra_config import HydraConfig

    folder = Path(str(HydraConfig.get().run.dir))
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds a run already: choose another hydra.run.dir")
    return folder


def _pruner(config: Any, parts: Parts) -> Any:
    """Return the recipe's pruner. Raises UserError if it cannot take whole units out at a sparsity."""
    from lightning_prune.budget import MeasuredBudget
    from lightning_prune.pattern import CoupledPattern
    from lightning_prune.pruning import Pruner

    pruner = parts.prune.pruner
    if not isinstance(pruner, Pruner):
        raise UserError(f"{config.recipe} learns its masks, for which no sparsity can be set: choose pruner=default")
    if isinstance(pruner.budget, MeasuredBudget) and (
        not pruner.budget.is_measured or getattr(pruner.budget, "speedup", None)
    ):
        raise UserError(
            f"{config.recipe}: its budget is measured anew by each run, and compress finds the sparsity before: choose "
            "pruner/budget=weights or pruner/budget=macs, or give the file of a table by pruner.budget.table, without "
            "pruner.budget.speedup"
        )
    if not isinstance(pruner.pattern, CoupledPattern) or pruner.schedule.final_sparsity != 0.5:
        raise UserError(
            f"{config.recipe}: prune.pruner is {pruner}, whatever pruner says: let it be ${{pruner}}, and leave "
            "pattern and final_sparsity to compress"
        )
    return pruner


def _inputs(parts: Parts, batch: int | None) -> Any:
    """Return the example inputs, with so many examples."""
    from lightning_prune.coupling.example import example_of, with_batch

    inputs = example_of(parts.task, getattr(parts.prune.pruner.pattern, "example_inputs", None))
    return inputs if batch is None else with_batch(inputs, batch)


def _device(config: Any, parts: Parts) -> Any:
    from lightning_prune.cli import build
    from lightning_prune.cli.compressed import on_one_device

    return build.plain_trainer(on_one_device(config), parts.task).strategy.root_device


@contextmanager
def _as_train(words: Sequence[str]) -> Generator[None, None, None]:
    """Let processes that Lightning starts be of `train`, with the sparsity that was found here."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("compress begins as one process, which starts the others: trainer.devices=N, not a launcher")
    before, sys.argv = sys.argv, [sys.argv[0], "train", *words]
    try:
        yield
    finally:
        sys.argv = before
