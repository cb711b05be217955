"""A run's folder belongs to one process at a time: two at once, one that was killed, names that cannot be the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from lightning_prune.cli import claim, compose
from lightning_prune.cli.arguments import read
from lightning_prune.cli.errors import UserError

from .conftest import SHORT, Command

HOLD = """
import sys
from pathlib import Path
from lightning_prune.cli.claim import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""
ONE = """
import sys
from pathlib import Path
from lightning_prune.cli import claim
from lightning_prune.cli.errors import UserError
sys.stdin.readline()
try:
    with claim.claimed(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=pipe, stdout=pipe, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_processes_at_once_one_has_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    two = [start(ONE, folder) for _ in range(2)]
    for process in two:
        tell(process)
    words = [said(process) for process in two]
    assert sorted(word == "mine" for word in words) == [False, True]
    first = two[words.index("mine")]
    refused = next(word for word in words if word != "mine")
    assert f"{folder}: another run is going on there (" in refused
    assert f"(process {first.pid} on " in refused or "its process is starting" in refused
    for process in two:
        if process.poll() is None and process is first:
            tell(process)
        process.communicate(timeout=60)
    assert list(folder.iterdir()) == []  # nothing is left behind
    with claim.claimed(folder):
        assert [file.name for file in folder.iterdir()] == [claim.FILE]


def test_what_a_killed_process_has_left_is_no_claim(tmp_path: Path) -> None:
    holder = start(HOLD, tmp_path)
    assert said(holder) == "claimed"
    with pytest.raises(UserError, match=f"process {holder.pid} on "), claim.claimed(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=60)
    assert (tmp_path / claim.FILE).is_file()
    with claim.claimed(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / claim.FILE).read_text(encoding="utf-8")
    assert not (tmp_path / claim.FILE).exists()


@pytest.mark.parametrize("sweep", [False, True])
def test_train_leaves_a_folder_that_is_taken_as_it_is(command: Command, sweep: bool) -> None:
    words = ("-m", "hydra.sweep.dir=runs", "seed=0") if sweep else ("hydra.run.dir=runs/0",)
    folder = Path("runs/0")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("of the other run", encoding="utf-8")
    holder = start(HOLD, folder)
    try:
        assert said(holder) == "claimed"
        found = command("train", "-cn", "digits_mlp", *words, *SHORT)
    finally:
        holder.kill()
        holder.communicate(timeout=60)
    assert found.status == 1
    assert found.err.count("\n") == 1
    assert "another run is going on there" in found.err
    assert (folder / "config.yaml").read_text(encoding="utf-8") == "of the other run"
    assert {file.name for file in folder.iterdir()} == {"config.yaml", claim.FILE}


@pytest.mark.filterwarnings("ignore:.*nearly nothing is left:UserWarning")
def test_a_finished_run_keeps_no_claim_and_a_refused_one_leaves_no_folder(command: Command) -> None:
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", "pruner.schedule.end_step=1.0")
    assert command("train", "-cn", "digits_mlp", "hydra.run.dir=run", *short).status == 0
    assert not (Path("run") / claim.FILE).exists()
    assert command("train", "-cn", "digits_mlp", "hydra.run.dir=other", "task.lr=-1").status == 1
    assert not Path("other").exists()


def test_folders_of_the_same_second_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    here = HydraConfig.instance()
    monkeypatch.setattr(here, "cfg", None)
    arguments = read(["-cn", "digits_mlp"])
    first, *others = arguments.folders
    found: set[str] = set()
    for _ in range(2):
        with compose._searched(others), initialize_config_dir(str(first), version_base="1.3"):
            here.set_config(hydra_compose("digits_mlp", return_hydra_config=True))
        config: Any = here.cfg
        assert config is not None
        for where in (config.hydra.run.dir, config.hydra.sweep.dir):
            assert re.fullmatch(r"runs/digits_mlp/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", where)
            found.add(where)
    assert len(found) == 2
