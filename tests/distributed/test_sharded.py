"""FSDP2: what is not there yet says so."""

from pathlib import Path

from tests.distributed.conftest import launch, results


def test_sharded_parameters_are_refused(tmp_path: Path) -> None:
    """G13: under ModelParallelStrategy with `fully_shard`, on two ranks: one clear error on each, before training."""
    launch("shard", tmp_path, timeout=150.0)
    for result in results("shard", tmp_path):
        assert "'net.0.weight' is sharded over ranks (DTensor), which this version cannot prune" in result["error"]
        assert "use DDP" in result["error"]
