"""What Lightning says while a run goes on: its log on stdout, without what is of no use there."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager

_NOISE = (
    "Experiment logs directory .* exists and is not empty",  # the run's folder holds its config already
    ".*does not have many workers",  # the recipes' data lies in memory
    ".*treespec, LeafSpec",  # Lightning, with a newer torch
)


@contextmanager
def calm() -> Generator[None, None, None]:
    """Leave out warnings that say nothing of a run, and log what Lightning says to stdout."""
    with warnings.catch_warnings(), _log_to_stdout():
        for text in _NOISE:
            warnings.filterwarnings("ignore", text)
        yield


@contextmanager
def _log_to_stdout() -> Generator[None, None, None]:
    """Log what Lightning says to stdout, which leaves stderr to errors and warnings.

    Its advertisement is left out, and the callback's report: the last lines of a run hold it.
    """

    def wanted(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not (text.startswith("💡 Tip") or text.partition("\n")[0].endswith((": done", ": shrunk")))

    from lightning_prune.families import LOGGERS

    loggers = [logging.getLogger(name) for name in LOGGERS]
    streams = [h for logger in loggers for h in logger.handlers if isinstance(h, logging.StreamHandler)]
    handlers = [handler for handler in streams if not isinstance(handler, logging.FileHandler)]  # a file stays one
    before = [handler.setStream(sys.stdout) for handler in handlers]
    for handler in handlers:
        handler.addFilter(wanted)
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.removeFilter(wanted)
            if stream is not None:
                handler.setStream(stream)
