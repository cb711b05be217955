"""Prunes whole channels of models that are taken apart; test_sharded_channels.py runs it as a script.

    python channels.py SCENARIO@LAYOUT,SCENARIO@LAYOUT FOLDER PROCESSES

Layouts and what is written are those of pieces.py. Of 7 channels and 4 outputs few splits are even, and some pieces are
empty.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.budget import MACs
from lightning_prune.criterion import (
    APoZ,
    FilterNorm,
    FirstOrderDelta,
    GeometricMedian,
    NormScale,
    NormTaylor,
    Random,
    Taylor,
)
from lightning_prune.pattern import Channel
from lightning_prune.pruning import collecting
from lightning_prune.regularizer import L2, NormL1
from lightning_prune.schedule import Hold, Polynomial
from lightning_prune.scope import ERK, Uniform
from lightning_prune.selection import Histogram
from lightning_prune.shards import local
from lightning_prune.shrink import is_apart, shrink, whole_again
from tests.distributed.apart import begin, differs, main, mesh_of, move, net, take_apart
from tests.distributed.failing import BreaksAPiece
from tests.distributed.fits import Sharded, fit, strategy_of
from tests.distributed.nets import Dense, Empty, Image, Late, Residual, residual, residual_apart
from tests.distributed.one_fails import Picky
from tests.distributed.regression import SCHEDULE, trainer_of, what_failed

IDEAS: dict[str, Callable[[], dict[str, Any]]] = {
    "channels": lambda: {},
    "multiple": lambda: {"pattern": Channel(multiple=2)},
    "readers": lambda: {"pattern": Channel(readers=True, normalize=False)},
    "uniform": lambda: {"scope": Uniform()},
    "erk": lambda: {"scope": ERK()},
    "histogram": lambda: {"selection": Histogram(nbins=50)},
    "macs": lambda: {"budget": MACs(by_cost=True)},
    "random": lambda: {"criterion": Random(seed=3)},
    "first order": lambda: {"criterion": FirstOrderDelta(0.9)},
    "filter norm": lambda: {"criterion": FilterNorm()},
    "geometric median": lambda: {"criterion": GeometricMedian()},
    "reversible": lambda: {"reversible": True},
    "norm scale": lambda: {"criterion": NormScale()},
}
FEW = ("channels", "macs", "readers", "first order", "filter norm", "norm scale")
"""What is pruned on four processes."""


# On equal weights, to the bit


def equal(layout: str, folder: Path) -> dict[str, Any]:
    """Prune nets that are taken apart and whole ones of equal weights, shrink both, and return in what they differ."""
    begin()
    mesh, data, tensor = mesh_of(layout)
    found: list[str] = []
    compared, sizes, empty = 0, set[int](), False
    for kind in ("mlp",) if tensor is not None and mesh[tensor].size() > 1 else ("mlp", "residual"):
        names = FEW if layout in ("2x2", "hsdp") else IDEAS
        for name in [name for name in names if kind == "residual" or name != "norm scale"]:
            dtype = torch.float64 if name == "channels" else torch.float32
            model, plain = (net(dtype), net(dtype)) if kind == "mlp" else (residual(dtype), residual(dtype))
            example = torch.ones(2, 12, dtype=dtype)
            ideas: dict[str, Any] = {"schedule": Polynomial(0.7, 2, 9, 2), "pattern": Channel()} | IDEAS[name]()
            split, alone = Pruner(**ideas), Pruner(**ideas)
            for pruner, its in ((split, model), (alone, plain)):
                object.__setattr__(pruner.pattern, "example_inputs", example)
                pruner.find_units(its)
            if kind == "mlp":
                take_apart(cast(nn.Sequential, model), mesh, data, tensor)
            else:
                residual_apart(cast(Residual, model), mesh, data)
            split.attach(model, 12)
            alone.attach(plain, 12)
            empty |= any(not local(parameter).numel() for parameter in model.parameters())
            for step in range(1, 11):
                move(model, plain, step, "eighths" if name == "uniform" else "none")
                if split.after_step(step) != alone.after_step(step):
                    found.append(f"{kind} {name} {step}: one of them was updated")
                for key, weight in alone.masks.items():
                    compared += 1
                    if difference := differs(weight, split.masks[key]):
                        found.append(f"{kind} {name} step {step} {key}: {difference}")
            if (one := split.strip().to_dict()) != (other := alone.strip().to_dict()):
                found.append(f"{kind} {name}: the reports differ: {one} {other}")
            whole_again(model)
            found += [f"{kind} {name}: {what}" for what in unlike(model, plain)]
            one, other = shrink(model, example).model, shrink(plain, example).model
            found += [f"{kind} {name}, shrunk: {what}" for what in unlike(one, other)]
            sizes.add(sum(p.numel() for p in one.parameters()) - sum(p.numel() for p in plain.parameters()))
    return {"found": found, "compared": compared, "empty": empty, "smaller": max(sizes)}


def unlike(model: nn.Module, plain: nn.Module) -> list[str]:
    """Return in what a module that is whole again differs from one that was never taken apart."""
    kinds = [type(m).__name__ for m, n in zip(model.modules(), plain.modules(), strict=True) if type(m) is not type(n)]
    hung = [str(vars(m)[key]) for m in model.modules() for key in vars(m) if key.endswith("_hooks") and vars(m)[key]]
    pairs = zip(model.state_dict().items(), plain.state_dict().items(), strict=True)
    values = [n for (n, one), (m, other) in pairs if n != m or not torch.equal(one, other)]
    inputs = torch.linspace(-1, 1, 36).view(3, 12).to(next(plain.parameters()))
    same = torch.equal(model.eval()(inputs), plain.eval()(inputs))
    return [*kinds, *hung, *values, *([] if same else ["the outputs"])]


# Under Lightning


RUNS: dict[str, tuple[type[Sharded], Callable[[], dict[str, Any]]]] = {
    "dense": (Dense, lambda: {}),
    "image": (Image, lambda: {}),
    "slimming": (Image, lambda: {"criterion": NormScale(), "regularizer": NormL1(0.01)}),
    "norm taylor": (Image, lambda: {"criterion": NormTaylor(window=2)}),
    "l2": (Dense, lambda: {"criterion": Taylor(), "regularizer": L2(0.01)}),
}


def pruner(name: str) -> Pruner:
    ideas: dict[str, Any] = {"schedule": SCHEDULE, "pattern": Channel()} | RUNS[name][1]()
    return Pruner(**ideas)


def run(name: str, layout: str, folder: Path, label: str, **options: Any) -> dict[str, Any]:
    return fit(layout, folder, label, pruner(name), model=RUNS[name][0], callback={"shrink": True}, **options)


def train(layout: str, folder: Path) -> dict[str, Any]:
    """Prune channels and shrink; go on from the middle, from a folder of pieces and from one file."""
    runs: dict[str, Any] = {}
    for name in RUNS if layout in ("1x1", "2x1") else ("image",):
        runs[name] = run(name, layout, folder, f"{layout}-{name}", sharded=name != "dense")
        for stop in (3, 8):
            file = folder / f"{layout}-{name}" / f"step={stop}.ckpt"
            options: dict[str, Any] = {"ckpt_path": file, "sharded": name != "dense"}
            runs[f"{name}-{stop}"] = run(name, layout, folder, f"{layout}-{name}-{stop}", **options)
    return runs


def brief(layout: str, folder: Path) -> dict[str, Any]:
    """Prune channels once and shrink."""
    return {"image": run("image", layout, folder, f"{layout}-image")}


def more(layout: str, folder: Path) -> dict[str, Any]:
    """Hold the zeros of a net that has lost some channels before, and go on with one that was shrunk."""
    return {
        "held channels": fit(layout, folder, "channels", Pruner(Hold(), pattern=Channel()), model=sparse),
        "afterwards": afterwards(layout),
        "held weights": fit(layout, folder, "weights", Pruner(Hold()), model=sparse),
    }


def afterwards(layout: str) -> dict[str, Any]:
    """Fit, and then validate and train on what was shrunk, with the same trainer: it is taken apart again."""
    model, pruning = Image(layout), PruningCallback(pruner("image"), shrink=True)
    model.register_buffer("rank", torch.tensor(int(os.environ.get("LOCAL_RANK", "0"))))
    trainer = trainer_of(strategy_of(layout, True), int(sys.argv[3]), [pruning], enable_checkpointing=False)
    trainer.fit(model)
    rank = int(cast(Tensor, model.rank))
    shapes = [{name: list(parameter.shape) for name, parameter in model.named_parameters()}]
    trainer.validate(model)
    apart = [is_apart(model)]
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model)
    shapes.append({name: list(parameter.shape) for name, parameter in model.named_parameters()})
    return {"shapes": shapes, "rank": rank, "apart": [*apart, is_apart(model)], "step": trainer.global_step}


def sparse(layout: str, *_: Any) -> Image:
    """Return a net without two of its inner channels."""
    model = Image(layout)
    with torch.no_grad():
        model.net.outer.weight[:, [1, 4]] = 0.0
        for tensor in (model.net.inner.weight, model.net.between.weight, model.net.between.bias):
            tensor[[1, 4]] = 0.0
    return model


FAILURES: dict[str, Callable[[], dict[str, Any]]] = {
    "late": lambda: {"model": Late},
    "meta": lambda: {"model": Empty},
    "no example": lambda: {"model": Sharded},
    "too large to collect": lambda: {"pruner": Pruner(SCHEDULE), "shrink": True, "most": 100},
    "criterion": lambda: {"pruner": Pruner(SCHEDULE, PickyEntries(KeyError("mine")), pattern=Channel())},
    "activations": lambda: {"pruner": Pruner(SCHEDULE, APoZ(), pattern=Channel())},
    "nan": lambda: {"breaking": [BreaksAPiece("net.inner.weight")]},
}


class PickyEntries(Picky):
    """Fails on one rank at a piece."""

    of_entries = True


def fail(layout: str, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, make in FAILURES.items():
        case = make()
        collecting.MOST = case.get("most", 1 << 31)
        ours = case.get("pruner", Pruner(SCHEDULE, pattern=Channel()))
        pruning = PruningCallback(ours, shrink=case.get("shrink", False))
        callbacks = [*case.get("breaking", []), pruning]
        trainer = trainer_of(strategy_of(layout, True), int(sys.argv[3]), callbacks, enable_checkpointing=False)
        try:
            trainer.fit(case.get("model", Image)(layout))
        except Exception as error:
            found[name] = what_failed(error, trainer, pruning)
    return found


SCENARIOS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "equal": equal,
    "train": train,
    "brief": brief,
    "more": more,
    "fail": fail,
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), SCENARIOS)
