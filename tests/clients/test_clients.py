"""Scripts as users write them, with each of Lightning's two packages, where the other one is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FAMILIES = {"pytorch_lightning": {"lightning"}, "lightning": {"pytorch_lightning", "lightning_fabric"}}

WITHOUT = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run(missing: set[str], code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process that finds no package of those names."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", WITHOUT.format(missing=missing) + code, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=pytest.mark.slow if n else []) for n, f in enumerate(FAMILIES)]
)
def test_the_line_prunes_resumes_and_saves_the_best(family: str, tmp_path: Path) -> None:
    """Nine in ten of 240 weights, two batches a step, over the run's length; with that package alone."""
    script = HERE / f"{family}_client.py"
    done = run(FAMILIES[family], f"runpy.run_path({str(script)!r}, run_name='__main__')", str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith(("zeros", "resumed", "best", "modules"))]
    assert said == [
        "zeros 216 216 of 240",
        "resumed alike True",
        "best True",
        f"modules ['{family if family == 'pytorch_lightning' else 'lightning.pytorch'}']",
    ]


COMMAND = """
from lightning_prune.cli import main
status = main(sys.argv[1:])
assert "lightning.pytorch" in sys.modules and "pytorch_lightning" not in sys.modules
sys.exit(status)
"""


@pytest.mark.slow
def test_a_recipe_runs_with_lightning_alone(tmp_path: Path) -> None:
    """Its trainer, callbacks and loggers are those of the package that is there, whatever the config names."""
    folder = tmp_path / "run"
    few = ("trainer.max_epochs=1", "trainer.limit_train_batches=12")
    words = ("train", "-cn", "digits_mlp", f"hydra.run.dir={folder}", "callbacks=sparse_checkpoint", *few)
    done = run(FAMILIES["lightning"], COMMAND, *words)
    assert done.returncode == 0, done.stderr
    assert "90.00 %" in done.stdout
    assert (folder / "metrics.csv").is_file()
    assert list(folder.glob("checkpoints/*.ckpt"))
    assert '"lightning": ' in (folder / "report.json").read_text(encoding="utf-8")
