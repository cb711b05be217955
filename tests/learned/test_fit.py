"""Learned masks in real fits: the guarantees that concern them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.callbacks.weight_averaging import EMAWeightAveraging
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.gate import HardConcrete, Sigmoid
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer, ExpectedSparsity, MeanProbability
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.shrink import load_shrunk
from tests.guarantees.helpers import RAMP, Units, assert_plain, bits, differences, draw, fit, momentum

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def learned(**ideas: Any) -> PruningCallback:
    given: dict[str, Any] = {"lr": 0.1, "mask_regularizer": Binarizer(0.5)} | ideas
    return PruningCallback(LearnedMasks(**given))


def engine(callback: PruningCallback) -> LearnedMasks:
    return cast(Any, callback.pruner)


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return cast(Any, model).net(draw(99, torch.zeros(1), size=16)[0])


STEERED: dict[str, Any] = {"schedule": RAMP, "mask_regularizer": Binarizer(None)}
WAYS: dict[str, dict[str, Any]] = {
    "free": {},
    "steered": STEERED,
    "hard concrete": {"gate": HardConcrete(), "mask_regularizer": MeanProbability(1.0)},
    "loss alone": {"mask_regularizer": None},
    "annealed": {"gate": Sigmoid(b_at_start=5.0, start="normal")},
    "expected": {"schedule": RAMP, "gate": HardConcrete(), "mask_regularizer": ExpectedSparsity(5.0)},
}


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


@pytest.mark.parametrize("way", WAYS)
def test_G9_G23_every_file_holds_the_model_that_was_validated(way: str, tmp_path: Path) -> None:
    model, callback = Units(), learned(**WAYS[way])
    found: dict[int, Tensor] = {}

    class Look(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert not pl_module.training
            found[trainer.global_step] = outputs(pl_module)

        def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.on_validation_end(trainer, pl_module)

    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, monitor="val_loss", save_last=True)
    fit(model, callback, Look(), saving, max_epochs=4, val=1)
    files = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(files) == 4
    for file in files:
        step = int(file.stem.split("=")[1])
        plain = Units().eval()
        plain.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
        assert torch.allclose(outputs(plain), found[step], atol=1e-6)
    assert torch.allclose(outputs(model.eval()), found[24], atol=1e-6)


def test_G9_shrunk_at_the_end_and_loaded_from_a_checkpoint(tmp_path: Path) -> None:
    model, callback = Units(), PruningCallback(LearnedMasks(lr=0.2), shrink=True)
    trainer = fit(model, callback, max_epochs=4, default_root_dir=tmp_path)
    assert callback.shrink_report is not None
    before, after = callback.shrink_report.parameters
    assert after < before
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = load_shrunk(Units(), tmp_path / "end.ckpt")
    assert torch.equal(outputs(again.eval()), outputs(model.eval()))


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
        here = engine(callback)._model  # pyright: ignore[reportPrivateUsage]
        assert here is not None
        firsts.append([v.detach().clone() for v in here.logits.values])
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


def test_G16_accumulated_gradients_of_logits_are_those_of_the_mean_loss() -> None:
    """The logits take one step an optimizer step, along the sum of what each backward left."""
    model, callback = Units(), learned()
    steps: list[int] = []
    grads: list[Tensor] = []

    class Look(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            here = engine(callback)._model  # pyright: ignore[reportPrivateUsage]
            assert here is not None
            assert here.logits.values[0].grad is not None
            grads.append(here.logits.values[0].grad.clone())

        def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
            steps.append(trainer.global_step)

    fit(model, callback, Look(), max_epochs=1, accumulate_grad_batches=3)
    assert len(grads) == 6
    for first, last in ((grads[0], grads[2]), (grads[3], grads[5])):
        assert not torch.equal(first, last)
    assert callback.report is not None


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_G16_every_precision(precision: str) -> None:
    model, callback = Units(), learned(**STEERED)
    fit(model, callback, max_epochs=4, precision=precision, gradient_clip_val=0.5)
    assert callback.report is not None
    assert abs(callback.report.sparsity - 0.8) <= callback.report.grain / callback.report.size


def test_G16_a_loss_scale_is_taken_out_and_an_overflow_moves_no_logit() -> None:
    def moved(scale: float, poison: bool = False) -> list[Tensor]:
        model = Units()
        masks = LearnedMasks(lr=0.1)
        masks.attach(model, 10)
        x, y = draw(3, torch.zeros(1))
        model.train()
        (nn.functional.cross_entropy(model(x), y) * scale).backward()
        here = masks._model  # pyright: ignore[reportPrivateUsage]
        assert here is not None
        before = [v.detach().clone() for v in here.logits.values]
        if poison:
            cast(Tensor, here.logits.values[1].grad)[0] = float("inf")
        masks.before_step(grad_scale=scale)
        after = [v.detach() for v in here.logits.values]
        return [a - b for a, b in zip(after, before, strict=True)]

    for one, other in zip(moved(1.0), moved(1024.0), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
        assert one.abs().max() > 0
    assert not any(step.any() for step in moved(1.0, poison=True))


def test_G16_averages_of_weights_are_masked_in_files_and_at_the_end(tmp_path: Path) -> None:
    model, callback = Units(), learned(**STEERED)
    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=5)
    fit(model, callback, EMAWeightAveraging(decay=0.5), saving, max_epochs=4)
    assert callback.report is not None
    assert abs(callback.report.sparsity - 0.8) <= callback.report.grain / callback.report.size
    for file in tmp_path.glob("*.ckpt"):
        saved = torch.load(file, weights_only=True)
        masks = next(s["masks"] for s in saved["callbacks"].values() if "masks" in s)
        for name, mask in masks.items():
            assert not saved["state_dict"][name][~mask].any()


def test_G16_two_optimizers_step_the_logits_of_their_own_weights() -> None:
    class Two(Units):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            first = [p for n, p in self.net.named_parameters() if n.startswith(("1.", "2.", "4."))]
            rest = [p for n, p in self.net.named_parameters() if not n.startswith(("1.", "2.", "4."))]
            return torch.optim.SGD(first, lr=0.05), torch.optim.SGD(rest, lr=0.05)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            one, other = cast(Any, self.optimizers())
            stepping = one if batch_idx % 2 == 0 else other
            for optimizer in (one, other):
                optimizer.zero_grad()
            self.manual_backward(self.loss(batch_idx))
            stepping.step()

    model, callback = Two(), learned()
    found: list[list[Tensor]] = []

    def look(trainer: pl.Trainer) -> None:
        here = engine(callback)._model  # pyright: ignore[reportPrivateUsage]
        assert here is not None
        found.append([v.detach().clone() for v in here.logits.values])

    model.after_batch.append(look)
    fit(model, callback, max_epochs=1)
    names = list(engine(callback).probabilities())
    own = [name.startswith(("net.1", "net.4")) for name in names]
    for before, after, even in zip(found, found[1:-1], [False, True] * 3, strict=False):
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert moved == [mine == even for mine in own]


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


def test_G28_a_newer_state_and_one_of_other_units_are_refused() -> None:
    masks = LearnedMasks()
    masks.attach(Units(), 10)
    state = masks.state_dict()
    masks.strip()
    with pytest.raises(ValueError, match="version"):
        LearnedMasks().load_state_dict(state | {"version": 99})
    other = copy.deepcopy(state)
    other["logits"] = {name: value[:-1] for name, value in state["logits"].items()}
    again = LearnedMasks()
    again.load_state_dict(other)
    model = Units()
    with pytest.raises(ValueError, match="of other units"):
        again.attach(model, 10)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_G13_a_window_past_the_end_and_a_rewind_are_refused() -> None:
    with pytest.raises(ValueError, match="begin_step=90"):
        fit(Units(), learned(schedule=OneShot(0.5, 90), mask_regularizer=None), max_epochs=1)
    with pytest.raises(ValueError, match="rewind"):
        PruningCallback(LearnedMasks(), rewind=3)


def test_G19_logged_numbers_are_those_of_the_report(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    model, callback = Units(), learned(schedule=Polynomial(0.5, 0.0, 1.0, 0.2))
    logger = CSVLogger(tmp_path)
    fit(model, callback, max_epochs=4, logger=logger, log_every_n_steps=1)
    rows = [m for m in (Path(logger.log_dir) / "metrics.csv").read_text().splitlines() if m]
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert callback.report is not None
    names = ["pruning/sparsity", "pruning/undecided", "pruning/regularizer", "pruning/changed"]
    assert set(names) <= set(rows[0].split(","))
    logged = [
        float(v) for row in rows[1:] if (v := dict(zip(rows[0].split(","), row.split(","), strict=True))[names[0]])
    ]
    assert logged[-1] == pytest.approx(callback.report.sparsity)
    assert last
