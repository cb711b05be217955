"""Learned masks in real fits: layout, schedule, zeros, what trains, and what is left and said at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_prune.mask_regularizer import Binarizer
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import RAMP, Units, assert_plain, bits, differences, fit, momentum
from tests.learned.helpers import STEERED, WAYS, engine, learned, logits_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("way", WAYS)
def test_G10_G11_keys_and_order_stay_and_the_end_is_a_plain_sparse_model(way: str) -> None:
    model, twin, callback = Units(), Units(), learned(**WAYS[way])
    layout = [(name, p.shape, p.dtype) for name, p in twin.named_parameters()]
    seen: list[bool] = []
    model.after_batch.append(
        lambda trainer: seen.append(
            [(n, p.shape, p.dtype) for n, p in model.named_parameters()] == layout
            and list(model.state_dict()) == list(twin.state_dict())
        )
    )
    fit(model, callback, max_epochs=4)
    assert seen == [True] * 24
    assert callback.report is not None
    assert 0.0 < callback.report.sparsity < 1.0
    assert_plain(model, callback=callback)
    twin.load_state_dict(model.state_dict())


def test_G3_G4_a_schedule_is_met_as_nearly_as_whole_units_allow_at_every_update() -> None:
    model, callback = Units(), learned(**STEERED)
    seen: dict[int, float] = {}

    def look(trainer: pl.Trainer) -> None:
        if callback.pruner.attached and callback.pruner.last_update == trainer.global_step:
            seen[trainer.global_step] = callback.pruner.report().sparsity

    model.after_batch.append(look)
    fit(model, callback, max_epochs=4)
    assert list(seen) == [3, 6, 9, 12, 13]
    assert callback.report is not None
    for step, sparsity in seen.items():
        assert abs(sparsity - RAMP.sparsity(step)) <= callback.report.grain / callback.report.size
    assert callback.report.sparsity == seen[13]


def test_G6_after_the_last_update_pruned_weights_stay_zero_and_the_others_train() -> None:
    model, callback = Units(momentum), learned(**STEERED)
    zeros: list[int] = []
    weights: list[Tensor] = []

    def look(trainer: pl.Trainer) -> None:
        zeros.append(sum(int((p == 0).sum()) for p in model.parameters()))
        weights.append(model.net[6].weight.detach().clone())

    model.after_batch.append(look)
    fit(model, callback, max_epochs=4)
    assert zeros[11] < zeros[12]  # biases start at 0 in part: the masks come on at step 13
    assert len(set(zeros[12:])) == 1
    assert not torch.equal(weights[13], weights[20])


def test_history_and_picture_tell_what_was_learned() -> None:
    callback = learned(schedule=Polynomial(0.5, 0, 24, 6), mask_regularizer=Binarizer(None))
    fit(Units(), callback, max_epochs=4)
    history = engine(callback).history
    assert [each["step"] for each in history] == [0, 6, 12, 18, 24]
    assert history[-1]["undecided"] < history[0]["undecided"]
    for each in history:
        assert {name: sum(counts) for name, counts in each["counts"].items()} == {
            "net.1.weight": 8,
            "net.4.inner.0.weight": 6,
            "net.6.weight": 10,
        }
    figure = engine(callback).picture("mine")
    assert len(figure.axes) == 2 * 3 + 1
    assert np.asarray(figure.axes[1].images[0].get_array()).size >= 6


def test_probabilities_are_there_after_the_fit() -> None:
    model, callback = Units(), learned()
    fit(model, callback, max_epochs=4)
    p = engine(callback).probabilities()
    assert {name: len(q) for name, q in p.items()} == {
        "net.1.weight": 8,
        "net.4.inner.0.weight": 6,
        "net.6.weight": 10,
    }
    for i in (1, 6):
        alive = (model.net[i].weight.flatten(1) != 0).any(1)
        assert torch.equal(alive, p[f"net.{i}.weight"] > 0.5)


@pytest.mark.parametrize("train", ["masks", "weights"])
def test_a_switch_freezes_weights_or_masks(train: str) -> None:
    model, callback = Units(), learned(train=train)
    start = bits(model)
    firsts: list[list[Tensor]] = []
    states: list[dict[str, Tensor]] = []

    def look(trainer: pl.Trainer) -> None:
        firsts.append(logits_of(engine(callback)))
        states.append({n: p.detach().clone() for n, p in model.named_parameters()})

    model.after_batch.append(look)
    fit(model, callback, max_epochs=2)
    masks_moved = any(not torch.equal(a, b) for a, b in zip(firsts[0], firsts[-2], strict=True))
    weights_moved = any(not torch.equal(start[n], p) for n, p in states[-2].items())
    assert (masks_moved, weights_moved) == (train == "masks", train == "weights")


def test_weights_that_are_not_to_train_do_not_after_the_last_update_either() -> None:
    model, start = Units(), bits(Units())
    fit(model, learned(train="masks", **STEERED), max_epochs=4)
    for name, p in model.named_parameters():
        assert torch.equal(p.detach(), torch.where(p == 0, p, start[name]))


@pytest.mark.parametrize("how", ["error", "interrupt"])
def test_G11_a_broken_run_leaves_plain_parameters_and_can_be_resumed(how: str, tmp_path: Path) -> None:
    model, callback = Units(), learned(**STEERED)

    def fail(trainer: pl.Trainer) -> None:
        if trainer.global_step == 8:
            raise RuntimeError("on purpose") if how == "error" else KeyboardInterrupt

    model.in_step.append(fail)
    with pytest.raises((RuntimeError, SystemExit)):
        fit(model, callback, max_epochs=4)
    assert_plain(model, callback=callback)
    assert callback.report is not None
    assert callback.report.step == 6
    assert "logits" in callback.state_dict()


def test_the_random_state_of_the_user_is_not_touched() -> None:
    def states(*callbacks: pl.Callback) -> Tensor:
        torch.manual_seed(5)
        fit(Units(), *callbacks, max_epochs=1)
        return torch.get_rng_state()

    assert torch.equal(states(), states(learned()))


def test_the_same_callback_fits_twice() -> None:
    callback = learned(**STEERED)
    found: list[dict[str, Tensor]] = []
    for _ in range(2):
        model = Units()
        fit(model, callback, max_epochs=4)
        found.append(bits(model))
    assert differences(found[0], found[1]) == []


def test_G19_logged_numbers_are_those_of_the_report(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    model, callback = Units(), learned(schedule=Polynomial(0.5, 0.0, 1.0, 0.2))
    logger = CSVLogger(tmp_path)
    fit(model, callback, max_epochs=4, logger=logger, log_every_n_steps=1)
    rows = [m for m in (Path(logger.log_dir) / "metrics.csv").read_text(encoding="utf-8").splitlines() if m]
    assert callback.report is not None
    names = ["pruning/sparsity", "pruning/undecided", "pruning/regularizer", "pruning/changed"]
    assert set(names) <= set(rows[0].split(","))
    logged = [
        float(v) for row in rows[1:] if (v := dict(zip(rows[0].split(","), row.split(","), strict=True))[names[0]])
    ]
    assert logged[-1] == pytest.approx(callback.report.sparsity)
