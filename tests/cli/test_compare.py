"""`lightning-prune compare`: runs into curves, curves into a table, a picture and a run of wandb."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.callbacks.logging.wandb_file import read

from .conftest import SHORT, Command


def write(folder: str, sparsity: float = 0.9, accuracy: float = 0.5, seed: int = 0, **changes: Any) -> Path:
    """Write what a run leaves behind, as far as it is read here; `changes` are of its config, a__b for a.b."""
    config = OmegaConf.create({"defaults": ["run_folder", "_self_"], "recipe": "mine", "seed": seed})
    keys = {"pruner__schedule__final_sparsity": sparsity, "data__seed": seed, "task__lr": 0.1}
    for key, value in (keys | changes).items():
        OmegaConf.update(config, key.replace("__", "."), value)
    path = Path(folder)
    path.mkdir(parents=True)
    path.joinpath("config.yaml").write_text(OmegaConf.to_yaml(config), encoding="utf-8")
    facts = {"interrupted": False, "sparsity": sparsity, "final_sparsity": sparsity, "steps": 7}
    metrics = {"test/accuracy": accuracy, "test/loss": 1 - accuracy}
    path.joinpath("report.json").write_text(json.dumps(facts | {"test": metrics}), encoding="utf-8")
    return path


def change(folder: Path, **facts: Any) -> None:
    file = folder / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | facts))


def table(text: str) -> list[list[str]]:
    """Return the first table, without its line."""
    rows = text.split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows if not row.startswith("--")]


@pytest.mark.slow
def test_real_runs(command: Command) -> None:
    for schedule in ("polynomial", "geometric"):
        words = ("train", "-m", "-cn", "digits_mlp", f"hydra.sweep.dir=sweep/{schedule}", f"pruner/schedule={schedule}")
        assert command(*words, "pruner.schedule.final_sparsity=0,0.8", *SHORT).status == 0
    said = command("compare", "sweep")
    assert (said.status, said.err) == (0, "")
    head, geometric, polynomial = table(said.out)
    assert head == ["test/accuracy, %", "0 %", "80 %"]
    assert (geometric[0], polynomial[0]) == ("Geometric", "Polynomial")
    report = json.loads(Path("sweep/geometric/1/report.json").read_text(encoding="utf-8"))
    assert geometric[2] == f"{100 * report['test']['test/accuracy']:.2f}"
    assert "along with pruner.schedule._target_ differ: pruner.schedule" in said.out
    assert Path("sweep/compare.png").read_bytes()[1:4] == b"PNG"
    with Path("sweep/compare.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["curve"], float(row["final_sparsity"])) for row in rows] == [
        *(("Geometric", 0.0), ("Geometric", 0.8), ("Polynomial", 0.0), ("Polynomial", 0.8))
    ]


def test_the_legend_names_what_differs_and_no_more(command: Command) -> None:
    for number, (lr, sparsity) in enumerate([(0.1, 0.5), (0.2, 0.5), (0.1, 0.9), (0.2, 0.9)]):
        write(f"runs/{number}", sparsity, task__lr=lr, task__decay=10 * lr)
    said = command("compare", "runs")
    assert [row[0] for row in table(said.out)[1:]] == ["lr=0.1", "lr=0.2"]
    assert "along with task.lr differ: task\n" in said.out


def test_keys_of_the_same_last_word_are_named_in_full(command: Command) -> None:
    for number in range(4):
        write(f"runs/{number}", a__lr=number % 2, b__lr=number // 2)
    names = [row[0] for row in table(command("compare", "runs").out)[1:]]
    assert names == ["a.lr=0, b.lr=0", "a.lr=1, b.lr=0", "a.lr=0, b.lr=1", "a.lr=1, b.lr=1"]


def test_a_key_that_follows_the_sparsity_makes_no_curve(command: Command) -> None:
    for sparsity in (0.5, 0.9):
        write(f"runs/{sparsity}", sparsity, share=sparsity)
    assert table(command("compare", "runs").out) == [
        ["test/accuracy, %", "50 %", "90 %"],
        ["all runs", "50.00", "50.00"],
    ]


def test_seeds_are_averaged(command: Command) -> None:
    for seed, accuracy in enumerate((0.6, 0.7)):
        for sparsity in (0.5, 0.9):
            write(f"runs/{seed}/{sparsity}", sparsity, accuracy, seed)
    assert table(command("compare", "runs").out)[1] == ["all runs (mean of 2)", "65.00 ± 7.07", "65.00 ± 7.07"]
    assert len(Path("runs/compare.csv").read_text(encoding="utf-8").splitlines()) == 5


def test_a_run_named_twice_counts_once(command: Command) -> None:
    write("runs/0")
    write("runs/1", seed=1)
    assert table(command("compare", "runs", "runs/1", "runs/../runs").out)[1][0] == "all runs (mean of 2)"


def test_failed_and_unfinished_runs_are_named_and_left_out(command: Command) -> None:
    write("runs/0")
    (write("runs/1") / "report.json").unlink()
    change(write("runs/2"), interrupted=True)
    (write("runs/3") / "report.json").write_text('{"interr', encoding="utf-8")
    change(write("runs/4"), test={})
    change(write("runs/5"), test={}, sparsity=None)
    said = command("compare", "runs")
    assert said.status == 0
    lines = [line for line in said.out.splitlines() if line.startswith("left out: ")]
    whys = (
        "failed or unfinished",
        "interrupted after 7 steps",
        "cannot be read",
        "it has no metrics",
        "cannot be read",
    )
    for number, (line, why) in enumerate(zip(lines, whys, strict=True), start=1):
        assert line.startswith(f"left out: runs/{number}: ")
        assert why in line


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "report.json a list": ("[1, 2]", "report.json is a list; it must be a mapping"),
    "report.json deep": ("[" * 100_000, "cannot be read"),
    "report.json bytes": (b"\xff\xfe\x00", "cannot be read"),
    "interrupted text": ('{"interrupted": "no"}', "interrupted is 'no'; it must be true or false"),
    "sparsity NaN": ('{"interrupted": false, "sparsity": NaN}', "sparsity is nan"),
    "sparsity huge": ('{"interrupted": false, "sparsity": 1e300}', "sparsity is 1e+300"),
    "no sparsity": ('{"interrupted": false}', "no 'sparsity'"),
    "test a list": ('{"interrupted": false, "sparsity": 0, "final_sparsity": 0, "test": [1]}', "test is a list"),
    "a metric is text": (
        '{"interrupted": false, "sparsity": 0, "final_sparsity": 0, "test": {"a": "\\u001b[2J"}}',
        "test['a'] is '\\x1b[2J'; it must be a number",
    ),
}


def test_broken_runs_are_counted_by_reason_and_stop_nothing(command: Command) -> None:
    write("runs/good")
    for number, (content, _) in enumerate(BROKEN.values()):
        report = write(f"runs/{number}") / "report.json"
        report.write_bytes(content if isinstance(content, bytes) else content.encode())
    change(write("runs/nan"), test={"test/loss": float("nan")})
    for number in range(12):
        (write(f"runs/un/{number}") / "report.json").unlink()
    said = command("compare", "runs")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    for number, (_, why) in enumerate(BROKEN.values()):
        (line,) = (each for each in lines if each.startswith(f"left out: runs/{number}: "))
        assert why in line
    assert "left out: runs/nan: its test/loss is nan, so its training has diverged" in lines
    assert f"{len(BROKEN) + 13} of {len(BROKEN) + 14} runs left out: 12 unfinished, 9 damaged, 1 diverged" in lines
    assert sum("runs/un/" in line for line in lines) == 10
    assert "\x1b" not in said.out


def test_a_damaged_config_leaves_its_run_out(command: Command) -> None:
    write("runs/good")
    (write("runs/seed") / "config.yaml").write_text("defaults:\n- run_folder\n- _self_\nrecipe: x\n", encoding="utf-8")
    (write("runs/yaml") / "config.yaml").write_text("defaults:\n- run_folder\n- {_self_\n", encoding="utf-8")
    said = command("compare", "runs")
    assert (said.status, said.err) == (0, "")
    assert "left out: runs/seed: its report or config cannot be read: config.yaml has no 'seed'" in said.out
    assert "left out: runs/yaml: its report or config cannot be read: " in said.out
    assert "2 of 3 runs left out: 2 damaged" in said.out.splitlines()


def test_names_from_files_cannot_move_the_cursor(command: Command) -> None:
    write("runs/0", recipe="red\x1b[31m")
    change(write("runs/1", recipe="blue"), test={"test/\x1b[2Jaccuracy": 0.5})
    said = command("compare", "runs")
    assert said.status == 0
    assert "\x1b" not in said.out
    assert "red\\x1b[31m" in said.out
    assert "test/\\x1b[2Jaccuracy" in said.out


def test_without_a_test_the_validation_counts(command: Command) -> None:
    folder = write("runs/0")
    change(folder, test={})
    folder.joinpath("metrics.csv").write_text("step,val/accuracy,train/loss\n1,0.25,3\n2,0.75,2\n", encoding="utf-8")
    assert table(command("compare", "runs").out) == [["val/accuracy, %", "90 %"], ["all runs", "75.00"]]


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """Have wandb read the environment anew, and again after the test: it remembers it for the whole process."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_gets_table_and_picture(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    write("runs/0", 0.5)
    write("runs/1", 0.9)
    said = command("compare", "runs", "--wandb", "--out=out", "--title=mine")
    assert (said.status, said.err) == (0, "")
    (folder,) = Path("out/wandb").glob("offline-run-*")
    assert f"wandb    {folder}" in said.out
    run = read(Path("out"))
    (picture,), (rows,) = run.media("compare/picture"), run.media("compare/runs")
    assert picture.read_bytes() == Path("out/compare.png").read_bytes()
    assert [row[3] for row in json.loads(rows.read_text(encoding="utf-8"))["data"]] == [0.5, 0.9]


@pytest.mark.parametrize("argument", ["gone", "empty", "unfinished", "conf"])
def test_nothing_to_compare_is_an_error_of_one_line(command: Command, argument: str) -> None:
    Path("empty").mkdir()
    Path("conf").mkdir()
    Path("conf/config.yaml").write_text("defaults:\n  - pruner: default\n", encoding="utf-8")
    (write("unfinished/0") / "report.json").unlink()
    said = command("compare", argument)
    assert said.status == 1
    assert said.err.count("\n") == 1
    words = {"gone": "no such folder", "unfinished": "none of the 1 runs is finished"}
    assert words.get(argument, "there is no run in it") in said.err
    assert not list(Path().rglob("compare.*"))
