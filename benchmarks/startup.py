"""How long the command line takes to say something, beside what importing torch takes alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TURNS = 7
PROGRAM = str(Path(sys.executable).with_name("lightning-prune"))
COMMANDS = {
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "python -c 'import pytorch_lightning'": [sys.executable, "-c", "import pytorch_lightning"],
    "python -c 'from lightning_prune import Pruner'": [sys.executable, "-c", "from lightning_prune import Pruner"],
    "lightning-prune --help": [PROGRAM, "--help"],
    "lightning-prune --version": [PROGRAM, "--version"],
    "lightning-prune train --help": [PROGRAM, "train", "--help"],
    "lightning-prune completion words": [PROGRAM, "completion", "words", "--", "lightning-prune train -cn digits_"],
    "lightning-prune plan -cn digits_cnn": [PROGRAM, "plan", "-cn", "digits_cnn"],
}


def main() -> None:
    """Print the least of some turns, in which the commands take turns."""
    least = dict.fromkeys(COMMANDS, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(TURNS):
            for name, command in COMMANDS.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True, env={**os.environ})
                least[name] = min(least[name], time.perf_counter() - start)
    torch = least["python -c 'import torch'"]
    print("| command | seconds | of importing torch |\n| --- | --- | --- |")
    for name, seconds in least.items():
        print(f"| `{name}` | {seconds:.2f} | {seconds / torch:.2f} |")


if __name__ == "__main__":
    main()
