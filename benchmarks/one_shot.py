"""ResNet-20 on CIFAR-10 as the recipe cifar10_resnet20 trains it, pruned once by Torch-Pruning instead of by us.

The dense net trains up to a share of the run, loses channels at one stroke, and trains on: the same data, budget and
learning rate as the recipe. At a share of 0, with weights=model.pt of a dense run, what follows is fine-tuning.

python benchmarks/one_shot.py TIMES_FEWER_MACS [SHARE_OF_THE_RUN] [uniform|global] [seed=1 and other overrides]
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch_pruning as tp
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from lightning_prune.cli.build import load_weights
from lightning_prune.tasks.resnet import ResNet

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
CONF = RECIPES.parent / "conf"


def recipe(overrides: list[str]) -> DictConfig:
    """Return the config of cifar10_resnet20."""
    with initialize_config_dir(str(RECIPES), version_base="1.3"):
        overrides = [f"hydra.searchpath=[file://{CONF}]", *overrides]
        return compose("cifar10_resnet20", overrides=overrides, return_hydra_config=True)


def pruned(net: ResNet, share: float, everywhere: bool) -> ResNet:
    """Return a copy that has lost this share of its channels, those of the smallest norm by group."""
    smaller = deepcopy(net)
    tp.pruner.BasePruner(
        smaller,
        smaller.example_input,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=everywhere,
        pruning_ratio=share,
        ignored_layers=[m for m in smaller.modules() if isinstance(m, nn.Linear)],
    ).step()
    return smaller


def macs(net: nn.Module) -> float:
    return tp.utils.count_ops_and_params(net, net.example_input)[0]


class OneShot(pl.Callback):
    """Put a smaller net in the module's place after so many steps, with an optimizer that starts anew."""

    def __init__(self, times: float, share: float, everywhere: bool) -> None:
        self.times, self.share, self.everywhere = times, share, everywhere

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._cut_if_due(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._cut_if_due(trainer, pl_module)

    def _cut_if_due(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step != round(self.share * int(trainer.estimated_stepping_batches)):
            return
        shares = [i / 100 for i in range(1, 96)]
        found = {share: macs(pl_module.net) / macs(pruned(pl_module.net, share, self.everywhere)) for share in shares}
        share = min(shares, key=lambda share: abs(found[share] - self.times))
        net = pruned(pl_module.net, share, self.everywhere).train()  # tracing puts it into evaluation mode
        left = sum(p.numel() for p in net.parameters())
        print(
            f"{share:.2f} of the channels go: {found[share]:.2f} times fewer MACs, {left:,} parameters left", flush=True
        )
        pl_module.net = net
        (optimizer,) = trainer.optimizers
        optimizer.state.clear()
        optimizer.param_groups[0]["params"] = list(net.parameters())


def main() -> None:
    overrides = [word for word in sys.argv[1:] if "=" in word]
    words = [word for word in sys.argv[1:] if "=" not in word]
    times = float(words[0])
    share = float(words[1]) if len(words) > 1 else 0.4
    everywhere = words[2:] == ["global"]
    config = recipe(overrides)
    pl.seed_everything(config.seed, workers=True)
    task, data = instantiate(config.task), instantiate(config.data)
    load_weights(config, task)
    trainer = pl.Trainer(
        max_epochs=config.trainer.max_epochs,
        precision=config.trainer.precision,
        callbacks=[OneShot(times, share, everywhere)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data)


if __name__ == "__main__":
    main()
