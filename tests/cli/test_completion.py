"""`lightning-prune completion`: what Tab offers, asked of the command and of a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_prune.cli import COMMANDS
from lightning_prune.cli.completion import words

from .conftest import Command

OFFERED = {
    "lightning-prune pl": ["plan"],
    "lightning-prune train -cn digits_mlp_f": ["digits_mlp_front"],
    "lightning-prune train ": ["-cn"],
    "lightning-prune plan -cn digits_mlp pruner/sched": ["pruner/schedule="],
    "lightning-prune plan -cn digits_mlp pruner/schedule=geo": ["pruner/schedule=geometric"],
    "lightning-prune train -cn digits_mlp pruner.schedule.fin": ["pruner.schedule.final_sparsity="],
    "lightning-prune train -cn digits_mlp pruner.sched": ["pruner.schedule."],
    "lightning-prune inspect --js": ["--json"],
    "lightning-prune train -cn no_such_recipe pru": [],
}


@pytest.mark.parametrize("line", OFFERED)
def test_words_that_may_come_next(line: str) -> None:
    assert words(line) == OFFERED[line]


def test_recipes_and_groups_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "pruner" / "criterion").mkdir(parents=True)
    (tmp_path / "pruner" / "criterion" / "mine.yaml").write_text("_target_: mine.Mine\n", encoding="utf-8")
    (tmp_path / "my_recipe.yaml").write_text("defaults:\n- digits_mlp\n- _self_\n", encoding="utf-8")
    line = f"lightning-prune train --config-dir {tmp_path}"
    assert words(f"{line} -cn my_") == ["my_recipe"]
    assert words(f"{line} -cn my_recipe pruner/criterion=mi") == ["pruner/criterion=mine"]


def test_every_command_is_offered_and_explains_itself(command: Command) -> None:
    listed = command("--help").out
    assert words("lightning-prune ") == [*COMMANDS, "--help", "--version"]
    assert all(f"\n  {name}" in listed for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lightning-prune ins", ["inspect"]),
        ("lightning-prune plan -cn digits_c", ["digits_cnn", "digits_cnn_dynamic", "digits_cnn_iterative"]),
        ("lightning-prune plan -cn digits_mlp pruner/schedule=one", ["one_shot"]),
    ],
)
def test_in_bash(line: str, offered: list[str], tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    program = tmp_path / "lightning-prune"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lightning_prune "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = (
        'eval "$(lightning-prune completion bash)"; compopt() { :; }; '
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; _lightning_prune; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")
