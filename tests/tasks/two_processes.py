"""Trains on two processes and writes down which samples each one saw; test_loaders.py runs it.

    python two_processes.py FOLDER

FOLDER/whole.RANK.json holds the samples of each batch of three epochs, FOLDER/resumed.RANK.json those that a run saw
which was resumed in the middle of the second epoch.
"""

import json
import sys
from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_prune.tasks.data.loaders import TrainingLoader, training_loader
from lightning_prune.tasks.data.tensors import Tensors

SAMPLES, BATCH, EPOCHS, STOP = 40, 4, 3, 7  # 5 batches an epoch on each of two processes


class Numbers(LightningDataModule):
    """Samples that are their own index."""

    def train_dataloader(self) -> TrainingLoader:
        numbers = torch.arange(SAMPLES, dtype=torch.float32)
        return training_loader(Tensors(numbers, numbers), BATCH, 3, self.trainer)


class Writer(LightningModule):
    """Writes down the samples of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.seen: list[list[int]] = []

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.seen.append(batch[0].int().tolist())
        return self.net(batch[0].unsqueeze(1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Asked for here, Lightning makes the loader before it reads a checkpoint's progress.
        assert self.trainer.estimated_stepping_batches == EPOCHS * SAMPLES // BATCH // self.trainer.world_size
        return torch.optim.SGD(self.parameters(), lr=0.0)


def main(folder: Path) -> None:
    for name, resume in (("whole", None), ("resumed", folder / f"step={STOP}.ckpt")):
        model = Writer()
        trainer = Trainer(
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            max_epochs=EPOCHS,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
        )
        trainer.fit(model, datamodule=Numbers(), ckpt_path=resume)
        (folder / f"{name}.{trainer.global_rank}.json").write_text(json.dumps(model.seen), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
