"""`lightning-prune export --format torch-export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lightning_prune.cli.export import trained

from .conftest import SHORT, Command


def test_writes_a_program_that_needs_no_code_of_the_model(command: Command) -> None:
    command("train", "-cn", "digits_mlp", *SHORT, "hydra.run.dir=run")
    said = command("export", "run", "--format", "torch-export")
    assert (said.status, said.err) == (0, "")
    size = Path("run/model.pt2").stat().st_size
    assert said.out.startswith(f"run/model.pt2: {size:,} bytes; outputs differ by ")
    assert said.out.endswith("of the largest; it takes any batch\n")
    program = torch.export.load("run/model.pt2").module()
    inputs = torch.randn(5, 64)
    with torch.no_grad():
        torch.testing.assert_close(program(inputs), trained(Path("run"))(inputs), atol=1e-5, rtol=1e-4)
    said = command("export", "run", "--format", "torch-export", "--json", "--out", "new/net.pt2")
    assert json.loads(said.out) == {
        "file": "new/net.pt2",
        "bytes": Path("new/net.pt2").stat().st_size,
        "difference": pytest.approx(0.0, abs=1e-5),
        "batch": None,
    }
    said = command("export", "run", "--format", "torch-export", "--dtype", "float16")
    assert said.err == "lightning-prune: --dtype=float16 belongs to --format 2:4\n"


@pytest.mark.slow
def test_a_shrunk_model_is_exported_in_its_shapes(command: Command) -> None:
    channels = ("pruner/pattern=channel", "pruner.schedule.final_sparsity=0.5")
    command("train", "-cn", "digits_cnn", *SHORT, *channels, "hydra.run.dir=run")
    command("shrink", "run")
    small = "run/shrunk/model.safetensors"
    for weights, name in ((small, "small"), ("run/model.pt", "large")):
        said = command("export", "run", "--format", "torch-export", "--weights", weights, "--out", f"{name}.pt2")
        assert (said.status, said.err) == (0, "")
    assert Path("small.pt2").stat().st_size < Path("large.pt2").stat().st_size
    inputs = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        answers = [torch.export.load(f"{name}.pt2").module()(inputs) for name in ("small", "large")]
        torch.testing.assert_close(answers[0], trained(Path("run"), Path(small))(inputs), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_model_with_gates_is_exported_with_them(command: Command) -> None:
    command("train", "-cn", "digits_cnn_dynamic", *SHORT, "hydra.run.dir=run")
    said = command("export", "run", "--format", "torch-export")
    assert (said.status, said.err) == (0, "")
    program = torch.export.load("run/model.pt2")
    assert any("channel_gate" in name for name in program.state_dict)
    inputs = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(inputs), trained(Path("run"))(inputs), atol=1e-5, rtol=1e-4)
