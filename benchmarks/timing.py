"""Time contenders in turn in one process, and keep the least of each: what other programs take away is not counted."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch


@dataclass(frozen=True)
class Contender:
    """What is timed, and what has to be done before each time without being timed."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Time:
    """Seconds: by the clock, and of all cores together."""

    wall: float
    cpu: float

    def over(self, other: Time) -> str:
        """Return the ratios of both, by the clock and of all cores."""
        return f"{self.wall / other.wall:.2f} ({self.cpu / other.cpu:.2f})"


def in_turn(
    contenders: Mapping[str, Contender],
    repeats: int,
    warm_up: int = 1,
    calls: int = 1,
    wait: Callable[[], object] = lambda: None,
) -> dict[str, Time]:
    """Return the least time of one call of each contender, in turns of `calls` calls.

    `wait` waits for an accelerator to finish what it was given; it is called before each time and within it.
    """
    least = {name: Time(float("inf"), float("inf")) for name in contenders}
    for turn in range(warm_up + repeats):
        for name, contender in contenders.items():
            contender.prepare()
            wait()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls):
                contender.run()
            wait()
            wall, cpu = (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls
            if turn >= warm_up:
                least[name] = Time(min(least[name].wall, wall), min(least[name].cpu, cpu))
    return least


def machine() -> str:
    """Return one line on machine and versions."""
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {version('numpy')}, "
        f"pytorch-lightning {version('pytorch-lightning')}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
