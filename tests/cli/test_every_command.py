"""What holds of every command: help, Tab, exit statuses, errors of one line, and JSON where there are results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lightning_prune.cli import COMMANDS
from lightning_prune.cli.completion import words

from .conftest import SHORT, Command

WITHOUT_RESULTS = {"train", "compress", "completion"}
"""train and compress leave theirs in the run's folder, as report.json and compressed.json."""
TAKES_WORDS = {"train", "compress", "plan"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"


def helped(command: Command, name: str, capsys: pytest.CaptureFixture[str], option: str = "--help") -> str:
    try:
        said = command(name, option)
        status, out, err = said.status, said.out, said.err
    except SystemExit as stop:  # argparse's way
        (out, err), status = capsys.readouterr(), stop.code or 0
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_how_it_is_called_and_tab_offers_its_options(
    command: Command, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = helped(command, name, capsys)
    assert text == helped(command, name, capsys, "-h")
    assert text.startswith(f"usage: lightning-prune {name}")
    assert len(text.splitlines()) > 5
    assert f"\n  {name} " in command("--help").out
    if name in TAKES_WORDS:
        return
    offered = words(f"lightning-prune {name} -")
    options = set(re.findall(r"^ +(?:-\w+(?: \w+)?, )?(--[a-z-]+)", text, re.MULTILINE))
    assert options, "a help text lists its options"
    if name != "completion":
        assert options <= set(offered)
    assert all(word.startswith("-") for word in offered)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_RESULTS))
def test_results_come_as_json_too(command: Command, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--json" in helped(command, name, capsys)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("arguments", [(), ("--no-such-option",), ("nowhere", "--no-such-option=3")])
def test_what_it_is_not_called_with_is_an_error_without_a_traceback(
    command: Command, name: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        said = command(name, *arguments)
        status, out, err = said.status, said.out, said.err
    except SystemExit as stop:
        (out, err), status = capsys.readouterr(), stop.code
        err = err.splitlines()[-1] + "\n"  # the usage stands above it
    assert status in (1, 2)
    assert out == ""
    assert err.startswith("lightning-prune")
    assert err.count("\n") == 1
    assert not list(Path().iterdir()), "nothing is left behind"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_commands_has_it_with_an_example(name: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", text, re.MULTILINE)
    assert f"lightning-prune {name}" in row


@pytest.mark.slow
def test_json_is_all_that_stands_on_stdout(command: Command) -> None:
    channels = ("pruner/pattern=channel", "pruner.schedule.final_sparsity=0.5")
    assert command("train", "-cn", "digits_cnn", "hydra.run.dir=run", *channels, *SHORT).status == 0
    words = ("pruner=learned", "hydra.run.dir=learned", *SHORT)
    assert command("train", "-cn", "digits_mlp", *words).status == 0
    Path("unfinished").mkdir()
    text = Path("run/config.yaml").read_text(encoding="utf-8")
    Path("unfinished/config.yaml").write_text(text, encoding="utf-8")
    for line, key in (
        ("inspect run", "sparsity"),
        ("eval run", "metrics"),
        ("diff run learned/model.pt", None),
        ("diff run run", "tensors"),
        ("plan -cn digits_mlp", "weights"),
        ("compare run learned unfinished", "runs"),
        ("bench run --batches 1 --threads 1", "timings"),
        ("shrink run", "cost"),
        ("export run --format onnx", "difference"),
        ("export run --format compact", "times_smaller"),
        ("export run --format torch-export", "batch"),
        ("export run --format csr", "layers"),
    ):
        said = command(*line.split(), "--json")
        if key is None:
            assert (said.status, said.out) == (1, "")
            continue
        assert said.status == 0, said.err
        assert key in json.loads(said.out), line
    said = command("threshold-sweep", "learned", "--thresholds", "0.5", "--json")
    assert [point["threshold"] for point in json.loads(said.out)] == [0.5]
