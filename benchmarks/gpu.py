"""What an accelerator makes of it: masks, costs, compiled code, mixed precision and more, in sections that stand alone.

python benchmarks/gpu.py [--device cuda] [--section NAME ...] [--budget SECONDS] [--json FILE] [--small]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from gpu_sections.one import in_a_process
from gpu_sections.tools import one_line
from timing import table

SECTIONS = {
    **{"tf32": 30, "masks": 40, "cost": 80, "deterministic": 30, "compiled": 80, "amp": 25},
    **{"graph": 20, "semi_structured": 30, "shrunk": 60, "resume": 25, "peers": 40},
}
"""In order of value, with the seconds that each is thought to take at most on a GPU."""
_SMALL, _OWN = 15, 30
"""The seconds of one with small sizes, and of a section of one's own."""


def main() -> None:
    options = _options()
    small = options.small or options.device.type == "cpu"
    found: dict[str, Any] = {"machine": machine(options.device, small), "sections": {}}
    print(found["machine"], flush=True)
    start = time.monotonic()
    for name in options.section or SECTIONS:
        expected = _SMALL if small else SECTIONS.get(name, _OWN)
        left = options.budget - (time.monotonic() - start)
        if left < expected:
            result: dict[str, Any] = {"skipped": f"{left:.0f} s of {options.budget:g} are left, it may take {expected}"}
        else:
            result = in_a_process(options.device, name, small, min(left, 2 * expected + 60))
        found["sections"][name] = result
        print(shown(name, result), flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    failed = [name for name, result in found["sections"].items() if has_failed(result)]
    print(f"\n{time.monotonic() - start:.0f} s; sections that failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", type=torch.device, default=default_device(), help="cuda, cpu, mps or xpu")
    parser.add_argument(
        "--section", action="append", help=f"one of {', '.join(SECTIONS)}, or a file with a run(where); repeatable"
    )
    parser.add_argument("--budget", type=float, default=460, help="seconds; what does not fit is skipped")
    parser.add_argument("--json", default="", help="a file for the results, written as each section ends")
    parser.add_argument("--small", action="store_true", help="small sizes; always on a CPU")
    options = parser.parse_args()
    unknown = [n for n in options.section or () if n not in SECTIONS and not Path(n).is_file()]
    if unknown:
        parser.error(f"there is no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    try:
        torch.zeros(1, device=options.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        parser.error(f"--device {options.device}: {one_line(error)}")
    return options


def default_device() -> torch.device:
    """Return the accelerator that torch finds, or the CPU."""
    accelerator: Any = getattr(torch, "accelerator", None)  # torch 2.6
    if accelerator is not None:
        return accelerator.current_accelerator() if accelerator.is_available() else torch.device("cpu")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine(device: torch.device, small: bool) -> str:
    """Return one line on device, driver, versions and date."""
    parts = [platform.machine() + " CPU" if device.type == "cpu" else str(device)]
    if device.type == "cuda":
        parts = [torch.cuda.get_device_name(device), f"CUDA {torch.version.cuda}", f"driver {_driver()}"]
    parts += [f"torch {torch.__version__}", f"Python {platform.python_version()}"]
    parts += [f"{datetime.now(timezone.utc):%Y-%m-%d}", *(["small sizes"] if small else [])]
    return ", ".join(parts)


def _driver() -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    return "unknown"


def has_failed(result: dict[str, Any]) -> bool:
    """Return whether a section has failed, or a row of it."""
    cells = [cell for each in result.get("tables", []) for row in each["rows"] for cell in row]
    return "error" in result or any(cell.startswith("FAILED") for cell in cells)


def shown(name: str, result: dict[str, Any]) -> str:
    """Return a section's results in Markdown."""
    seconds = f" ({result['seconds']} s)" if "seconds" in result else ""
    lines = [f"\n### {Path(name).stem}{seconds}"]
    for kind in ("skipped", "error"):
        if kind in result:
            lines.append(f"\n{'skipped' if kind == 'skipped' else 'FAILED'}: {result[kind]}")
    for each in result.get("tables", []):
        lines += ["", table(each["head"], each["rows"]), *([f"\n{each['note']}"] if each["note"] else [])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
