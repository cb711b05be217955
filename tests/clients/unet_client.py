"""A U-Net as users write it: a skip connection that is concatenated; channels are pruned and taken out."""

import pytorch_lightning as pl
import torch
from torch import nn


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.example_input_array = torch.zeros(2, 1, 8, 8)
        self.down, self.deep = block(1, 8), block(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = block(16, 8)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        skip = self.down(x)
        deep = self.up(self.deep(nn.functional.max_pool2d(skip, 2)))
        return self.head(self.last(torch.cat([skip, deep], 1)))

    def training_step(self, batch, batch_idx):
        x = batch[0].unsqueeze(1)
        return nn.functional.mse_loss(self(x), x.roll(1, 2))

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
