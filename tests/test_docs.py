"""The documents keep up with the code: tests that are named exist, Python code runs, links lead somewhere.

A Python block that cannot run is skipped when the line above it is `<!-- not run: why -->`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelPruning
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.guarantees.helpers import Batches, sparsity

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "recipes" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def name_of(document: Path) -> str:
    """Return a document's path in the project."""
    return str(document.relative_to(ROOT))


EVERY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)

# Named tests

GUARANTEES = ROOT / "docs" / "guarantees.md"
FILE_OR_TEST = re.compile(r"\]\(([^)\s]+\.py)\)|`(test_\w+)`")


@cache
def functions(file: Path) -> set[str]:
    """Return the names of the test functions of a file."""
    return {
        node.name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    }


def lines() -> list[str]:
    """Return the rows of the tables, and what else names a test."""
    every = GUARANTEES.read_text(encoding="utf-8").splitlines()
    heads = {line for line, below in pairwise(every) if below.startswith("| ---")}
    return [
        line
        for line in every
        if (line.startswith("| ") and line not in heads and "---" not in line) or FILE_OR_TEST.search(line)
    ]


@pytest.mark.parametrize("line", lines(), ids=lambda line: line[:32].strip("| "))
def test_each_test_that_the_guarantees_name_exists(line: str) -> None:
    file, named = None, 0
    for path, name in FILE_OR_TEST.findall(line):
        if path:
            file = (GUARANTEES.parent / path).resolve()
            assert file.is_file(), path
        else:
            assert file is not None, f"{name} stands before any file"
            assert name in functions(file), f"no {name} in {file.relative_to(ROOT)}"
            named += 1
    assert named or line.endswith("No test. |")


def test_every_guarantee_has_its_row() -> None:
    ids = [int(found[1]) for line in lines() if (found := re.match(r"\| G(\d+) \|", line))]
    assert ids[:28] == list(range(1, 29))
    assert ids == sorted(set(ids))


# Code

PYTHON = re.compile(r"^(?P<skip><!-- not run: .+ -->\n\n?)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

Names = dict[str, Any]


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> Batches:
        return Batches(6)

    def val_dataloader(self) -> Batches:
        return Batches(1)


@dataclass(frozen=True)
class StandIn:
    """What a document's code takes for granted, and what must hold after it has run."""

    names: Callable[[], Names]
    check: Callable[[Names], None]


def readme_check(names: Names) -> None:
    assert sparsity(names["model"]) == round(0.9 * (64 * 128 + 128 * 10)) / (64 * 128 + 128 * 10)
    net, images, labels = names["model"].net, names["images"], names["labels"]
    right = net(torch.tensor(images / 16).float()).argmax(1).numpy() == labels
    assert right.mean() > 0.9


def guide_names() -> Names:
    torch.manual_seed(0)
    coder = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "head": nn.Linear(4, 2)})
    model = nn.Linear(5, 2)

    def find(**rules: Any) -> Targets:
        targets = Targets(**rules)
        assert {t.name: t.rule for t in targets.find(coder).targets} == {
            "encoder.0.weight": r"encoder\.0\.",
            "encoder.1.weight": None,
        }
        return targets

    def loss(module: nn.Module, batch: Tensor) -> Tensor:
        return module(batch).square().mean()

    return {
        "Targets": find,
        "Pruner": Pruner,
        "Polynomial": Polynomial,
        "dataclass": dataclass,
        "Tensor": Tensor,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        "batches": torch.randn(4001, 3, 5),
        "loss": loss,
    }


def guide_check(names: Names) -> None:
    assert int((names["model"].weight == 0).sum()) == 9
    assert (names["pruned"].zeros, names["filled"]) == (48, 48)
    assert sum(int((names["tuned"][i].weight == 0).sum()) for i in (0, 2)) == 48
    pruner = Pruner(OneShot(0.5, 1), criterion=names["GradientMagnitude"]())
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[9.0, 1.0], [1.0, 9.0]]))
    layer.weight.grad = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    pruner.attach(layer)
    assert pruner.after_step(1)
    assert layer.weight.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def methods_check(names: Names) -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    pruner = Pruner(OneShot(0.5, 1), names["GradientNorm"]())
    pruner.attach(layer)
    (layer(torch.eye(2)) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    pruner.before_step(optimizer)
    assert pruner.after_step(1, [optimizer])
    assert (layer.weight != 0).tolist() == [[False, True], [False, True]]


def migration_names() -> Names:
    return {"PruningCallback": PruningCallback, "ModelPruning": ModelPruning}


STAND_INS = {
    "README.md": StandIn(dict, readme_check),
    "ARCHITECTURE.md": StandIn(dict, lambda names: None),
    "docs/guide.md": StandIn(guide_names, guide_check),
    "docs/migration.md": StandIn(migration_names, lambda names: None),
    "docs/guarantees.md": StandIn(dict, lambda names: None),
    "docs/methods.md": StandIn(dict, methods_check),
    "docs/distributed.md": StandIn(lambda: {"L": pl}, lambda names: None),
}


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if "```python" in d.read_text(encoding="utf-8")], ids=name_of
)
def test_python_code_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a document share their names, in order."""
    monkeypatch.chdir(tmp_path)
    text = document.read_text(encoding="utf-8")
    assert text.count("```python") == len(PYTHON.findall(text)), "a block is not closed"
    stand_in = STAND_INS[name_of(document)]
    names = stand_in.names() | {"__name__": "document"}
    for block in PYTHON.finditer(text):
        if not block["skip"]:
            line = text.count("\n", 0, block.start("code"))
            exec(compile("\n" * line + block["code"], document, "exec", dont_inherit=True), names)
    stand_in.check(names)


# Links

LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")


def anchors(document: Path) -> set[str]:
    """Return what links may name after `#`."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@EVERY_DOCUMENT
def test_links_lead_somewhere(document: Path) -> None:
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} links to {path}"
        assert target.is_relative_to(ROOT), f"{document.name} links out of the project: {path}"
        if anchor:
            assert anchor in anchors(target), f"{document.name} links to {path}#{anchor}"
