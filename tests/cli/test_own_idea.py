"""A criterion in the user's own file, as docs/guide/own_idea.md writes it, by `_target_` or by a YAML of the user's."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .conftest import SHORT, Command

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "own_idea.md").read_text(encoding="utf-8")
AT_ONCE = (
    *("pruner/schedule=one_shot", "pruner.schedule.step=0", "pruner/pattern=row", "pruner/scope=uniform"),
    *("task.lr=1e-30", "task.weight_decay=0"),
)
"""Nothing is learned, so a dense run of the same seed shows the weights that were ranked."""
WAYS = {
    "python_path": ("pruner.criterion._target_=my_criteria.Peak", "+pruner.criterion.top=3"),
    "config_dir": ("--config-dir", "mine", "pruner/criterion=peak"),
}


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write the guide's files into the current folder, which is searched for modules."""
    for language in ("python", "yaml"):
        for name, text in re.findall(rf"^```{language}\n# (\S+\.(?:py|yaml))\n(.*?)^```$", GUIDE, re.M | re.S):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_criteria", None)


def train(command: Command, *words: str) -> dict[str, Tensor]:
    """Return the matrices of the model that a short run leaves."""
    said = command("train", "-cn", "digits_mlp", *SHORT, *AT_ONCE, "hydra.run.dir=run", *words)
    assert (said.status, said.err) == (0, "")
    found = torch.load("run/model.pt", weights_only=True)
    Path("run").rename(f"run of {len(list(Path().glob('run*')))}")
    return {name: weight for name, weight in found.items() if weight.dim() > 1}


@pytest.mark.parametrize("way", ["config_dir", pytest.param("python_path", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("own_files")
def test_a_criterion_of_the_users_own_decides_what_goes(command: Command, way: str) -> None:
    dense = train(command, "pruner.schedule.final_sparsity=0")
    pruned = train(command, "pruner.schedule.final_sparsity=0.5", *WAYS[way])
    for name, weight in dense.items():
        worth = weight.abs().sort(descending=True).values[:, :3].mean(1)
        keep = worth > worth.sort().values[len(worth) // 2 - 1]
        assert torch.equal(pruned[name], weight * keep[:, None])


@pytest.mark.usefixtures("own_files")
def test_a_criterion_of_the_users_own_shows_in_the_config(command: Command) -> None:
    said = command("train", "-cn", "digits_mlp", *WAYS["config_dir"], "--cfg", "job")
    assert "_target_: my_criteria.Peak\n    top: 3" in said.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("pruner.criterion._target_=my_criteria.Gone",), "my_criteria.Gone"),
        (("pruner.criterion._target_=my_criteria.Peak", "+pruner.criterion.topp=3"), "did you mean top?"),
    ],
)
@pytest.mark.usefixtures("own_files")
def test_G25_a_mistake_in_its_name_or_keys_is_one_line(command: Command, words: tuple[str, ...], line: str) -> None:
    said = command("train", "-cn", "digits_mlp", *words)
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert line in said.err
