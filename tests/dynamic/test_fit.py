"""Gates in real fits: schedule, files, resuming, accumulation, evaluation, and what is left at the end."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging
from pytorch_lightning.strategies import ModelParallelStrategy

from lightning_prune import PruningCallback
from lightning_prune.callbacks.gated_files import check_apart
from lightning_prune.dynamic import DynamicGates, GateReport, put_gates
from lightning_prune.dynamic.links import links_on
from lightning_prune.schedule import OneShot, Polynomial
from tests.dynamic.helpers import same
from tests.guarantees.helpers import RAMP, UPDATES, Batches, Units, fit, half_on_cpu

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def gates(**ideas: Any) -> PruningCallback:
    return PruningCallback(DynamicGates(RAMP, **ideas))


def files(folder: Path, **given: Any) -> ModelCheckpoint:
    options: dict[str, Any] = {"every_n_train_steps": 5} | given
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **options)


def test_updates_come_when_the_schedule_says_and_the_model_keeps_its_gates() -> None:
    model, callback = Units(), gates()
    kept: dict[int, dict[str, int]] = {}

    def look(trainer: pl.Trainer) -> None:
        if callback.pruner.attached and callback.pruner.last_update == trainer.global_step:
            kept[trainer.global_step] = callback.pruner.kept  # pyright: ignore

    model.after_batch.append(look)
    fit(model, callback, max_epochs=4)
    assert tuple(kept) == UPDATES
    for step, found in kept.items():
        expected = {"net.1": 8, "net.4.inner.0": 6, "net.4.outer.0": 8}
        assert found == {name: n - round(RAMP.sparsity(step) * n) for name, n in expected.items()}
    report = callback.report
    assert isinstance(report, GateReport)
    assert report.sparsity == 1 - 5 / 22
    assert not callback.pruner.attached
    assert {name for name, _ in links_on(model)} == {"net.1", "net.4.inner.0", "net.4.outer.0"}
    assert "net.1.channel_gate.weight" in dict(model.named_parameters())
    copy.deepcopy(model).net(torch.zeros(2, 12))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [5, 10])
def test_G2_a_resumed_run_ends_like_an_uninterrupted_one(step: int, accumulate: int, tmp_path: Path) -> None:
    given: dict[str, Any] = {"max_epochs": 4 * accumulate, "accumulate_grad_batches": accumulate}
    whole, resumed = Units(), Units(seed=3)
    fit(whole, gates(), files(tmp_path), **given)
    fit(resumed, gates(), ckpt=tmp_path / f"step={step}.ckpt", **given)
    assert same(whole, resumed)


def test_a_file_holds_gates_and_loads_for_a_test_and_without_us(tmp_path: Path) -> None:
    model = Units()
    fit(model, gates(), files(tmp_path, save_weights_only=True), max_epochs=4)
    content = torch.load(tmp_path / "step=10.ckpt", weights_only=True)
    assert int(content["state_dict"]["net.1.channel_gate.kept"]) == 8 - round(8 * RAMP.sparsity(9))
    plain: Any = put_gates(Units(seed=4), content["state_dict"])
    plain.load_state_dict(content["state_dict"])
    tested = Units(seed=5)
    trainer = pl.Trainer(callbacks=[gates()], logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.test(tested, Batches(2), ckpt_path=tmp_path / "step=10.ckpt", verbose=False, weights_only=True)
    assert same(plain, tested)
    by_itself = plain.eval().loss(20_000).item()
    assert torch.tensor(by_itself).isfinite()
    assert tested.eval().loss(20_000).item() == by_itself
    assert not same(plain, model)


def test_accumulated_batches_have_the_penalty_once() -> None:
    """Two halves of a batch, accumulated, give the gates the gradient of the whole."""
    grads: list[torch.Tensor] = []
    for accumulate in (1, 2):
        model, callback = Units(seed=1), PruningCallback(DynamicGates(OneShot(0.5, 0), strength=0.5))
        model.loss = lambda seed, model=model: model.loss_of(torch.ones(8, 12), torch.zeros(8, dtype=torch.long))  # type: ignore[method-assign]
        seen = callback.pruner.before_step

        def look(optimizer: Any = None, grad_scale: float = 1.0, callback: Any = callback, seen: Any = seen) -> None:
            grads.append(callback.pruner._on_model.gates["net.1"].bias.grad.clone())
            seen(optimizer, grad_scale)

        callback.pruner.before_step = look  # type: ignore[method-assign]
        fit(model, callback, max_steps=1, max_epochs=1, accumulate_grad_batches=accumulate)
    torch.testing.assert_close(grads[0], grads[1])
    assert bool((grads[0] != 0).any())


def test_a_trainer_that_goes_on_keeps_the_gates_it_made(tmp_path: Path) -> None:
    model, callback = Units(), gates()
    trainer = fit(model, callback, max_epochs=4)
    before = copy.deepcopy(model.state_dict())
    trainer.fit_loop.max_epochs = 5
    trainer.fit(model, Batches(6))
    assert callback.report is not None
    assert callback.report.sparsity == 1 - 5 / 22
    assert list(model.state_dict()) == list(before)
    assert not torch.equal(model.state_dict()["net.1.channel_gate.bias"], before["net.1.channel_gate.bias"])


def test_G11_a_broken_run_leaves_a_model_that_works_and_goes_on(tmp_path: Path) -> None:
    whole = Units()
    fit(whole, gates(), max_epochs=4)
    model, callback = Units(), gates()

    def fail(trainer: pl.Trainer) -> None:
        if trainer.global_step == 8:
            raise RuntimeError("on purpose")

    model.in_step.append(fail)
    saved = files(tmp_path, every_n_train_steps=7)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, callback, saved, max_epochs=4)
    assert not callback.pruner.attached
    model.net(torch.zeros(2, 12))
    assert "gates" in callback.state_dict()
    model.in_step.clear()
    with pytest.raises(ValueError, match="averages weights"):
        fit(model, gates(), StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1), max_epochs=4)
    assert "net.1.channel_gate.weight" in dict(model.named_parameters())
    fit(model, gates(), max_epochs=4, ckpt=tmp_path / "step=7.ckpt")  # the same module, with its gates on
    assert same(whole, model)


def test_under_a_loss_scaler_gates_learn_and_what_overflows_is_left_out() -> None:
    model, callback = Units(), gates(strength=0.1)
    seen: list[torch.Tensor] = []

    def look(trainer: pl.Trainer) -> None:
        if callback.pruner.attached:
            seen.append(dict(links_on(model))["net.1"].gate.bias.detach().clone())

    model.after_batch.append(look)
    fit(model, callback, max_epochs=4, **half_on_cpu())
    assert all(bool(each.isfinite().all()) for each in seen)
    assert not torch.equal(seen[0], seen[-1])


class ByHand(Units):
    """Two optimizers, one for each half of the layers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        first = [p for name, p in self.named_parameters() if name.startswith(("net.1", "net.2"))]
        others = [p for name, p in self.named_parameters() if not name.startswith(("net.1", "net.2"))]
        return [torch.optim.SGD(first, lr=0.1), torch.optim.SGD(others, lr=0.1)]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.loss(batch_idx)
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()


