"""`lightning-prune train` and `plan` of a recipe that prunes in rounds."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli import build, claim, compose, loggers, outputs, saved_config, written
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.sweep import Sweep, from_here
from lightning_prune.page import PAGE
from lightning_prune.report import columns
from lightning_prune.rounds.record import FILE, FOLDER, finished, folder_of

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import LightningModule, Trainer

    from lightning_prune.rounds import History

_RESULTS = {
    "config": "config.yaml",
    "rounds": FILE,
    "report": "report.json",
    "picture": "report.png",
    "page": PAGE,
    "model": "model.safetensors",
    "its shapes": "shrunk.json",
    "state_dict": "model.pt",
}
_WHEN_TO_STOP = {"pruner.maximum_rounds", "pruner.maximum_share"}
"""What may be another when finished rounds are gone on from."""


def train(config: DictConfig, folder: Path, sweep: Sweep | None, helper: bool) -> None:
    """Do the rounds that are not finished in a folder yet, and write what there is.

    Args:
        config: what a run is made of.
        folder: where it goes.
        sweep: the sweep that it belongs to, if any.
        helper: this process helps another one, which writes.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra_config: Any = HydraConfig.instance().cfg
    try:
        if config.ckpt_path is not None:
            raise UserError(f"ckpt_path={config.ckpt_path}: rounds go on with hydra.run.dir=FOLDER of the earlier run")
        parts = build.parts(config)
        started_from = build.load_weights(config, parts.task)
        text = saved_config.to_yaml(config)
        if not helper:
            _make_room(folder, text, sweep)
            if sweep is not None and not sweep.due(folder, text, started_from):
                return
            (folder / "config.yaml").write_text(text, encoding="utf-8")
    except BaseException:
        _clear(folder)
        raise

    def make_trainer() -> Trainer:
        return _trainer(config, hydra_config, folder, parts.task)

    with compose.hidden():
        try:
            history = parts.rounds.run(
                parts.task, make_trainer, parts.data, folder, make_trainer if config.first is not None else None
            )
        except (KeyboardInterrupt, SystemExit):
            done = finished(folder)
            print(f"interrupted in round {done}; the same command with hydra.run.dir={from_here(folder)} goes on there")
            raise SystemExit(130) from None
        except Exception:
            _clear(folder)
            raise
    if not helper:
        _finish(history, parts, folder, {"recipe": config.recipe, "seed": config.seed, "started_from": started_from})


def plan(parts: build.Parts) -> str:
    """Return the units of each group in each round, as far as rounds can be planned without training."""
    steps, reason = parts.rounds.plan(parts.task)
    names = list(steps[0])
    rows = [("", "units of", "dense", *(f"round {i}" for i in range(1, len(steps))))]
    rows += [(str(i), name, *(f"{step[name]:,}" for step in steps)) for i, name in enumerate(names)]
    rows.append(("", "all", *(f"{sum(step.values()):,}" for step in steps)))
    return f"{columns(rows, rules={1, len(rows) - 1})}\n{reason}"


def plan_facts(parts: build.Parts) -> dict[str, Any]:
    """Return the same as plain values that JSON can hold."""
    steps, reason = parts.rounds.plan(parts.task)
    return {"rounds": [dict(step) for step in steps[1:]], "dense": dict(steps[0]), "ends": reason}


def _trainer(config: DictConfig, hydra_config: DictConfig, folder: Path, task: LightningModule) -> Trainer:
    """Return the trainer of the next round: its loggers and checkpoints go to the round's folder."""
    from omegaconf import OmegaConf, open_dict

    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:  # each round is a run of its own there
        wandb.finish()
    number = finished(folder)
    ours = config.copy()
    with compose.output_folder(hydra_config, folder_of(folder, number)), open_dict(ours):
        ours.recipe = f"{config.recipe} round {number}"
        if number == 0 and config.first is not None:
            ours.trainer = OmegaConf.merge(config.trainer, config.first)
        trainer = build.trainer(ours, None, task)
        for logger in trainer.loggers:
            logger.log_hyperparams(loggers.hyperparameters(ours))
        return trainer


def _make_room(folder: Path, text: str, sweep: Sweep | None) -> None:
    """See that the rounds in a folder, if any, are of this config; a sweep clears others away."""
    if not (folder / "config.yaml").exists():
        return
    before = (folder / "config.yaml").read_text(encoding="utf-8")
    differ = saved_config.differing(before, text, _WHEN_TO_STOP)
    if differ and sweep is None:
        raise UserError(f"{folder} holds a run with another {saved_config.named(differ)}: choose another hydra.run.dir")
    if differ:
        (folder / FILE).unlink(missing_ok=True)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove the folder of a run that did not begin, unless something else is in it."""
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    if files <= {"config.yaml", "hparams.yaml", claim.FILE}:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(history: History, parts: build.Parts, folder: Path, facts: dict[str, Any]) -> None:
    """Write model, report and picture, and print what there is."""
    outputs.save_model(parts.task, folder)
    dense, last = history.rounds[0], history.rounds[-1]
    gone = 1 - last.parameters / dense.parameters
    title = f"{facts['recipe']}: {dense.macs / max(1, last.macs):.2f} times fewer MACs after {last.number} rounds"
    history.plot(title).savefig(folder / "report.png")
    report = facts | {
        "interrupted": False,
        "sparsity": gone,  # compare takes these for what was pruned and what was asked for
        "final_sparsity": gone,
        "parameters": [dense.parameters, last.parameters],
        "macs": [dense.macs, last.macs],
        "test": {name: value for name, value in last.metrics.items() if name.startswith("test")},
        **history.to_dict(),
        "versions": outputs.versions(),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    written.page(folder)
    print(f"\n{history.table()}\n")
    for name, file in _RESULTS.items():
        if (folder / file).is_file():
            print(f"{name:<16} {from_here(folder / file)}")
