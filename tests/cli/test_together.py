"""`glob(*)` over a noun takes the options that go together with the rest, and names the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import SHORT, Command, Said

FEW = (*SHORT, "trainer.max_epochs=1", "trainer.limit_train_batches=4")
HALF = "pruner.schedule.final_sparsity=0.5"


def sweep(command: Command, *overrides: str) -> Said:
    return command("train", "-m", "-cn", "digits_mlp", "hydra.sweep.dir=sweep", *FEW, *overrides)


def done() -> set[str]:
    return {path.parent.name for path in Path("sweep").glob("*/report.json")}


@pytest.mark.slow
def test_criteria_that_need_another_pattern_are_left_out(command: Command) -> None:
    said = sweep(command, "pruner/criterion=glob([magnitude,norm_scale])", HALF)
    assert said.status == 0
    first, reason = said.out.splitlines()[:2]
    assert first == "left out, 1 of 2 runs of glob(...):"
    assert reason.startswith("  pruner/criterion=norm_scale: ")
    assert "use a channel pattern" in reason
    assert done() == {"0"}
    assert "sweep: 1 run\n" in said.out


@pytest.mark.slow
def test_none_is_left_out_and_so_are_patterns_that_do_not_fit(command: Command) -> None:
    said = sweep(command, HALF, "pruner/regularizer=glob([near_threshold,none])", "pruner/pattern=element,channel")
    assert "pruner/regularizer=none pruner/pattern=element" in said.out
    assert ": pruner/regularizer=none is no regularizer" in said.out
    for config in Path("sweep").glob("*/config.yaml"):
        assert "regularizer: null" not in config.read_text(encoding="utf-8")
    assert done()


def test_schedules_that_lack_the_key_set_are_left_out(command: Command) -> None:
    said = sweep(command, "pruner/schedule=glob([none,one_shot,polynomial])", "pruner.schedule.begin_step=0.1", HALF)
    assert said.status == 0
    assert "pruner/schedule=one_shot: " in said.out
    assert "pruner/schedule=none is no schedule" in said.out
    assert done()


@pytest.mark.slow
def test_a_fault_of_all_options_is_a_failure_of_each(command: Command) -> None:
    said = sweep(command, "pruner/criterion=glob(magnitude)", "pruner.schedule.final_sparsity=0.5,2")
    assert said.status == 1
    assert "left out" not in said.out
    assert "sweep: 2 runs, 1 failed" in said.out


@pytest.mark.slow
def test_what_is_named_is_not_left_out(command: Command) -> None:
    said = sweep(command, HALF, "pruner/criterion=magnitude,norm_scale")
    assert said.status == 1
    assert "left out" not in said.out
    assert "lightning-prune: sweep/1: " in said.err


def test_nothing_left_is_an_error(command: Command) -> None:
    said = sweep(command, "pruner/regularizer=glob(none)")
    assert said.status == 1
    assert "glob(...) leaves no run: pruner/regularizer=none is no regularizer" in said.err
