"""LightningCLI of both packages takes what Python takes, from the command line and from YAML, and prints it again."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI as NewCLI
from pytorch_lightning.cli import LightningCLI as OldCLI

from lightning_prune import DynamicGates, LearnedMasks, Pruner, PruningCallback, Targets
from lightning_prune.callbacks import Rewind
from lightning_prune.criterion import Random
from lightning_prune.gate import HardConcrete, SoftThreshold
from lightning_prune.mask_regularizer import MeanProbability
from lightning_prune.pattern import Channel, Element, NofM
from lightning_prune.regularizer import L1
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK
from lightning_prune.selection import Sort

from .conftest import FAMILIES, Family, zeros

CLI: dict[str, Any] = {"pytorch_lightning": OldCLI, "lightning.pytorch": NewCLI}
CALLBACK = ("--trainer.callbacks+=lightning_prune.PruningCallback",)
P = "--trainer.callbacks.pruner"
MR = f"{P}.mask_regularizer"
RAMP = Polynomial(0.5, 2, 5, 1)


def ramp(key: str) -> tuple[str, ...]:
    values = {"final_sparsity": 0.5, "begin_step": 2, "end_step": 5, "pruning_frequency": 1}
    return (f"{key}=lightning_prune.schedule.Polynomial", *(f"{key}.{name}={value}" for name, value in values.items()))


WHOLE = (*CALLBACK, f"{P}=lightning_prune.Pruner", *ramp(f"{P}.schedule"))
LEARNED = (*CALLBACK, f"{P}=lightning_prune.LearnedMasks")
FORMS: dict[str, tuple[tuple[str, ...], PruningCallback]] = {
    "a number": ((*CALLBACK, f"{P}=0.5"), PruningCallback(0.5)),
    "a schedule": ((*CALLBACK, *ramp(P)), PruningCallback(RAMP)),
    "another schedule": (
        (*CALLBACK, f"{P}=lightning_prune.schedule.OneShot", f"{P}.final_sparsity=0.5", f"{P}.step=0.1"),
        PruningCallback(OneShot(0.5, 0.1)),
    ),
    "a pruner": (WHOLE, PruningCallback(Pruner(RAMP))),
    "its criterion": (
        (*WHOLE, f"{P}.criterion=lightning_prune.criterion.Random", f"{P}.criterion.seed=3"),
        PruningCallback(Pruner(RAMP, criterion=Random(3))),
    ),
    "its pattern": (
        (*WHOLE, f"{P}.pattern=lightning_prune.pattern.NofM", f"{P}.pattern.n=2", f"{P}.pattern.m=4"),
        PruningCallback(Pruner(RAMP, pattern=NofM(2, 4))),
    ),
    "units, shrunk and tagged": (
        (
            *WHOLE,
            f"{P}.pattern=lightning_prune.pattern.Channel",
            *("--trainer.callbacks.shrink=true", "--trainer.callbacks.tag=a"),
        ),
        PruningCallback(Pruner(RAMP, pattern=Channel()), shrink=True, tag="a"),
    ),
    "its scope and selection": (
        (*WHOLE, f"{P}.scope=lightning_prune.scope.ERK", f"{P}.selection=lightning_prune.selection.Sort"),
        PruningCallback(Pruner(RAMP, scope=ERK(), selection=Sort())),
    ),
    "its targets and regularizer": (
        (
            *(*WHOLE, f"{P}.targets.exclude=['head']", f"{P}.targets.sparsity={{'net': 0.6}}"),
            *(f"{P}.regularizer=lightning_prune.regularizer.L1", f"{P}.regularizer.strength=0.1"),
        ),
        PruningCallback(
            Pruner(RAMP, targets=Targets(exclude=("head",), sparsity={"net": 0.6}), regularizer=L1(strength=0.1))
        ),
    ),
    "learned masks": (LEARNED, PruningCallback(LearnedMasks())),
    "their gate and regularizer": (
        (
            *(*LEARNED, *ramp(f"{P}.schedule"), f"{P}.gate=lightning_prune.gate.HardConcrete"),
            *(
                f"{P}.mask_regularizer=lightning_prune.mask_regularizer.MeanProbability",
                f"{P}.mask_regularizer.strength=2",
            ),
        ),
        PruningCallback(LearnedMasks(RAMP, HardConcrete(), MeanProbability(2.0))),
    ),
    "dynamic gates": (
        (*CALLBACK, f"{P}=lightning_prune.DynamicGates", *ramp(f"{P}.schedule"), f"{P}.strength=0.1"),
        PruningCallback(DynamicGates(RAMP, strength=0.1)),
    ),
    "a rewind": (
        (
            *(*CALLBACK, *ramp(P), "--trainer.callbacks.rewind=lightning_prune.callbacks.Rewind"),
            *("--trainer.callbacks.rewind.to=3", "--trainer.callbacks.rewind.after_last=true"),
        ),
        PruningCallback(RAMP, rewind=Rewind(3, after_last=True)),
    ),
    "a rewind in short": (
        (*CALLBACK, *ramp(P), "--trainer.callbacks.rewind=init"),
        PruningCallback(RAMP, False, "init"),
    ),
}


def cli(family: Family, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["client.py"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own calls of it
    quiet = ("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary")
    options = [f"--trainer.{name}=false" for name in quiet] + ["--trainer.accelerator=cpu", "--trainer.max_epochs=2"]
    options += ["--seed_everything=1"]
    net = type(family.net())
    return CLI[family.pl.__name__](
        net, run=False, args=[*options, *words], save_config_callback=None, seed_everything_default=1
    )


def what(callback: PruningCallback) -> dict[str, Any]:
    """All that a callback was made of."""
    pruner: Any = callback.pruner
    names = (
        "schedule",
        "criterion",
        "pattern",
        "scope",
        "selection",
        "targets",
        "regularizer",
        "reversible",
        "name",
        "budget",
    )
    names += ("gate", "mask_regularizer", "task_share", "lr", "threshold", "train", "seed")
    made = {name: getattr(pruner, name, None) for name in names}
    return made | {"kind": type(pruner), "rewind": callback.rewind, "shrink": callback.shrink, "tag": callback.tag}


def found(made: Any) -> PruningCallback:
    return next(callback for callback in made.trainer.callbacks if isinstance(callback, PruningCallback))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read_and_printed_so_that_it_is_read_again(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every other form with each of the packages."""
    package = list(FAMILIES)[list(FORMS).index(form) % 2]
    family = Family(FAMILIES[package], tmp_path)
    words, wanted = FORMS[form]
    with pytest.raises(SystemExit):
        cli(family, monkeypatch, *words, "--print_config")
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    first = found(cli(family, monkeypatch, *words))
    again = found(cli(family, monkeypatch, f"--config={printed}"))
    assert what(first) == what(wanted) == what(again)


