"""The documents keep up with the code: tests that are named exist, code runs, links lead somewhere, pages are found.

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
import yaml
from torch import nn

from lightning_prune import Pruner
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Batches, sparsity
from tests.helpers import hooks
from tests.page.runs import write as write_run

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
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


def targets_check(names: Names) -> None:
    found = names["rules"].find(names["model"]).targets
    assert {t.name: t.rule for t in found} == {"encoder.0.weight": r"encoder\.0\.", "encoder.1.weight": None}


def plain_check(names: Names) -> None:
    assert int((names["model"].weight == 0).sum()) == 9


def lora_check(names: Names) -> None:
    assert (names["pruned"].zeros, names["filled"]) == (48, 48)
    assert sum(int((names["tuned"][i].weight == 0).sum()) for i in (0, 2)) == 48


def own_idea_check(names: Names) -> None:
    pruner = Pruner(OneShot(0.5, 1), criterion=names["GradientMagnitude"]())
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[9.0, 1.0], [1.0, 9.0]]))
    layer.weight.grad = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    pruner.attach(layer)
    assert pruner.after_step(1)
    assert layer.weight.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def index_check(names: Names) -> None:
    assert sparsity(names["sparse"]) == round(0.9 * (64 * 128 + 128 * 10)) / (64 * 128 + 128 * 10)
    assert [tuple(names["smaller"].net[i].weight.shape) for i in (0, 2)] == [(32, 64), (10, 32)]
    for model in (names["sparse"], names["smaller"]):
        right = model(torch.tensor(names["images"] / 16).float()).argmax(1).numpy() == names["labels"]
        assert right.mean() > 0.9


def looking_check(names: Names) -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    pruner = Pruner(OneShot(0.5, 1), names["GradientNorm"]())
    pruner.attach(layer)
    (layer(torch.eye(2)) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    pruner.before_step(optimizer)
    assert pruner.after_step(1, [optimizer])
    assert (layer.weight != 0).tolist() == [[False, True], [False, True]]


def report_names() -> Names:
    for name in ("sparse", "channels"):
        write_run(Path("runs", name))
    return {}


def report_check(names: Names) -> None:
    assert "<h1>made_up</h1>" in Path("runs/sparse/report.html").read_text(encoding="utf-8")
    assert "<h1>Weights or channels</h1>" in Path("both.html").read_text(encoding="utf-8")


STAND_INS = {
    "README.md": StandIn(dict, readme_check),
    "docs/index.md": StandIn(dict, index_check),
    "docs/guide/lora.md": StandIn(dict, lora_check),
    "docs/guide/looking.md": StandIn(dict, looking_check),
    "docs/guide/own_idea.md": StandIn(dict, own_idea_check),
    "docs/guide/plain_pytorch.md": StandIn(dict, plain_check),
    "docs/guide/targets.md": StandIn(dict, targets_check),
    "docs/report.md": StandIn(report_names, report_check),
    "docs/distributed.md": StandIn(lambda: {"L": pl}, lambda names: None),
}
COMPLETE = StandIn(dict, lambda names: None)


SLOW = {"docs/index.md"}
"""They train; README.md stands for them among the fast tests."""


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(d, id=name_of(d), marks=[pytest.mark.slow] if name_of(d) in SLOW else [])
        for d in DOCUMENTS
        if "```python" in d.read_text(encoding="utf-8")
    ],
)
def test_python_code_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a document share their names, in order."""
    monkeypatch.chdir(tmp_path)
    text = document.read_text(encoding="utf-8")
    assert text.count("```python") == len(PYTHON.findall(text)), "a block is not closed"
    stand_in = STAND_INS.get(name_of(document), COMPLETE)
    names = stand_in.names() | {"__name__": "document"}
    for block in PYTHON.finditer(text):
        if not block["skip"]:
            line = text.count("\n", 0, block.start("code"))
            exec(compile("\n" * line + block["code"], document, "exec", dont_inherit=True), names)
    stand_in.check(names)


# YAML

YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class AnyTag(yaml.SafeLoader):
    """Reads the tags of other libraries as if they were not there."""


AnyTag.add_multi_constructor("!", lambda loader, tag, node: None)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if "```yaml" in d.read_text(encoding="utf-8")], ids=name_of)
def test_yaml_is_yaml(document: Path) -> None:
    for block in YAML.findall(document.read_text(encoding="utf-8")):
        assert isinstance(yaml.load(block, AnyTag), dict)


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


# The site

NAV = re.compile(r"([\w/]+\.md)$", re.MULTILINE)


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = NAV.findall((ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2])
    assert len(listed) == len(set(listed))
    ours = {str(document.relative_to(ROOT / "docs")) for document in (ROOT / "docs").rglob("*.md")}
    assert ours == set(listed) - set(hooks().BROUGHT.values())
    assert set(hooks().BROUGHT.values()) <= set(listed)
    assert all((ROOT / source).is_file() for source in hooks().BROUGHT)


@pytest.mark.parametrize(
    ("text", "page", "repository", "there"),
    [
        ("[a](units.md#b)", "guide/index.md", None, "[a](units.md#b)"),
        ("[a](../../benchmarks/README.md#b)", "guide/units.md", None, "[a](../benchmarks.md#b)"),
        ("[a](docs/guide/own_idea.md)", "architecture.md", None, "[a](guide/own_idea.md)"),
        ("[a](../docs/studies/README.md)", "recipes.md", None, "[a](studies/README.md)"),
        ("[a](../tests/x.py) `t`", "guarantees.md", None, "a `t`"),
        ("[a](../tests/x.py)", "guarantees.md", "https://host/us/it/", "[a](https://host/us/it/blob/main/tests/x.py)"),
        ("[a](https://host/b) [c](#d)", "faq.md", None, "[a](https://host/b) [c](#d)"),
        ("![a](../images/b.svg)", "guide/units.md", None, "![a](../images/b.svg)"),
    ],
)
def test_links_of_the_site(text: str, page: str, repository: str | None, there: str) -> None:
    assert hooks().LINK.sub(lambda found: hooks().link(found, page, repository), text) == there


# Around it

STEP = re.compile(r"timeout \d+m make \S+")


def test_the_workflow_does_what_the_script_does() -> None:
    script = STEP.findall((ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert "timeout 5m make docs" in script
    assert "-m mkdocs build --strict" in (ROOT / "Makefile").read_text(encoding="utf-8"), "--quiet would drop warnings"
    assert STEP.findall((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")) == script


@pytest.mark.parametrize("file", [ROOT / "CITATION.cff", *sorted((ROOT / ".github").rglob("*.yml"))], ids=name_of)
def test_files_for_others_are_yaml(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)


def test_the_version_stands_in_one_place() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    elsewhere = [ROOT / "CITATION.cff", ROOT / "mkdocs.yml", *sorted((ROOT / "lightning_prune").rglob("*.py"))]
    assert not [file for file in elsewhere if f'"{version[1]}"' in file.read_text(encoding="utf-8")]
