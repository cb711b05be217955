import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Digits(L.LightningDataModule):
    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size
        x = torch.randn(160, 8)
        self.data = TensorDataset(x, x[:, :4].argmax(1))

    def train_dataloader(self):
        return DataLoader(self.data, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data, self.batch_size)

    test_dataloader = val_dataloader
