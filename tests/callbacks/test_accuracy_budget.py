"""A run that prunes as far as its validation metric allows: it ends with the weights that were good, to the bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import Taylor
from lightning_prune.pattern import Channel
from lightning_prune.schedule import AccuracyBudget, Polynomial
from lightning_prune.targets import Targets
from tests.helpers import same

SCHEDULE = AccuracyBudget("val/error", 0.05, mode="min", begin_step=24, end_step=120, share=0.5, finest=0.1, patience=0)


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
        self.example_input_array = torch.zeros(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val/error", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)


def data(seed: int, number: int) -> DataLoader[Any]:
    x = torch.randn(number, 12, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, x[:, :3].sin() + x[:, 3:6].abs()), 8)


class Validated(Callback):
    """Notes the weights that were validated, and the metric, by step."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.metric: dict[int, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.weights[trainer.global_step] = {k: v.clone() for k, v in pl_module.state_dict().items()}
            self.metric[trainer.global_step] = float(trainer.callback_metrics["val/error"])


def fit(callback: PruningCallback, *others: Callback, epochs: int = 20, **options: Any) -> tuple[Net, Validated]:
    model, seen = Net(), Validated()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[seen, callback, *others],
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in others),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=options.pop("sanity", 2),
    )
    trainer.fit(model, data(0, 64), options.pop("validation", data(1, 64)), **options)
    return model, seen


@pytest.mark.parametrize("pattern", ["element", "channel"])
def test_it_ends_with_the_sparsest_weights_within_the_budget(pattern: str) -> None:
    callback = PruningCallback(Pruner(SCHEDULE, pattern=Channel()) if pattern == "channel" else SCHEDULE)
    model, seen = fit(callback)
    told: Any = callback.pruner.resolved_schedule
    step, value = list(seen.metric.items())[told.good]
    assert same(dict(model.state_dict()), seen.weights[step]), "the weights of the last good validation, to the bit"
    dense = min(value for at, value in seen.metric.items() if at <= 24)
    assert told.reference == dense
    assert value <= dense + 0.05
    report = callback.report
    assert report is not None
    assert 0.0 < report.sparsity == pytest.approx(told.good_sparsity, abs=report.grain / report.size)
    assert report.final_sparsity == told.good_sparsity
    assert any(outside > dense + 0.05 for outside in seen.metric.values()), "it has tried more"
    assert "stripped" in callback.state_dict()


def test_what_goes_back_is_the_model_with_its_norms_and_fresh_moments() -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.at: dict[int, tuple[dict[str, Tensor], int]] = {}

        def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
            weights = {k: v.clone() for k, v in pl_module.state_dict().items()}
            self.at[trainer.global_step] = (weights, len(optimizer.state[pl_module.get_parameter("net.0.weight")]))

    callback, watch = PruningCallback(Pruner(SCHEDULE)), Watch()
    _, seen = fit(callback, watch)
    told: Any = None
    steps = list(seen.metric)
    schedule = SCHEDULE.resolve(160)
    went = 0
    for number in range(1, len(steps)):
        told = schedule.told([(s, seen.metric[s]) for s in steps[:number]])
        if told.back and steps[number - 1] < 160:
            weights, moments = watch.at[steps[number - 1]]
            good = seen.weights[steps[told.good]]
            pruned = {k for k in good if not torch.equal(good[k], weights[k])}
            assert pruned <= {
                "net.0.weight",
                "net.3.weight",
                "net.1.num_batches_tracked",
                "net.1.running_mean",
                "net.1.running_var",
            }
            for name in ("net.0.weight", "net.3.weight"):
                alive = weights[name] != 0
                assert torch.equal(weights[name][alive], good[name][alive])
            assert moments == 0
            went += 1
    assert went


@pytest.mark.parametrize("epoch", [2, 5, 8, 12])
def test_G2_resumed_anywhere_it_ends_in_the_same_bits(tmp_path: Path, epoch: int) -> None:
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1)
    whole, seen = fit(PruningCallback(SCHEDULE), saving)
    callback = PruningCallback(SCHEDULE)
    file = tmp_path / f"epoch={epoch}.ckpt"
    others = ModelCheckpoint(tmp_path / "again", "{epoch}", save_top_k=-1, every_n_epochs=1)
    resumed, again = fit(callback, others, ckpt_path=file, weights_only=True)
    assert same(dict(whole.state_dict()), dict(resumed.state_dict()))
    assert all(again.metric[step] == seen.metric[step] for step in again.metric)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_a_metric_that_is_not_there_is_named_before_training() -> None:
    near = AccuracyBudget("val/errors", 0.1)
    with pytest.raises(ValueError, match=r"follows 'val/errors', which is not logged: did you mean 'val/error'\?"):
        fit(PruningCallback(near))
    with pytest.raises(ValueError, match=r"Validation logs .*val/error"):
        fit(PruningCallback(AccuracyBudget("accuracy", 0.1)), sanity=0)
    with pytest.raises(ValueError, match="the run has no validation"):
        fit(PruningCallback(SCHEDULE), validation=None)
    with pytest.raises(ValueError, match="StochasticWeightAveraging validates others"):
        fit(PruningCallback(SCHEDULE), StochasticWeightAveraging(0.01))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="looks at the steps before an update"):
        Pruner(SCHEDULE, Taylor())
    with pytest.raises(ValueError, match="finds its own"):
        Pruner(SCHEDULE, targets=Targets(sparsity={"net": 0.5}))
    with pytest.raises(ValueError, match="reversible=True does not go"):
        Pruner(SCHEDULE, reversible=True)


def test_the_smaller_model_is_that_of_the_good_weights() -> None:
    callback = PruningCallback(Pruner(SCHEDULE, pattern=Channel()), shrink=True)
    model, seen = fit(callback)
    told: Any = callback.pruner.resolved_schedule
    step = list(seen.metric)[told.good]
    assert callback.report is not None
    assert callback.report.sparsity > 0.1
    assert model.get_parameter("net.0.weight").shape[0] < 16
    dense = Net()
    dense.load_state_dict(seen.weights[step])
    x = torch.randn(5, 12)
    torch.testing.assert_close(model.eval()(x), dense.eval()(x))


def test_another_callbacks_zeros_stay_when_weights_go_back() -> None:
    other = PruningCallback(Pruner(Polynomial(0.5, 4, 150, 4), targets=Targets(include=("net.3",))), tag="other")
    mine = PruningCallback(Pruner(SCHEDULE, targets=Targets(include=("net.0.weight",))), tag="mine")
    fit(mine, other)
    for callback, final in ((other, 0.5), (mine, None)):
        assert callback.report is not None
        asked = callback.report.final_sparsity if final is None else final
        assert callback.report.sparsity == pytest.approx(asked, abs=1 / callback.report.size)


def test_the_plan_says_that_the_metric_decides() -> None:
    pruner = Pruner(SCHEDULE)
    pruner.attach(Net(), 160)
    assert "by metric" in pruner.report().plan()
    assert "as sparse as val/error allows: decided at each validation" in pruner.report().plan()


def test_where_nothing_is_good_the_model_stays_dense_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    callback = PruningCallback(AccuracyBudget("val/error", 0.0, mode="min", reference=0.0, begin_step=8, end_step=20))
    fit(callback, epochs=4)
    assert callback.report is not None
    assert callback.report.sparsity == 0.0
    assert "no validation was within the budget, and nothing is pruned" in caplog.text
