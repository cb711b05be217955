"""What the tests of the command line share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lightning_prune.cli import main

SHORT = ("trainer.max_epochs=3", "trainer.limit_train_batches=12", "trainer.enable_progress_bar=false")
"""A run of 36 steps."""


@dataclass(frozen=True)
class Said:
    """What a command left on the terminal."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `lightning-prune` in this process, in an empty folder, without data sets.

    Lightning logs to the terminal as it does for a user; under pytest it leaves that to pytest.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_PRUNE_DATA", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    above = logging.getLogger("lightning")

    def run(*argv: str) -> Said:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(above, "handlers", [])
            for lightning in loggers:
                patch.setattr(lightning, "handlers", [logging.StreamHandler()])
                patch.setattr(lightning, "propagate", False)
            status = main(argv)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run
