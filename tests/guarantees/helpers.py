"""Tiny models, a quiet trainer and bitwise comparison: what every guarantee is tested with."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import Polynomial

MakeOptimizer = Callable[[Any], Optimizer]

RAMP = Polynomial(0.8, begin_step=3, end_step=13, pruning_frequency=3, initial_sparsity=0.2, power=1.0)
"""Updates at 3, 6, 9, 12 and 13; a run of 20 steps goes well past it."""
UPDATES = (3, 6, 9, 12, 13)
SIZE = 12 * 16 + 16 * 4
"""How many weights of `Net` are pruned by default."""


def adamw(parameters: Any) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def momentum(parameters: Any) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)


class Batches:
    """A sized loader of batch numbers. It calls itself resumable: the data follow from the step (see `draw`)."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.tensor(i) for i in range(self.count))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class Unsized:
    """An endless loader without a length."""

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield torch.tensor(0)


def draw(seed: int, like: Tensor, features: int = 12, size: int = 8) -> tuple[Tensor, Tensor]:
    """Return inputs and labels that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, features, generator=generator)
    y = (x[:, :4] + x[:, 4:8]).argmax(1)
    return x.to(like), y


class Net(pl.LightningModule):
    """A small network. `after_batch` is called where a user's own `on_train_batch_end` is: after every callback's."""

    def __init__(
        self, optimizer: MakeOptimizer = adamw, net: nn.Module | None = None, seed: int = 0, norm: bool = True
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            middle = nn.BatchNorm1d(16) if norm else nn.Identity()
            self.net: Any = net or nn.Sequential(nn.Linear(12, 16), middle, nn.ReLU(), nn.Linear(16, 4))
        self.make_optimizer = optimizer
        self.after_batch: list[Callable[[pl.Trainer], None]] = []
        self.in_step: list[Callable[[pl.Trainer], None]] = []
        self.in_validation: list[Callable[[pl.Trainer], None]] = []

    def loss(self, seed: int) -> Tensor:
        return self.loss_of(*draw(seed, next(self.net.parameters())))

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.net(x.to(next(self.net.parameters()))).float(), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for act in self.in_step:
            act(self.trainer)
        # Inputs and labels from a loader; or a number, and then the data follow from the step.
        loss = self.loss_of(*batch) if isinstance(batch, (list, tuple)) else self.loss(self.global_step)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        for act in self.in_validation:
            act(self.trainer)
        self.log("val_loss", self.loss(10_000 + batch_idx))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test_loss", self.loss(20_000 + batch_idx))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for act in self.after_batch:
            act(self.trainer)

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(self.parameters())


class Units(Net):
    """A small network with a residual stream, norms and hidden units: groups of 8, 6 and 10."""

    def __init__(self, optimizer: MakeOptimizer = adamw, net: nn.Module | None = None, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = net or nn.Sequential(
                nn.Unflatten(1, (3, 2, 2)),
                nn.Conv2d(3, 8, 3, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                Residual(8, 6),
                nn.Flatten(),
                nn.Linear(32, 10),
                nn.ReLU(),
                nn.Linear(10, 4),
            )
        super().__init__(optimizer, net)
        self.example_input_array = torch.zeros(2, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Residual(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(inner, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.outer(self.inner(x))).relu()


def trainer(root: Path | str | None = None, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in options.get("callbacks", [])),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": root,
    }
    return pl.Trainer(**(quiet | options))


def fit(
    model: pl.LightningModule,
    *callbacks: pl.Callback,
    batches: int = 6,
    ckpt: Path | str | None = None,
    val: int = 0,
    loader: Callable[[pl.Trainer, int], Any] | None = None,
    **options: Any,
) -> pl.Trainer:
    """Fit and return the trainer. `loader` makes the training data; without it they follow from the step."""
    settings: dict[str, Any] = {"callbacks": list(callbacks), "limit_val_batches": val} | options
    run = trainer(**settings)
    data = Batches(batches) if loader is None else loader(run, batches)
    run.fit(model, data, Batches(max(1, val)), ckpt_path=ckpt)
    return run


def ramp(**ideas: Any) -> PruningCallback:
    """The callback with the schedule `RAMP`."""
    return PruningCallback(Pruner(ideas.pop("schedule", RAMP), **ideas))


def half_on_cpu() -> dict[str, Any]:
    """16-mixed with a real loss scaler; Lightning's own flag falls back to bfloat16 on a CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


