"""`lightning-prune train`: one run, or a sweep of them, each into a folder of its own."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli import claim
from lightning_prune.cli.arguments import in_quotes, listing, read
from lightning_prune.cli.outcome import Outcome
from lightning_prune.cli.sweep import Sweep, from_here

if TYPE_CHECKING:
    from lightning_prune.page import Recorder

HELP = """\
usage: lightning-prune train -cn RECIPE [--config-dir FOLDER] [key=value ...] [-m]
       lightning-prune train RUN --resume

Train and prune as the recipe says. The run's folder, runs/RECIPE/TIME, then holds config.yaml, metrics.csv,
report.json, report.png, report.html, which shows all of it on one page, and model.pt, the plain state_dict of the
pruned model. What the config names is imported and called, whatever it is: with --config-dir, name folders that you
trust.

  -cn RECIPE             a recipe, listed below
  --config-dir FOLDER    your own recipes and config groups; what is found there goes first
  key=value              change a value: trainer.max_epochs=5 pruner.schedule.final_sparsity=0.95
                         Any argument that a constructor takes by name is a key; modules are looked for in the current
                         folder first
  group=option           change an idea: pruner/schedule=geometric pruner/pattern=n_of_m logger=wandb
                         callbacks=sparse_checkpoint callbacks=none
  pruning_hparams=...    the older system's string in place of the pruner:
                         pruning_hparams=name=mine,target_sparsity=0.9
  RUN --resume           go on in the folder of a run that was killed or interrupted, with its config; the same as the
                         run's own command with hydra.run.dir=RUN resume=true, which also starts a run that is not
                         there yet
  ckpt_path=FILE         go on from a checkpoint, in a folder of its own
  weights=FILE           start with the weights of a model.pt or checkpoint; with trainer.max_steps=0 they are pruned
                         as they are (pruner/schedule=one_shot pruner.schedule.step=0)
  hydra.run.dir=FOLDER   where the run goes, one at a time; a recipe in rounds goes on there where it was stopped
  -m, --multirun         a run for each of several values: pruner.schedule.final_sparsity=0.9,0.95
                         A run that fails is named at the end. With hydra.sweep.dir=FOLDER of an earlier sweep, runs
                         that are finished there are left out
  --cfg job              show the config and do nothing; --hydra-help for all of Hydra's options

Run it again to the bit: lightning-prune train --config-dir RUN -cn config

