"""What holds for every test."""

import os

os.environ.setdefault("WANDB_MODE", "offline")  # no test needs an account
