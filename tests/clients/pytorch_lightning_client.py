"""A script as users of `pytorch_lightning` write it: prune, resume, test the best checkpoint."""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import PruningCallback
from lightning_prune.callbacks import SparseModelCheckpoint


class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 4))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def loader():
    x = torch.randn(80, 8, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x[:, :4].argmax(1)), batch_size=8)


def fit(folder, ckpt_path=None):
    pl.seed_everything(1)
    best = SparseModelCheckpoint(folder, filename="best", monitor="val_loss")
    last = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    trainer = pl.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[PruningCallback(0.9), GradientAccumulationScheduler({0: 2}), best, last],
    )
    task = Task()
    trainer.fit(task, loader(), loader(), ckpt_path=ckpt_path)
    return trainer, task, best


def zeros(state):
    return sum(int((weight == 0).sum()) for weight in state.values() if weight.dim() > 1)


folder = Path(sys.argv[1])
trainer, task, best = fit(folder / "whole")
tested = trainer.test(task, loader(), ckpt_path="best", verbose=False)[0]["test_loss"]
assert trainer.checkpoint_callback is best
resumed = fit(folder / "resumed", folder / "whole" / "epoch=1.ckpt")[1]
pairs = zip(task.state_dict().values(), resumed.state_dict().values(), strict=True)
saved = torch.load(best.best_model_path, weights_only=True)["state_dict"]
print("zeros", zeros(task.state_dict()), zeros(saved), "of", 8 * 20 + 20 * 4)
print("resumed alike", all(torch.equal(one, other) for one, other in pairs))
print("best", bool(best.best_model_score == tested))
print("modules", sorted(name for name in sys.modules if name in ("lightning.pytorch", "pytorch_lightning")))
