"""The commands of the README, as they stand, by the installed program in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("lightning-prune ")]


@pytest.mark.slow
def test_they_run_as_they_stand(tmp_path: Path) -> None:
    listed = commands()
    assert len(listed) >= 7
    program = Path(sys.executable).with_name("lightning-prune")
    environment = {**os.environ, "WANDB_MODE": "offline"}
    for line in listed:
        words = line.split()
        done = subprocess.run([program, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {"sparse", "channels", "digits_mlp"}
    assert (tmp_path / "runs/channels/shrunk/model.safetensors").is_file()
