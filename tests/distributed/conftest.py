"""Starts scripts on several real processes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed import forked
from tests.distributed.forked import ROOT

Launch = Callable[..., list[dict[Any, Any]]]


class ScriptError(AssertionError):
    """The script did not end, or not well."""


def launch(
    scenarios: str, folder: Path, processes: int = 2, timeout: float = 240.0, script_name: str = "ranks.py"
) -> str:
    """Run a script of this folder on ranks that are there from the start, and return what it printed.

    Whatever happens, no process of it is left behind.
    """
    script, arguments = Path(__file__).with_name(script_name), [scenarios, str(folder), str(processes)]
    ended, printed = forked.run(script, arguments, _environment(), processes, timeout)
    return _printed(scenarios, ended, printed)


def launch_script(
    scenarios: str, folder: Path, processes: int = 2, timeout: float = 240.0, script_name: str = "ranks.py"
) -> str:
    """Do the same with one process, in which Lightning starts the others."""
    environment = {key: value for key, value in os.environ.items() if key not in forked.UNSET} | _environment()
    script = [sys.executable, str(Path(__file__).with_name(script_name)), scenarios, str(folder), str(processes)]
    run = subprocess.Popen(
        script, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        printed, _ = run.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        return _printed(scenarios, None, run.communicate()[0])
    return _printed(scenarios, run.returncode, printed)


def _environment() -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }


def _printed(scenarios: str, ended: int | None, printed: str) -> str:
    if ended is None:
        raise ScriptError(f"{scenarios} hangs:\n{printed[-12000:]}")
    if ended:
        raise ScriptError(f"{scenarios} ended with {ended}:\n{printed[-12000:]}")
    return printed


def results(scenario: str, folder: Path, processes: int = 2) -> list[dict[Any, Any]]:
    """Return what every rank wrote."""
    return [torch.load(folder / f"{scenario}.{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One script for all tests that only look at what came of it: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("ddp")
    return folder, launch("train,regularize,structure,learn,resume,differ", folder)
