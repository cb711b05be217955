"""Commands that run a Trainer without letting it speak."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from lightning_prune.families import LOGGERS, NAMES


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Leave out what Lightning says of a run."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for name in NAMES:
                warnings.filterwarnings("ignore", module=name)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