OWN = {
    "class_path": "lightning_prune.PruningCallback",
    "init_args": {
        "pruner": {
            "class_path": "lightning_prune.LearnedMasks",
            "init_args": {
                "mask_regularizer": None,
                "gate": {"class_path": "lightning_prune.gate.SoftThreshold"},
                "pattern": {"class_path": "lightning_prune.pattern.Element"},
            },
        }
    },
}


def test_a_file_of_class_paths(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"trainer": {"callbacks": [OWN]}}), encoding="utf-8")
    made = found(cli(family, monkeypatch, f"--config={file}"))
    wanted = LearnedMasks(gate=SoftThreshold(), mask_regularizer=None, pattern=Element())
    assert what(made) == what(PruningCallback(wanted))


def test_a_fit_prunes_as_asked_for(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cli(family, monkeypatch, *WHOLE)
    made.trainer.fit(made.model)
    assert zeros(made.model) == 120


def test_the_help_names_the_arguments_and_what_they_take(
    family: Family, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli(family, monkeypatch, "--trainer.callbacks.help=lightning_prune.PruningCallback")
    said = " ".join(capsys.readouterr().out.split())
    assert "a final sparsity in [0, 1]" in said
    assert "Pruner | LearnedMasks | DynamicGates | Schedule | float" in said


def test_what_is_no_idea_is_refused(
    family: Family, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli(family, monkeypatch, *WHOLE, f"{P}.criterion=lightning_prune.schedule.OneShot")
    said = capsys.readouterr().err
    assert 'Parser key "criterion"' in said
    assert "lightning_prune.schedule.OneShot" in said


def test_what_python_sees_stays_as_it_is_written() -> None:
    import inspect

    shown = inspect.signature(Pruner).parameters
    assert dataclasses.is_dataclass(shown["criterion"].default)
    assert Pruner(RAMP).criterion is shown["criterion"].default
