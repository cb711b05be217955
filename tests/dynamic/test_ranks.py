"""Two ranks learn the same gates, those of one process on the same batches, and go on to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(folder: Path, processes: int) -> list[dict[str, Any]]:
    """Return what each rank has found."""
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(folder), str(processes)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.mark.slow
def test_G1_G2_two_ranks_learn_what_one_process_learns_and_resume_to_the_bit(tmp_path: Path) -> None:
    (alone,), (first, second) = run(tmp_path / "one", 1), run(tmp_path / "two", 2)
    for name, value in first["whole"]["state"].items():
        assert torch.equal(value, second["whole"]["state"][name]), name
        assert torch.equal(value, first["resumed"]["state"][name]), name
        torch.testing.assert_close(value, alone["whole"]["state"][name], rtol=1e-9, atol=1e-11)
    assert first["whole"]["report"] == second["whole"]["report"] == alone["whole"]["report"]
    assert first["whole"]["report"]["sparsity"] == 0.5
    assert "net.0.channel_gate.weight" in first["whole"]["state"]
