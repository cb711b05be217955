"""A BYOL-like net as users write it: a teacher that is an average of the student, and pruned with it."""

import copy

import pytorch_lightning as pl
import torch
from torch import nn


class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.student = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 6))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.predictor = nn.Linear(6, 6)

    def training_step(self, batch, batch_idx):
        x = batch[0]
        with torch.no_grad():
            wanted = self.teacher(x.flip(1))
        return -nn.functional.cosine_similarity(self.predictor(self.student(x)), wanted).mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        with torch.no_grad():
            for mean, now in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mean.lerp_(now, 0.1)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.AdamW([*self.student.parameters(), *self.predictor.parameters()], lr=0.01)
