"""Trains models that FSDP2 and tensor parallelism have taken apart; test_sharded.py runs it as a script.

    python pieces.py SCENARIO@LAYOUT,SCENARIO@LAYOUT FOLDER PROCESSES

A layout is DATAxTENSOR, "2x1" say, "hsdp": two replicas of two pieces, or "ddp": all on each rank. The net is
12-18-7-3, so that few splits are even and some pieces are empty. Every rank writes to FOLDER/SCENARIO@LAYOUT.RANK.pt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import LearnedMasks, Pruner, PruningCallback
from lightning_prune.criterion import (
    FilterNorm,
    FirstOrderDelta,
    GeometricMedian,
    Movement,
    Random,
    SecondOrderDelta,
    Taylor,
    Wanda,
)
from lightning_prune.masks import MaskedWeight
from lightning_prune.pattern import Block, Column, Element, NofM, Row
from lightning_prune.pruning import collecting
from lightning_prune.reconstruction import SparseGPT
from lightning_prune.regularizer import L1, L2, GroupLasso, NearThreshold
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.scope import ERK, GlobalRanking, Uniform
from lightning_prune.selection import Exact, Histogram, Sort
from lightning_prune.shards import local, shard_of, whole
from lightning_prune.shrink import is_apart
from lightning_prune.targets import Targets
from tests.distributed.ranks import BATCHES, GLOBAL_BATCH, SCHEDULE, TIMEOUT, Loader, Picky, trainer_of, what_failed

IDEAS: dict[str, Callable[[], dict[str, Any]]] = {
    "magnitude": lambda: {},
    "no floor": lambda: {"scope": GlobalRanking(floor=0.0)},
    "uniform": lambda: {"scope": Uniform()},
    "erk": lambda: {"scope": ERK()},
    "rules": lambda: {"targets": Targets(sparsity={"0.weight": 0.5})},
    "histogram": lambda: {"selection": Histogram(nbins=50, threshold_decay=0.3)},
    "sort": lambda: {"selection": Sort(threshold_decay=0.3)},
    "sort with a floor": lambda: {"selection": Sort(), "scope": GlobalRanking(floor=0.1)},
    "floor": lambda: {"selection": Exact(), "scope": GlobalRanking(floor=0.15)},
    "first order": lambda: {"criterion": FirstOrderDelta(0.9)},
    "second order": lambda: {"criterion": SecondOrderDelta(0.9)},
    "random": lambda: {"criterion": Random(seed=3)},
    "filter norm": lambda: {"criterion": FilterNorm()},
    "geometric median": lambda: {"criterion": GeometricMedian()},
    "reversible": lambda: {"reversible": True},
    "block": lambda: {"pattern": Block(2, 3)},
    "row": lambda: {"pattern": Row()},
    "column": lambda: {"pattern": Column()},
    "2:4": lambda: {"pattern": NofM(2, 4), "targets": Targets(include=("0.weight",)), "schedule": OneShot(0.5, 4)},
}
REGULARIZERS = {"l1": L1(0.01), "l2": L2(0.01), "near": NearThreshold(0.01), "lasso": GroupLasso(0.01)}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Return the net, the same on every rank and in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(12, 18), nn.Tanh(), nn.Linear(18, 7), nn.Tanh(), nn.Linear(7, 3)
        return nn.Sequential(*layers).to(dtype)


def take_apart(model: nn.Sequential, mesh: DeviceMesh, data: str, tensor: str | None, policy: bool = False) -> None:
    """Take a net apart over the dimensions of a mesh; "hsdp" is split over the first and replicated over the second."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    if tensor is not None and mesh[tensor].size() > 1:
        parallelize_module(model, mesh[tensor], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    if data == "hsdp":
        fully_shard(model, mesh=mesh)
    elif mesh[data].size() > 1:
        lower = MixedPrecisionPolicy(torch.bfloat16 if policy else None, torch.float32 if policy else None)
        fully_shard(model[2], mesh=mesh[data], mp_policy=lower)
        fully_shard(model, mesh=mesh[data], mp_policy=lower)


def mesh_of(layout: str) -> tuple[DeviceMesh, str, str | None]:
    if layout == "hsdp":
        return init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")), "hsdp", None
    data, tensor = (int(number) for number in layout.split("x"))
    return init_device_mesh("cpu", (data, tensor), mesh_dim_names=("data", "tensor")), "data", "tensor"


# On equal weights, to the bit


def equal(layout: str, folder: Path) -> dict[str, Any]:
    """Prune a net that is taken apart and a whole one of equal weights, and return in what they differ."""
    if not dist.is_initialized():  # Lightning starts the other processes
        fit(layout, folder, f"{layout}-start", Pruner(SCHEDULE), max_steps=3)
    mesh, data, tensor = mesh_of(layout)
    found: list[str] = []
    compared = 0
    for name, dtype, ties in _cases():
        model, plain = net(dtype), net(dtype)
        take_apart(model, mesh, data, tensor)
        ideas: dict[str, Any] = {"schedule": Polynomial(0.8, 2, 9, 2)} | IDEAS[name]()
        split, alone = Pruner(**ideas), Pruner(**ideas)
        split.attach(model, 12)
        alone.attach(plain, 12)
        for step in range(1, 11):
            move(model, plain, step, ties)
            if split.after_step(step) != alone.after_step(step):
                found.append(f"{name} {dtype} {step}: one of them was updated")
            for key, weight in alone.masks.items():
                difference = differs(weight, split.masks[key])
                compared += 1
                if difference:
                    found.append(f"{name} {dtype} ties={ties} step {step} {key}: {difference}")
        one, other = split.strip().to_dict(), alone.strip().to_dict()
        if one != other:
            found.append(f"{name} {dtype}: the reports differ: {one} {other}")
    model = net()
    take_apart(model, mesh, data, tensor)
    empty = any(not local(parameter).numel() for parameter in model.parameters())
    return {"found": found, "compared": compared, "empty": empty}


def _cases() -> Iterator[tuple[str, torch.dtype, str]]:
    for name in IDEAS:
        for dtype in DTYPES.values() if name in ("magnitude", "reversible", "sort") else [torch.float32]:
            for ties in ("none", "eighths", "zeros") if name in ("magnitude", "floor", "histogram") else ("eighths",):
                yield name, dtype, ties


def move(model: nn.Module, plain: nn.Module, step: int, ties: str) -> None:
    """Give both the same new values: with ties, rounded to eighths, or zero but for one in ten."""
    generator = torch.Generator().manual_seed(step)
    for old, new in zip(plain.parameters(), model.parameters(), strict=True):
        with torch.no_grad():
            values = old + torch.randn(old.shape, generator=generator).to(old.dtype)
            values = (values * 8).round() / 8 if ties == "eighths" else values
            few = torch.rand(old.shape, generator=generator) < 0.1
            values = values * few if ties == "zeros" else values
            shard = shard_of(new)
            old.copy_(values)
            local(new).copy_(values if shard is None else shard.piece(values))


def differs(one: MaskedWeight, other: MaskedWeight) -> str:
    if not torch.equal(other.piece(one.mask), other.mask):
        return f"{int((other.piece(one.mask) != other.mask).sum())} entries of the mask"
    if not torch.equal(other.piece(one.values.detach()), other.values.detach()):
        return "the weights"
    if (float(one.threshold), one.pruned) != (float(other.threshold), other.pruned):
        return f"thresholds {float(one.threshold)} {float(other.threshold)}, pruned {one.pruned} {other.pruned}"
    return ""


# Under Lightning


class Sharded(LightningModule):
    """Learns a function of its inputs, on the same global batches whatever the layout."""

    def __init__(self, layout: str = "1x1", dtype: torch.dtype = torch.float64, policy: bool = False) -> None:
        super().__init__()
        self.net = net(dtype)
        self.layout = layout
        self.policy = policy
        self.grads: list[dict[str, Tensor]] = []

    def configure_model(self) -> None:
        if self.layout in ("1x1", "ddp") or any(shard_of(parameter) for parameter in self.parameters()):
            return
        if self.layout == "hsdp":
            take_apart(self.net, *mesh_of("hsdp"))
        else:
            take_apart(self.net, cast(DeviceMesh, self.device_mesh), "data_parallel", "tensor_parallel", self.policy)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.to(next(self.parameters()).dtype))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.mse_loss(self(batch[0]).to(batch[1].dtype), batch[1])

    def validation_step(self, batch: list[Tensor]) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.grads.append({n: _full(p.grad) for n, p in self.named_parameters() if p.grad is not None})

    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(BATCHES * GLOBAL_BATCH, 12, generator=generator, dtype=torch.float64)
        rank, ranks = 0, 1
        if self.layout != "1x1":
            of: Any = cast(Any, self.trainer.strategy).distributed_sampler_kwargs
            rank, ranks = of["rank"], of["num_replicas"]
        loader = Loader(TensorDataset(x, x[:, :3].sin()), GLOBAL_BATCH // ranks, sampler=range(rank, len(x), ranks))
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.ones(4, 12, dtype=torch.float64), torch.ones(4, 3)), 2)


