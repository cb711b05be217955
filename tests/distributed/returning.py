"""Trains models whose pruned weights return, under DDP and taken apart; test_returning.py runs it as a script.

    python returning.py SCENARIO@LAYOUT,SCENARIO@LAYOUT FOLDER PROCESSES

Layouts are those of pieces.py, and so is the net.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_prune import Pruner
from lightning_prune.criterion import Random
from lightning_prune.pattern import Row
from lightning_prune.regrowth import Gradient
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Uniform
from tests.distributed.apart import main
from tests.distributed.fits import fit
from tests.distributed.regression import SCHEDULE

CUT = 5
"""Step of the file that is gone on from: between two updates, with the gradients of one step of the window."""
RUNS: dict[str, Callable[[], Pruner]] = {
    "rising": lambda: Pruner(SCHEDULE, regrowth=Gradient(0.6, 9, window=2)),
    "constant": lambda: Pruner(
        Polynomial(0.7, 0, 9, 2, initial_sparsity=0.7), Random(), scope=Uniform(), regrowth=Gradient(0.6, 12)
    ),
    "rows": lambda: Pruner(SCHEDULE, pattern=Row(), scope=Uniform(), regrowth=Gradient(0.8, 10)),
}


def train(layout: str, folder: Path) -> dict[str, Any]:
    """Fit with every one, and go on from the middle."""
    runs: dict[str, Any] = {}
    for name, make in RUNS.items():
        runs[name] = fit(layout, folder, f"{layout}-{name}", make())
    file = folder / f"{layout}-rising" / f"step={CUT}.ckpt"
    runs["resumed"] = fit(layout, folder, f"{layout}-resumed", RUNS["rising"](), ckpt_path=file)
    return runs


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), {"train": train})
