"""`lightning-prune eval`: a run's weights on its own data, once or followed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_prune.cli import claim, eval, main
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.digits import Digits
from lightning_prune.tasks.nets import MLP, digits_cnn

from .conftest import SHORT, Command

POINTS = ("callbacks.checkpoint.share=1",)
EMA = ("+callbacks.average._target_=pytorch_lightning.callbacks.EMAWeightAveraging", "+callbacks.average.decay=0.8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run of a recipe with these words, made once; it has checkpoints/last.ckpt of step 24 and ends at 36."""
    made: dict[tuple[str, ...], Path] = {}

    def train(recipe: str, *words: str) -> Path:
        key = (recipe, *words)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("trained") / "run"
            assert main(["train", "-cn", recipe, f"hydra.run.dir={made[key]}", *POINTS, *SHORT, *words]) == 0
        return made[key]

    return train


@pytest.fixture
def run(trained: Callable[..., Path], command: Command) -> Path:
    """A copy of a finished run whose weights are averaged."""
    shutil.copytree(trained("digits_mlp", *EMA), "run")
    return Path("run")


def answers(model: Classifier, state: dict[str, Any]) -> dict[str, float]:
    """Return what weights answer on the digits' test, worked out by hand."""
    model.load_state_dict(state)
    data = Digits(batch_size=4096)
    data.prepare_data()
    data.setup("test")
    (images, labels) = next(iter(data.test_dataloader()))
    with torch.no_grad():
        logits = model.eval()(images)
    return {
        "test/loss": float(cross_entropy(logits, labels)),
        "test/accuracy": float((logits.argmax(1) == labels).float().mean()),
    }


def zeros(state: dict[str, Any]) -> int:
    return sum(int((tensor == 0).sum()) for tensor in state.values() if tensor.dim() > 1)


def mlp() -> Classifier:
    return Classifier(MLP((64, 128, 64, 10)))


