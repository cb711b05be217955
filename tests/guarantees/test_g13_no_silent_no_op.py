"""G13: what would prune nothing, or less than asked, is said: before training starts where it can be known."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, GradientAccumulationScheduler, StochasticWeightAveraging, Timer
from torch import nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import Magnitude, NormScale
from lightning_prune.report import Report, percent
from lightning_prune.schedule import Iterative, OneShot, Polynomial, Schedule
from lightning_prune.targets import Targets
from tests.guarantees.helpers import RAMP, Batches, Net, Units, Unsized, assert_plain, fit, momentum, trainer, zeros
from tests.guarantees.whole_units import channels, dead, prunable, whole_units


def targets(**rules: Any) -> PruningCallback:
    return PruningCallback(Pruner(RAMP, targets=Targets(**rules)))


def schedule(given: Schedule, **rules: Any) -> PruningCallback:
    return PruningCallback(Pruner(given, targets=Targets(**rules)))


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "nothing selected": (lambda: targets(exclude=("net",)), {}, r"select no weight of Net .*excluded by 'net'"),
    "include misspelt": (lambda: targets(include=("nett.0",)), {}, r"include pattern 'nett.0' .*near.*net\.0\.weight"),
    "exclude misspelt": (lambda: targets(exclude=("hed",)), {}, r"exclude pattern 'hed' matches no weight; near"),
    "sparsity misspelt": (lambda: targets(sparsity={"hed": 0.9}), {}, r"sparsity pattern 'hed' matches no weight"),
    "sparsity of an excluded weight": (
        lambda: targets(exclude=(r"net\.3",), sparsity={r"net\.3": 0.9}),
        {},
        r"sparsity pattern .* matches no weight",
    ),
    "begin at the end": (lambda: schedule(Polynomial(0.8, 20, 30, 2)), {}, "begin_step=20 .*takes 20 optimizer"),
    "begin past the end": (lambda: schedule(OneShot(0.8, 500)), {}, "begin_step=500 .*takes 20 optimizer steps"),
    "begin at a share of one": (lambda: schedule(OneShot(0.8, 1.0)), {}, "begin_step=20 .*takes 20"),
    "begin past the end in epochs": (
        lambda: schedule(Polynomial(0.8, 30, 40, 2)),
        {"max_steps": -1, "max_epochs": 5},
        "begin_step=30 .*takes 30",
    ),
    "begin past the end with accumulation": (
        lambda: schedule(Polynomial(0.8, 10, 40, 2)),
        {"max_steps": -1, "max_epochs": 5, "accumulate_grad_batches": 3},
        "begin_step=10 .*takes 10",
    ),
    "begin past the end for the only weights that are pruned": (
        lambda: schedule(Polynomial(0.0, 30, 40, 2), sparsity={r"net\.0": 0.9}),
        {},
        "begin_step=30 .*takes 20",
    ),
    "shares without end": (lambda: PruningCallback(0.9), {"max_steps": -1, "max_epochs": -1}, "give begin_step .*ints"),
    "shares by the clock": (
        lambda: PruningCallback(0.9),
        {"max_time": timedelta(hours=1), "max_epochs": 3, "max_steps": -1},
        "max_time.*ints",
    ),
    "shares by the clock and by steps": (lambda: PruningCallback(0.9), {"max_time": timedelta(hours=1)}, "ints"),
    "too many rounds": (lambda: schedule(Iterative(0.8, 3, 5, 9)), {}, "rounds=9 do not fit"),
    "rounds in shares of a short run": (lambda: schedule(Iterative(0.8, 0.1, 0.3, 9)), {}, "rounds=9 do not fit"),
    "window turned round": (lambda: schedule(Polynomial(0.8, 15, 0.5, 2)), {}, "end_step=0.5 is step 10, before"),
    "rewind past the end": (lambda: PruningCallback(RAMP, rewind=14), {}, "rewind to=14 .*last update, at step 13"),
    "rewind that never acts": (lambda: PruningCallback(OneShot(0.5, 3), rewind=0), {}, "rewind would never act"),
    "rewind with reversible": (lambda: PruningCallback(Pruner(RAMP, reversible=True), rewind=0), {}, "reversible"),
}


@pytest.mark.parametrize("name", BAD)
def test_G13_an_error_before_the_first_training_step(name: str) -> None:
    make, options, message = BAD[name]
    model = Net()
    steps: list[int] = []
    model.in_step.append(lambda run: steps.append(run.global_step))
    callback = make()
    settings: dict[str, Any] = {"max_steps": 20} | options
    with pytest.raises(ValueError, match=message):
        fit(model, callback, **settings)
    assert steps == []
    assert_plain(model, callback=callback)
    assert sum(zeros(model).values()) == 0


# untyped, for arguments that a type checker would not let through
AnyCallback: Any = PruningCallback
AnyPruner: Any = Pruner
AnyTargets: Any = Targets

ARGUMENTS: dict[str, tuple[Any, str]] = {
    "percent": (lambda: PruningCallback(90), r"PruningCallback\(90\).*0.9 prunes 90 %"),
    "negative": (lambda: PruningCallback(-0.1), r"between 0 and 1"),
    "nan": (lambda: PruningCallback(float("nan")), r"between 0 and 1"),
    "bool": (lambda: PruningCallback(True), r"PruningCallback\(True\)"),
    "text": (lambda: AnyCallback("x"), r"PruningCallback\('x'\).*Pruner, a schedule or a final sparsity"),
    "none": (lambda: AnyCallback(None), r"PruningCallback\(None\)"),
    "a class": (lambda: AnyCallback(Polynomial), r"Polynomial"),
    "a criterion": (lambda: AnyCallback(Magnitude()), r"PruningCallback\(Magnitude"),
    "rewind before the start": (lambda: PruningCallback(0.5, rewind=-1), r"to=-1"),
    "rewind to nowhere": (lambda: AnyCallback(0.5, rewind="start"), r"to='start'"),
    "rewind to a share": (lambda: AnyCallback(0.5, rewind=0.1), r"to=0.1"),
    "pattern of one text": (lambda: AnyTargets(include="net"), r"include='net' must be a sequence"),
    "bad expression": (lambda: Targets(include=("net.[",)), r"no regular expression"),
    "rule of 90": (lambda: Targets(sparsity={"net": 90}), r"sparsity\['net'\]=90"),
    "a criterion's class": (lambda: AnyPruner(RAMP, Magnitude), r"criterion=Magnitude is a class"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_G13_a_bad_argument_is_an_error_that_shows_it(name: str) -> None:
    make, message = ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_G13_an_end_past_the_run_is_a_warning_that_names_what_it_will_reach() -> None:
    model = Net()
    reached = round(0.8 - 0.8 * (1 - 15 / 27) ** 3, 4)
    with (
        pytest.warns(UserWarning, match=f"end_step=30 is past .*20 optimizer steps.*{reached}.*not 0.8"),
        pytest.warns(UserWarning, match="less than the 80.00 % asked for; the run ended before end_step=30"),
    ):
        fit(model, PruningCallback(Polynomial(0.8, 3, 30, 3)), max_steps=20)


def test_G13_a_resumed_run_that_reaches_the_end_is_not_warned_about(tmp_path: Any) -> None:
    with pytest.warns(UserWarning, match="past the end"), pytest.warns(UserWarning, match="less than"):
        run = fit(Net(), PruningCallback(RAMP), max_steps=10)
    run.save_checkpoint(tmp_path / "part.ckpt")
    fit(Net(), PruningCallback(RAMP), max_steps=20, ckpt=tmp_path / "part.ckpt")  # warnings are errors here


def test_G13_less_reached_than_asked_is_said_at_the_end() -> None:
    stop = EarlyStopping("loss", patience=0, stopping_threshold=100.0)
    with pytest.warns(UserWarning, match=r"reached a sparsity of \d+\.\d+ %, less than the 90.00 % asked for"):
        fit(Net(), PruningCallback(0.9), stop, max_epochs=9)


def test_G13_reaching_what_was_asked_says_nothing() -> None:
    model, callback = Net(), PruningCallback(0.9)
    fit(model, callback, max_steps=20)  # warnings are errors here
    assert callback.report is not None
    assert callback.report.zeros == sum(zeros(model).values()) == round(0.9 * 256)


# Runs whose length is known, if one looks


def _lengths(callback: PruningCallback, model: Net, *others: pl.Callback, loader: Any = None, **options: Any) -> int:
    """Fit, and return the step of the last update; with `Polynomial(0.8, .0, 1., .1)` that is the run's length."""
    run = trainer(callbacks=[callback, *others], limit_val_batches=0, **options)
    run.fit(model, loader or Batches(6), Batches(1))
    assert callback.report is not None
    step = callback.report.step
    assert step is not None
    assert step == callback.pruner.resolved_schedule.end_step
    return step


