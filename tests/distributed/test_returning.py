"""Weights that return on several processes: whole on each, and taken apart, the masks are those of one process."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed import returning
from tests.distributed.conftest import launch, results

pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command is available", "ignore:pruning. ")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return returning.train("1x1", tmp_path_factory.mktemp("one"))


def assert_equal(one: Any, other: Any) -> None:
    """Compare nested results to the bit."""
    torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("layout", "processes"), [("ddp", 2), ("2x1", 2), pytest.param("2x2", 4, marks=pytest.mark.slow)]
)
def test_G26_G44_weights_return_as_in_one_process(
    layout: str, processes: int, tmp_path: Path, one_process: dict[str, Any]
) -> None:
    """After every update; and a run that goes on from between two of them ends with the bits of the whole one."""
    launch(f"train@{layout}", tmp_path, processes=processes, timeout=400.0, script_name="returning.py")
    for rank in results(f"train@{layout}", tmp_path, processes):
        for name in returning.RUNS:
            alone, run = one_process[name], rank[name]
            assert list(run["masks"]) == list(alone["masks"])
            assert_equal(run["masks"], alone["masks"])
            torch.testing.assert_close(run["weights"], alone["weights"], rtol=1e-8, atol=1e-10)
            assert run["report"]["zeros"] == alone["report"]["zeros"]
            updates = list(run["masks"].values())
            back = [b[key] & ~a[key] for a, b in pairwise(updates) for key in b]
            assert sum(int(flags.sum()) for flags in back) > 5, name
        for key in ("weights", "moments"):
            assert_equal(rank["resumed"][key], rank["rising"][key])
        assert rank["resumed"]["report"] == rank["rising"]["report"]
        last = max(rank["rising"]["masks"])
        assert_equal(rank["resumed"]["masks"][last], rank["rising"]["masks"][last])
