"""G2, G44: runs on pieces that accumulate gradients, that were killed, and that move to DDP and back."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.shrink import load_shrunk
from tests.distributed import moving, nets, pieces
from tests.distributed.conftest import ScriptError, launch, launch_script, results
from tests.distributed.regression import UPDATES
from tests.distributed.test_sharded import assert_equal, like_one_process

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `srun` command is available", "ignore:pruning. ", "ignore:Found 2 module"),
    pytest.mark.slow,
]


def run(scenarios: str, folder: Path) -> Path:
    """Run scenarios on two processes; what each rank found lies in the folder."""
    launch(scenarios, folder, timeout=400.0, script_name="moving.py")
    return folder


def same_end(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare to the bit what two runs have come to."""
    for key in ("weights", "moments"):
        assert_equal(one[key], other[key])
    last = max(other["masks"])
    assert_equal(one["masks"][last], other["masks"][last])
    assert one["report"] == other["report"]


@pytest.mark.parametrize("layout", ["2x1", "1x2"])
def test_G2_G17_G44_gradients_that_are_accumulated_on_pieces(layout: str, tmp_path: Path) -> None:
    """Like one process that accumulates as many; and resumed in the middle of an epoch to the bit."""
    alone = moving.accumulate("1x1", tmp_path / "alone")
    for rank in results(f"accumulate@{layout}", run(f"accumulate@{layout}", tmp_path)):
        assert len(rank) == 2 * len(moving.ACCUMULATED)
        for name in moving.ACCUMULATED:
            assert list(rank[name]["masks"]) == [1, 3, 5]
            like_one_process(rank[name], alone[name])
            same_end(rank[f"{name}-resumed"], rank[name])


@pytest.mark.parametrize(
    ("kind", "name"), [("killed", "magnitude"), ("one killed", "second order"), ("killed", "channels")]
)
def test_G2_G44_a_run_on_pieces_that_was_killed_goes_on_to_the_bit(kind: str, name: str, tmp_path: Path) -> None:
    """All processes die by a signal that nobody catches, or one of them alone: then the other ends, too."""
    (tmp_path / "name").write_text(name)
    with pytest.raises(ScriptError, match="ended with"):
        launch_script(f"{kind}@2x1", tmp_path, timeout=400.0, script_name="moving.py")
    assert not list(tmp_path.glob("*.pt"))
    for rank in results("resumed@2x1", run("resumed@2x1", tmp_path)):
        assert rank["last"] == "step=5.ckpt"
        same_end(rank["resumed"], rank["undisturbed"])


def test_G2_G44_runs_move_from_ddp_to_pieces_and_back(tmp_path: Path) -> None:
    """Masks are those of one undisturbed process, weights but for the order of sums; and to the bit where it stayed."""
    alone = {name: pieces.fit("1x1", tmp_path / "one", name, moving.pruner(name)) for name in moving.MOVED}
    run("wrote@2x1,wrote@ddp", tmp_path)
    run("moved@2x1,moved@ddp", tmp_path)
    for layout in ("2x1", "ddp"):
        undisturbed = results(f"wrote@{layout}", tmp_path)
        for rank, stayed in zip(results(f"moved@{layout}", tmp_path), undisturbed, strict=True):
            for name, one in alone.items():
                for other in ("2x1", "ddp"):
                    moved = rank[f"{name} from {other}"]
                    for step in [step for step in UPDATES if step > 5]:
                        assert_equal(moved["masks"][step], one["masks"][step])
                    torch.testing.assert_close(moved["weights"], one["weights"], rtol=1e-8, atol=1e-10)
                    assert moved["report"]["zeros"] == one["report"]["zeros"]
                same_end(rank[f"{name} from {layout}"], stayed[name])


@pytest.mark.parametrize("layout", ["2x1", "1x2"])
def test_G22_G44_rewinds_on_pieces_are_those_of_one_process(layout: str, tmp_path: Path) -> None:
    """To the start, to a step and to values drawn anew, behind a sanity check; resumed to the bit."""
    alone = moving.rewind("1x1", tmp_path / "alone")
    for rank in results(f"rewind@{layout}", run(f"rewind@{layout}", tmp_path)):
        assert len(rank) == 3 * len(moving.REWINDS)
        for name in moving.REWINDS:
            like_one_process(rank[name], alone[name])
            for stop in (2, 7):
                same_end(rank[f"{name}-{stop}"], rank[name])


def test_G44_rounds_on_pieces_are_those_of_one_process(tmp_path: Path) -> None:
    """Two rounds of prune, shrink and fine-tune, the model plain in between, and the files of the last."""
    alone = moving.rounds("1x1", tmp_path / "alone")
    for rank in results("rounds@2x1", run("rounds@2x1", tmp_path)):
        for name, one in alone.items():
            assert not rank[name]["apart"]
            assert rank[name]["left"] == one["left"]
            torch.testing.assert_close(rank[name]["weights"], one["weights"], rtol=1e-8, atol=1e-10)
            load_shrunk(nets.Dense() if name == "dense" else nets.Image(), tmp_path / f"2x1-{name}")