def _whole() -> PruningCallback:
    return PruningCallback(Polynomial(0.8, 0.0, 1.0, 0.1))


def test_G13_shares_need_no_more_than_max_steps() -> None:
    assert _lengths(_whole(), Net(), max_steps=17, loader=Unsized(), max_epochs=-1) == 17
    assert _lengths(_whole(), Net(), max_steps=17, max_epochs=-1) == 17


def test_G13_shares_of_a_loader_without_a_length_but_with_a_limit() -> None:
    assert _lengths(_whole(), Net(), limit_train_batches=4, loader=Unsized(), max_epochs=3) == 12


def test_G13_shares_of_a_loader_without_a_length_are_an_error() -> None:
    model = Net()
    run = trainer(callbacks=[PruningCallback(0.9)], limit_val_batches=0, max_epochs=2)
    with pytest.raises(ValueError, match=r"loader without a length.*ints"):
        run.fit(model, Unsized(), Batches(1))


def test_G13_a_timer_without_a_limit_is_no_bound() -> None:
    assert _lengths(_whole(), Net(), Timer(), max_epochs=3) == 18


def test_G13_batches_that_do_not_divide_by_the_accumulation() -> None:
    assert _lengths(_whole(), Net(), max_epochs=3, accumulate_grad_batches=4) == 6