def _full(tensor: Tensor) -> Tensor:
    return whole(local(tensor).clone(), shard_of(tensor))


class Seen(Callback):
    """Notes masks and thresholds after every update, and values at the end of the fit."""

    def __init__(self, pruning: PruningCallback) -> None:
        self.pruning = pruning
        self.masks: dict[int, dict[str, Tensor]] = {}
        self.thresholds: dict[int, dict[str, float]] = {}
        self.weights: dict[str, Tensor] = {}
        self.moments: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = self.pruning.pruner.last_update
        if last is not None and last not in self.masks:
            masks = self.pruning.pruner.masks
            self.masks[last] = {name: whole(weight.mask, weight.shard) for name, weight in masks.items()}
            self.thresholds[last] = {name: float(weight.threshold) for name, weight in masks.items()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = {name: _full(parameter).detach() for name, parameter in pl_module.named_parameters()}
        state = trainer.optimizers[0].state
        self.moments = [_full(v) for p in pl_module.parameters() for v in state[p].values() if v.dim()]


def fit(
    layout: str, folder: Path, name: str, pruner: Pruner | LearnedMasks, *callbacks: Callback, **options: Any
) -> dict[str, Any]:
    """Fit the net as a layout takes it apart, and return all there is to compare."""
    ckpt = options.pop("ckpt_path", None)
    sharded, policy = options.pop("sharded", True), options.pop("policy", False)
    model = options.pop("model", Sharded)(layout, options.pop("dtype", torch.float64), policy)
    pruning = PruningCallback(pruner, **options.pop("callback", {}))
    seen = Seen(pruning)
    saving = ModelCheckpoint(folder / name, "{step}", every_n_train_steps=1, save_top_k=-1)
    processes = 1 if layout == "1x1" else int(sys.argv[3])
    strategy = "auto" if layout == "1x1" else strategy_of(layout, sharded)
    trainer = trainer_of(strategy, processes, [pruning, seen, saving, *callbacks], **options)
    trainer.fit(model, ckpt_path=ckpt)
    assert pruning.report is not None
    return {
        "masks": seen.masks,
        "thresholds": seen.thresholds,
        "weights": seen.weights,
        "moments": seen.moments,
        "grads": model.grads,
        "report": pruning.report.to_dict(),
        "left": {} if is_apart(model) else model.state_dict(),
    }


def strategy_of(layout: str, sharded: bool) -> ModelParallelStrategy | DDPStrategy:
    if layout == "ddp":
        return DDPStrategy(timeout=TIMEOUT)
    data, tensor = (4, 1) if layout == "hsdp" else (int(number) for number in layout.split("x"))
    return ModelParallelStrategy(data, tensor, save_distributed_checkpoint=sharded, timeout=TIMEOUT)


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


# What fails


class BreaksAPiece(Callback):
    """Puts a NaN into what the last rank has of a weight, right before the masks are updated."""

    def __init__(self, name: str = "net.2.weight") -> None:
        self.name = name

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 4 and trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                local(pl_module.get_parameter(self.name)).view(-1)[3] = float("nan")


class PickyOfEntries(Picky):
    """One that scores each entry by itself."""

    of_entries = True


FAILURES: dict[str, Callable[[], dict[str, Any]]] = {
    "nan": lambda: {"breaking": [BreaksAPiece()]},
    "nan in scores": lambda: {"breaking": [BreaksAPiece()], "pruner": Pruner(SCHEDULE, FirstOrderDelta())},
    "nan in units": lambda: {"breaking": [BreaksAPiece()], "pruner": Pruner(SCHEDULE, pattern=Row())},
    "nan in a histogram": lambda: {"breaking": [BreaksAPiece()], "pruner": Pruner(SCHEDULE, selection=Histogram())},
    "criterion": lambda: {"pruner": Pruner(SCHEDULE, PickyOfEntries(KeyError("mine")))},
    "silent criterion": lambda: {"pruner": Pruner(SCHEDULE, PickyOfEntries(ValueError()))},
    "rebuilt": lambda: {"pruner": Pruner(SCHEDULE, reconstruction=SparseGPT())},
    "learned": lambda: {"pruner": LearnedMasks(SCHEDULE)},
    "learned weights": lambda: {"pruner": LearnedMasks(SCHEDULE, pattern=Element())},
    "rewind": lambda: {"callback": {"rewind": 0}, "model": Adagrad},
    "inputs": lambda: {"pruner": Pruner(SCHEDULE, Wanda())},
    "average": lambda: {"behind": [WeightAveraging()]},
    "stochastic average": lambda: {"behind": [StochasticWeightAveraging(0.1)]},
    "too large": lambda: {"pruner": Pruner(SCHEDULE, FilterNorm()), "most": 100},
}


class Adagrad(Sharded):
    """Has an optimizer that does not begin at zero."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(self.parameters(), initial_accumulator_value=0.1)


def fail(layout: str, folder: Path) -> dict[str, Any]:
    """Return the error that this rank gets, how far it came, and whether masks are left on the model."""
    found: dict[str, Any] = {}
    for name, make in FAILURES.items():
        case = make()
        breaking: list[Callback] = case.pop("breaking", [])
        collecting.MOST = case.pop("most", 1 << 31)
        pruning = PruningCallback(case.pop("pruner", Pruner(SCHEDULE)), **case.pop("callback", {}))
        strategy, processes = strategy_of(layout, True), int(sys.argv[3])
        callbacks = [*breaking, pruning, *case.pop("behind", [])]
        trainer = trainer_of(strategy, processes, callbacks, enable_checkpointing=False)
        try:
            trainer.fit(case.pop("model", Sharded)(layout))
        except Exception as error:
            found[name] = what_failed(error, trainer, pruning)
    return found


SCENARIOS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "equal": equal,
    "train": train,
    "resume": resume,
    "other": other,
    "brief": brief,
    "fail": fail,
    "precision": precision,
}


def main(scenarios: str, folder: Path, known: dict[str, Callable[[str, Path], dict[str, Any]]]) -> None:
    """Run scenarios, and write what comes of them."""
    torch.set_num_threads(1)
    for scenario in scenarios.split(","):
        name, layout = scenario.split("@")
        result = known[name](layout, folder)
        torch.save(result, folder / f"{scenario}.{os.environ.get('LOCAL_RANK', '0')}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), SCENARIOS)
