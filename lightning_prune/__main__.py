"""`python -m lightning_prune` is `lightning-prune`."""

from __future__ import annotations

import sys

from lightning_prune.cli import main

if __name__ == "__main__":
    sys.exit(main())
