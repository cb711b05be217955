"""ddp_spawn and ddp_fork: what comes back to the script from processes that end with the fit, and what is refused."""

from typing import Any

import pytest
import torch

from tests.distributed.conftest import launch_script, results

pytestmark = pytest.mark.slow  # four launches of processes


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("own")
    printed = launch_script("all", folder, script_name="own_processes.py")
    return results("own", folder, 1)[0], printed


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_G13_the_script_gets_the_pruned_model_and_its_sparsity(own: tuple[dict[str, Any], str], start: str) -> None:
    found = own[0][start]
    assert found["error"] == ""
    pruned = [value for name, value in found["weights"].items() if name in ("net.0.weight", "net.2.weight")]
    size, zeros = sum(value.numel() for value in pruned), sum(int((value == 0).sum()) for value in pruned)
    assert zeros == round(0.8 * size)
    name = "sparsity" if start == "spawn" else "sparsity/mine"
    assert found["metrics"][name] == pytest.approx(zeros / size, abs=1e-6)
    assert found["report"]["sparsity"] == zeros / size
    assert found["report"]["zeros"] == {
        name: int((value == 0).sum()) for name, value in found["weights"].items() if name.endswith("weight")
    }


def test_G13_a_model_that_would_be_lost_is_refused_before_training(own: tuple[dict[str, Any], str]) -> None:
    found = own[0]["smaller"]
    assert "shrink=True makes the model smaller at the end, which does not go with DDPStrategy" in found["refused"]
    assert "start_method='fork' (ddp_spawn, ddp_fork" in found["refused"]
    assert "Use strategy='ddp'; or leave shrink out and call lightning_prune.shrink.shrink(model)" in found["refused"]
    assert all(torch.equal(value, found["after"][name]) for name, value in found["before"].items())


def test_the_model_can_be_made_smaller_in_the_script_afterwards(own: tuple[dict[str, Any], str]) -> None:
    found = own[0]["smaller"]
    assert found["error"] == ""
    units = found["shapes"]["net.0.weight"][0]
    assert units < 16
    assert found["shapes"] == {
        "net.0.weight": [units, 12],
        "net.0.bias": [units],
        "net.2.weight": [3, units],
        "net.2.bias": [3],
    }
    assert found["off"] < 1e-9


def test_G13_the_file_of_a_shrunk_model_is_refused_for_a_model_in_full_size(own: tuple[dict[str, Any], str]) -> None:
    found = own[0]["fine-tuned"]
    assert "shrunk.ckpt is of a shrunk model, which does not go with DDPStrategy" in found["refused"]
    assert "or give the model its shapes first: load_shrunk(model, '" in found["refused"]
    assert found["error"] == "", "the way out"
    assert found["before"].shape == found["after"].shape
    assert not torch.equal(found["before"], found["after"])
