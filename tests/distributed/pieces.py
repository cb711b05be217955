"""Trains models that FSDP2 and tensor parallelism have taken apart; test_sharded.py runs it as a script.

    python pieces.py SCENARIO@LAYOUT,SCENARIO@LAYOUT FOLDER PROCESSES

Layouts are those of apart.py. Every rank writes to FOLDER/SCENARIO@LAYOUT.RANK.pt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_prune import Pruner
from lightning_prune.criterion import Movement, Taylor
from lightning_prune.regularizer import L1, L2, GroupLasso, NearThreshold
from lightning_prune.schedule import OneShot
from tests.distributed.apart import main, mesh_of, net, take_apart
from tests.distributed.equal import IDEAS, equal
from tests.distributed.failing import fail
from tests.distributed.fits import Sharded as Sharded
from tests.distributed.fits import fit
from tests.distributed.regression import SCHEDULE

REGULARIZERS = {"l1": L1(0.01), "l2": L2(0.01), "near": NearThreshold(0.01), "lasso": GroupLasso(0.01)}


TRAINED = ("magnitude", "uniform", "first order", "random", "reversible", "block", "filter norm", "histogram")
OF_GRADIENTS: dict[str, Any] = {"taylor": Taylor(), "movement": Movement()}
ELSEWHERE = ("magnitude", "block")
"""What is trained on layouts other than two pieces and one process."""


def train(layout: str, folder: Path) -> dict[str, Any]:
    """Prune by some ideas, with clipping, and with regularizers."""
    all_of_them = layout in ("1x1", "2x1")
    names = TRAINED if all_of_them else ELSEWHERE
    runs = {name: fit(layout, folder, f"{layout}-{name}", pruner(name)) for name in names}
    for name in REGULARIZERS if all_of_them else ("l2", "lasso"):
        runs[name] = fit(layout, folder, f"{layout}-{name}", Pruner(SCHEDULE, regularizer=REGULARIZERS[name]))
    for name, criterion in OF_GRADIENTS.items() if all_of_them else ():
        runs[name] = fit(layout, folder, f"{layout}-{name}", Pruner(SCHEDULE, criterion))
    if all_of_them:  # torch cannot clip plain tensors and pieces together
        runs["clipped"] = fit(layout, folder, f"{layout}-clipped", Pruner(SCHEDULE), gradient_clip_val=0.01)
    return runs


def pruner(name: str) -> Pruner:
    ideas: dict[str, Any] = {"schedule": SCHEDULE} | IDEAS[name]()
    return Pruner(**ideas)


RESUMED = ("magnitude", "second order", "reversible", "block")
STOPS = (1, 4, 5, 7, 9)
"""Of two pieces, magnitude and a folder of pieces; otherwise in the middle of the first epoch."""


def resume(layout: str, folder: Path) -> dict[str, Any]:
    """Prune, and go on from files of this layout, as a folder of pieces and as one file."""
    runs: dict[str, Any] = {}
    for name in RESUMED if layout == "2x1" else ELSEWHERE:
        for sharded in (True, False):
            kind = f"{layout}-{name}-{'pieces' if sharded else 'file'}"
            runs[kind] = fit(layout, folder, kind, pruner(name), sharded=sharded)
            for stop in STOPS if (layout, name, sharded) == ("2x1", "magnitude", True) else (5,):
                file = folder / kind / f"step={stop}.ckpt"
                options: dict[str, Any] = {"sharded": sharded, "ckpt_path": file}
                runs[f"{kind}-{stop}"] = fit(layout, folder, f"{kind}-{stop}", pruner(name), **options)
    return runs


def other(layout: str, folder: Path) -> dict[str, Any]:
    """Go on from what other layouts have written: all that lies in FOLDER/others."""
    runs: dict[str, Any] = {}
    for file in sorted((folder / "others").iterdir()):
        name = file.name.split("@")[0]
        runs[file.name] = fit(layout, folder, f"{layout}-from-{file.name}", pruner(name), ckpt_path=file)
    return runs


def brief(layout: str, folder: Path) -> dict[str, Any]:
    """Prune once, and go on from the middle of an epoch."""
    whole_run = fit(layout, folder, f"{layout}-brief", pruner("magnitude"))
    file = folder / f"{layout}-brief" / "step=5.ckpt"
    return {
        "whole": whole_run,
        "resumed": fit(layout, folder, "resumed", pruner("magnitude"), ckpt_path=file),
        "behind a forward": fit(layout, folder, "behind", Pruner(OneShot(0.8, 0))),
        "late": _late(layout),
    }


def _late(layout: str) -> dict[str, Any]:
    """Take a net apart that is being pruned, and return what is said of it."""
    model, late = net(), pruner("magnitude")
    late.attach(model, 12)
    late.after_step(2)
    take_apart(model, *mesh_of(layout))
    try:
        late.after_step(4)
    except ValueError as error:
        return {"error": str(error)}
    return {"error": "none"}


def precision(layout: str, folder: Path) -> dict[str, Any]:
    """Prune in lower precision: all in bfloat16, in mixed precision of Lightning's, and of FSDP2's own."""
    return {
        name: fit(layout, folder, name, Pruner(SCHEDULE), **options, dtype=dtype)
        for name, dtype, options in (
            ("bf16-true", torch.bfloat16, {"precision": "bf16-true"}),
            ("bf16-mixed", torch.float32, {"precision": "bf16-mixed"}),
            ("policy", torch.float32, {"policy": True}),
        )
    }


SCENARIOS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "equal": equal,
    "train": train,
    "resume": resume,
    "other": other,
    "brief": brief,
    "fail": fail,
    "precision": precision,
}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), SCENARIOS)
