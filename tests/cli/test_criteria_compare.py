"""All criteria beside each other: the sweeps of `criteria_compare`, in small, and what `compare` makes of the seeds."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.cli.arguments import folder
from lightning_prune.tasks.data.digits import Digits

from .conftest import SHORT, Command, Said

CRITERIA = {file.stem for file in (folder("conf") / "pruner/criterion").glob("*.yaml")}
OF_UNITS = {"activation_taylor", "apoz", "entropy", "mean_activation", "norm_scale", "norm_taylor"}
"""Those that a weight by itself cannot be scored by."""

RECIPES = {
    "criteria_compare": ("task.net._target_=lightning_prune.tasks.nets.MLP", "+task.net.sizes=[64,24,16,10]"),
    "criteria_compare_units": ("task.net.sizes=[64,24,16,10]",),
}


def digits(batch_size: int, seed: int, **_: Any) -> Digits:
    """Return the digits, for what MNIST takes."""
    return Digits(batch_size=batch_size, seed=seed)


def sweep(command: Command, recipe: str, *words: str) -> Said:
    few = (*SHORT, "trainer.max_epochs=1", "data.batch_size=32", "data._target_=tests.cli.test_criteria_compare.digits")
    return command("train", "-m", "-cn", recipe, "hydra.sweep.dir=sweep", *RECIPES[recipe], *few, *words)


def done() -> set[tuple[str, ...]]:
    return {path.parts[1:-1] for path in Path("sweep").glob("*/*/*/report.json")}


def test_seeds_become_a_mean_and_a_spread(command: Command) -> None:
    words = (
        "pruner/criterion=wanda",
        "pruner.schedule.final_sparsity=0.5",
        "seed=0,1",
        "trainer.limit_train_batches=4",
    )
    said = sweep(command, "criteria_compare", *words)
    assert said.status == 0, said.err
    assert done() == {("wanda", "0.5", "seed0"), ("wanda", "0.5", "seed1")}
    said = command("compare", "sweep", "--out", "drawn")
    assert (said.status, said.err) == (0, "")
    head, _, row = said.out.split("\n\n")[0].splitlines()
    assert head.split() == ["test/accuracy,", "%", "50", "%"]
    with Path("drawn/compare.csv").open(encoding="utf-8", newline="") as stream:
        values = [100 * float(run["test/accuracy"]) for run in csv.DictReader(stream)]
    assert len(values) == 2
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert row.split("  ") == ["all runs (mean of 2)", f"{mean:.2f} ± {spread:.2f}"]
    assert Path("drawn/compare.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_criterion_that_fits_is_run_at_the_same_sparsity(command: Command, recipe: str) -> None:
    said = sweep(command, recipe, "pruner.schedule.final_sparsity=0.5")
    assert said.status == 0, said.err
    names = {parts[0] for parts in done()}
    # The MLP has no norm; single weights have no units besides.
    expected = CRITERIA - (OF_UNITS if recipe == "criteria_compare" else {"norm_scale", "norm_taylor"})
    assert names == expected
    for name in CRITERIA - expected:
        assert f"pruner/criterion={name}: " in said.out, "named with the reason"
    said = command("compare", "sweep")
    assert (said.status, said.err) == (0, "")
    with Path("sweep/compare.csv").open(encoding="utf-8", newline="") as stream:
        runs = list(csv.DictReader(stream))
    assert len(runs) == len(expected)
    assert len({run["curve"] for run in runs}) == len(expected)
    sparsities = [float(run["sparsity"]) for run in runs]
    assert max(sparsities) - min(sparsities) <= (1e-9 if recipe == "criteria_compare" else 0.03)
