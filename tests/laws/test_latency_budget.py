"""The laws of milliseconds: what is asked for by a table of known times is reached, and a speed-up is found."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.budget import Latency, MACs
from lightning_prune.callbacks.ending import warn_of_less
from lightning_prune.cost import LatencyTable, measure_latency
from lightning_prune.criterion import FirstOrderDelta, Taylor
from lightning_prune.pattern import Channel, Element
from lightning_prune.pruning import Pruner, target
from lightning_prune.pruning.target import UnreachableError
from lightning_prune.schedule import AccuracyBudget, OneShot, Polynomial
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets
from tests.cost.counted import counted as counted
from tests.cost.counted import of_forward
from tests.laws.test_budget import NETS, pruned

FAST = ("mlp", "lstm")
EVERY = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in NETS]


def made(name: str = "mlp") -> tuple[nn.Module, Tensor]:
    make, shape = NETS[name]
    torch.manual_seed(0)
    return make().eval(), torch.randn(shape)


def pruner_of(x: Tensor, schedule: Any = None, **values: Any) -> Pruner:
    schedule = schedule or Polynomial(0.5, 1, 9, 2)
    return Pruner(schedule, pattern=Channel(example_inputs=x), budget=Latency(**values))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("by_cost", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_half_of_the_time_goes_as_nearly_as_units_allow(name: str, by_cost: bool) -> None:
    model, smaller, x, plan, report = pruned(name, Latency(by_cost=by_cost))
    before, after = of_forward(model, x), of_forward(smaller, x)
    assert plan.spent is not None
    assert report.spent is not None
    assert plan.spent.total == pytest.approx(before)
    assert plan.spent.gone == 0.0
    asked = min(0.5, report.spent.reachable)
    assert abs(report.spent.gone - asked) <= report.spent.grain
    assert report.spent.left == pytest.approx(after, rel=0.1), "what is between layers is shared out by their size"
    assert ("is out of reach" in report.table()) == (report.spent.reachable < 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("counted")
def test_by_cost_fewer_units_go() -> None:
    left = [
        sum(p.numel() > 0 and p.shape[0] for p in pruned("mlp", Latency(by_cost=c))[1].parameters())
        for c in (False, True)
    ]
    assert left[1] > left[0]


@pytest.mark.usefixtures("counted")
def test_plan_log_and_report_say_it_in_milliseconds() -> None:
    _, _, _, plan, report = pruned("mlp", Latency(batch=4))
    threads = torch.get_num_threads()
    said = f"(by a table of layers: batch of 4, {threads} thread{'s' if threads > 1 else ''}, cpu)"
    assert said in plan.plan()
    assert "50.00 % asked for in the end" in plan.plan()
    assert report.spent is not None
    assert f"ms: {report.spent.left:.3f} of {report.spent.total:.3f} are left" in report.table()
    assert report.scalars()["left/ms"] == report.spent.left
    assert report.to_dict()["spent"]["unit"] == "ms"


def test_a_resumed_run_goes_on_with_its_table_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """G2: measured again it would be another table."""
    model, x = made()
    first = pruner_of(x)
    first.attach(model)
    for step in range(1, 6):
        first.after_step(step)
    file = io.BytesIO()
    torch.save({"state": first.state_dict(), "weights": model.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, second = made()[0], pruner_of(x)
    other.load_state_dict(saved["weights"])
    second.load_state_dict(saved["state"])
    monkeypatch.setattr("lightning_prune.budget.latency.measure_latency", None)  # it is not called
    second.attach(other)
    for step in range(6, 11):
        assert first.after_step(step) == second.after_step(step)
    assert all(torch.equal(first.masks[name].mask, second.masks[name].mask) for name in first.masks)
    assert first.report() == second.report()
    first.strip()
    assert first.state_dict()["measured"] == saved["state"]["measured"]


def test_a_state_that_is_loaded_onto_an_attached_pruner_brings_its_table() -> None:
    model, x = made()
    first, second = pruner_of(x), pruner_of(x)
    first.attach(model)
    first.after_step(1)
    other = copy.deepcopy(model)
    second.attach(other)
    second.load_state_dict(first.state_dict())
    one, another = first.report().spent, second.report().spent
    assert one is not None
    assert one == another


def test_a_table_is_measured_once_and_kept_in_a_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = made()
    file = tmp_path / "times.json"
    pruner_of(x, table=str(file)).attach(copy.deepcopy(model))
    written = LatencyTable.load(file)
    monkeypatch.setattr("lightning_prune.budget.latency.measure_latency", None)
    for table in (str(file), written):
        pruner = pruner_of(x, table=table)
        pruner.attach(copy.deepcopy(model))
        spent = pruner.report().spent
        assert spent is not None
        assert spent.total == written.ms
    with pytest.raises(ValueError, match=r"batch=9, and the latency table was measured with batch=2"):
        pruner_of(x, table=str(file), batch=9).attach(copy.deepcopy(model))
    with pytest.raises(ValueError, match="threads=64, and"):
        pruner_of(x, table=written, threads=64)
    other = nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    with pytest.raises(ValueError, match=r"has '0.weight' of length \[300\] .* its shape is \(30, 64\)"):
        pruner_of(x, table=written).attach(other)
    with pytest.raises(ValueError, match=r"has '4\.weight', which Sequential has not"):
        pruner_of(x, table=LatencyTable("cpu", 2, 1, 1.0, written.layers[-1:])).attach(other)
    assert all(bool((p != 0).all()) for p in other.parameters())
    with pytest.raises(ValueError, match=r"the latency table knows no layer, and pruned are 0.weight"):
        pruner_of(x, table=LatencyTable("cpu", 2, 1, 1.0, ())).attach(other)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is no JSON, or damaged"):
        pruner_of(x, table=str(file)).attach(other)


def by_parameters(monkeypatch: pytest.MonkeyPatch, floor: float = 0.1) -> None:
    """Let whole forwards take what their parameters say."""

    def latency(models: Any, inputs: Any, repeats: int) -> list[float]:
        sizes = [float(sum(p.numel() for p in model.parameters())) for model in models]
        return [floor * sizes[0] + (1 - floor) * size for size in sizes]

    monkeypatch.setattr(target, "latency", latency)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", ["mlp", pytest.param("residual", marks=pytest.mark.slow)])
@pytest.mark.parametrize("speedup", [1.5, 2.0])
def test_the_least_that_is_measured_so_much_faster_goes(
    name: str, speedup: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_parameters(monkeypatch)
    model, x = made(name)
    whole = copy.deepcopy(model)
    pruner = pruner_of(x, OneShot(0.123, 1), speedup=speedup)
    pruner.attach(model)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in whole.state_dict().items())
    plan = pruner.report().plan()
    found = pruner.resolved_schedule.final_sparsity
    assert f"speedup={speedup:g}: " in plan
    assert "% of the units are to go; a copy without them ran" in plan
    assert f"final_sparsity={found:.6g} takes the place of 0.123" in plan
    pruner.after_step(1)
    report = pruner.strip()
    left = shrink(model, x).model
    share = sum(p.numel() for p in left.parameters()) / sum(p.numel() for p in whole.parameters())
    reached = 1 / (0.1 + 0.9 * share)
    assert speedup <= reached < 1.1 * speedup
    assert report.spent is not None
    assert report.spent.speedup == pytest.approx(reached)
    assert f"without its dead units {reached:.2f} times as fast, measured, {speedup:g} asked for" in report.table()
    assert report.spent.gone == pytest.approx(found)


@pytest.mark.usefixtures("counted")
def test_what_no_copy_is_as_fast_as_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    by_parameters(monkeypatch, floor=0.7)
    model, x = made()
    pruner = pruner_of(x, speedup=2.0)
    with pytest.raises(UnreachableError, match=r"speedup=2 cannot be met: speedup=1\.4"):
        pruner.attach(model)
    assert not pruner.attached
    assert all(bool((p != 0).any()) for p in model.parameters())


@pytest.mark.usefixtures("counted")
def test_a_speed_up_that_training_has_lost_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    by_parameters(monkeypatch)
    model, x = made()
    pruner = pruner_of(x, OneShot(0.5, 1), speedup=2.0)
    pruner.attach(model)
    pruner.after_step(1)
    by_parameters(monkeypatch, floor=0.4)
    report = pruner.strip()
    with pytest.warns(UserWarning, match=r"1\.\d+ times as fast, measured, 2 asked for: .* Ask for speedup=\d"):
        warn_of_less("pruning", pruner, report)


@pytest.mark.usefixtures("counted")
def test_a_speed_up_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    by_parameters(monkeypatch)
    model, x = made()
    first = pruner_of(x, speedup=2.0)
    first.attach(model)
    first.after_step(3)
    state = first.state_dict()
    monkeypatch.setattr("lightning_prune.pruning.measured.sparsity_for", None)
    second = pruner_of(x, speedup=2.0)
    second.load_state_dict(state)
    second.attach(copy.deepcopy(model))
    assert second.resolved_schedule == first.resolved_schedule
    for other, said in ((3.0, "speedup=3.0 is asked for"), (None, "speedup=None is asked for")):
        third = pruner_of(x, speedup=other)
        third.load_state_dict(state)
        with pytest.raises(ValueError, match=f"{said}, and the saved run was to meet speedup=2, at a sparsity of 0"):
            third.attach(copy.deepcopy(model))
    dense = pruner_of(x, OneShot(0.0, 1), speedup=2.0)
    dense.attach(copy.deepcopy(model))
    assert dense.resolved_schedule.final_sparsity == 0.0


DAMAGED: dict[str, tuple[Any, str]] = {
    "no mapping": ([], "measured is a list"),
    "no table": ({"faster": None}, "measured has no 'budget'"),
    "a table without layers": ({"budget": {"version": 1}, "faster": None}, "has no 'layers'"),
    "a share above 1": (
        {"budget": {}, "faster": {"asked": 2.0, "sparsity": 3.0, "units": 0.1, "speedup": 2.0}},
        r"faster: sparsity is 3.0; it must be a number in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_measurements_are_refused(case: str) -> None:
    values, why = DAMAGED[case]
    model, x = made()
    pruner = pruner_of(x)
    pruner.measured = values or [1]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=why):
        pruner.attach(model)
    assert not pruner.attached


def test_one_process_measures_for_others() -> None:
    model, x = made()
    one, other = pruner_of(x), pruner_of(x)
    assert one.measures
    assert not Pruner(OneShot(0.5, 1), pattern=Channel(example_inputs=x), budget=MACs()).measures
    other.measured = one.measured = one.measure(model)
    assert not one.measures
    one.attach(copy.deepcopy(model))
    other.attach(model)
    assert one.report() == other.report()
    assert one.measures, "what was handed over is for one attach"
    assert Pruner(OneShot(0.5, 1)).measure(model) is None


WRONG: dict[str, tuple[Any, str]] = {
    "batch": (lambda: Latency(batch=0), "batch=0 must be an int of at least 1"),
    "threads": (lambda: Latency(threads=1.5), "threads=1.5 must be"),  # pyright: ignore[reportArgumentType]
    "speedup": (lambda: Latency(speedup=0.5), "speedup=0.5 must be a number above 1"),
    "table": (lambda: Latency(table=3), "table=3 must be a LatencyTable"),  # pyright: ignore[reportArgumentType]
    "single weights": (lambda: Pruner(OneShot(0.5, 1), pattern=Element(), budget=Latency()), "is paid by whole units"),
    "rules": (
        lambda: Pruner(OneShot(0.5, 1), pattern=Channel(), budget=Latency(), targets=Targets(sparsity={"a": 0.3})),
        "is of the whole model",
    ),
    "a metric": (
        lambda: Pruner(AccuracyBudget("val", 0.01), pattern=Channel(), budget=Latency(speedup=2)),
        "finds how much is to go",
    ),
    "what looks at training": (
        lambda: Pruner(OneShot(0.5, 1), Taylor(), Channel(), budget=Latency(speedup=2)),
        "measures copies that are pruned before training",
    ),
    "what remembers": (
        lambda: Pruner(OneShot(0.5, 1), FirstOrderDelta(), Channel(), budget=Latency(speedup=2)),
        "measures copies that are pruned before training",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    make, why = WRONG[case]
    with pytest.raises(ValueError, match=why):
        make()


@pytest.mark.slow
@pytest.mark.usefixtures("counted")
def test_a_schedule_that_begins_past_the_speed_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    by_parameters(monkeypatch)
    model, x = made()
    pruner = pruner_of(x, Polynomial(0.9, 1, 9, 2, initial_sparsity=0.85), speedup=1.5)
    with pytest.raises(ValueError, match=r"speedup=1.5 comes to a final sparsity of 0\.\d+, which does not go with"):
        pruner.attach(model)


def test_a_model_without_example_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has no example inputs"):
        Pruner(OneShot(0.5, 1), pattern=Channel(), budget=Latency()).attach(made()[0])


def test_a_measured_table_is_that_of_the_module() -> None:
    model, x = made()
    budget: Any = Latency(threads=1).measured(model, x)
    assert budget.is_measured
    assert not Latency().is_measured
    assert budget.knowing(budget.measurements()) == budget
    assert budget.table.threads == 1
    assert measure_latency(model, x, threads=1).layers[0].weight == budget.table.layers[0].weight
    with pytest.raises(ValueError, match="has no table yet"):
        Latency().measurements()
