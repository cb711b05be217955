"""`lightning-prune plan`: what a run would prune and when."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lightning_prune.cli.arguments import recipes
from lightning_prune.cost import LatencyTable, count
from lightning_prune.pruning import target

from .conftest import Command


def test_shows_weights_and_steps_and_writes_nothing(command: Command) -> None:
    said = command("plan", "-cn", "digits_mlp")
    assert (said.status, said.err) == (0, "")
    assert "all prunable                  17,024         90.00 %" in said.out
    assert "83 updates of 1,170 steps, the first at step 58, the last at step 468" in said.out
    assert said.out.rstrip().endswith("468             40.0 %   90.00 %")
    assert not list(Path().iterdir())


@pytest.mark.filterwarnings("ignore:.*nearly nothing is left:UserWarning")
def test_the_run_does_what_its_plan_says(command: Command) -> None:
    short = ("trainer.max_epochs=2", "trainer.limit_train_batches=10", "trainer.enable_progress_bar=false")
    said = command("plan", "-cn", "digits_mlp", *short, "pruner/schedule=iterative")
    assert "5 updates of 20 steps, the first at step 1, the last at step 8" in said.out
    assert command("train", "-cn", "digits_mlp", *short, "pruner/schedule=iterative", "hydra.run.dir=run").status == 0
    with Path("run/metrics.csv").open(encoding="utf-8") as stream:
        names, *rows = [line.rstrip("\n").split(",") for line in stream]
    logged = [row[names.index("step")] for row in rows if row[names.index("pruning/sparsity")]]
    assert (logged[0], logged[-1], len(logged)) == ("1", "8", 5)


def test_for_programs(command: Command) -> None:
    said = command("plan", "-cn", "digits_mlp", "--json", "pruner.schedule.final_sparsity=0.7")
    plan = json.loads(said.out)
    assert (said.status, said.err) == (0, "")
    assert (plan["prunable"], plan["final_sparsity"], plan["steps"], len(plan["updates"])) == (17_024, 0.7, 1170, 83)
    assert plan["updates"][0]["step"] == 58
    assert plan["updates"][-1] == {"step": 468, "sparsity": 0.7}
    assert [weight["name"] for weight in plan["weights"]] == [f"net.layers.{i}.weight" for i in (0, 2, 4)]
    assert plan["skipped"] == {f"net.layers.{i}.bias": "bias" for i in (0, 2, 4)}


def test_for_programs_without_the_data_with_learned_masks_and_in_rounds(command: Command) -> None:
    unknown = json.loads(command("plan", "-cn", "mnist_lenet300", "--json").out)
    assert (unknown["steps"], unknown["updates"][-1]["step"]) == (None, 4000)
    learned = json.loads(command("plan", "-cn", "digits_mlp", "pruner=learned", "--json").out)
    assert (learned["schedule"], learned["updates"]) == (None, [])
    rounds = json.loads(command("plan", "-cn", "digits_cnn_iterative", "--json").out)
    assert rounds["rounds"][0].keys() == rounds["dense"].keys()
    assert sum(rounds["rounds"][0].values()) < sum(rounds["dense"].values())


def test_steps_in_ints_need_no_length(command: Command) -> None:
    said = command(
        *("plan", "-cn", "mnist_lenet300", "pruner.schedule.begin_step=100", "pruner.schedule.end_step=300"),
        "pruner.schedule.pruning_frequency=100",
    )
    assert said.status == 0
    assert "3 updates in steps, the first at step 100, the last at step 300" in said.out


def test_the_older_systems_string(command: Command) -> None:
    said = command("plan", "-cn", "digits_mlp", "pruning_hparams=name=x,pruning_frequency=100,end_pruning_step=500")
    assert "5 updates of 1,170 steps, the first at step 100, the last at step 500" in said.out


OTHERS = ("_iterative", "_learned", "_l0", "_alexnet_dense", "_alexnet_dense_full", "_budget")
GRADUAL = [name for name in recipes() if not name.startswith("digits") and not name.endswith(OTHERS)]


def test_a_schedule_that_follows_a_metric_has_no_table_of_updates(command: Command) -> None:
    said = command("plan", "-cn", "digits_mlp", "pruner/schedule=accuracy_budget")
    assert (said.status, said.err) == (0, "")
    assert "as sparse as val/accuracy allows: decided at each validation" in said.out
    assert "by metric" in said.out
    assert "share of the run" not in said.out.replace("share=", "")


@pytest.mark.slow
def test_milliseconds_are_measured_for_the_plan_and_a_speed_up_found(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a loaded machine is no test, so the multiply-adds stand in for whole forwards."""
    monkeypatch.setattr(target, "latency", lambda models, x, _: [1e-3 * count(model, x).macs for model in models])
    words = ("plan", "-cn", "digits_mlp", "pruner/pattern=channel", "pruner/budget=latency", "pruner.budget.threads=1")
    said = command(*words, "pruner.budget.speedup=2", "pruner.budget.table=times.json", "pruner.budget.batch=3")
    assert (said.status, said.err) == (0, "")
    assert re.search(
        r"^ms: (.*) of \1 are left; 0.00 % gone, .* table of layers: batch of 3, 1 thread, cpu", said.out, re.M
    )
    assert re.search(
        r"^speedup=2: .* % of the units are to go; a copy without them ran 2\.\d\d times as fast", said.out, re.M
    )
    assert LatencyTable.load("times.json").batch == 3
    facts = json.loads(command(*words, "pruner.budget.table=times.json", "--json").out)
    assert facts["spent"]["unit"] == "ms"
    assert facts["spent"]["asked"] == facts["updates"][-1]["sparsity"]
    other = command(*words, "pruner.budget.table=times.json", "pruner.budget.batch=4")
    assert other.status == 1
    assert "batch=4, and the latency table was measured with batch=3" in other.err


@pytest.mark.parametrize("recipe", GRADUAL)
def test_without_the_data_the_schedule_is_in_shares(command: Command, recipe: str) -> None:
    said = command("plan", "-cn", recipe)
    assert (said.status, said.err) == (0, "")
    assert "length is not known" in said.out
    assert "not found in" in said.out
    ends = {"cifar10_pruning": "100,000", "cifar10_pruning_short": r"66\.7 %", "cifar10_resnet20": r"50\.0 %"}
    ends |= {"criteria_compare_cifar10": "20"}  # in steps: they are so few
    end = ends.get(recipe.removesuffix("_full"), r"40\.0 %")
    assert re.search(rf"{end} +(50|71|75|80|90|98)\.00 %$", said.out.rstrip())