def test_with_two_optimizers_by_hand_each_gate_learns_with_its_layer() -> None:
    model, callback = ByHand(), PruningCallback(DynamicGates(Polynomial(0.5, 3, 13, 3)))
    scales = [norm.weight.detach().clone() for norm in (model.net[2], model.net[4].outer[1])]
    fit(model, callback, max_epochs=4)
    for layer in (model.net[1], model.net[4].inner[0], model.net[4].outer[0]):
        assert not bool((layer.channel_gate.bias == 1).any())
        assert int(layer.channel_gate.kept) == len(layer.channel_gate.bias) // 2
    assert all(
        torch.equal(norm.weight, scale)
        for norm, scale in zip((model.net[2], model.net[4].outer[1]), scales, strict=True)
    )


def test_the_log_has_sparsity_penalty_and_multiply_adds(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    fit(Units(), gates(strength=0.1), max_epochs=4, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    text = next(tmp_path.rglob("metrics.csv")).read_text()
    for name in ("pruning/sparsity/net.1.weight", "pruning/macs/an example at most", "pruning/regularizer"):
        assert name in text


def test_averages_and_pieces_are_refused() -> None:
    model = Units()
    with pytest.raises(ValueError, match="StochasticWeightAveraging averages weights and not the gates"):
        fit(model, gates(), StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1), max_epochs=4)
    assert not list(links_on(model))
    trainer: Any = pl.Trainer(logger=False, accelerator="cpu", max_epochs=1)
    trainer.strategy.__class__ = ModelParallelStrategy
    with pytest.raises(ValueError, match=r"ModelParallelStrategy takes weights apart over ranks"):
        check_apart(trainer, gates().pruner)


@pytest.mark.slow
def test_digits_keep_their_accuracy_at_half_of_the_channels() -> None:
    from lightning_prune.tasks.classifier import Classifier
    from lightning_prune.tasks.data.digits import Digits
    from lightning_prune.tasks.nets import digits_cnn

    found: list[float] = []
    ways: list[list[Any]] = [[], [PruningCallback(DynamicGates(Polynomial(0.5, 0.05, 0.4, 0.004)))]]
    for callbacks in ways:
        pl.seed_everything(0, verbose=False)
        task = Classifier(digits_cnn(), lr=3e-3, weight_decay=0.01, warmup=0.0, hold=0.4)
        data = Digits(batch_size=32, validation=250, test=300, seed=0, split_seed=0)
        trainer = pl.Trainer(
            max_epochs=12, callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.fit(task, datamodule=data)
        found.append(trainer.test(task, datamodule=data, verbose=False)[0]["test/accuracy"])
        if callbacks:
            assert isinstance(callbacks[0].report, GateReport)
            assert callbacks[0].report.sparsity == 0.5
            counted = callbacks[0].report.counted
            assert counted is not None
            assert counted.dense / counted.total > 3.8
    dense, gated = found
    assert dense > 0.97
    assert gated > dense - 0.02
