"""G44: rows, columns, kernels, blocks and N of M of weights in pieces live and die as in one process, to the bit.

Pieces along outputs, along inputs and both, uneven and empty ones. Nothing is collected where borders cut no unit.
"""

from pathlib import Path

import pytest

from tests.distributed.conftest import launch, results

pytestmark = [pytest.mark.filterwarnings("ignore:pruning. "), pytest.mark.slow]

CUT = {
    "2x1": {
        "rows": ["wider.weight", "conv_of_one.weight", "turned.weight", "last.weight"],
        "columns": ["wide.weight", "conv.weight"],
        "kernels": [],
        "blocks": ["wider.weight", "conv.weight"],
        "flat blocks": ["wider.weight"],
        "2:4": ["wider.weight", "turned.weight"],
    },
    "3x1": {
        "kernels": [],
        "blocks": ["conv_of_one.weight"],
        "2:4": ["wider.weight", "conv_of_one.weight", "turned.weight"],
        "1:3 of moves": ["turned.weight"],
    },
    "1x2": {"kernels": []},
    "2x2": {"kernels": []},
}
"""Of some ideas those weights in which a border between pieces may cut units."""


@pytest.mark.parametrize(("layout", "processes"), [("2x1", 2), ("3x1", 3), ("1x2", 2), ("2x2", 4)])
def test_G44_units_of_pieces_are_those_of_one_process(layout: str, processes: int, tmp_path: Path) -> None:
    """On equal weights, with ties: masks, thresholds, weights and report; ranks agree on what is collected."""
    launch(f"equal@{layout}", tmp_path, processes, timeout=400.0, script_name="units.py")
    ranks = results(f"equal@{layout}", tmp_path, processes)
    for rank in ranks:
        assert rank["found"] == []
        assert rank["compared"] > 500
        assert rank["cut"] == ranks[0]["cut"]
        assert {name: rank["cut"][name] for name in CUT[layout]} == CUT[layout]
        for name, weights in rank["cut"].items():
            if name != "rows by norm":  # its criterion needs whole weights
                assert (rank["whole"][name] == 0) == (not weights)
    if layout == "3x1":
        assert any(rank["empty"] for rank in ranks)
