"""A run that shrinks its model, and `lightning-prune shrink` for one that did not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_prune.shrink import load_shrunk
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import digits_cnn

from .conftest import SHORT, Command

CHANNELS = ("pruner/pattern=channel", "pruner.schedule.final_sparsity=0.6")


def sizes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in torch.load(path, weights_only=True).items()}


def test_a_run_leaves_a_smaller_model_and_says_how_much_smaller(command: Command) -> None:
    said = command("train", "-cn", "digits_cnn", "hydra.run.dir=run", "prune.shrink=true", *CHANNELS, *SHORT)
    assert said.status == 0, said.err
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    before, after = report["shrink"]["parameters"]
    assert after < 0.6 * before
    assert sum(torch.Size(shape).numel() for name, shape in sizes(Path("run/model.pt")).items() if "running" not in name
               and "num_batches" not in name) == after  # fmt: skip
    assert report["cost"]["smaller"]["macs"] < report["cost"]["dense"]["macs"]
    assert "units of" in said.out
    assert "predicted from MACs" in said.out
    assert (report["prunable"], report["zeros"] > 0) == (58144, True)  # as it was stripped, before the dead units went


@pytest.mark.slow
def test_a_stripped_run_is_shrunk_by_the_command_and_comes_back(command: Command) -> None:
    assert command("train", "-cn", "digits_cnn", "hydra.run.dir=run", *CHANNELS, *SHORT).status == 0
    dense = sizes(Path("run/model.pt"))
    said = command("shrink", "run")
    assert (said.status, said.err) == (0, "")
    assert "run/shrunk holds the smaller model" in said.out

    plain = Classifier(digits_cnn())
    stripped = Classifier(digits_cnn())
    stripped.load_state_dict(torch.load("run/model.pt", weights_only=True))
    loaded = load_shrunk(plain, "run/shrunk").eval()
    assert {n: tuple(t.shape) for n, t in loaded.state_dict().items()} != dense
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(loaded(x), stripped.eval()(x), atol=1e-5)


@pytest.mark.slow
def test_a_shrunk_run_is_exported_by_other_commands(command: Command) -> None:
    command("train", "-cn", "digits_cnn", "hydra.run.dir=run", "prune.shrink=true", *CHANNELS, *SHORT)
    said = command("shrink", "run")
    assert (said.status, said.out) == (1, "")
    line = (
        "run made its model smaller at its end: model.pt is that model already, and load_shrunk(model, 'run') gives it"
    )
    assert said.err == f"lightning-prune: {line} back\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nowhere",), "nowhere is no run's folder"),
        (("run",), "no unit is dead"),
        (("run", "--weights", "nothing.pt"), "nothing.pt: there is no such file"),
        (("run", "--out", "run"), "--out=run is the folder of a run, whose model.pt would no longer fit"),
    ],
)
def test_what_cannot_be_shrunk_is_one_line(command: Command, argv: tuple[str, ...], words: str) -> None:
    command("train", "-cn", "digits_mlp", "hydra.run.dir=run", "pruner.schedule.final_sparsity=0.1", *SHORT)
    said = command("shrink", *argv)
    assert (said.status, said.out) == (1, "")
    assert words in said.err
    assert said.err.count("\n") == 1


@pytest.mark.slow
def test_a_run_whose_model_cannot_be_made_smaller_leaves_it_in_full_size(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr("lightning_prune.callbacks.ending.compare", fail)
    with pytest.raises(ValueError, match=r"is saved in .*/run/masked.pt.*on purpose"):
        command("train", "-cn", "digits_cnn", "hydra.run.dir=run", "prune.shrink=true", *CHANNELS, *SHORT)
    plain = Classifier(digits_cnn())
    plain.load_state_dict(torch.load("run/masked.pt", weights_only=True))
    assert sum(int((p == 0).sum()) for p in plain.parameters()) > 20_000
    assert not Path("run/report.json").exists()  # the run is not finished
    said = command("shrink", "run", "--weights", "run/masked.pt")  # the planted failure is not in its way
    assert (said.status, said.err) == (0, "")


@pytest.mark.slow
def test_a_test_that_fails_leaves_the_trained_model(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(Classifier, "test_step", fail)
    with pytest.raises(ValueError, match="on purpose"):
        command("train", "-cn", "digits_mlp", "hydra.run.dir=run", *SHORT)
    state = torch.load("run/model.pt", weights_only=True)
    assert sum(int((p == 0).sum()) for p in state.values()) > 1000
