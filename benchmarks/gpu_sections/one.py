"""One section in a process of its own, which may crash, hang, or leave a device that refuses all that follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

BENCHMARKS = Path(__file__).resolve().parents[1]


def in_a_process(device: torch.device, name: str, small: bool, seconds: float) -> dict[str, Any]:
    """Run a section in a process of its own, which may crash or hang, and return what it has found."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result, errors = Path(folder, "result.json"), Path(folder, "errors")
        command = [sys.executable, __file__, str(device), name, "small" if small else "full", str(result)]
        with errors.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
                env=os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},  # what deterministic algorithms need
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return {"error": f"stopped after {seconds:.0f} s", "seconds": round(seconds)}
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        found: dict[str, Any] = {"error": f"its process ended with {code}: {said[-1] if said else 'it said nothing'}"}
        if result.is_file():
            found = json.loads(result.read_text(encoding="utf-8"))
    return found | {"seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    """Run a section here and write what it has found into a file."""
    device, name, size, file = sys.argv[1:]
    from gpu_sections.tools import NotHere, Where, one_line

    try:
        tables = _module(name).run(Where(torch.device(device), size == "small"))
        found: dict[str, Any] = {"tables": [vars(each) for each in tables]}
    except NotHere as reason:
        found = {"skipped": str(reason)}
    except Exception as error:
        found = {"error": one_line(error)}
    Path(file).write_text(json.dumps(found), encoding="utf-8")


def _module(name: str) -> Any:
    if not Path(name).is_file():
        return import_module(f"gpu_sections.{name}")
    spec = spec_from_file_location("own_section", name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.path[:1] = [str(BENCHMARKS), str(BENCHMARKS.parent)]
    main()
