"""DDP on real gloo processes: the same masks everywhere, the same as in one process, and the same after a resume."""

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import Pruner
from lightning_prune.pattern import Channel
from tests.distributed.conftest import launch, results
from tests.distributed.ranks import CRITERIA, OF_UNITS, REBUILT, REGULARIZERS, RESUMED, STOPS, rebuild, regularize
from tests.distributed.ranks import train as train_all
from tests.distributed.regression import SCHEDULE, STEPS, UPDATES, Regression, fit

pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available")

ZEROS = round(0.8 * 240)

Two = tuple[Path, str]


def assert_equal(one: Any, other: Any) -> None:
    """Compare nested results to the bit."""
    torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same runs in this process, on the same global batches."""
    folder = tmp_path_factory.mktemp("single")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pruning: nearly nothing is left of net.2.weight")  # by its saliency
        return train_all(folder, 1) | regularize(folder, 1)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_masks_are_equal_on_all_ranks(two_processes: Two, criterion: str) -> None:
    """G1: after every update, though ranks are seeded differently; so are thresholds, weights and reports."""
    first, second = (result[criterion] for result in results("train", two_processes[0]))
    assert not torch.equal(first["random_state"], second["random_state"])
    assert list(first["digests"]) == UPDATES
    assert first["digests"] == second["digests"]
    for key in ("masks", "weights"):
        assert_equal(first[key], second[key])
    for key in ("thresholds", "report"):
        assert first[key] == second[key]
    assert first["report"]["zeros"] == ZEROS


@pytest.mark.parametrize("criterion", CRITERIA)
def test_two_processes_prune_like_one(two_processes: Two, one_process: dict[str, Any], criterion: str) -> None:
    """G1, G26: on the same global batches, two ranks choose the masks that one process chooses."""
    ddp, single = results("train", two_processes[0])[0][criterion], one_process[criterion]
    assert_equal(ddp["masks"], single["masks"])
    torch.testing.assert_close(ddp["weights"], single["weights"], rtol=1e-8, atol=1e-10)
    for step, thresholds in single["thresholds"].items():
        assert ddp["thresholds"][step] == pytest.approx(thresholds, rel=1e-8)


@pytest.mark.parametrize("criterion", OF_UNITS)
def test_masks_of_units_are_equal_on_all_ranks(two_processes: Two, criterion: str, tmp_path: Path) -> None:
    """G1, G26: coupled units as well, though each rank finds them for itself; and as in one process."""
    first, second = (result[criterion] for result in results("structure", two_processes[0]))
    assert not torch.equal(first["random_state"], second["random_state"])
    assert list(first["digests"]) == UPDATES
    assert first["digests"] == second["digests"]
    for key in ("masks", "weights"):
        assert_equal(first[key], second[key])
    assert first["report"] == second["report"]
    kept = first["masks"][UPDATES[-1]]
    assert torch.equal(kept["net.0.bias"], kept["net.0.weight"].any(1))
    assert torch.equal(kept["net.0.bias"], kept["net.2.weight"].all(0))
    assert int(kept["net.0.bias"].sum()) == 3  # of 16: .8125 is the nearest share to .8
    alone = fit("alone", tmp_path, Pruner(SCHEDULE, OF_UNITS[criterion], Channel()), 1)
    assert_equal(first["masks"], alone["masks"])


def test_learned_masks_are_equal_on_all_ranks_and_resumed_to_the_bit(two_processes: Two) -> None:
    """G1, G2: each rank draws masks of its own, and the logits' gradients are averaged."""
    first, second = results("learn", two_processes[0])
    one, other = first["whole"], second["whole"]
    assert list(one["digests"]) == UPDATES
    assert one["digests"] == other["digests"]
    assert_equal(one["weights"], other["weights"])
    assert one["report"] == other["report"]
    kept = one["masks"][UPDATES[-1]]["net.0.bias"]
    assert int(kept.sum()) == 3  # of 16: .8125 is the nearest share to .8
    for rank in (first, second):
        for key in ("weights", "moments"):
            assert_equal(rank["whole"][key], rank["resumed"][key])
        assert rank["resumed"]["digests"][UPDATES[-1]] == rank["whole"]["digests"][UPDATES[-1]]


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_the_regularizer_counts_once(two_processes: Two, one_process: dict[str, Any], regularizer: str) -> None:
    """G18: its gradient is added after ranks have averaged theirs: the step's gradient is that of one process."""
    first, second = (result[regularizer] for result in results("regularize", two_processes[0]))
    single = one_process[regularizer]
    assert len(first["grads"]) == STEPS
    assert_equal(first["grads"], second["grads"])
    torch.testing.assert_close(first["grads"], single["grads"], rtol=1e-7, atol=1e-10)
    assert_equal(first["masks"], single["masks"])
    # It does something: without it the gradients are others.
    plain = one_process["magnitude"]["grads"]
    assert not torch.allclose(single["grads"][-1]["net.0.weight"], plain[-1]["net.0.weight"], rtol=1e-3)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("criterion", RESUMED)