def test_G13_shares_of_a_run_whose_accumulation_changes() -> None:
    scheduler = GradientAccumulationScheduler({0: 1, 2: 3})
    assert _lengths(_whole(), Net(), scheduler, max_epochs=4) == 6 + 6 + 2 + 2


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("norm", [True, False], ids=["batch_norm", "no_norm"])
@pytest.mark.parametrize("first", [True, False], ids=["swa_first", "pruning_first"])
def test_G13_shares_do_not_count_swas_extra_epoch(norm: bool, first: bool) -> None:
    callback, swa = _whole(), StochasticWeightAveraging(0.01, swa_epoch_start=1)
    run = trainer(callbacks=[swa, callback] if first else [callback, swa], limit_val_batches=0, max_epochs=3)
    run.fit(Net(momentum, norm=norm), Batches(6), Batches(1))
    assert callback.pruner.resolved_schedule.end_step == 18
    assert callback.report is not None
    assert callback.report.sparsity == 205 / 256


def test_G13_an_empty_model_is_an_error_that_says_so() -> None:
    model = Net(net=nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 4)))
    callback = targets(exclude=(r"net\.1",))
    with pytest.raises(ValueError, match=r"select no weight.*net\.0\.weight: norm"):
        fit(model, callback, max_steps=20)


# Whole units


def test_G13_a_module_without_an_example_is_refused_before_training() -> None:
    model, callback = Net(), channels()
    with pytest.raises(ValueError, match="Net has no example inputs"):
        fit(model, callback, max_steps=20)
    assert_plain(model, callback=callback)


def test_G13_a_criterion_that_needs_norms_is_refused_before_training() -> None:
    model, callback = Units(), channels(criterion=NormScale())
    steps: list[int] = []
    model.in_step.append(lambda t: steps.append(t.global_step))
    with pytest.raises(ValueError, match=r"no norm layer behind 'net\.6\.weight'"):
        fit(model, callback, max_steps=20)
    assert not steps
    assert_plain(model, callback=callback)
    fit(model, channels(criterion=NormScale(), targets=Targets(exclude=(r"net\.6",))), max_steps=20)


def test_G13_one_unit_of_each_group_stays_and_less_than_a_unit_short_is_no_warning() -> None:
    model, callback = Units(), channels(schedule=OneShot(1.0, 5))
    fit(model, callback, max_steps=20)
    assert dead(model) == {n: len(p) - 1 if n != "net.8.weight" else 0 for n, p in prunable(model).items()}
    assert callback.report is not None
    assert "whole units of up to" in callback.report.table()
    most = f"{percent(callback.report.sparsity)} at most"
    assert f"100.00 % is out of reach; each group keeps one unit at least, or the pattern's multiple: {most}" in (
        callback.report.table()
    )


@pytest.mark.parametrize("multiple", [1, 2, 3, 100])
def test_G13_a_sparsity_out_of_reach_is_said_before_training(multiple: int) -> None:
    report: dict[float, Report] = {}
    for share in (0.5, 1.0):
        pruner = Pruner(
            OneShot(share, 0), pattern=whole_units(multiple=multiple, example_inputs=Units().example_input_array)
        )
        pruner.attach(Units())
        before = pruner.report().plan()
        pruner.after_step(0)
        report[share] = pruner.report()
        assert ("out of reach" in before) == (share > report[share].reachable)
    assert report[1.0].sparsity == report[1.0].reachable < 1.0
    assert report[0.5].sparsity <= report[0.5].reachable == report[1.0].reachable
