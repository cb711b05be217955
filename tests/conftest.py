"""What holds for every test."""

import importlib
import os

import pytest
import torch

importlib.import_module("pytorch_lightning")  # first: where a process has both, it is the default for all tests
os.environ.setdefault("WANDB_MODE", "offline")  # no test needs an account


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Have a test draw the same numbers whichever tests ran before it."""
    torch.manual_seed(0)
