"""Ranks as forks of one process that has imported torch, Lightning and the scripts: a start takes no import."""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_SCRIPTS = ["pieces", "channels", "moving", "units"]
UNSET = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "PL_GLOBAL_SEED", "PL_SEED_WORKERS")
"""What tests that ran before in this process may have left in the environment, and no rank may find there."""


def run(script: Path, arguments: list[str], environment: dict[str, str], ranks: int, timeout: float) -> tuple[Any, str]:
    """Run a script as `__main__` on so many ranks, and return how it ended and what it printed.

    It ended with the first exit code that is not 0, with None where the time was over. Those that are still there then
    print where they are, and none is left behind.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([f"tests.distributed.{name}" for name in _SCRIPTS])
    Path(arguments[1]).mkdir(parents=True, exist_ok=True)
    printed = Path(arguments[1]) / f"printed-{time.monotonic_ns()}.txt"
    processes = [
        context.Process(
            target=_rank, args=(str(script), arguments, environment | {"LOCAL_RANK": str(rank)}, str(printed))
        )
        for rank in range(ranks)
    ]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the first start makes the process that imports
    try:
        for process in processes:
            process.start()
        end = time.monotonic() + timeout
        while (codes := [process.exitcode for process in processes]).count(0) < ranks:
            bad = [code for code in codes if code]
            if bad or time.monotonic() > end:
                _ask_where(processes)
                return (bad[0] if bad else None), printed.read_text() if printed.exists() else ""
            time.sleep(0.02)
        return 0, printed.read_text()
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
        for process in processes:
            process.join()
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _ask_where(processes: list[Any]) -> None:
    """Have ranks that others may wait for print their stacks."""
    there = [process for process in processes if process.is_alive()]
    for process in there:
        os.kill(process.pid, signal.SIGUSR1)
    if there:
        time.sleep(0.5)


def _rank(script: str, arguments: list[str], environment: dict[str, str], printed: str) -> None:
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(environment)
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    faulthandler.register(signal.SIGUSR1)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