PRECISIONS: dict[str, Any] = {
    "32-true": lambda: {},
    "64-true": lambda: {"precision": "64-true"},
    "bf16-true": lambda: {"precision": "bf16-true"},
    "16-true": lambda: {"precision": "16-true"},
    "bf16-mixed": lambda: {"precision": "bf16-mixed"},
    "16-mixed": half_on_cpu,
}


def raise_at(step: int, error: BaseException | None = None) -> Callable[[pl.Trainer], None]:
    """What raises at that step, in a list of what a model does in a step."""

    def act(run: pl.Trainer) -> None:
        if run.global_step == step:
            raise error or RuntimeError("on purpose")

    return act


def zeros(model: nn.Module) -> dict[str, int]:
    """How many entries of every weight of two or more dimensions are zero."""
    return {n: int((p == 0).sum()) for n, p in model.named_parameters() if p.dim() > 1}


def sparsity(model: nn.Module) -> float:
    """The share of zeros in the weights of two or more dimensions."""
    total = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    return sum(zeros(model).values()) / total


def copied(value: Any) -> Any:
    """A deep copy of nested containers with tensors detached."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    return [copied(v) for v in value] if isinstance(value, (list, tuple)) else value


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested containers differ, tensors by dtype, shape and bits."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(_raw(a), _raw(b))
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return [f"{path}: keys {list(a)} and {list(b)}"]
        return [d for k in a for d in differences(a[k], b[k], f"{path}/{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}/{i}")]
    return [] if type(a) is type(b) and (a == b or (a != a and b != b)) else [f"{path}: {a!r} and {b!r}"]


def _raw(tensor: Tensor) -> Tensor:
    dense = tensor.detach().contiguous()
    return dense.view(torch.uint8) if dense.dim() else dense.reshape(1).view(torch.uint8)


def bits(model: nn.Module) -> dict[str, Tensor]:
    """The model's whole state, copied."""
    return copied(dict(model.state_dict()))


def layout(model: nn.Module) -> list[Any]:
    """Everything a checkpoint, DDP or an optimizer sees of a model's structure, in order."""
    state = [(k, tuple(v.shape), v.dtype) for k, v in model.state_dict().items()]
    named = [(n, tuple(p.shape), p.dtype, p.requires_grad) for n, p in model.named_parameters()]
    return [state, named, [n for n, _ in model.named_buffers()], [n for n, _ in model.named_modules()]]


def assert_plain(model: nn.Module, *optimizers: Optimizer, callback: PruningCallback | None = None) -> None:
    """Assert that nothing of pruning is left but zeros."""
    for path, module in model.named_modules():
        left = [k for k in vars(module) if k.endswith(("_mask", "_threshold"))]
        assert not left, f"{path} still has {left}"
        assert not module._forward_hooks, path
        assert not module._forward_pre_hooks, path
        assert not module._backward_hooks, path
    for parameter in model.parameters():
        assert type(parameter) is nn.Parameter
        assert not parameter._backward_hooks
    for optimizer in optimizers:
        assert not optimizer._optimizer_step_post_hooks
        assert not optimizer._optimizer_step_pre_hooks
    if callback is not None:
        assert not callback.pruner.attached


def logged_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a CSV logger's file."""
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(folder: Path, key: str) -> dict[int, float]:
    """Step -> value of every row that has the key."""
    return {int(row["step"]): float(row[key]) for row in logged_rows(folder) if row.get(key)}
