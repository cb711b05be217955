"""`lightning-prune export`: the model of a run in another format."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lightning_prune.cli import main
from lightning_prune.cli.export import trained

from .conftest import SHORT, Command


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "-cn", "digits_mlp", *SHORT, "hydra.run.dir=run"]) == 0
    return folder / "run"


@pytest.fixture
def run(command: Command, once: Path) -> Path:
    """Return a run's folder, a copy of its own for each test."""
    return Path(shutil.copytree(once, "run"))


def test_reads_the_model_of_a_run_with_its_weights(run: Path) -> None:
    model = trained(run)
    saved = torch.load(run / "model.pt", weights_only=True)
    assert model.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_writes_onnx(command: Command, run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    said = command("export", "run", "--format", "onnx")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("run/model.onnx: ")
    inputs = torch.randn(5, 64)
    session = onnxruntime.InferenceSession(run / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), trained(run)(inputs), atol=1e-5, rtol=1e-4)


def test_takes_other_weights_and_another_place(command: Command, run: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.save({"state_dict": {k: v * 0 for k, v in trained(run).state_dict().items()}}, "zeros.ckpt")
    said = command("export", "run", "--format", "onnx", "--weights", "zeros.ckpt", "--out", "new/zeros.onnx")
    assert said.status == 0
    assert Path("new/zeros.onnx").is_file()
    assert not (run / "model.onnx").exists()


def test_on_a_cpu_2_4_says_what_it_needs(command: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = command("export", "run", "--format", "2:4")
    assert said.status == 1
    needs = "the 2:4 format needs a CUDA GPU of compute capability 8.0 or later, and there is no CUDA GPU here"
    assert said.err == f"lightning-prune: {needs}\n"
    assert not (run / "semi_structured").exists()


def test_says_what_is_missing(command: Command, run: Path) -> None:
    Path("empty").mkdir()
    said = command("export", "empty", "--format", "onnx")
    assert said.err == "lightning-prune: empty is no run's folder: there is no config.yaml in it\n"
    said = command("export", "run", "--format", "onnx", "--weights", "gone.pt")
    assert said.err.count("\n") == 1
    assert "gone.pt: there is no such file" in said.err
    said = command("export", "run", "--format", "onnx", "--dtype", "float16")
    assert said.err == "lightning-prune: --dtype=float16 belongs to --format 2:4\n"


def test_weights_of_another_model_are_one_line(command: Command, run: Path) -> None:
    torch.save({"other": torch.ones(2)}, run / "model.pt")
    said = command("export", "run", "--format", "onnx")
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert "other" in said.err
