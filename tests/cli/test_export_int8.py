"""`lightning-prune export --format int8`: ranges from the run's training data, accuracy of the file on its test."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_prune.cli import main
from lightning_prune.cli.export import trained
from lightning_prune.export import onnx_file
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.digits import Digits

from .conftest import SHORT, Command

onnx: Any = pytest.importorskip("onnx")
onnxruntime: Any = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
with onnx_file.quiet():
    pytest.importorskip("torchao")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a short run of a recipe, made once."""
    folder, made = tmp_path_factory.mktemp("int8"), dict[str, Path]()

    def run(recipe: str) -> Path:
        if recipe not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                assert main(["train", "-cn", recipe, *SHORT, f"hydra.run.dir={recipe}"]) == 0
            made[recipe] = folder / recipe
        return made[recipe]

    return run


def of_file(file: Path) -> Callable[[Tensor], Tensor]:
    """Return what onnxruntime alone makes of a file."""
    session = onnxruntime.InferenceSession(file)
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def accuracy(model: Callable[[Tensor], Tensor]) -> float:
    """Return what a model answers on the test of the digits."""
    data = Digits()
    data.setup("test")
    right = [model(images).argmax(1) == labels for images, labels in data.test_dataloader()]
    return float(torch.cat(right).float().mean())


@pytest.mark.parametrize("recipe", ["digits_mlp", pytest.param("digits_cnn", marks=pytest.mark.slow)])
def test_writes_a_file_and_says_both_accuracies(command: Command, once: Callable[[str], Path], recipe: str) -> None:
    run = Path(shutil.copytree(once(recipe), "run"))
    said = command("export", "run", "--format", "int8", "--json", "--calibration", "100")
    assert (said.status, said.err) == (0, "")
    facts = json.loads(said.out)
    file = run / "model.int8.onnx"
    assert facts["file"] == str(Path("run/model.int8.onnx"))
    assert facts["bytes"] == file.stat().st_size < 0.6 * facts["float_bytes"]
    assert facts["weights_bytes"] == (run / "model.pt").stat().st_size
    assert facts["calibration"] == {"examples": 128, "batches": 4}
    assert 0 < facts["difference"] < 0.1
    assert facts["parity"] < 0.05
    assert facts["float"] == {}

    weights = {name: value for name, value in trained(run).named_parameters() if value.dim() >= 2}
    assert facts["quantized"] == list(weights)
    assert facts["zeros"] == sum(int((weight == 0).sum()) for weight in weights.values())
    stored = [each for each in onnx.load(file).graph.initializer if each.data_type == onnx.TensorProto.INT8]
    integers = [torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in stored if len(each.dims) >= 2]
    assert len(integers) == len(weights)
    for weight, eight in zip(weights.values(), integers, strict=True):
        assert not eight[weight == 0].any()

    found = facts["metrics"]["test/accuracy"]
    assert found["int8"] == pytest.approx(accuracy(of_file(file)), abs=1e-6)
    assert found["float"] == pytest.approx(accuracy(trained(run)), abs=1e-6)


@pytest.mark.slow
def test_the_text_says_all_of_it(command: Command, once: Callable[[str], Path]) -> None:
    shutil.copytree(once("digits_mlp"), "run")
    said = command("export", "run", "--format", "int8", "--out", "new/small.onnx")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split() == ["weight", "shape", "zeros", "in", "the", "file", "8", "bits"]
    (sizes,) = [line for line in lines if line.startswith("new/small.onnx: ")]
    assert "of the float ONNX file (" in sizes
    assert "of model.pt (" in sizes
    assert any("on 512 examples of training; onnxruntime's by" in line for line in lines)
    assert any(line.startswith("zeros: ") and "all in place" in line for line in lines)
    assert any(line.startswith("test/accuracy: ") and "in 8 bits by onnxruntime" in line for line in lines)
    assert [path.name for path in Path("new").iterdir()] == ["small.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("onnx", "--calibration", "5"), "--calibration=5 belongs to --format int8"),
        (("int8", "--calibration", "0"), "--calibration=0 must be 1 or more"),
        (("int8", "--dtype", "float16"), "--dtype=float16 belongs to --format 2:4"),
    ],
)
def test_options_that_do_not_belong_are_refused(command: Command, options: tuple[str, ...], message: str) -> None:
    said = command("export", "run", "--format", *options)
    assert (said.status, said.err) == (1, f"lightning-prune: {message}\n")


def test_without_torchao_it_says_what_to_install(
    command: Command, once: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == "torchao":
            raise ModuleNotFoundError("No module named 'torchao'", name="torchao")
        return real(name, package)

    run = Path(shutil.copytree(once("digits_mlp"), "run"))
    monkeypatch.setattr(importlib, "import_module", without)
    said = command("export", "run", "--format", "int8")
    assert said.err == "lightning-prune: torchao is not installed: pip install 'lightning-prune[int8]'\n"
    assert not (run / "model.int8.onnx").exists()


def around(self: Classifier, batch: tuple[Tensor, Tensor]) -> None:
    """Call the network beside forward."""
    self.net(batch[0])


def without(self: Classifier, batch: tuple[Tensor, Tensor]) -> None:
    """Call nothing."""


def failing(self: Classifier, batch: tuple[Tensor, Tensor]) -> None:
    """Take nothing of what is trained on."""
    raise KeyError("no such column")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (around, "the test step calls net itself, not the forward that is exported"),
        (without, "the test step does not call the model's forward, which is what is exported"),
        (failing, "the test step fails on the run's training data: 'no such column'"),
    ],
)
def test_a_step_that_says_nothing_of_forward_is_refused(
    command: Command,
    once: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    step: Callable[..., None],
    message: str,
) -> None:
    run = Path(shutil.copytree(once("digits_mlp"), "run"))
    monkeypatch.setattr(Classifier, "test_step", step)
    said = command("export", "run", "--format", "int8")
    assert said.status == 1
    assert said.err == f"lightning-prune: {message}; lightning_prune.export.to_int8 takes batches of your own\n"
    assert not (run / "model.int8.onnx").exists()
