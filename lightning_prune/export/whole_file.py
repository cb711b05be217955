"""A file that is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unfinished(file: Path) -> Generator[Path, None, None]:
    """Give a place to write to; it becomes the file when all went well, and is gone otherwise."""
    place = file.with_name(f".unfinished.{file.name}")
    try:
        yield place
        os.replace(place, file)
    finally:
        place.unlink(missing_ok=True)
