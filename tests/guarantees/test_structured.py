"""The guarantees for masks of whole channels and hidden units, in real runs (G2 and G1 are beside the other runs)."""

from __future__ import annotations

import copy
import gc
import pickle
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import NormScale
from lightning_prune.pattern import Channel
from lightning_prune.regularizer import L1
from lightning_prune.report import Report, percent
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import shrink
from lightning_prune.targets import Targets
from tests.guarantees.helpers import (
    RAMP,
    UPDATES,
    Batches,
    Net,
    Units,
    adamw,
    assert_plain,
    bits,
    differences,
    fit,
    momentum,
    ramp,
    trainer,
)
from tests.guarantees.test_g6_g7_zeros import OPTIMIZERS, Spy, averaged, off_mask
from tests.guarantees.test_g6_g9_g20_files import Masked, outputs
from tests.guarantees.test_g10_g12_g28_plain import layout
from tests.guarantees.test_g16_matrix import PRECISIONS

pytest.importorskip("torch_pruning")


def channels(**ideas: Any) -> PruningCallback:
    return ramp(pattern=Channel(), **ideas)


def dead(model: nn.Module) -> dict[str, int]:
    """How many outputs of every layer of `Units` have no weights left."""
    weights = {n: p.detach() for n, p in model.named_parameters() if p.dim() > 1}
    return {n: int((w.flatten(1) == 0).all(1).sum()) for n, w in weights.items()}


def assert_pruned(model: nn.Module, callback: PruningCallback) -> None:
    """Assert that about .8 of the weights are zero, in whole units, norms and biases with them."""
    assert callback.report is not None
    assert abs(callback.report.sparsity - 0.8) <= callback.report.grain / callback.report.size
    named = dict(model.named_parameters())
    assert callback.report.zeros == sum(int((named[w.name] == 0).sum()) for w in callback.report.weights)
    stem, scale, shift = (named[f"net.{n}"].detach() for n in ("1.weight", "2.weight", "2.bias"))
    gone = (stem.flatten(1) == 0).all(1)
    assert 0 < int(gone.sum()) < 8
    assert torch.equal(gone, scale == 0)
    assert torch.equal(gone, shift == 0)
    assert not (named["net.8.weight"] == 0).all(1).any()


# G2, G4, G5, G17


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 4}], ids=str)
def test_G4_G17_each_update_comes_at_its_step_and_is_as_near_as_whole_units_allow(options: dict[str, Any]) -> None:
    model, callback = Units(), channels()
    seen: dict[int, tuple[float, float]] = {}
    masks: list[dict[str, Tensor]] = []

    def look(_: pl.Trainer) -> None:
        pruner = callback.pruner
        masks.append({n: w.mask for n, w in pruner.masks.items()})
        if pruner.last_update is not None:
            report = pruner.report()
            seen[pruner.last_update] = report.sparsity, report.grain / report.size

    model.after_batch.append(look)
    fit(model, callback, max_steps=20, **options)
    assert tuple(seen) == UPDATES
    for step, (reached, grain) in seen.items():
        assert abs(reached - RAMP.sparsity(step)) <= grain
    assert not any((b[n] & ~a[n]).any() for a, b in pairwise(masks) for n in b)
    assert_pruned(model, callback)


# G6, G7, G8


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_G7_no_optimizer_brings_a_unit_back(name: str) -> None:
    callback = channels()
    spy = Spy(callback)
    model = Units(spy.watched(OPTIMIZERS[name]))
    fit(model, callback, spy, max_steps=50)
    assert spy.late == [0] * 50
    assert spy.early == [0] * 50
    assert_pruned(model, callback)


