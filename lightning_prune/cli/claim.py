"""A run's folder belongs to one process at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lightning_prune.cli.errors import UserError

FILE = ".running"
"""Stands in a folder while a run is going on there."""


@contextmanager
def claimed(folder: Path) -> Generator[None, None, None]:
    """Have a folder to oneself; made if it is not there.

    The claim is a lock on a file, which the system drops when the process ends, however it ends: what a killed run has
    left is no claim. Where there are no such locks, a file left behind has to be deleted by hand.

    Raises:
        UserError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    descriptor = _locked(file)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        file.unlink(missing_ok=True)  # before the lock goes: nobody may lock what is about to vanish
        os.close(descriptor)


def _locked(file: Path) -> int:
    """Return the descriptor of the claim's file, locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        try:
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            raise _taken(file) from None
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise _taken(file) from None
        except FileNotFoundError:  # whoever had it has just ended, and taken the file away
            pass
        os.close(descriptor)


def _taken(file: Path) -> UserError:
    who = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return UserError(
        f"{file.parent}: another run is going on there ({who or 'its process is starting'}): "
        "wait for its end, or choose another hydra.run.dir"
    )


def is_claimed(folder: Path) -> bool:
    """Whether a process has a folder to itself at this moment: a run is going on there."""
    try:
        descriptor = os.open(folder / FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, BlockingIOError):  # on Windows the file alone is the claim
        return True
    finally:
        os.close(descriptor)
    return False
