"""G44: channels of models that FSDP2 and tensor parallelism take apart are pruned and taken out as those of whole ones.

An MLP and a residual conv net, with pieces that are uneven and some that are empty, on two to four gloo processes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.shrink import load_shrunk
from tests.distributed import channels, nets
from tests.distributed.conftest import launch, results
from tests.distributed.regression import UPDATES
from tests.distributed.test_sharded import assert_equal, like_one_process

pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available", "ignore:pruning. ")

slow = pytest.mark.slow


def run(scenarios: str, folder: Path, processes: int = 2) -> Path:
    """Run scenarios on processes; what each rank found lies in the folder."""
    launch(scenarios, folder, processes=processes, timeout=400.0, script_name="channels.py")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("brief@2x1,fail@2x1", tmp_path_factory.mktemp("two"))


@slow
@pytest.mark.parametrize(("layout", "processes"), [("2x1", 2), ("3x1", 3), ("1x2", 2), ("2x2", 4), ("hsdp", 4)])
def test_G44_on_equal_weights_channels_and_the_shrunk_model_are_those_of_one_process(
    layout: str, processes: int, tmp_path: Path
) -> None:
    """Criteria, scopes and patterns: masks after every update, the report, the plain module and the smaller one."""
    found = results(f"equal@{layout}", run(f"equal@{layout}", tmp_path, processes), processes)
    for rank in found:
        assert rank["found"] == []
        assert rank["compared"] >= 200
        assert rank["smaller"] < 0
    if layout == "3x1":
        assert any(rank["empty"] for rank in found)


def shrunk_like(one: dict[str, Any], alone: dict[str, Any]) -> None:
    assert {n: v.shape for n, v in one["left"].items()} == {n: v.shape for n, v in alone["left"].items()}
    torch.testing.assert_close(one["left"], alone["left"], rtol=1e-8, atol=1e-10)


def test_G44_a_run_prunes_channels_and_shrinks_like_one_process(two: Path, tmp_path: Path) -> None:
    """Under ModelParallelStrategy: the module is plain and small on every rank then, and its file loads anywhere."""
    alone = channels.run("image", "1x1", tmp_path, "alone")
    ranks = results("brief@2x1", two)
    for rank in ranks:
        assert list(rank["image"]["masks"]) == UPDATES
        like_one_process(rank["image"], alone)
        shrunk_like(rank["image"], alone)
        assert rank["image"]["left"]["net.inner.weight"].shape[0] < 5
        assert_equal(rank["image"]["left"], ranks[0]["image"]["left"])
    small = load_shrunk(nets.Image(), two / "2x1-image" / "shrunk.ckpt")
    assert_equal(dict(small.state_dict()), ranks[0]["image"]["left"])


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("more@2x1", tmp_path_factory.mktemp("more"))


@slow
def test_G5_G44_zeros_of_channels_and_of_weights_are_held_on_pieces(more: Path) -> None:
    for rank in results("more@2x1", more):
        for kind in ("channels", "weights"):
            held = rank[f"held {kind}"]
            assert not held["weights"]["net.inner.weight"][[1, 4]].any()
            assert held["weights"]["net.inner.weight"][[0, 2, 3]].all()
            assert not held["weights"]["net.outer.weight"][:, [1, 4]].any()
            assert held["report"]["zeros"] == 2 * 7 * 9 + 2 * 7


@slow
def test_G44_a_shrunk_module_is_taken_apart_again_by_what_follows(more: Path) -> None:
    for rank in results("more@2x1", more):
        done = rank["afterwards"]
        assert done["apart"] == [True, True]
        assert done["shapes"][0] == done["shapes"][1]
        assert done["shapes"][0]["net.inner.weight"][0] < 5
        assert done["step"] == 18
        assert done["rank"] == 0  # buffers are those of the first


@slow
@pytest.mark.parametrize(("layout", "processes"), [("2x1", 2), ("3x1", 3)])
def test_G2_G44_runs_with_channels_are_like_one_process_and_go_on_to_the_bit(
    layout: str, processes: int, tmp_path: Path
) -> None:
    """Slimming and a delta criterion too; resumed before the end of the schedule, as pieces and as one file."""
    alone = channels.train("1x1", tmp_path / "alone") if layout == "2x1" else {}
    ranks = results(f"train@{layout}", run(f"train@{layout}", tmp_path, processes), processes)
    for rank in ranks:
        assert len(rank) == (15 if layout == "2x1" else 3)
        for name, one in rank.items():
            if alone:
                like_one_process(one, alone[name])
                shrunk_like(one, alone[name])
            undisturbed = rank[name.rpartition("-")[0] or name]
            for key in ("weights", "moments", "left"):
                assert_equal(one[key], undisturbed[key])
            assert_equal(one["masks"][UPDATES[-1]], undisturbed["masks"][UPDATES[-1]])
            assert one["report"] == undisturbed["report"]


FAILED = {
    "late": ("'net.first.weight' is taken apart over ranks, and pattern=Channel(", "in __init__, with values", 0),
    "meta": ("'net.first.weight' is taken apart over ranks, and pattern=Channel(", "in __init__, with values", 0),
    "no example": ("Sharded has no example inputs", "example_input_array", 0),
    "too large to collect": ("'net.first.weight' is taken apart", "shrink=True collects more than", 0),
    "activations": ("is taken apart over ranks, and criterion=APoZ(", "prune under DDP", 0),
    "criterion": ("KeyError('mine')", "", 2),
    "nan": ("a pruning score of 'net.inner.weight' is not finite", "", 4),
}


@pytest.mark.parametrize("case", FAILED)
def test_G13_G34_what_cannot_be_done_with_channels_of_pieces_fails_on_all_ranks(two: Path, case: str) -> None:
    """The same error on every rank, and nothing is left on the model."""
    text, remedy, step = FAILED[case]
    for rank in results("fail@2x1", two):
        assert rank[case]["kind"] == "ValueError"
        assert text in rank[case]["error"]
        assert remedy in rank[case]["error"]
        assert rank[case]["step"] == step
        assert not rank[case]["attached"]