def test_G8_moments_of_all_slices_of_a_dead_unit_are_cleared_and_others_untouched() -> None:
    callback, model = channels(schedule=OneShot(0.6, 5)), Units()
    moments: dict[int, dict[str, Tensor]] = {}
    zeroed: dict[str, Tensor] = {}
    named = dict(model.named_parameters())

    def look(run: pl.Trainer) -> None:
        state = run.optimizers[0].state
        moments[run.global_step] = {n: state[p]["exp_avg"].clone() for n, p in named.items()}
        if run.global_step == 5:
            zeroed.update({n: p.detach() != 0 for n, p in named.items()})

    class Before(pl.Callback):
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step == 5:
                moments[-1] = {n: trainer.optimizers[0].state[p]["exp_avg"].clone() for n, p in named.items()}

    model.after_batch.append(look)
    fit(model, Before(), callback, max_steps=6)
    for name, kept in zeroed.items():
        assert torch.equal(moments[5][name], moments[-1][name] * kept)
    assert all(bool((moments[-1][n][~zeroed[n]] != 0).any()) for n in ("net.2.weight", "net.2.bias", "net.6.bias"))


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_G6_zeros_in_every_step_validation_and_file(average: str, tmp_path: Path) -> None:
    callback = channels()
    spy = Spy(callback)
    model = Units(spy.watched(momentum))
    seen: list[int] = []
    model.in_validation.append(lambda _: seen.append(spy.alive()))
    model.in_step.append(lambda _: seen.append(spy.alive()))
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    run = fit(model, *averaged(average, "average_first", callback), spy, save, batches=5, val=2, max_epochs=4)
    run.save_checkpoint(tmp_path / "after_fit.ckpt")
    assert set(seen + spy.early + spy.late) == {0}
    files = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(files) >= 20
    masks: dict[str, Tensor] = {}
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        masks = checkpoint["callbacks"].pop(callback.state_key)["masks"]
        checkpoint.pop("optimizer_states")
        assert {"net.2.weight", "net.2.bias", "net.6.bias"} <= set(masks)
        assert off_mask(checkpoint, masks) == []
    checkpoint = torch.load(tmp_path / "after_fit.ckpt", weights_only=True)
    checkpoint.pop("optimizer_states")
    assert off_mask(checkpoint, masks) == []
    assert_pruned(model, callback)
    plain = Units(seed=5)
    plain.load_state_dict(checkpoint["state_dict"], strict=True)
    assert differences(bits(plain), bits(model)) == []


@pytest.mark.filterwarnings("ignore:.*fit.ckpt_path:UserWarning")
def test_G6_zeros_in_a_file_written_on_an_exception(tmp_path: Path) -> None:
    model, callback = Units(momentum), channels()
    model.in_step.append(lambda t: _fail() if t.global_step == 14 else None)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, callback, OnExceptionCheckpoint(tmp_path, "broken"), max_steps=20)
    checkpoint = torch.load(tmp_path / "broken.ckpt", weights_only=True)
    masks = checkpoint["callbacks"].pop(callback.state_key)["masks"]
    assert all(bool((~mask).any()) for mask in masks.values())
    assert off_mask({"state_dict": checkpoint["state_dict"]}, masks) == []
    assert_plain(model, callback=callback)


def _fail() -> None:
    raise RuntimeError("on purpose")


# G9, G10, G11, G12


def test_G9_strip_changes_no_bit_and_shrinking_little() -> None:
    model, callback = Units(), channels()
    masked = Masked(callback)
    fit(model, callback, masked, max_steps=20)
    assert differences(masked.outputs, outputs(model.net)) == []
    before = bits(model)
    small = shrink(model.net, torch.randn(4, 12), tolerance=1e-4)
    assert differences(before, bits(model)) == []
    assert small.report.relative <= 1e-5
    x = torch.randn(64, 12)
    torch.testing.assert_close(small.model.eval()(x), model.net.eval()(x), rtol=1e-4, atol=1e-5)
    gone, net = dead(model), cast(Any, small.model)
    assert net[1].weight.shape[0] == 8 - gone["net.1.weight"]
    assert net[6].weight.shape[0] == 10 - gone["net.6.weight"]


@pytest.mark.parametrize("reversible", [False, True])
def test_G10_layout_is_that_of_an_unpruned_twin_at_every_step(reversible: bool) -> None:
    model, twin = Units(), Units()
    identities = [id(p) for p in model.parameters()]
    seen: list[Any] = []
    model.after_batch.append(lambda _: seen.append(layout(model)))
    fit(model, channels(reversible=reversible, regularizer=L1(0.01)), max_steps=20)
    assert seen == [layout(twin)] * 20
    assert layout(model) == layout(twin)
    assert [id(p) for p in model.parameters()] == identities


