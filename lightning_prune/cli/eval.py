"""`lightning-prune eval`: the metrics of a run's weights, once or as training goes on."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.cli import trusted
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.quiet import quiet

if TYPE_CHECKING:
    from lightning_prune.cli.evaluated import Evaluated
    from lightning_prune.cli.run_files import Stamp

_INTERVAL = 30.0


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(argv)
    if not options.interval_secs > 0:
        raise UserError(f"--eval-interval-secs={options.interval_secs:g} must be above 0")
    from lightning_prune.cli import claim, resume
    from lightning_prune.cli.evaluated import Evaluator
    from lightning_prune.cli.run_files import run_of

    path: Path = options.path
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    run = run_of(options.run or path)

    def say(found: Evaluated) -> None:
        print(found.json() if options.json else found.text(), flush=True)

    with quiet():
        evaluate = Evaluator(run, options.stage, trusted.given(options))
        if path.is_file():
            say(evaluate(path))
            return 0
        follow = _Followed(run, evaluate, say)
        while True:
            live = claim.is_claimed(run)  # looked at first: what a run leaves at its end is there once it is over
            finished = resume.is_finished(run)
            follow.look(finished, live, waits=live and not options.run_once)
            if options.run_once or finished or not live:
                return follow.end(finished or options.run_once)
            time.sleep(options.interval_secs)


class _Followed:
    """A run whose newest weights are evaluated, each once."""

    def __init__(self, run: Path, evaluate: Callable[[Path], Evaluated], say: Callable[[Evaluated], None]) -> None:
        self._run = run
        self._evaluate = evaluate
        self._say = say
        self._seen: Stamp | None = None
        self._failed: Stamp | None = None

    def look(self, finished: bool, live: bool, waits: bool) -> None:
        """Evaluate the newest weights, if they are not those of the look before.

        Args:
            finished: the run came to its end.
            live: a process is at it.
            waits: another look will follow.

        Raises:
            UserError: they cannot be read; where a run is going on, only once they are the same as at the look before,
                since until then they may be in writing.
        """
        from lightning_prune.cli.run_files import newest

        there = newest(self._run, finished, live)
        if there is None or there == self._seen:
            return
        try:
            self._say(self._evaluate(there.file))
        except UserError:
            if not waits or self._failed == there:
                raise
            self._failed = there
            return
        self._seen = there

    def end(self, whole: bool) -> int:
        """Return the exit status: 1, with a line that says so, where the run was stopped before its end.

        Raises:
            UserError: there were no weights at all.
        """
        if self._seen is None:
            raise UserError(f"{self._run} has no weights yet: neither model.pt nor checkpoints/*.ckpt")
        if whole:
            return 0
        print(
            f"lightning-prune: {self._run}: the run was stopped before its end; it goes on by "
            f"lightning-prune train {self._run} --resume",
            file=sys.stderr,
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-prune eval",
        description="Show the metrics of a run's weights on its own test, or validation: of a finished run's model, of "
        "a checkpoint, or of each new checkpoint while the run is going on. Pruned weights are zero in all of these. "
        "Where the run averages weights, the average answers, masked. Nothing is trained and nothing is written. A "
        "run's folder is read as shrink reads one: of other packages nothing is called unless trusted.",
        epilog="exit status: 0 when all was evaluated; 1 for an error, or a run that was followed and stopped early",
    )
    parser.add_argument("path", type=Path, metavar="RUN|FILE", help="a run's folder, or a file of its weights")
    parser.add_argument("--run", type=Path, metavar="RUN", help="the run that FILE is of, where it lies elsewhere")
    parser.add_argument(
        *("--run-once", "--run_once"),
        action="store_true",
        help="evaluate the newest weights and end. Else a run that is going on is followed to its end",
    )
    parser.add_argument(
        *("--eval-interval-secs", "--eval_interval_secs"),
        dest="interval_secs",
        type=float,
        default=_INTERVAL,
        metavar="SECONDS",
        help=f"between two looks for a new checkpoint; {_INTERVAL:g}",
    )
    parser.add_argument("--stage", choices=("test", "validation"), help="test, where task and data have one")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line in place of text")
    trusted.add_option(parser)
    return parser
