"""`benchmarks/exports.py` as a process: every format of every net has a size and a time, or says why not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_prune import export

COMMAND = Path(__file__).parents[2] / "benchmarks" / "exports.py"


@pytest.mark.slow
def test_each_format_has_size_and_time_or_says_why_not(tmp_path: Path) -> None:
    command = [sys.executable, str(COMMAND), "--batches", "1", "--repeats", "1", "--json", "found.json"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=280)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["head"] == ["format", "kB", "times smaller", "batch 1, ms", "times faster"]
    assert len(found["nets"]) == 3
    for name, rows in found["nets"].items():
        assert f"\n{name}\n" in ended.stdout
        by_format = {row[0]: row[1:] for row in rows}
        assert all(len(row) == 5 for row in rows)
        may_be_missing = {"CSR"} | (set() if hasattr(export, "to_int8") else {"ONNX, int8"})
        may_be_missing |= set() if name.startswith("ResNet") else {"shrunk", "shrunk, ONNX"}
        for each, row in by_format.items():
            if row[1]:
                assert all(float(cell.replace(",", "")) > 0 for cell in row)
            else:
                assert each in may_be_missing, row
        assert by_format["dense, .pt"][1] == "1.00"
        assert float(by_format["compact"][1]) > {"L": 30, "R": 3, "G": 6}[name[0]]
    assert float(by_format_of(found, "ResNet", "shrunk")[1]) > 3


def by_format_of(found: dict[str, dict[str, list[list[str]]]], net: str, name: str) -> list[str]:
    (rows,) = [rows for key, rows in found["nets"].items() if key.startswith(net)]
    return next(row[1:] for row in rows if row[0] == name)