@pytest.fixture
def interrupt_restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore:.*(less than|past the end):UserWarning")
@pytest.mark.usefixtures("interrupt_restored")
@pytest.mark.parametrize("how", ["end", "exception", "interrupt", "early stop", "fast_dev_run", "time"])
def test_G11_strip_always_happens(how: str) -> None:
    model, callback = Units(), channels(regularizer=L1(0.001))
    optimizers: list[Any] = []
    model.make_optimizer = lambda p: optimizers.append(adamw(p)) or optimizers[-1]
    options: dict[str, Any] = {"max_steps": 20}
    more: list[pl.Callback] = []
    if how in ("exception", "interrupt"):
        error = RuntimeError("on purpose") if how == "exception" else KeyboardInterrupt()
        model.in_step.append(lambda t: _raise(error) if t.global_step == 8 else None)
    if how == "early stop":
        more = [EarlyStopping("loss", patience=1, check_on_train_epoch_end=True, stopping_threshold=100.0)]
    if how == "fast_dev_run":
        options = {"fast_dev_run": 4}
    if how == "time":
        options = {"max_time": {"seconds": 1}, "max_epochs": -1}
    try:
        fit(model, callback, *more, **options)
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        assert how in ("exception", "interrupt")
    assert_plain(model, *optimizers, callback=callback)
    assert callback.report is not None


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("accumulate", [1, 2])
def test_G12_zero_sparsity_is_bitwise_the_run_without_the_callback(accumulate: int) -> None:
    states: list[Any] = []
    for callbacks in ([], [channels(schedule=OneShot(0.0, 3))]):
        torch.manual_seed(4)
        dropout = nn.Sequential(*Units().net[:8], nn.Dropout(0.3), nn.Linear(10, 4))
        model = Units(net=dropout)
        run = fit(model, *callbacks, max_steps=20, accumulate_grad_batches=accumulate)
        states.append([bits(model), run.optimizers[0].state_dict()["state"], torch.get_rng_state()])
    assert differences(states[0], states[1]) == []


# G13, G15, G19, G20, G24


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
    assert dead(model) == {n: len(p) - 1 if n != "net.8.weight" else 0 for n, p in _weights(model).items()}
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
            OneShot(share, 0), pattern=Channel(multiple=multiple, example_inputs=Units().example_input_array)
        )
        pruner.attach(Units())
        before = pruner.report().plan()
        pruner.after_step(0)
        report[share] = pruner.report()
        assert ("out of reach" in before) == (share > report[share].reachable)
    assert report[1.0].sparsity == report[1.0].reachable < 1.0
    assert report[0.5].sparsity <= report[0.5].reachable == report[1.0].reachable


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.dim() > 1}


