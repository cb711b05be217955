"""G44: weights that FSDP2 and tensor parallelism have taken apart are pruned as whole ones are, to the bit.

A net of 12-18-7-3, of which few splits are even and some pieces are empty, on two and four gloo processes.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import Pruner
from lightning_prune.schedule import OneShot
from tests.distributed import pieces
from tests.distributed.conftest import launch, results
from tests.distributed.regression import UPDATES

pytestmark = pytest.mark.filterwarnings(
    "ignore:The `srun` command is available",
    "ignore:pruning. ",  # whole blocks of 6, and little left of the last layer
)

slow = pytest.mark.slow


def assert_equal(one: Any, other: Any) -> None:
    """Compare nested results to the bit."""
    torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def run(scenarios: str, folder: Path, processes: int = 2) -> Path:
    """Run scenarios on processes; what each rank found lies in the folder."""
    launch(scenarios, folder, processes=processes, timeout=400.0, script_name="pieces.py")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("brief@2x1,equal@2x1,fail@2x1", tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same runs in this process, on the same global batches."""
    folder = tmp_path_factory.mktemp("one")
    return {
        "magnitude": pieces.fit("1x1", folder, "magnitude", Pruner(pieces.SCHEDULE)),
        "behind a forward": pieces.fit("1x1", folder, "behind", Pruner(OneShot(0.8, 0))),
    }


@pytest.fixture(scope="module")
def every_run_of_one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return pieces.train("1x1", tmp_path_factory.mktemp("every"))


def found_equal(folder: Path, layout: str, processes: int) -> list[dict[str, Any]]:
    found = results(f"equal@{layout}", folder, processes)
    for rank in found:
        assert rank["found"] == []
        assert rank["compared"] > 800
    return found


def test_G44_on_equal_weights_masks_and_thresholds_are_those_of_one_process(two: Path) -> None:
    """Every criterion, pattern, scope and selection, three dtypes, with ties: to the bit, weights and report too."""
    found_equal(two, "2x1", 2)


@slow
@pytest.mark.parametrize(("layout", "processes"), [("1x2", 2), ("3x1", 3), ("4x1", 4), ("2x2", 4), ("hsdp", 4)])
def test_G44_so_they_are_on_other_layouts(layout: str, processes: int, tmp_path: Path) -> None:
    found = found_equal(run(f"equal@{layout}", tmp_path, processes), layout, processes)
    if layout in ("4x1", "3x1"):
        assert any(rank["empty"] for rank in found) == (layout == "4x1")


