"""What is compared: each tool is called as its own documentation says, by the same few verbs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelPruning
from torch import Tensor, nn
from torch.nn.utils import prune

from lightning_prune import Pruner, PruningCallback
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import shrink

BATCHES = 6
"""Training batches of an epoch; after the first one is pruned."""

Layers = list[tuple[nn.Module, str]]


@dataclass(frozen=True)
class Tool:
    """One way of pruning in a Lightning run, and one way of taking units out. `None`: the tool has no such thing."""

    name: str
    package: str
    default: Callable[[float], pl.Callback] | None = None
    """Prune that share, everything else left as it is."""
    once: Callable[[float, nn.Module], pl.Callback] | None = None
    """Prune that share of all weights of two or more dimensions, once, after the first epoch."""
    take_out: Callable[[nn.Module, Tensor, float], nn.Module] | None = None
    """Take that share of the hidden units out."""

    @property
    def title(self) -> str:
        """The name, and of another's tool the version that was run."""
        return self.name if self is OURS else f"{self.name} {re.sub('[+].*', '', version(self.package))}"


def weights_of(model: nn.Module) -> Layers:
    """All weights of two or more dimensions, as the modules that hold them and their names there."""
    return [
        (module, name)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() > 1
    ]


# Ours


def _ours(share: float, model: nn.Module) -> pl.Callback:
    return PruningCallback(Pruner(OneShot(share, step=BATCHES)))


def _ours_taken_out(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    pruner = Pruner(OneShot(share, step=0), pattern=Channel(example_inputs=example))
    pruner.attach(model)
    pruner.after_step(0, [])
    pruner.strip()
    return shrink(model, example).model


# Lightning's callback


def _lightning(share: float, model: nn.Module) -> pl.Callback:
    pairs: Any = weights_of(model)
    return ModelPruning("l1_unstructured", pairs, amount=share, apply_pruning=lambda epoch: epoch == 0)


# torch.nn.utils.prune, in the callback that a user would write for it


class _Utils(pl.Callback):
    def __init__(self, share: float) -> None:
        self.share = share
        self.pruned: Layers = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.pruned = weights_of(pl_module)
            pairs: Any = self.pruned
            prune.global_unstructured(pairs, prune.L1Unstructured, amount=self.share)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for module, name in self.pruned:
            prune.remove(module, name)


# Torch-Pruning


def _torch_pruning(model: nn.Module, example: Tensor, share: float) -> nn.Module:
    import torch_pruning as tp

    linear: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    importance: Any = tp.importance.MagnitudeImportance(p=1)
    heads: Any = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    pruner = tp.pruner.MagnitudePruner(
        model, example, importance, pruning_ratio=share, ignored_layers=linear[-1:], num_heads=heads
    )
    pruner.step()
    return model


OURS = Tool("lightning-prune", "lightning-prune", PruningCallback, _ours, _ours_taken_out)
PEERS = (
    Tool(
        "Lightning's ModelPruning",
        "pytorch-lightning",
        lambda share: ModelPruning("l1_unstructured", amount=share),
        _lightning,
    ),
    Tool("torch.nn.utils.prune", "torch", once=lambda share, model: _Utils(share)),
    Tool("Torch-Pruning", "torch-pruning", take_out=_torch_pruning),
)
TOOLS = (OURS, *PEERS)


def sparsity(model: nn.Module) -> float:
    """The share of zeros in the weights of two or more dimensions."""
    weights = [p.detach() for p in model.parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def example(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