def evaluated(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


def test_a_finished_run_s_model(command: Command, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    said = command("eval", "run", "--json")
    assert (said.status, said.err) == (0, "")
    (found,) = evaluated(said.out)
    state = torch.load(run / "model.pt", weights_only=True)
    assert found["metrics"] == pytest.approx(answers(mlp(), state), abs=1e-5)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert found["metrics"] == pytest.approx(report["test"], abs=1e-5)
    assert (found["step"], found["zeros"], found["values"]) == (36, zeros(state), 17024)
    assert (found["stage"], found["file"]) == ("test", "run/model.pt")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before, "nothing is written"


def test_a_checkpoint_answers_by_its_average_masked(command: Command, run: Path) -> None:
    file = run / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    average, current = content["state_dict"], content["current_model_state"]
    assert zeros(average) == zeros(current) > 5000
    for name, value in average.items():
        assert value.dim() < 2 or torch.equal(value == 0, current[name] == 0), name
    said = command("eval", str(file), "--json")
    (found,) = evaluated(said.out)
    assert found["metrics"] == pytest.approx(answers(mlp(), average), abs=1e-5)
    assert found["metrics"] != pytest.approx(answers(mlp(), current), abs=1e-5)
    assert (found["step"], found["weights"], found["zeros"]) == (24, "weight average", zeros(average))
    text = command("eval", str(file)).out
    assert text.startswith("step 24  sparsity ")
    assert f"test/accuracy {found['metrics']['test/accuracy']:.4f}  (weight average, " in text
    shutil.move(file, "elsewhere.ckpt")
    assert "which run is it of?" in command("eval", "elsewhere.ckpt").err
    assert evaluated(command("eval", "elsewhere.ckpt", "--run", "run", "--json").out)[0]["metrics"] == found["metrics"]


@pytest.mark.slow
def test_a_stochastic_average_answers_where_it_can(command: Command, trained: Callable[..., Path]) -> None:
    swa = ("+callbacks.average._target_=pytorch_lightning.callbacks.StochasticWeightAveraging",)
    swa += ("+callbacks.average.swa_lrs=0.01", "+callbacks.average.swa_epoch_start=1", "task.warmup=0", "task.hold=1.0")
    file = trained("digits_mlp", *swa) / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    state = content["callbacks"]["StochasticWeightAveraging"]
    (found,) = evaluated(command("eval", str(file), "--json").out)
    average = {name: state["average_model_state"].get(name, value) for name, value in content["state_dict"].items()}
    assert state["n_averaged"] > 0
    assert found["weights"] == "weight average"
    assert found["metrics"] == pytest.approx(answers(mlp(), average), abs=1e-5)
    assert zeros(average) == found["zeros"] > 5000
    file = trained("digits_cnn", *swa) / "checkpoints" / "last.ckpt"
    (found,) = evaluated(command("eval", str(file), "--json").out)
    assert found["weights"] == "as saved: BatchNorm has no statistics for the average before the run's end"
    content = torch.load(file, weights_only=True)
    assert found["metrics"] == pytest.approx(answers(Classifier(digits_cnn()), content["state_dict"]), abs=1e-4)


def test_the_stage_is_chosen(command: Command, run: Path) -> None:
    (found,) = evaluated(command("eval", "run", "--stage", "validation", "--json").out)
    assert found["stage"] == "validation"
    assert set(found["metrics"]) == {"val/loss", "val/accuracy"}


class Events:
    """What happens while `eval` sleeps: one thing after the other."""

    def __init__(self, *each: Callable[[], Any]) -> None:
        self.left = list(each)

    def __call__(self, seconds: float) -> None:
        assert seconds == 0.5
        self.left.pop(0)()


@pytest.fixture
def live(run: Path) -> Iterator[tuple[Path, Any]]:
    """A run that a process has to itself, with a checkpoint and without a model; and what gives it free."""
    (run / "report.json").rename("report.json")
    (run / "model.pt").rename("model.pt")
    holding = claim.claimed(run)
    holding.__enter__()
    given: list[bool] = []

    def free() -> None:
        if not given:
            given.append(True)
            holding.__exit__(None, None, None)

    yield run, free
    free()


def test_a_run_that_goes_on_is_followed_to_its_end(
    command: Command, live: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, free = live
    file = run / "checkpoints" / "next.ckpt"
    whole = (run / "checkpoints" / "last.ckpt").read_bytes()

    def later(content: bytes) -> None:
        file.write_bytes(content)
        now = time.time_ns() + 10**9
        os.utime(file, ns=(now, now))

    def over() -> None:
        Path("model.pt").rename(run / "model.pt")
        Path("report.json").rename(run / "report.json")
        free()

    events = Events(lambda: None, lambda: later(whole[:999]), lambda: later(whole), lambda: None, over)
    monkeypatch.setattr(eval.time, "sleep", events)
    said = command("eval", "run", "--json", "--eval-interval-secs", "0.5")
    assert (said.status, said.err, events.left) == (0, "", [])
    found = evaluated(said.out)
    assert [Path(each["file"]).name for each in found] == ["last.ckpt", "next.ckpt", "model.pt"]
    assert [each["step"] for each in found] == [24, 24, 36]


def test_run_once_looks_once(command: Command, live: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval.time, "sleep", Events())
    for word in ("--run-once", "--run_once"):
        said = command("eval", "run", "--json", word)
        assert (said.status, said.err) == (0, "")
        assert [each["step"] for each in evaluated(said.out)] == [24]


def test_a_run_that_was_stopped_ends_it_with_1(
    command: Command, live: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, free = live
    monkeypatch.setattr(eval.time, "sleep", Events(free))
    said = command("eval", "run", "--json", "--eval-interval-secs", "0.5")
    assert said.status == 1
    assert [each["step"] for each in evaluated(said.out)] == [24]
    assert said.err.count("\n") == 1
    assert "stopped before its end; it goes on by lightning-prune train run --resume" in said.err
    shutil.rmtree(run / "checkpoints")
    said = command("eval", "run")
    assert (said.status, said.out) == (1, "")
    assert "has no weights yet" in said.err


def test_a_damaged_file_that_stays_so_is_an_error(
    command: Command, live: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (live[0] / "checkpoints" / "last.ckpt").write_bytes(b"no checkpoint")
    monkeypatch.setattr(eval.time, "sleep", Events(lambda: None))
    said = command("eval", "run", "--eval-interval-secs", "0.5")
    assert (said.status, said.out) == (1, "")
    assert "last.ckpt is no checkpoint of torch, or damaged" in said.err


@pytest.mark.slow
def test_training_is_followed_from_another_process(tmp_path: Path, command: Command) -> None:
    words = ("hydra.run.dir=run", *SHORT, "trainer.max_epochs=10", "callbacks.checkpoint.share=1")
    train = subprocess.Popen(
        [sys.executable, "-m", "lightning_prune", "train", "-cn", "digits_mlp", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not list(tmp_path.glob("run/checkpoints/last.ckpt")):
            assert train.poll() is None
            time.sleep(0.05)
        said = command("eval", "run", "--json", "--eval-interval-secs", "0.05")
    finally:
        train.wait()
    assert (said.status, said.err) == (0, "")
    found = evaluated(said.out)
    steps = [each["step"] for each in found]
    assert len(steps) > 2
    assert steps == sorted(steps)
    assert found[-1]["file"] == "run/model.pt"
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    assert found[-1]["metrics"] == pytest.approx(report["test"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("digits_cnn", ("pruner/pattern=channel", "pruner.schedule.final_sparsity=0.6", "prune.shrink=true")),
        ("digits_mlp", ("pruner=learned",)),
        ("digits_cnn_iterative", ("pruner.maximum_rounds=1", "first.max_epochs=1")),
    ],
)
def test_models_made_smaller_learned_and_in_rounds(command: Command, recipe: str, words: tuple[str, ...]) -> None:
    assert command("train", "-cn", recipe, "hydra.run.dir=run", "trainer.max_epochs=1", *words).status == 0
    (found,) = evaluated(command("eval", "run", "--json").out)
    report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
    assert found["metrics"] == pytest.approx(report["test"], abs=1e-5)


WRONG: dict[tuple[str, ...], str] = {
    ("nowhere",): "nowhere: there is no such file or folder",
    (".",): r"\. is no run's folder: there is no config.yaml in it",
    ("run", "--eval-interval-secs", "0"): "--eval-interval-secs=0 must be above 0",
    ("other.pt", "--run", "run"): "other.pt: none of its 1 tensors is one of Classifier",
    ("run/config.yaml",): "run/config.yaml is no checkpoint of torch, or damaged",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_amiss_is_one_line(command: Command, run: Path, words: tuple[str, ...]) -> None:
    torch.save({"weight": torch.ones(2, 2)}, "other.pt")
    said = command("eval", *words)
    assert (said.status, said.out) == (1, "")
    assert re.search(WRONG[words], said.err), said.err
    assert said.err.count("\n") == 1


def test_a_class_that_is_not_trusted_is_not_called(command: Command, run: Path) -> None:
    text = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(text.replace("lightning_prune.tasks.data.digits", "mine"), encoding="utf-8")
    assert "data._target_=mine.Digits is not called" in command("eval", "run").err
