"""How logits are stepped: accumulation, precisions, loss scales, several optimizers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune.learned import LearnedMasks
from tests.guarantees.helpers import Units, draw, fit
from tests.learned.helpers import STEERED, engine, learned, logits_of, on

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_G16_accumulated_gradients_of_logits_are_those_of_the_mean_loss() -> None:
    """The logits take one step an optimizer step, along the sum of what each backward left."""
    model, callback = Units(), learned()
    grads: list[Tensor] = []
    logits: list[list[Tensor]] = []

    class Look(pl.Callback):
        def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
            values = on(engine(callback)).logits.values
            alone = torch.autograd.grad(loss, values, retain_graph=True)
            so_far = [torch.zeros_like(v) if v.grad is None or trainer_starts(trainer) else v.grad for v in values]
            grads.append(torch.cat([a + b for a, b in zip(alone, so_far, strict=True)]))
            logits.append(logits_of(engine(callback)))

        def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            found = torch.cat([v.grad for v in on(engine(callback)).logits.values if v.grad is not None])
            assert torch.allclose(found, grads[-1], atol=1e-7)

    def trainer_starts(trainer: pl.Trainer) -> bool:
        return trainer.fit_loop.epoch_loop.batch_progress.current.ready % 3 == 1

    fit(model, callback, Look(), max_epochs=1, accumulate_grad_batches=3)
    moved = [not all(map(torch.equal, one, other)) for one, other in pairwise(logits)]
    assert moved == [False, False, True, False, False]
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
        before = logits_of(masks)
        if poison:
            cast(Tensor, on(masks).logits.values[1].grad)[0] = float("inf")
        masks.before_step(grad_scale=scale)
        return [a - b for a, b in zip(logits_of(masks), before, strict=True)]

    for one, other in zip(moved(1.0), moved(1024.0), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
        assert one.abs().max() > 0
    assert not any(step.any() for step in moved(1024.0, poison=True))
    with pytest.raises(ValueError, match="not finite"):  # no scale is to blame
        moved(1.0, poison=True)


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
        found.append(logits_of(engine(callback)))

    model.after_batch.append(look)
    fit(model, callback, max_epochs=1)
    names = list(engine(callback).probabilities())
    own = [name.startswith(("net.1", "net.4")) for name in names]
    assert len(found) == 6
    for before, after, even in zip(found, found[1:-1], [False, True] * 3, strict=False):
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert moved == [mine == even for mine in own]
