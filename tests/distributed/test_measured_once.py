"""Two gloo processes prune to milliseconds: the first one measures, and all go by its table."""

from pathlib import Path

import pytest
import torch

from tests.distributed.conftest import launch, results


@pytest.mark.slow
def test_every_rank_goes_by_the_table_of_the_first(tmp_path: Path) -> None:
    """G1: two that measure would have two tables. What the first cannot measure is an error on all."""
    launch("timed", tmp_path, script_name="timed.py")
    first, second = results("timed", tmp_path)
    one, other = first["once"], second["once"]
    assert one["measured"] == other["measured"]
    assert one["measured"]["budget"]["ms"] > 0.0
    assert one["report"] == other["report"]
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
    for rank in (first, second):
        assert "pruning: rank 0" in rank["damaged"]["error"]
        assert "is no JSON, or damaged" in rank["damaged"]["error"]
        assert not rank["damaged"]["attached"]