class Tied(nn.Module):
    """Two layers with one weight between them: its units are rows and columns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.one, self.two, self.out = (nn.Linear(12, 9), nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 4))
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).relu()
        x = x + self.one(x).relu()
        return self.out(x + self.two(x).relu())


def test_G15_tied_weights_stay_tied_and_count_once() -> None:
    torch.manual_seed(0)
    model, callback = Units(net=Tied()), channels(schedule=OneShot(0.5, 5))
    fit(model, callback, max_steps=20)
    assert model.net.two.weight is model.net.one.weight
    assert callback.report is not None
    assert [w.name for w in callback.report.weights] == ["net.into.weight", "net.one.weight", "net.out.weight"]
    assert callback.report.size == 9 * (12 + 9 + 4)
    gone = (model.net.into.weight == 0).all(1)
    assert 0 < int(gone.sum()) < 9
    assert torch.equal(gone, (model.net.one.weight == 0).all(1))
    assert torch.equal(gone, (model.net.one.weight == 0).all(0))
    assert torch.equal(gone, (model.net.out.weight == 0).all(0))
    assert torch.equal(gone, model.net.two.bias == 0)


def test_G19_report_state_and_file_agree(tmp_path: Path) -> None:
    model, callback = Units(), channels()
    run = fit(model, callback, max_steps=20)
    run.save_checkpoint(tmp_path / "end.ckpt")
    assert callback.report is not None
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)
    zeros = {w.name: int((saved["state_dict"][w.name] == 0).sum()) for w in callback.report.weights}
    assert zeros == {w.name: w.zeros for w in callback.report.weights}
    assert callback.report.scalars()["sparsity"] == sum(zeros.values()) / callback.report.size
    assert callback.report.size == sum(p.numel() for p in _weights(model).values())
    state = saved["callbacks"][callback.state_key]
    assert state["stripped"]
    assert not any(isinstance(value, Tensor) for value in state.values())


@pytest.mark.parametrize("reversible", [False, True])
def test_G20_masks_take_a_byte_an_entry(reversible: bool) -> None:
    def held() -> int:
        gc.collect()
        tensors = {t.untyped_storage().data_ptr(): t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter)}
        return sum(t.untyped_storage().nbytes() for t in tensors.values())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 700), nn.ReLU(), nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 9))
    pruner = Pruner(OneShot(0.6, 0), pattern=Channel(example_inputs=torch.zeros(1, 300)), reversible=reversible)
    before = held()
    pruner.attach(model)
    pruner.after_step(0)
    entries = sum(p.numel() for p in model.parameters())
    assert held() - before <= entries * (5 if reversible else 1) + 40 * 2 * 1400 + 4096
    pruner.strip()
    assert pruner.report().sparsity == pytest.approx(0.6, abs=0.01)


def test_G24_a_diverged_weight_is_named() -> None:
    model, callback = Units(), channels()

    def break_it(run: pl.Trainer) -> None:
        if run.global_step == 5:
            with torch.no_grad():
                model.net[6].weight[2, 3] = float("nan")

    model.in_step.append(break_it)
    with pytest.raises(ValueError, match=r"score of '[\w.]+\.weight' is not finite"):
        fit(model, callback, max_steps=20)
    assert_plain(model, callback=callback)


# G16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_G16_every_precision(precision: str) -> None:
    model, callback = Units(momentum), channels(regularizer=L1(1e-3))
    fit(model, callback, max_steps=20, **PRECISIONS[precision]())
    assert_pruned(model, callback)


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 4},
        {"gradient_clip_val": 0.05},
        {"accumulate_grad_batches": 3, "gradient_clip_val": 0.05, "precision": "bf16-mixed"},
        {"val": 2, "val_check_interval": 1},
        {"detect_anomaly": True},
    ],
    ids=str,
)
def test_G16_accumulation_and_clipping(options: dict[str, Any]) -> None:
    model, callback = Units(), channels()
    fit(model, callback, max_steps=20, **options)
    assert_pruned(model, callback)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_G16_model_and_pruner_are_copied_in_the_middle_of_a_fit(way: str) -> None:
    model, callback = Units(), channels()
    copies: list[Any] = []

    def copied(run: pl.Trainer) -> None:
        if run.global_step == 10:
            pair = model.net, callback.pruner
            copies.append(copy.deepcopy(pair) if way == "deepcopy" else pickle.loads(pickle.dumps(pair)))

    model.after_batch.append(copied)
    fit(model, callback, max_steps=20)
    net, pruner = copies[0]
    assert pruner.attached
    pruner.after_step(13)
    report = pruner.strip()
    assert report.sparsity == pytest.approx(0.8, abs=report.grain / report.size)
    assert_plain(net)
    assert_plain(model)


def test_G16_the_whole_module_is_copied_in_the_middle_and_fitted() -> None:
    copies: list[Units] = []
    model = Units()
    model.after_batch.append(lambda run: copies.append(copy.deepcopy(model)) if run.global_step == 10 else None)
    fit(model, channels(), max_steps=20)
    other, callback, kept = copies[0], channels(), bits(model)
    other.after_batch = []
    fit(other, callback, max_steps=20)
    assert_pruned(other, callback)
    assert differences(kept, bits(model)) == []


def test_G16_a_compiled_part_prunes_like_the_plain_one() -> None:
    plain, compiled = Units(), Units()
    compiled.net = torch.compile(compiled.net, backend="eager")
    first, second = channels(), channels()
    fit(plain, first, max_steps=20)
    fit(compiled, second, max_steps=20)
    assert first.report == second.report
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), compiled.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:.*fit.ckpt_path:UserWarning")
def test_the_same_callback_fits_twice_and_goes_on() -> None:
    callback, model, other = channels(), Units(), Units(seed=2)
    fit(model, callback, max_steps=20)
    fit(other, callback, max_steps=20)
    assert_pruned(other, callback)
    run = trainer(callbacks=[callback], max_steps=20, limit_val_batches=0)
    third = Units(seed=3)
    run.fit(third, Batches(6), Batches(1))
    before = dead(third)
    run.fit_loop.epoch_loop.max_steps = 26
    run.fit(third, Batches(6), Batches(1))
    assert dead(third) == before
    assert_pruned(third, callback)


# Regularizers


def test_a_regularizer_draws_weights_and_neither_biases_nor_norms() -> None:
    grads: list[dict[str, dict[str, Tensor]]] = []
    for strength in (0.0, 0.1):
        model, callback = Units(), channels(regularizer=L1(strength), schedule=OneShot(0.5, 15))
        found: dict[str, dict[str, Tensor]] = {}

        class Look(pl.Callback):
            def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
                if trainer.global_step == 1 and not found:  # noqa: B023
                    found["g"] = {n: p.grad.clone() for n, p in pl_module.named_parameters()}  # noqa: B023

        fit(model, callback, Look(), max_steps=20)
        grads.append(found)
    names = {w for w in grads[0]["g"] if not torch.equal(grads[0]["g"][w], grads[1]["g"][w])}
    assert names == set(_weights(Units()))