def test_resumed(two_processes: Two, criterion: str, stop: str) -> None:
    """G2: on every rank, a resumed run ends with the bits of the run that was not broken off."""
    for whole, resumed in zip(results("train", two_processes[0]), results("resume", two_processes[0]), strict=True):
        one, other = whole[criterion], resumed[f"{criterion}-{stop}"]
        for key in ("weights", "moments"):
            assert_equal(one[key], other[key])
        assert one["report"] == other["report"]
        assert other["digests"].items() <= one["digests"].items()
        assert other["digests"][UPDATES[-1]] == one["digests"][UPDATES[-1]]


def test_stripped_on_every_rank(two_processes: Two) -> None:
    """G11: plain modules, zeros in place; the plan and the report are printed once, not once a rank."""
    folder, printed = two_processes
    for result in results("train", folder):
        for run in result.values():
            assert run["left_on_the_module"] == []
            assert sum(int((w == 0).sum()) for name, w in run["weights"].items() if name.endswith("weight")) == ZEROS
    runs = len(CRITERIA) + len(OF_UNITS) + len(REGULARIZERS) + len(RESUMED) * len(STOPS)
    assert printed.count("pruning: done") == runs
    assert printed.count("pruning: Polynomial(") == runs + 1  # one of them fails on purpose


def test_logged_once(two_processes: Two) -> None:
    """G19: the metrics file of a DDP run has one row an update, and its last sparsity is that of the model."""
    folder, _ = two_processes
    with (folder / "csv" / "magnitude" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["pruning/sparsity"]]
    assert [int(row["step"]) for row in rows] == UPDATES
    assert float(rows[-1]["pruning/sparsity"]) == results("train", folder)[0]["magnitude"]["report"]["sparsity"]


def test_a_checkpoint_of_ddp_goes_on_in_one_process(two_processes: Two, tmp_path: Path) -> None:
    """G2, G10: written by two ranks, read by one: it loads into the plain model, and the run prunes on as if alone."""
    folder, _ = two_processes
    file = folder / "magnitude" / "step=7.ckpt"
    Regression().load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    alone = fit("alone", tmp_path, Pruner(SCHEDULE), 1, ckpt_path=file)
    ddp = results("train", folder)[0]["magnitude"]
    assert_equal(alone["masks"][9], ddp["masks"][9])
    torch.testing.assert_close(alone["weights"], ddp["weights"], rtol=1e-8, atol=1e-10)


def test_ranks_that_differ_are_an_error_on_every_rank(two_processes: Two) -> None:
    """G1, G11: the hash is compared after each update, no rank hangs, and the masks are off afterwards."""
    for result in results("differ", two_processes[0]):
        assert "the masks differ between ranks after the update at step 6" in result["error"]
        assert result["step"] == 6
        assert not result["attached"]


@pytest.mark.slow
def test_all_ranks_follow_the_first_ones_metric(tmp_path: Path) -> None:
    """G1: a schedule that is told a metric which ranks have not reduced decides alike on all, and ends in one model."""
    launch("told", tmp_path)
    first, second = results("told", tmp_path)
    assert first["metric"] != second["metric"]
    assert_equal(first["weights"], second["weights"])
    assert first["report"] == second["report"]
    assert first["asked"] == second["asked"]
    assert first["asked"] > 0.0


@pytest.mark.slow
def test_reconstructions_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    """G1, G26: masks to the bit, and the weights that were corrected by what both have seen."""
    folders = tmp_path / "two", tmp_path / "one"
    for folder in folders:
        folder.mkdir()
    launch("rebuild", folders[0])
    ranks, single = results("rebuild", folders[0]), rebuild(folders[1], 1)
    for name in REBUILT:
        first, second = (rank[name] for rank in ranks)
        assert not torch.equal(first["random_state"], second["random_state"])
        assert list(first["digests"]) == UPDATES
        assert first["digests"] == second["digests"]
        for key in ("masks", "weights"):
            assert_equal(first[key], second[key])
        assert first["report"] == second["report"]
        assert_equal(first["masks"], single[name]["masks"])
        torch.testing.assert_close(first["weights"], single[name]["weights"], rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_four_processes(one_process: dict[str, Any], tmp_path: Path) -> None:
    """G1, G2, G18, G26: the same with four ranks."""
    launch("train,regularize,resume,differ", tmp_path, 4, timeout=500.0)
    train, regularized, resumed = (results(name, tmp_path, 4) for name in ("train", "regularize", "resume"))
    for name in (*CRITERIA, *REGULARIZERS):
        ranks = [result[name] for result in (train if name in CRITERIA else regularized)]
        assert len({bytes(rank["random_state"].numpy().tobytes()) for rank in ranks}) == 4
        for rank in ranks:
            assert rank["digests"] == ranks[0]["digests"]
            assert rank["report"] == ranks[0]["report"]
            assert_equal(rank["masks"], one_process[name]["masks"])
            torch.testing.assert_close(rank["grads"], one_process[name]["grads"], rtol=1e-7, atol=1e-10)
    for rank in range(4):
        for name, run in resumed[rank].items():
            # No bits here: gloo's sum of four depends on DDP's buckets, which are made anew after a run's first step.
            whole = train[rank][name.split("-")[0]]
            torch.testing.assert_close(run["weights"], whole["weights"], rtol=1e-10, atol=1e-13)
            assert_equal(run["masks"][9], whole["masks"][9])
    for result in results("differ", tmp_path, 4):
        assert "the masks differ between ranks" in result["error"]
