"""A report on its way from a process that ends with the fit to the callback of the script that started it.

Strategies such as ddp_spawn pickle the Trainer's state in their first process and hand it to the script. What hangs
on it comes along, and finds its callback there by a token that both processes know.
"""

from __future__ import annotations

import os
import uuid
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl

_BOXES: weakref.WeakValueDictionary[str, ReportBox] = weakref.WeakValueDictionary()
"""Of this process, by token. Unpickling gives no other way to an object that is there already."""


class ReportBox:
    """Where the report of a callback's latest fit lies, whichever process it was made in.

    Attributes:
        report: of the latest fit that this process knows of, None before one.
    """

    def __init__(self) -> None:
        self.report: Any = None
        self._token = uuid.uuid4().hex
        _BOXES[self._token] = self

    def send(self, trainer: pl.Trainer) -> None:
        """Have the report come along with the Trainer's state."""
        trainer.state.__dict__[f"report_{self._token}"] = _Letter(self._token, self.report)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of, and in which process."""
        return {"report": self.report, "token": self._token, "process": os.getpid()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the same box in another process, or a box of one's own in the same one."""
        self.report = state["report"]
        self._token = uuid.uuid4().hex if state["process"] == os.getpid() else state["token"]
        _BOXES[self._token] = self


class _Letter:
    """What delivers a report where it is unpickled."""

    def __init__(self, token: str, report: Any) -> None:
        self._content = (token, report)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Letter:
        """Return itself: Lightning copies the state on its way, which must not deliver it yet."""
        return self

    def __reduce__(self) -> Any:
        return _deliver, self._content


def _deliver(token: str, report: Any) -> None:
    if token in _BOXES:
        _BOXES[token].report = report