def like_one_process(run: dict[str, Any], alone: dict[str, Any]) -> None:
    assert list(run["masks"]) == list(alone["masks"])
    assert_equal(run["masks"], alone["masks"])
    torch.testing.assert_close(run["weights"], alone["weights"], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(run["grads"], alone["grads"], rtol=1e-7, atol=1e-10)
    for step, thresholds in alone["thresholds"].items():
        assert run["thresholds"][step] == pytest.approx(thresholds, rel=1e-8)
    assert run["report"]["zeros"] == alone["report"]["zeros"]


def test_G44_a_run_prunes_like_one_process(two: Path, one_process: dict[str, Any]) -> None:
    """Under ModelParallelStrategy with `fully_shard`: on the same global batches, masks after every update."""
    for rank in results("brief@2x1", two):
        assert list(rank["whole"]["masks"]) == UPDATES
        like_one_process(rank["whole"], one_process["magnitude"])
        weights = rank["whole"]["weights"]
        assert sum(int((w == 0).sum()) for n, w in weights.items() if n.endswith("weight")) == round(0.8 * 363)


def test_G44_what_is_pruned_behind_a_forward_is_zero_in_the_next(two: Path, one_process: dict[str, Any]) -> None:
    """FSDP2's root keeps whole weights after the sanity check, and would train the first step on what they were."""
    for rank in results("brief@2x1", two):
        like_one_process(rank["behind a forward"], one_process["behind a forward"])


def test_G13_a_weight_that_is_taken_apart_while_it_is_pruned_is_named(two: Path) -> None:
    for rank in results("brief@2x1", two):
        assert "was taken apart over ranks while it was being pruned" in rank["late"]["error"]


@slow
@pytest.mark.parametrize(("layout", "processes"), [("2x1", 2), ("2x2", 4)])
def test_G44_in_lower_precision_counts_are_exact(layout: str, processes: int, tmp_path: Path) -> None:
    """bf16-true, bf16-mixed and FSDP2's own policy: every rank has the same masks, and as many zeros as asked for."""
    ranks = results(f"precision@{layout}", run(f"precision@{layout}", tmp_path, processes), processes)
    for name, one in ranks[0].items():
        assert list(one["masks"]) == UPDATES
        zeros = sum(int((w == 0).sum()) for key, w in one["weights"].items() if key.endswith("weight"))
        assert zeros == one["report"]["zeros"] == round(0.8 * 363)
        assert all(
            w.dtype == (torch.bfloat16 if name == "bf16-true" else torch.float32) for w in one["weights"].values()
        )
        for other in ranks[1:]:
            assert_equal(one["masks"], other[name]["masks"])


def test_G2_G44_a_run_goes_on_in_the_middle_of_an_epoch_from_a_folder_of_pieces(two: Path) -> None:
    for rank in results("brief@2x1", two):
        for key in ("weights", "moments"):
            assert_equal(rank["whole"][key], rank["resumed"][key])
        assert_equal(rank["whole"]["masks"][UPDATES[-1]], rank["resumed"]["masks"][UPDATES[-1]])
        assert rank["whole"]["report"] == rank["resumed"]["report"]


@slow
@pytest.mark.parametrize(("layout", "processes"), [("2x1", 2), ("1x2", 2), ("2x2", 4), ("hsdp", 4)])
def test_G44_every_kind_of_run_prunes_like_one_process(
    layout: str, processes: int, tmp_path: Path, every_run_of_one_process: dict[str, Any]
) -> None:
    """Ideas and regularizers, G18 included: a regularizer counts once, whatever holds the pieces."""
    for rank in results(f"train@{layout}", run(f"train@{layout}", tmp_path, processes), processes):
        assert set(pieces.ELSEWHERE) | {"l2", "lasso"} <= set(rank)
        assert layout != "2x1" or set(pieces.TRAINED) | set(pieces.REGULARIZERS) <= set(rank)
        for name, one in rank.items():
            like_one_process(one, every_run_of_one_process[name])


@slow
@pytest.mark.parametrize(("layout", "processes"), [("2x1", 2), ("2x2", 4)])
def test_G2_G44_files_of_both_kinds_go_on_to_the_bit(layout: str, processes: int, tmp_path: Path) -> None:
    """From before the first update to the last, in the middle of epochs; as a folder of pieces and as one file."""
    for rank in results(f"resume@{layout}", run(f"resume@{layout}", tmp_path, processes), processes):
        resumed = {name: one for name, one in rank.items() if name.rpartition("-")[2].isdigit()}
        assert len(resumed) == (len(pieces.STOPS) + 2 * len(pieces.RESUMED) - 1 if layout == "2x1" else 4)
        for name, one in resumed.items():
            undisturbed = rank[name.rpartition("-")[0]]
            for key in ("weights", "moments"):
                assert_equal(undisturbed[key], one[key])
            assert_equal(undisturbed["masks"][UPDATES[-1]], one["masks"][UPDATES[-1]])
            assert undisturbed["report"] == one["report"]
    Strict = pieces.Sharded("1x1")
    file = torch.load(tmp_path / f"{layout}-magnitude-file" / "step=12.ckpt", weights_only=True)
    Strict.load_state_dict(file["state_dict"])  # a full checkpoint is that of the plain model


@slow
def test_G2_G44_a_file_goes_on_on_any_other_layout(tmp_path: Path) -> None:
    """Two pieces -> one process, 2x2 and tensor parallel; one process -> pieces: masks to the bit, weights nearly."""
    names = ("magnitude", "second order")
    alone: dict[str, Any] = {n: pieces.fit("1x1", tmp_path / "one", n, pieces.pruner(n)) for n in names}
    wrote = run("resume@2x1", tmp_path / "wrote")
    for layout, processes in (("1x1", 1), ("1x2", 2), ("2x2", 4)):
        folder = tmp_path / layout
        (folder / "others").mkdir(parents=True)
        for name in names:
            shutil.copy(wrote / f"2x1-{name}-file" / "step=5.ckpt", folder / "others" / f"{name}@2x1-file")
            if layout != "1x1":
                pieces_of = wrote / f"2x1-{name}-pieces" / "step=5.ckpt"
                shutil.copytree(pieces_of, folder / "others" / f"{name}@2x1-pieces")
                shutil.copy(tmp_path / "one" / name / "step=5.ckpt", folder / "others" / f"{name}@one")
        if layout == "1x1":
            ranks = [pieces.other("1x1", folder)]
        else:
            ranks = results(f"other@{layout}", run(f"other@{layout}", folder, processes), processes)
        for rank in ranks:
            assert len(rank) == len(names) * (1 if layout == "1x1" else 3)
            for file, one in rank.items():
                undisturbed = alone[file.split("@")[0]]
                for step in (6, 8, 9):
                    assert_equal(one["masks"][step], undisturbed["masks"][step])
                torch.testing.assert_close(one["weights"], undisturbed["weights"], rtol=1e-8, atol=1e-10)


NOT_FINITE = "a pruning score of 'net.2.weight' is not finite"
FAILED = {
    **dict.fromkeys(("nan", "nan in scores", "nan in units", "nan in a histogram"), (NOT_FINITE, 4)),
    "criterion": ("KeyError('mine')", 2),
    "silent criterion": ("ValueError()", 2),
    "rebuilt": ("reconstruction=SparseGPT(", 0),
    "learned": ("learned masks are on whole weights", 0),
    "learned weights": ("learned masks are on whole weights", 0),
    "rewind": ("Adagrad cannot where the model is taken apart", 0),
    "inputs": ("criterion=Wanda(", 0),
    "average": ("WeightAveraging keeps averages of whole weights, and ModelParallelStrategy takes them", 0),
    "stochastic average": ("StochasticWeightAveraging keeps averages of whole weights", 0),
    "too large": ("criterion=FilterNorm(p=1) collects 363 values of weights that are taken apart over ranks", 0),
    "too large columns": ("pattern=Column() collects 363 values of weights that are taken apart over ranks", 0),
    "few rows": ("was not refused", 3),
    "too many rows": ("pattern=Row() collects 28 values of weights that are taken apart over ranks", 0),
    "entries": ("was not refused", 3),
}


@pytest.mark.parametrize("case", FAILED)
def test_G13_G34_what_fails_on_one_piece_or_needs_whole_weights_fails_on_all_ranks(two: Path, case: str) -> None:
    """The same error on every rank at once, and nothing is left on the model."""
    text, step = FAILED[case]
    for rank in results("fail@2x1", two):
        assert rank[case]["kind"] == "ValueError"
        assert text in rank[case]["error"]
        assert rank[case]["step"] == step
        assert not rank[case]["attached"]
        if not step:
            assert "apart over ranks" in rank[case]["error"]
