"""The command lines of the documents: each names a command, and its overrides compose with its recipe as they stand."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig

from lightning_prune.cli import HELP, arguments, compose
from lightning_prune.cli.constructor_keys import adding_missing, one_of_each

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`(lightning-prune (?:train|plan) -cn [^`]+)`")
THE_USERS = ("--config-dir", "my_criteria.", "-cn RECIPE", "-cn NAME", "NOUN=", "...")
"""Lines with these name files or recipes that are the reader's own; tests of their own run those of the guide."""


def commands() -> list[list[str]]:
    """Return the words of all command lines, each once."""
    found: dict[tuple[str, ...], None] = {}
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        lines = [line for block in BLOCK.findall(text) for line in block[1].replace("\\\n", " ").splitlines()]
        for line in [*lines, *(" ".join(quoted.split()) for quoted in QUOTED.findall(text))]:
            plain = line.strip().removeprefix("venv/bin/")
            if plain.startswith("lightning-prune "):
                found[tuple(shlex.split(plain, comments=True)[1:])] = None
    return [list(words) for words in found]


def test_each_names_a_command() -> None:
    known = set(re.findall(r"^  ([\w-]+) ", HELP, re.MULTILINE))
    assert {"train", "plan", "compress"} <= known
    assert {words[0] for words in commands()} <= known | {"--help"}


def composed(words: list[str]) -> DictConfig:
    """Return the config that a command line gives, of a sweep that of its first run."""
    read = arguments.read([word for word in words if word not in ("-m", "--resume", "--json")])
    return adding_missing(one_of_each(read.rest), lambda each: compose._compose(replace(read, rest=each), each))


@pytest.mark.slow
def test_recipes_and_overrides_compose_as_they_stand() -> None:
    tried, failed = 0, list[str]()
    for command, *words in commands():
        if command in ("train", "plan") and "-cn" in words and not any(own in " ".join(words) for own in THE_USERS):
            tried += 1
            try:
                assert "trainer" in composed(words)
            except Exception as error:
                failed.append(f"{' '.join(words)}: {error}")
    assert not failed, "\n".join(failed)
    assert tried > 40


def test_a_slip_in_a_document_would_be_seen() -> None:
    with pytest.raises(Exception, match="polynomal"):
        composed(["-cn", "digits_mlp", "pruner/schedule=polynomal"])
    with pytest.raises(Exception, match="final_sparsty"):
        composed(["-cn", "digits_mlp", "pruner.schedule.final_sparsty=0.5"])
