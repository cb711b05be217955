"""ARCHITECTURE.md is true: its tree and floors are those of the code, its way is gone, its criterion is accepted."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from torch import nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.pattern import Row
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, adamw, fit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_prune"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
WAY: list[tuple[str, str]] = re.findall(r"^\| (\w+/\w+\.py) \| `([\w.]+)` \| .+ \|$", PAGE, re.MULTILINE)


def own(folder: Path) -> set[str]:
    """Return what lies in a folder of the package, packages and modules alike, without what every package has."""
    packages = {path.name for path in folder.iterdir() if (path / "__init__.py").is_file()}
    return packages | {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}


def test_the_tree_names_every_wing_and_nothing_else() -> None:
    tree = PAGE.partition("```\nlightning_prune/\n")[2].partition("conf/  recipes/")[0]
    named = set(re.findall(r"(?:^  |  )(\w+)(?:/|\.py)(?: |$)", tree, re.MULTILINE))
    assert named - {"protocol", "pruner"} == own(PACKAGE)


def test_the_floors_are_those_that_are_checked() -> None:
    listed = re.search(
        r"^layers = (\[.*?^\])", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert listed
    layers = [set(layer.split(" | ")) for layer in ast.literal_eval(listed[1]) if "__main__" not in layer]
    rows = re.findall(r"^\| \d \| (.+) \|$", PAGE, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == layers
    assert set().union(*layers) == own(PACKAGE)


@pytest.mark.parametrize(("file", "name"), WAY, ids=[name for _, name in WAY])
def test_each_function_on_the_way_of_a_weight_is_where_it_is_said_to_be(file: str, name: str) -> None:
    module = importlib.import_module(f"lightning_prune.{file[:-3].replace('/', '.')}")
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    assert found.__module__ == module.__name__


def test_a_weight_goes_that_way() -> None:
    """Record every call of the package in a run of one update, and find those of the page among them, in order."""
    called: list[tuple[str, str]] = []

    def record(frame: FrameType, event: str, _: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            called.append((str(file.relative_to(PACKAGE)), frame.f_code.co_name))

    callback = PruningCallback(Pruner(Polynomial(0.5, 2, 3, 1), pattern=Row()))
    before = sys.getprofile()
    sys.setprofile(record)
    try:
        fit(Net(adamw, nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 4))), callback, max_steps=3)
    finally:
        sys.setprofile(before)
    assert len(WAY) > 10
    begin = max(n for n, call in enumerate(called) if call[1] == "on_train_batch_end")
    rest = iter(called[begin:])
    for file, name in WAY:
        wanted = (file, name.rpartition(".")[2])
        assert wanted in rest, f"{file} {name} is not called, or earlier than the page says"


@pytest.fixture(scope="module")
def copy_with_the_criterion_of_the_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a copy of the project with the criterion that the page adds."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("lightning_prune", "conf", "recipes", "tests", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "ARCHITECTURE.md"):
        shutil.copy(ROOT / name, copy)
    section = PAGE.partition("## Adding a criterion")[2]
    code, line, yaml = re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (copy / "lightning_prune/criterion/spread.py").write_text(code, encoding="utf-8")
    (copy / "conf/pruner/criterion/spread.yaml").write_text(yaml, encoding="utf-8")
    noun = copy / "lightning_prune/criterion/__init__.py"
    noun.write_text(noun.read_text(encoding="utf-8") + line)
    assert len(code.splitlines()) < 25
    assert line.count("\n") == 1
    return copy


LAWS = ("tests/laws/test_criterion.py", "tests/laws/test_every_noun.py", "tests/conf/test_groups.py")


def laws(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the laws of a copy of the project."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *LAWS, *words]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_one_file_one_yaml_and_one_line_add_a_criterion(copy_with_the_criterion_of_the_page: Path) -> None:
    done = laws(copy_with_the_criterion_of_the_page, "-k", "spread or (every_noun and criterion)")
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 10, done.stdout


@pytest.mark.slow
@pytest.mark.slow
def test_the_laws_notice_a_criterion_that_is_not_listed_or_not_right(copy_with_the_criterion_of_the_page: Path) -> None:
    copy = copy_with_the_criterion_of_the_page
    noun, file = copy / "lightning_prune/criterion/__init__.py", copy / "lightning_prune/criterion/spread.py"
    listed, right = noun.read_text(encoding="utf-8"), file.read_text(encoding="utf-8")
    try:
        noun.write_text(
            listed.replace("from .spread import", "from .magnitude import Magnitude as Other  # "), encoding="utf-8"
        )
        assert "says_what_it_is_and_lists_every_idea" in laws(copy, "-k", "every_noun and criterion").stdout
        noun.write_text(listed, encoding="utf-8")
        file.write_text(right.replace(".view_as(weight)", ".sum()"), encoding="utf-8")
        assert laws(copy, "-k", "spread").returncode == 1
    finally:
        noun.write_text(listed, encoding="utf-8")
        file.write_text(right, encoding="utf-8")
