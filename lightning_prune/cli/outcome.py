"""What became of one run of a sweep, wherever it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Outcome:
    """The end of a run. Goes from process to process, so it holds plain values alone.

    Attributes:
        number: Hydra's, of this run in the sweep.
        folder: where it went.
        state: how it ended; "finished before" when its folder held it already.
        line: why it failed.
        trace: the traceback of a failure that a line does not explain, if it has not been shown yet.
        values: its objectives, for a sweeper that asks for some.
    """

    number: int
    folder: str
    state: Literal["finished", "finished before", "failed", "interrupted"]
    line: str = ""
    trace: str = ""
    values: tuple[float, ...] = ()
