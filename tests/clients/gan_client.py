"""A GAN as users write it: manual optimization, two optimizers, both networks pruned."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import softplus


class Task(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 8))
        self.critic = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 1))

    def fakes(self, batch):
        noise = torch.randn(len(batch[0]), 4, generator=torch.Generator().manual_seed(int(self.global_step)))
        return self.generator(noise)

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues] - as users write it
        real, fake = self.critic(batch[0]), self.critic(self.fakes(batch).detach())
        critic.zero_grad()
        self.manual_backward(softplus(-real).mean() + softplus(fake).mean())
        critic.step()
        generator.zero_grad()
        self.manual_backward(softplus(-self.critic(self.fakes(batch))).mean())
        generator.step()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", softplus(-self.critic(batch[0])).mean())

    def test_step(self, batch, batch_idx):
        self.log("test_loss", softplus(-self.critic(batch[0])).mean())

    def configure_optimizers(self):
        parts = (self.generator, self.critic)
        return [torch.optim.Adam(part.parameters(), lr=0.01, betas=(0.5, 0.9)) for part in parts]