recipes:
"""
_RESULTS = {
    "config": "config.yaml",
    "metrics": "metrics.csv",
    "report": "report.json",
    "picture": "report.png",
    "page": "report.html",
    "details": "details.json",
    "model": "model.pt",
    "learned": "learned.pt",
    "learned picture": "learned.png",
}
_RUN_FOLDER = "LIGHTNING_PRUNE_RUN_FOLDER"


def main(argv: list[str]) -> int:
    """Run the command."""
    if "-h" in argv or "--help" in argv:
        print(HELP + listing(argv))
        return 0
    folder = [f"hydra.run.dir={in_quotes(os.environ[_RUN_FOLDER])}"] if _is_helper() else []
    from lightning_prune.cli import compose, front, launch, resume

    arguments = read([*resume.asked(argv), *folder])

    sweep = Sweep()
    try:
        compose.run(arguments, lambda config: _run(config, sweep), lambda inner: launch.Watched(inner, sweep))
    except KeyboardInterrupt:
        if not sweep.outcomes:
            raise
        sweep.end(stopped=True)
        return 130
    except SystemExit as stop:  # Lightning's way to end after Ctrl-C, and Hydra's after --cfg and the like
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        sweep.end(stopped=status != 0)
        return status
    except Exception:  # a sweeper that takes no more failures, say
        front.say(sweep)
        sweep.end(stopped=True)
        raise
    front.say(sweep)
    return sweep.end()


def _run(config: Any, sweep: Sweep) -> Outcome | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        return sweep.attempt(lambda: _objectives(config, folder, sweep), int(hydra.job.num), folder)
    _job(config, folder, None)
    return None


def _objectives(config: Any, folder: Path, sweep: Sweep) -> tuple[float, ...]:
    from lightning_prune.cli import objectives

    _job(config, folder, sweep)
    return objectives.values(config.get("objectives") or (), folder) if not _rank() else ()


def _job(config: Any, folder: Path, sweep: Sweep | None) -> None:
    from lightning_prune.cli import family, terminal

    family.begin(config)  # Lightning's log handlers are there from here on

    with terminal.calm():
        try:
            with nullcontext() if _is_helper() or _rank() else claim.claimed(folder):
                _train(config, folder, sweep)
        finally:
            wandb = sys.modules.get("wandb")
            if wandb is not None and wandb.run is not None:  # the next job of a sweep is another wandb run
                wandb.finish()


def _train(config: Any, folder: Path, sweep: Sweep | None) -> None:
    from lightning_prune.callbacks.metrics_files import write_whole
    from lightning_prune.cli import build, compose, gated, loggers, outputs, resume, saved_config, written
    from lightning_prune.cli.errors import UserError

    if config.get("rounds") is not None:
        from lightning_prune.cli import rounds

        helper = _is_helper()
        with compose.environment(_RUN_FOLDER, str(folder)):
            rounds.train(config, folder, sweep, helper)
        return
    goes_on = bool(config.get("resume")) and (folder / "config.yaml").exists()  # configs of earlier versions have none
    if sweep is None and not goes_on and not _is_helper() and (folder / "config.yaml").exists():
        raise UserError(
            f"{folder} holds a run already: choose another hydra.run.dir, or go on with it: "
            f"lightning-prune train {from_here(folder)} --resume"
        )
    try:
        parts = build.parts(config)
        started_from = build.load_weights(config, parts.task)
        text = saved_config.to_yaml(config)
        left = resume.look(folder, text) if config.get("resume") else None
        if left is not None and not _is_helper() and not _rank() and (sweep is None or not left.finished):
            print(left.said)
        if left is not None and left.finished and sweep is None:
            return
        point = left.checkpoint if left is not None else None
        if sweep is not None and not _is_helper() and not sweep.due(folder, text, started_from, goes_on=bool(point)):
            return
        trainer = build.trainer(config, parts.prune, parts.task)
        _check_comes_back(trainer, elsewhere=sweep is not None and sweep.elsewhere)
        ckpt_path = str(point) if point is not None else build.checkpoint(config)
        if left is not None and trainer.is_global_zero:
            resume.tidy(folder, point)
    except BaseException:
        if not goes_on:
            _clear(folder)
        raise
    if trainer.is_global_zero:
        write_whole(folder / "config.yaml", text)
        names = [str(key) for key, node in (config.logger or {}).items() if node is not None]
        loggers.remember(folder, trainer.loggers, names)
        parts.prune.hyperparameters = loggers.hyperparameters(config)
        parts.prune.folder = str(folder)
        seen = written.look(parts, folder, goes_on=ckpt_path is not None)
    else:
        seen = None
    facts: dict[str, Any] = {"recipe": config.recipe, "seed": config.seed, "started_from": started_from}
    with compose.hidden(), compose.environment(_RUN_FOLDER, str(folder)):
        try:
            trainer.fit(parts.task, datamodule=parts.data, ckpt_path=ckpt_path)
            _stop_if_told(trainer)
        except (KeyboardInterrupt, SystemExit):
            outputs.save_trained(parts, trainer, folder)
            _finish(parts, trainer, folder, facts | {"interrupted": True, "test": {}}, seen)
            raise SystemExit(130) from None
        except Exception:
            if (
                trainer.global_step == 0 and parts.prune.report is None and not goes_on
            ):  # nothing was trained: leave nothing
                _clear(folder)
            raise
        outputs.save_trained(parts, trainer, folder)  # before the test, which may fail
        _finish(parts, trainer, folder, facts | {"interrupted": False} | gated.test(trainer, parts), seen)
        _stop_if_told(trainer)


def _stop_if_told(trainer: Any) -> None:
    """Raise SystemExit after a SIGTERM that came in the last batch: Lightning takes it, and goes on."""
    if getattr(trainer, "received_sigterm", False):
        raise SystemExit(130)


def _check_comes_back(trainer: Any, elsewhere: bool) -> None:
    """Raise UserError if the report and the smaller model would end with the processes that train.

    Also where Lightning would start this command anew for each device, from a process that a launcher started.
    """
    from lightning_prune.callbacks.own_processes import own_processes
    from lightning_prune.cli.errors import UserError

    name = own_processes(trainer.strategy)
    if name is not None:
        raise UserError(
            f"trainer.strategy: {name} trains in processes of its own, which hand back to this command no smaller "
            "model and no history: use ddp, which starts this command once for each device"
        )
    if elsewhere and type(trainer.strategy.launcher).__name__ == "_SubprocessScriptLauncher":
        raise UserError(
            f"trainer.devices={trainer.num_devices}: a launcher gives each run of a sweep one process, which cannot "
            "start others: set trainer.devices=1, or leave hydra/launcher out"
        )


def _clear(folder: Path) -> None:
    """Remove the folder of a run that did not begin, unless something else is in it."""
    ours = ("config.yaml", "hparams.yaml", "metrics.csv", "details.json", claim.FILE)
    if all(path.name in ours for path in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)  # helpers may be at it too


def _finish(parts: Any, trainer: Any, folder: Path, facts: dict[str, Any], seen: Recorder | None) -> None:
    """Write report, picture and page, and print what there is."""
    report = parts.prune.report
    if seen is None or report is None:  # not the first rank, or interrupted before the first step
        return
    from lightning_prune.cli import outputs, picture, written
    from lightning_prune.dynamic.gates import is_of_gates
    from lightning_prune.learned import LearnedMasks

    if parts.prune.shrink_report is not None:
        facts |= {"shrink": parts.prune.shrink_report.to_dict(), "cost": parts.prune.cost_report.to_dict()}
    if isinstance(parts.prune.pruner, LearnedMasks):
        outputs.save_learned(parts.prune.pruner, folder, facts["recipe"])
    what = "channels left out of each example" if is_of_gates(report) else "weights pruned"
    title = f"{facts['recipe']}: {100 * report.sparsity:.2f} % of {report.size:,} {what}"
    picture.save_picture(report, outputs.read_metrics(folder), folder, title)
    macs = facts.pop("said_of_macs", None)
    outputs.save_report(report, folder, **facts, steps=trainer.global_step)  # last: a sweep takes it for the end
    written.details(seen, parts)
    written.page(folder)
    print(f"\n{report.table()}\n")
    if parts.prune.shrink_report is not None:
        print(f"{parts.prune.shrink_report.table()}\n\n{parts.prune.cost_report.table()}\n")
    if facts["interrupted"]:
        print(f"interrupted after {trainer.global_step} steps; this is what there was")
    if macs is not None:
        print(f"in the test, {macs}")
    for name, value in facts["test"].items():
        print(f"{name:<16} {value:.4f}")
    newest = max(folder.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    files = {name: folder / file for name, file in _RESULTS.items()} | ({"checkpoint": newest} if newest else {})
    for name, file in files.items():
        if file.is_file():
            print(f"{name:<16} {from_here(file)}")


def _is_helper() -> bool:
    """Whether this process was started by Lightning to help another one, as with devices=2."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and _RUN_FOLDER in os.environ


def _rank() -> int:
    """Return the number of this process among those that a launcher has started for the same run."""
    from lightning_utilities.core.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0)
