"""What a format of `lightning-prune export` is, and what it gets to do its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.trusted import Trust

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Asked:
    """One export: a run, where its weights lie, where the result goes, and how to say it.

    Attributes:
        run: the run's folder.
        weights: the file of its weights.
        out: where to write; its folder may not be there yet.
        as_json: print JSON in place of text.
        own: what was given of the format's own options, by name; those that were not given are left out.
        load: returns the model with its weights, on the CPU; it builds the run's task.
        trust: what else of the run may be built.
    """

    run: Path
    weights: Path
    out: Path
    as_json: bool
    own: Mapping[str, Any]
    load: Callable[[], nn.Module]
    trust: Trust

    def say(self, text: str, facts: Mapping[str, Any]) -> None:
        """Print the result: the text for people, or the facts as JSON."""
        print(as_json(facts) if self.as_json else text)


@dataclass(frozen=True)
class Option:
    """An option of the command line that belongs to some formats and is refused for the others.

    Attributes:
        flag: with its dashes.
        help: for people.
        choices: what it may be; anything if there are none.
        kind: makes a value of the text.
    """

    flag: str
    help: str
    choices: Sequence[str] | None = None
    kind: Callable[[str], Any] = str

    @property
    def name(self) -> str:
        """The name under which its value is found."""
        return self.flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        about: what comes out, for the help text.
        out: where to, given the run's folder and the file of its weights.
        write: does it, and says what came of it.
        own: options that belong to it.
    """

    about: str
    out: Callable[[Path, Path], Path]
    write: Callable[[Asked], None]
    own: tuple[Option, ...] = ()


def in_run(name: str) -> Callable[[Path, Path], Path]:
    """Return a place in the run's folder, wherever the weights lie."""
    return lambda run, _: run / name
