"""A Hydra app of the user's own, laid out like lightning-hydra-template, with the five lines of docs/hydra_app.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent / "hydra_app"
ROOT = HERE.parents[2]
DOCS = (ROOT / "docs" / "hydra_app.md").read_text(encoding="utf-8")


def zeros(folder: Path, *words: str) -> list[int]:
    """Run the app, and return how many zeros the best model has in each of its matrices of 160 and 80 weights."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(HERE / "src/train.py"), f"hydra.run.dir={folder}", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^zeros \[(\d+), (\d+)\]$", done.stdout, re.M)
    assert found is not None
    return [int(found[1]), int(found[2])]


def test_the_app_has_the_five_lines_of_the_docs() -> None:
    for name, text in re.findall(r"^```yaml\n# configs/(\S+)\n(.*?)^```$", DOCS, re.M | re.S):
        said = yaml.safe_load(text)
        assert len(text.splitlines()) in (3, 4)
        if name == "train.yaml":
            app = yaml.safe_load((HERE / "configs" / name).read_text(encoding="utf-8"))
            assert all(each in app["defaults"] for each in said["defaults"])
            assert said["hydra"].items() <= app["hydra"].items()
        else:
            assert said == yaml.safe_load((HERE / "configs/callbacks/pruning.yaml").read_text(encoding="utf-8"))


WAYS = {
    "as it is": ((), lambda first, second: first + second == 216),
    "another sparsity and scope": (
        ("pruner.schedule.final_sparsity=0.5", "pruner/scope=uniform"),
        lambda first, second: (first, second) == (80, 40),
    ),
    "criterion, pattern and targets": (
        (
            *("pruner/criterion=filter_norm", "pruner/pattern=row", "pruner/scope=uniform"),
            *(
                "pruner.schedule.final_sparsity=0.75",
                r"pruner.targets.exclude=[net\.2]",
                "pruner/regularizer=group_lasso",
            ),
        ),
        lambda first, second: (first, second) == (120, 0),
    ),
}


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[] if way == "criterion, pattern and targets" else pytest.mark.slow) for way in WAYS],
)
def test_the_command_line_of_the_app_chooses_the_pruner(tmp_path: Path, way: str) -> None:
    words, fits = WAYS[way]
    found = zeros(tmp_path, *words)
    assert fits(*found), found
    assert list((tmp_path / "checkpoints").glob("*.ckpt"))


@pytest.mark.slow
def test_the_group_can_lie_elsewhere(tmp_path: Path) -> None:
    """Under another key, with its options chosen there."""
    mounted = ("+pruner@mine=default", "~pruner", "callbacks.pruning.pruner=${mine}")
    assert zeros(tmp_path, *mounted, "pruner/scope@mine.scope=uniform", "mine.schedule.final_sparsity=0.5") == [80, 40]
