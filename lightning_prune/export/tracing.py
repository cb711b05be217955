"""What exports that trace a model have in common: its inputs in their terms, and a file that is there whole or not."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def positional(example: Any) -> tuple[Any, ...]:
    """Return the positional arguments that example inputs stand for which are no dict."""
    return tuple(example) if isinstance(example, (tuple, list)) else (example,)


def free(value: Any) -> Any:
    """Return the shape of example inputs for torch.export: the first dimension of every tensor free."""
    if isinstance(value, Tensor):
        return {0: torch.export.Dim.AUTO} if value.dim() else None
    if isinstance(value, dict):
        return {key: free(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(free(part) for part in value)
    return None


@contextmanager
def unfinished(file: Path) -> Generator[Path, None, None]:
    """Give a place to write to; it becomes the file when all went well, and is gone otherwise."""
    place = file.with_name(f".unfinished.{file.name}")
    try:
        yield place
        os.replace(place, file)
    finally:
        place.unlink(missing_ok=True)


@contextmanager
def quiet(*names: str) -> Generator[None, None, None]:
    """Leave out what torch says of its own insides: warnings, and what these loggers log below errors."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
