"""`lightning-prune export --format csr`: what gains is written, with the figures; where nothing does, that is said."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import export
from lightning_prune.cli import main
from lightning_prune.cli.export import trained
from lightning_prune.export import CsrLinear, load_csr

from .conftest import SHORT, Command


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("csr")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "-cn", "digits_mlp", *SHORT, "hydra.run.dir=run"]) == 0
    return folder


@pytest.fixture
def run(command: Command, once: Path) -> Path:
    """Put a sparse run where the test is, a copy for each."""
    return Path(shutil.copytree(once / "run", "run"))


def test_writes_weights_and_layers_where_the_model_gains(
    command: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "to_csr", partial(export.to_csr, timer=lambda _: [2.0, 1.0]))
    said = command("export", "run", "--format", "csr", "--batch", "5", "--threads", "1")
    assert (said.status, said.err) == (0, "")
    file = run / "model.csr.safetensors"
    assert f"layers converted; {file}, {file.stat().st_size:,} bytes, holds the weights" in said.out
    assert "measured here, batches of 5, on 1 thread" in said.out
    model = trained(run)
    loaded: Any = load_csr(model, file)
    assert sum(isinstance(layer, CsrLinear) for layer in loaded.modules()) == 3
    inputs = torch.randn(5, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(inputs), model(inputs))
    facts = json.loads(command("export", "run", "--format", "csr", "--json", "--out", "new/x.safetensors").out)
    assert facts["file"] == "new/x.safetensors"
    assert len(facts["converted"]) == 3
    assert facts["layers"][0]["csr_ms"] == 1.0
    said = command("inspect", str(file), "--json")  # the file is a compact one
    assert json.loads(said.out)["tensors"] == json.loads(command("inspect", "run/model.pt", "--json").out)["tensors"]


@pytest.mark.parametrize("whole", [False, True])
def test_where_nothing_gains_it_says_so_and_writes_nothing(
    command: Command, run: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    times = iter([[2.0, 1.0]] * 3 + [[1.0, 1.1]]) if whole else iter([[1.0, 1.7]] * 9)
    monkeypatch.setattr(export, "to_csr", partial(export.to_csr, timer=lambda _: next(times)))
    before = sorted(run.iterdir())
    said = command("export", "run", "--format", "csr")
    assert (said.status, said.err) == (0, "")
    why = "the whole model gains nothing by its layers" if whole else "no layer is faster in CSR here"
    assert said.out.endswith(f"{why}: nothing is written\n")
    if not whole:
        assert "CSR takes 1.7 times as long at" in said.out
    assert sorted(run.iterdir()) == before


@pytest.mark.slow
def test_as_it_is_measured_the_answer_is_one_of_the_two(command: Command, run: Path) -> None:
    said = command("export", "run", "--format", "csr", "--json")
    assert (said.status, said.err) == (0, "")
    facts = json.loads(said.out)
    assert (facts["file"] is not None) == (run / "model.csr.safetensors").exists()
    assert all(layer["dense_ms"] > 0 and layer["csr_ms"] > 0 for layer in facts["layers"])


def test_its_options_belong_to_it(command: Command, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = command("export", "run", "--format", "onnx", "--batch", "5")
    assert said.err == "lightning-prune: --batch=5 belongs to --format csr\n"
    with pytest.raises(SystemExit):
        command("export", "run", "--format", "csr", "--threads", "0")
    assert "0: give a whole number of 1 or more" in capsys.readouterr().err
