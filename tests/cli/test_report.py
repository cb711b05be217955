"""`lightning-prune report`, and the page that every run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.callbacks.logging.wandb_file import read
from tests.page.runs import write

from .conftest import SHORT, Command

CHANNELS = ("pruner/pattern=channel", "prune.shrink=true", "pruner.schedule.final_sparsity=0.6")


def details(folder: str) -> dict[str, dict[str, dict[str, list[int]]]]:
    return json.loads(Path(folder, "details.json").read_text(encoding="utf-8"))["weights"]


def test_a_run_leaves_its_page_and_says_where(command: Command) -> None:
    said = command("train", "-cn", "digits_mlp", "hydra.run.dir=run", "callbacks=none", *SHORT)
    assert (said.status, said.err) == (0, "")
    assert "\npage             run/report.html\n" in said.out
    page = Path("run/report.html").read_text(encoding="utf-8")
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    assert f"<strong>{report['zeros']:,}</strong> of its {report['prunable']:,} prunable weights" in page
    assert "Not shown" not in page
    model = torch.load("run/model.pt", weights_only=True)
    for name, seen in details("run").items():
        assert sum(seen["after"]["counts"]) == int(model[name].count_nonzero())
        assert sum(seen["before"]["counts"]) == model[name].numel()
        assert seen["mask"]["left"][0] == int(model[name].any(1).sum())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["digits_cnn", "digits_mlp"])
def test_a_model_that_becomes_smaller_is_looked_at_before(command: Command, recipe: str) -> None:
    assert command("train", "-cn", recipe, "hydra.run.dir=run", *CHANNELS, *SHORT).status == 0
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    for weight in report["weights"]:
        mask = details("run")[weight["name"]]["mask"]
        rows, columns = mask["shape"]
        assert rows * columns == weight["size"]
    text = Path("run/report.html").read_text(encoding="utf-8")
    for group in report["shrink"]["groups"]:
        assert f"{group['after']:,} of {group['before']:,}" in text


@pytest.mark.slow
def test_an_interrupted_run_has_a_page_and_goes_on_with_what_it_saw(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_prune.tasks.classifier import Classifier

    def stop(task: Classifier) -> None:
        if task.trainer.current_epoch == 1:
            raise KeyboardInterrupt

    short = (*SHORT, "callbacks.checkpoint.share=0.1")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_end", stop)
        assert command("train", "-cn", "digits_mlp", "hydra.run.dir=run", *short).status == 130
    assert "It was interrupted after" in Path("run/report.html").read_text(encoding="utf-8")
    before = {name: seen["before"] for name, seen in details("run").items()}
    assert command("train", "run", "--resume").status == 0
    assert {name: seen["before"] for name, seen in details("run").items()} == before
    assert "It was interrupted" not in Path("run/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_rounds_and_learned_masks_have_pages(command: Command) -> None:
    words = ("train", "-cn", "digits_cnn_iterative", "hydra.run.dir=rounds", "pruner.maximum_rounds=1", *SHORT[1:])
    said = command(*words, "trainer.max_epochs=1", "first.max_epochs=1")
    assert (said.status, said.err) == (0, "")
    assert "\npage             rounds/report.html\n" in said.out
    assert "was pruned in 1 round and keeps" in Path("rounds/report.html").read_text(encoding="utf-8")
    learned = command("train", "-cn", "digits_mlp", "pruner=learned", "hydra.run.dir=learned", "callbacks=none", *SHORT)
    assert (learned.status, learned.err) == (0, "")
    page = Path("learned/report.html").read_text(encoding="utf-8")
    assert "as far as it went by itself" in page


@pytest.fixture
def two(command: Command) -> list[Path]:
    """Two runs below the current folder."""
    return [write(Path("sweep/0")), write(Path("sweep/1"))]


@pytest.mark.usefixtures("two")
def test_runs_below_a_folder_stand_side_by_side(command: Command) -> None:
    said = command("report", "sweep", "sweep/0", "--title", "Two of them")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == "page     sweep/report.html"
    assert "<h1>Two of them</h1>" in Path("sweep/report.html").read_text(encoding="utf-8")
    found = json.loads(command("report", "sweep/1", "--json", "--out", "mine.html").out)
    assert found["page"] == "mine.html"
    assert found["runs"][0]["state"] == "finished"
    assert found["runs"][0]["facts"]["sparsity"] == {"value": "52.94 %", "note": "50 % asked for"}
    assert Path("mine.html").is_file()
    assert not Path("sweep/1/report.html").exists()


def test_what_is_missing_is_printed_too(command: Command) -> None:
    write(Path("run")).joinpath("report.json").unlink()
    said = command("report", "run")
    assert said.status == 0
    assert "it had pruned 50 % of its weights by step 100" in said.out
    assert "not shown: report.json: the run has not come to an end" in said.out


@pytest.mark.parametrize(("folder", "why"), [("none", "there is no such folder"), ("empty", "there is no run in it")])
def test_what_is_no_run_is_refused(command: Command, folder: str, why: str) -> None:
    Path("empty").mkdir()
    said = command("report", folder)
    assert (said.status, said.err) == (1, f"lightning-prune: {folder}: {why}\n")


def test_a_page_needs_the_name_of_a_file(command: Command) -> None:
    write(Path("run"))
    Path("there").mkdir()
    said = command("report", "run", "--out", "there")
    assert (said.status, said.err.count("\n")) == (1, 1)
    assert "--out=there is a folder: name the file, such as there/report.html" in said.err


@pytest.mark.slow
def test_wandb_has_the_same_page(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb_files"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("train", "-cn", "digits_mlp", "hydra.run.dir=run", "logger=wandb", "callbacks=none")
    assert command(*words, *SHORT).status == 0
    run = read(Path("run"))
    (name,) = (name for name in run.artifacts if name.startswith("report-"))
    assert run.artifacts[name]["report.html"].read_bytes() == Path("run/report.html").read_bytes()
