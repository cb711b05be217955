"""G34: an error on one rank reaches every rank at once, with the rank and the weight; nothing hangs.

The ranks' group waits a minute for a rank that does not come, and then raises an error of its own.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.conftest import launch, results

NOT_FINITE = "a pruning score of '{}' is not finite"
# case: error, its start, a part of it, the optimizer steps completed, the rank it began on
CASES: dict[str, tuple[str, str, str, int, int]] = {
    "nan": ("ValueError", "pruning: rank 1: ", NOT_FINITE.format("net.2.weight"), 4, 1),
    "nan in units": ("ValueError", "pruning: rank 1: ", NOT_FINITE.format("net.0.weight"), 6, 1),
    "nan between updates": ("ValueError", "learned masks: rank 1: ", NOT_FINITE.format("net.0.weight"), 5, 1),
    "criterion": ("RuntimeError", "pruning: rank 1: ", "KeyError('mine')", 2, 1),
    "long text": ("ValueError", "pruning: rank 1: ", "x" * 2048, 2, 1),
    "before training": ("ValueError", "pruning: rank 0: ", "include pattern 'nowhere' matches no weight", 0, 0),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("failed")
    return folder, launch("fail", folder)


@pytest.mark.parametrize("case", CASES)
def test_G34_one_ranks_error_reaches_every_rank_and_callbacks_save(failed: tuple[Path, str], case: str) -> None:
    kind, start, part, step, where = CASES[case]
    ranks: list[dict[str, Any]] = [result[case] for result in results("fail", failed[0])]
    for rank in ranks:
        assert rank["kind"] == kind
        assert rank["error"].startswith(start)
        assert part in rank["error"]
        assert rank["step"] == step
        assert not rank["attached"]
    assert ranks[0]["error"] == ranks[1]["error"]
    assert [rank["cause"] != "NoneType" for rank in ranks] == [rank == where for rank in range(2)]
    steps = [f"step={step}.ckpt"] if step else []  # a ModelCheckpoint has nothing to save before the first step
    assert ranks[0]["saved"] == ["on_exception.ckpt", *steps]


def test_no_call_that_torch_is_about_to_drop(failed: tuple[Path, str]) -> None:
    assert "FutureWarning" not in failed[1]
