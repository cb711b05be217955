"""The user's own LightningModule on the command line: the files of docs/guide/own_module.md, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightning_prune.cli import constructor_keys, here

from .conftest import Command

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "own_module.md").read_text(encoding="utf-8")
SCRIPT = Path(sys.executable).parent / "lightning-prune"
OURS = ("-cn", "net", "--config-dir", "mine")
HALF = ("pruner.schedule.final_sparsity=0.5",)


@pytest.fixture
def own_files(tmp_path: Path) -> Iterator[None]:
    """Write the guide's files into the current folder; nothing else makes Python search it."""
    before, path = set(sys.modules), list(sys.path)
    for name in ("my_task.py", "mine/net.yaml"):
        found = re.search(rf"^```\w+\n# {re.escape(name)}\n(.*?)^```$", GUIDE, re.M | re.S)
        assert found is not None
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(found[1], encoding="utf-8")
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        if not name.startswith(("lightning_prune", "pytorch_lightning", "torch", "hydra")):
            del sys.modules[name]


@pytest.mark.usefixtures("own_files")
def test_nine_lines_train_a_model_of_the_users_own(tmp_path: Path) -> None:
    """The console script, in a process of its own, in the folder where the module lies."""
    assert len((tmp_path / "mine/net.yaml").read_text(encoding="utf-8").splitlines()) == 9
    words = ("train", *OURS, "task.hidden=12", "trainer.gradient_clip_algorithm=norm", "trainer.max_epochs=2")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "PYTHONWARNINGS": "ignore"
    }
    done = subprocess.run(
        [SCRIPT, *words, "hydra.run.dir=run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / "run/model.pt", weights_only=True)
    assert {name: tuple(weight.shape) for name, weight in state.items() if weight.dim() > 1} == {
        "net.0.weight": (12, 8),
        "net.2.weight": (4, 12),
    }
    assert sum(int((weight == 0).sum()) for weight in state.values() if weight.dim() > 1) == round(0.9 * 144)
    assert "gradient_clip_algorithm: norm" in (tmp_path / "run/config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        pytest.param(1, (), marks=pytest.mark.slow),
        pytest.param(2, ("trainer.devices=2", "trainer.strategy=ddp"), marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("own_files")
def test_compress_makes_a_model_of_the_users_own_smaller(tmp_path: Path, devices: int, words: tuple[str, ...]) -> None:
    """With what it takes to trace it: a forward and an example."""
    file = tmp_path / "my_task.py"
    forward = (
        "    def forward(self, x: torch.Tensor) -> torch.Tensor:\n        return self.net(x)\n\n    def training_step("
    )
    text = file.read_text(encoding="utf-8").replace("    def training_step(", forward)
    example = "super().__init__()\n        self.example_input_array = torch.zeros(1, 8)\n"
    file.write_text(text.replace("super().__init__()\n", example, 1), encoding="utf-8")
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    torch.save({f"net.{name}": value for name, value in net.state_dict().items()}, tmp_path / "dense.pt")
    ours = ("compress", "dense.pt", *OURS, "macs=0.5", "hydra.run.dir=small", "trainer.max_epochs=1")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [SCRIPT, *ours, "trainer.accelerator=cpu", *words],
        cwd=tmp_path,
        env=environment | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("macs=0.5 asked for") == 1, "one process says it"
    weights = torch.load(tmp_path / "small/model.pt", weights_only=True)
    hidden = weights["net.0.weight"].shape[0]
    assert 1 <= hidden <= 8, f"at most half of 16 with {devices} devices"
    assert weights["net.2.weight"].shape == (4, hidden)


@pytest.mark.usefixtures("own_files")
def test_help_lists_the_users_recipes_first(command: Command) -> None:
    Path("mine/net.yaml").write_text(
        "# My net.\n" + Path("mine/net.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    for name in ("train", "plan"):
        listed = command(name, "--config-dir", "mine", "--help").out.partition("recipes:\n")[2].splitlines()
        assert listed[0].split() == ["net", "My", "net."]
        assert any(line.startswith("  digits_mlp ") for line in listed)
    assert "--config-dir=nowhere: there is no such folder" in command("train", "-cd", "nowhere", "--help").err


NOT_FOUND = {
    "task._target_=my_tusk.Net": "there is no module my_tusk: looked for in {here} (the current folder) and the "
    "installed packages; did you mean my_task.Net?",
    "data._target_=gone.Data": "run the command in the folder where gone.py lies, or set PYTHONPATH to that folder",
    "task._target_=my_task.Nett": "my_task ({here}/my_task.py) has no Nett: did you mean my_task.Net?",
    "task._target_=nested.Net": "sub/nested.py is there: name it sub.nested.Net, or set PYTHONPATH=sub",
    "task._target_=sub.gone.Net": "sub has no gone",
    "task._target_=needy.Net": "needy imports no_such_package, which is not installed",
    "task._target_=broken.Net": "a mistake of its own",
    "task._target_=lightning_prune.tasks.nets.MLPP": "did you mean lightning_prune.tasks.nets.MLP?",
}


@pytest.mark.parametrize("word", NOT_FOUND)
@pytest.mark.usefixtures("own_files")
def test_what_is_not_found_says_where_it_was_looked_for(command: Command, word: str) -> None:
    Path("sub").mkdir()
    Path("sub/nested.py").write_text("", encoding="utf-8")
    Path("needy.py").write_text("import no_such_package\n", encoding="utf-8")
    Path("broken.py").write_text("raise RuntimeError('a mistake of its own')\n", encoding="utf-8")
    said = command("plan", *OURS, word)
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert NOT_FOUND[word].format(here=Path.cwd()) in said.err


@pytest.mark.usefixtures("own_files")
def test_a_module_in_a_folder_that_is_not_searched_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = here.why_not_found("my_task.Net") or ""
    assert f"my_task lies in {tmp_path}, which is not searched: set PYTHONPATH to it" in said


def test_folders_of_pythonpath_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    said = here.why_not_found("no_such_module.Net") or ""
    assert f"looked for in {tmp_path / 'a'}, {tmp_path / 'b'} (PYTHONPATH) and the installed packages" in said
    assert here.why_not_found("torch.nn.Linear") is None


@pytest.mark.parametrize(
    ("argv", "place"),
    [
        (["train"], 0),
        (["plan"], 0),
        (["inspect", "x.pt", "--trust", "mine"], -1),
        (["shrink", "--trust=mine"], -1),
        (["shrink", "x"], None),
        (["compare"], None),
    ],
)
def test_G35_a_command_that_reads_looks_here_last_and_if_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], place: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with here.searched(argv):
        assert (str(tmp_path) in sys.path) is (place is not None)
        assert place is None or sys.path[place] == str(tmp_path)
    assert sys.path == before


ADDED = {
    "task.hidden=3": "hidden: 3",
    "trainer.max_time=00:00:01:00": "max_time: 00:00:01:00",
    "pruner.criterion._target_=lightning_prune.criterion.filter_norm.FilterNorm pruner.criterion.p=2": "p: 2",
    "pruner.criterion.p=2 pruner.criterion._target_=lightning_prune.criterion.filter_norm.FilterNorm": "p: 2",
    "logger.csv.flush_logs_every_n_steps=7": "flush_logs_every_n_steps: 7",
}


@pytest.mark.parametrize("words", ADDED)
@pytest.mark.usefixtures("own_files")
def test_a_key_that_the_constructor_takes_needs_no_plus(command: Command, words: str) -> None:
    said = command("train", *OURS, *words.split(), "--cfg", "job")
    assert said.status == 0, said.err
    assert f"  {ADDED[words]}\n" in said.out
    assert not Path("runs").exists()


SLIPS = {
    "task.hiden=3": "unknown key 'task.hiden': did you mean task.hidden?",
    "trainer.gradient_clip_algoritm=norm": "did you mean trainer.gradient_clip_algorithm",
    "task.self=3": "unknown key 'task.self'",
    "tusk.hidden=3": "unknown key 'tusk.hidden'",
    "task.net.width=3": "unknown key 'task.net.width'",
}


@pytest.mark.parametrize("word", SLIPS)
@pytest.mark.usefixtures("own_files")
def test_a_slip_is_still_an_error(command: Command, word: str) -> None:
    for command_name, more in (("plan", ()), ("train", ()), ("train", ("-m",))):
        said = command(command_name, *OURS, word, *more)
        assert (said.status, said.err.count("\n")) == (1, 1)
        assert SLIPS[word] in said.err


@pytest.mark.slow
@pytest.mark.usefixtures("own_files")
def test_a_sweep_over_a_key_that_no_yaml_names(command: Command) -> None:
    said = command("train", *OURS, "-m", "task.hidden=20,24", "trainer.max_epochs=1", *HALF, "hydra.sweep.dir=sweep")
    assert (said.status, said.err) == (0, "")
    states = [torch.load(f"sweep/{job}/model.pt", weights_only=True) for job in (0, 1)]
    assert [len(state["net.0.weight"]) for state in states] == [20, 24]


def test_a_sweep_is_tried_with_one_value_of_each() -> None:
    words = ("a=1,2", "b.c=choice(x,y)", "d=range(3)", "e=interval(0,1)", "+f=2", "-m", "g=glob(*)", "h='1,2'", "~i")
    assert constructor_keys.one_of_each(words) == ("a=1", "b.c=x", "d=0", "e=null", "+f=2", "h='1,2'", "~i")
    run = ("++a=1", "b.c=x", "+f=2")
    assert constructor_keys.as_added(words[:5], run) == ("++a=1,2", *words[1:5])
