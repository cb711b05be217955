"""G16: copies, pickles, compiled models, every precision, accumulation, clipping and manual optimization."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune import PruningCallback
from lightning_prune.regularizer import NearThreshold
from tests.guarantees.helpers import (
    PRECISIONS,
    Net,
    adamw,
    assert_plain,
    bits,
    differences,
    fit,
    momentum,
    ramp,
    sparsity,
    zeros,
)

ASKED = 205 / 256
DTYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}


@pytest.mark.parametrize("reversible", [False, True], ids=["", "reversible"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_G16_every_precision_ends_at_the_exact_sparsity(precision: str, reversible: bool) -> None:
    callback = ramp(regularizer=NearThreshold(0.01), reversible=reversible)
    model = Net(momentum)
    back: list[bool] = []

    def look(_: pl.Trainer) -> None:
        back.extend(bool((w.parameter.detach()[~w.mask] != 0).any()) for w in callback.pruner.masks.values())

    model.after_batch.append(look)
    fit(model, callback, max_steps=20, **PRECISIONS[precision]())
    assert sum(zeros(model).values()) == 205
    assert not any(back)
    assert {p.dtype for p in model.parameters()} == {DTYPES.get(precision, torch.float32)}
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 4},
        {"gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"accumulate_grad_batches": 3, "gradient_clip_val": 0.05, "precision": "bf16-mixed"},
        {"detect_anomaly": True},
        {"inference_mode": False, "val": 1},
        {"val": 2, "val_check_interval": 1},
    ],
    ids=str,
)
def test_G16_accumulation_and_clipping_end_at_the_exact_sparsity(options: dict[str, Any]) -> None:
    model = Net()
    fit(model, ramp(), max_steps=20, **options)
    assert sum(zeros(model).values()) == 205


def test_G16_the_norm_that_is_clipped_is_that_of_living_weights_gradients() -> None:
    norms: list[tuple[float, float]] = []

    def grad_of(parameter: Tensor) -> Tensor:
        assert parameter.grad is not None
        return parameter.grad

    class Clipped(Net):
        def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
            masks = callback.pruner.masks
            living = [grad_of(w.parameter)[w.mask] for w in masks.values()]
            rest = [grad_of(p) for p in self.parameters() if p.dim() < 2]
            expected = torch.cat([g.flatten() for g in [*living, *rest]]).norm()
            norms.append((float(nn.utils.clip_grad_norm_(self.parameters(), 0.05)), float(expected)))

    callback = ramp()
    fit(Clipped(), callback, max_steps=20)
    assert norms == [(pytest.approx(expected), expected) for _, expected in norms]
    assert len(norms) == 20


class Manual(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(self.global_step))
        optimizer.step()


def test_G16_manual_optimization_is_bitwise_the_automatic_one() -> None:
    automatic, manual = Net(), Manual()
    fit(automatic, ramp(regularizer=NearThreshold(0.01)), max_steps=20)
    fit(manual, ramp(regularizer=NearThreshold(0.01)), max_steps=20)
    assert differences(bits(automatic), bits(manual)) == []
    assert sparsity(manual) == ASKED


class Closure(Net):
    """Manual optimization through a closure, as LBFGS wants it."""

    def __init__(self) -> None:
        super().__init__(lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3), norm=False)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()

        def closure() -> Any:
            optimizer.zero_grad()
            loss = self.loss(self.global_step)
            self.manual_backward(loss)
            return loss

        optimizer.step(closure)


def test_G16_manual_optimization_with_a_closure() -> None:
    model = Closure()
    fit(model, ramp(), max_steps=20)
    assert sparsity(model) == ASKED


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_G16_a_compiled_model_prunes_like_the_plain_one() -> None:
    class Silent(Net):  # torch.compile cannot trace Lightning's `self.log` in every version
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return nn.functional.mse_loss(self.net(self.data[batch_idx]), torch.ones(8, 4))

        data = torch.randn(6, 8, 12, generator=torch.Generator().manual_seed(0))

    plain, compiled = Silent(), Silent()
    fit(plain, ramp(), max_steps=20)
    wrapped: Any = torch.compile(compiled, backend="eager")
    fit(wrapped, ramp(), max_steps=20)
    assert differences(bits(plain), bits(compiled)) == []
    assert sparsity(compiled) == ASKED


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_G16_a_compiled_part_prunes_like_the_plain_one(backend: str) -> None:
    plain, compiled = Net(), Net()
    compiled.net = torch.compile(compiled.net, backend=backend)
    first, second = ramp(), ramp()
    fit(plain, first, max_steps=20)
    fit(compiled, second, max_steps=20)
    assert first.report is not None
    assert second.report is not None
    assert [w.name for w in second.report.weights] == [w.name for w in first.report.weights]
    assert second.report.zeros == 205
    if backend == "eager":
        assert first.report == second.report
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), compiled.parameters(), strict=True))


def test_G16_a_copy_made_in_the_middle_is_a_model_of_its_own() -> None:
    copies: list[Net] = []
    model = Net()
    model.after_batch.append(lambda run: copies.append(copy.deepcopy(model)) if run.global_step == 10 else None)
    fit(model, ramp(), max_steps=20)
    other = copies[0]
    other.after_batch, other.in_step = [], []
    before = bits(other)
    kept = bits(model)
    fit(other, ramp(), max_steps=20)
    assert differences(before, bits(other)) != []
    assert differences(kept, bits(model)) == []
    assert sparsity(other) == ASKED


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_G16_a_callback_is_copied_before_and_after_a_fit(way: str) -> None:
    def again(value: Any) -> Any:
        return copy.deepcopy(value) if way == "deepcopy" else pickle.loads(pickle.dumps(value))

    callback = PruningCallback(ramp().pruner, rewind=0)
    first, second, third = Net(), Net(), Net()
    early = again(callback)
    fit(first, callback, max_steps=20)
    late = again(callback)
    assert late.report == callback.report
    fit(second, early, max_steps=20)
    fit(third, late, max_steps=20)
    assert differences(bits(first), bits(second)) == []
    assert differences(bits(first), bits(third)) == []


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_G16_model_and_callback_are_copied_in_the_middle_of_a_fit(way: str) -> None:
    callback = ramp()
    model = Module()
    copies: list[Any] = []

    def copied(run: pl.Trainer) -> None:
        if run.global_step == 10:
            pair = model.net, callback.pruner
            copies.append(copy.deepcopy(pair) if way == "deepcopy" else pickle.loads(pickle.dumps(pair)))

    model.after_batch.append(copied)
    fit(model, callback, max_steps=20)
    net, pruner = copies[0]
    assert pruner.attached
    report = pruner.strip()
    assert 0 < report.sparsity < ASKED
    assert sum(int((p == 0).sum()) for p in net.parameters() if p.dim() > 1) == report.zeros
    assert_plain(net)
    assert_plain(model)


class Module(Net):
    """A model whose hooks cannot be pickled, so only its `net` is."""

    def __init__(self) -> None:
        super().__init__(adamw)
