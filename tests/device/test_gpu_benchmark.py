"""`benchmarks/gpu.py` as a process: it runs on a CPU, and a section that fails, crashes or hangs stops no other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
NAMES = {
    *("tf32", "masks", "cost", "deterministic", "compiled", "amp"),
    *("graph", "semi_structured", "shrunk", "resume", "peers"),
}


def run(folder: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    file = folder / "found.json"
    command = [sys.executable, str(COMMAND), "--device", "cpu", "--json", str(file), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=280)
    assert file.is_file(), ended.stderr
    return ended.returncode, ended.stdout, json.loads(file.read_text(encoding="utf-8"))["sections"]


def cells(found: dict[str, Any]) -> list[str]:
    return [cell for table in found["tables"] for row in table["rows"] for cell in row]


@pytest.mark.slow
def test_every_section_runs_on_a_cpu_or_says_why_not(tmp_path: Path) -> None:
    code, said, sections = run(tmp_path)
    assert code == 0, said
    assert set(sections) == NAMES
    for name, found in sections.items():
        if name in ("graph", "semi_structured"):
            assert found["skipped"] == "needs CUDA"
            continue
        assert found["tables"], name
        assert all(table["rows"] for table in found["tables"])
        assert all(len(row) == len(table["head"]) for table in found["tables"] for row in table["rows"])
        assert not {cell for cell in cells(found) if cell in ("NO", "no") or cell.startswith("FAILED")}, name
    ideas = sections["masks"]["tables"][0]
    assert ideas["note"] == f"Equal to the bit: {len(ideas['rows'])} of {len(ideas['rows'])}."
    assert {row[3] for row in sections["amp"]["tables"][0]["rows"]} == {"0"}


@pytest.mark.slow
def test_sections_that_fail_are_a_line_each_and_the_others_run(tmp_path: Path) -> None:
    bodies = {
        "raises": "raise ValueError('planted\\nin two lines')",
        "crashes": "import os; os._exit(7)",
        "fails_in_a_row": "return [Table(['a', 'b', 'c'], rows_of({'x': 0, 'y': 1}, lambda n: [str(1 / n), 'z'], 3))]",
        "works": "return [Table(['device'], [[where.device.type]])]",
    }
    chosen: list[str] = []
    for name, body in bodies.items():
        file = tmp_path / f"{name}.py"
        file.write_text(
            f"from gpu_sections.tools import Table, rows_of\ndef run(where):\n    {body}\n", encoding="utf-8"
        )
        chosen += ["--section", str(file)]
    code, said, sections = run(tmp_path, *chosen)
    raises, crashes, row, works = sections.values()
    assert code == 1
    assert raises["error"] == "ValueError: planted in two lines"
    assert "ended with 7" in crashes["error"]
    assert row["tables"][0]["rows"] == [["x", "FAILED: ZeroDivisionError: division by zero", "-"], ["y", "1.0", "z"]]
    assert cells(works) == ["cpu"]
    lines = said.splitlines()
    assert "FAILED: ValueError: planted in two lines" in lines
    assert "| cpu |" in lines
    failed = lines[-1].partition("failed: ")[2].split(", ")
    assert [Path(name).stem for name in failed] == ["raises", "crashes", "fails_in_a_row"]


def test_what_does_not_fit_into_the_budget_is_skipped_by_name(tmp_path: Path) -> None:
    code, said, sections = run(tmp_path, "--budget", "5", "--section", "masks", "--section", "graph")
    assert code == 0
    assert list(sections) == ["masks", "graph"]
    assert all("of 5 are left" in found["skipped"] for found in sections.values())
    assert "### masks" in said


def test_a_section_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    file = tmp_path / "hangs.py"
    file.write_text("import time\ndef run(where):\n    time.sleep(600)\n", encoding="utf-8")
    sys.path.insert(0, str(COMMAND.parent))
    try:
        import torch
        from gpu_sections.one import in_a_process  # pyright: ignore

        found: Any = in_a_process(torch.device("cpu"), str(file), True, 1.0)
    finally:
        sys.path.remove(str(COMMAND.parent))
    assert found["error"] == "stopped after 1 s"
