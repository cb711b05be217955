"""What holds for every test."""

import os

import pytest
import pytorch_lightning as _  # first: where a process has both packages, this one is the default for all tests
import torch

os.environ.setdefault("WANDB_MODE", "offline")  # no test needs an account


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Have a test draw the same numbers whichever tests ran before it."""
    torch.manual_seed(0)
