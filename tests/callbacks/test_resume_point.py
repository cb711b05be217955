"""A run that goes on from a `ResumePoint` ends like one that was not cut: loaders, dropout, rates that follow."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_prune import PruningCallback
from lightning_prune.callbacks import ResumePoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Dropping(LightningModule):
    """Draws from torch's and numpy's generators; logs a mean over the epoch, and its learning rate follows it."""

    def __init__(self, stop_at: int = -1) -> None:
        super().__init__()
        self.stop_at = stop_at
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Dropout(0.3), nn.Linear(20, 4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.trainer.fit_loop.epoch_loop.total_batch_idx == self.stop_at:
            raise RuntimeError("stopped")
        noise = float(np.random.default_rng(np.random.randint(100)).random())
        loss = nn.functional.cross_entropy(self.net(batch[0]) * (1 + noise), batch[1])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "loss_epoch"}}


def rows() -> TensorDataset:
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x[:, :4].argmax(1))


LOADERS: dict[str, Callable[[], Any]] = {
    "plain": lambda: DataLoader(rows(), 8, shuffle=True),
    "stateful": lambda: StatefulDataLoader(rows(), 8, shuffle=True),
    "stateful workers": lambda: StatefulDataLoader(rows(), 8, shuffle=True, num_workers=2),
}


def fit(folder: Path, loader: str, stop_at: int = -1, resume: bool = False, **options: Any) -> Dropping:
    torch.manual_seed(99 if resume else 5)
    np.random.seed(99 if resume else 5)
    model = Dropping(stop_at)
    averages = [EMAWeightAveraging(decay=0.8)] if options.pop("ema", False) else []
    point = ResumePoint(folder / "points", share=1.0)
    quiet: dict[str, Any] = dict.fromkeys(
        ("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    quiet |= {"max_epochs": 6, "log_every_n_steps": 3, "logger": CSVLogger(folder, name="", version="")}
    trainer = Trainer(accelerator="cpu", callbacks=[PruningCallback(0.9), point, *averages], **(quiet | options))
    trainer.fit(model, LOADERS[loader](), DataLoader(rows(), 32), ckpt_path=point.path if resume else None)
    return model


@pytest.mark.parametrize(
    ("loader", "options"),
    [
        ("plain", {}),
        ("plain", {"max_steps": 44, "max_epochs": -1}),
        ("plain", {"max_steps": 17, "max_epochs": -1, "accumulate_grad_batches": 3}),
        ("plain", {"val_check_interval": 3}),
        ("plain", {"ema": True}),
        ("stateful", {}),
        ("stateful", {"max_steps": 44, "max_epochs": -1}),
        ("stateful workers", {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("at", [(13,), (20, 35)], ids=str)
def test_G2_a_run_that_goes_on_from_a_point_ends_with_the_same_bits(
    tmp_path: Path, loader: str, options: dict[str, Any], at: tuple[int, ...]
) -> None:
    if loader == "stateful workers" and len(at) == 1:
        pytest.skip("slow, and the other one is harder")
    whole = fit(tmp_path / "whole", loader, **options)
    for number, stop_at in enumerate(at):
        with pytest.raises(RuntimeError, match="stopped"):
            fit(tmp_path / "cut", loader, stop_at, resume=number > 0, **options)
    cut = fit(tmp_path / "cut", loader, resume=True, **options)
    for (name, one), other in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    one, other = ((tmp_path / folder / "metrics.csv").read_text(encoding="utf-8") for folder in ("whole", "cut"))
    assert one == other
    assert "loss_epoch" in one


def test_the_comparison_fails_where_random_states_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_prune.callbacks import random_states

    monkeypatch.setattr(random_states, "put_back", lambda *_: None)
    whole = fit(tmp_path / "whole", "plain")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path / "cut", "plain", 13)
    cut = fit(tmp_path / "cut", "plain", resume=True)
    assert not all(map(torch.equal, whole.parameters(), cut.parameters()))


def test_writing_takes_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [0.0], list[float]()

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    from lightning_prune.callbacks import resume_point

    monkeypatch.setattr(resume_point, "time", Clock)
    point = ResumePoint(tmp_path, share=0.25)

    class Model(Dropping):
        def on_train_epoch_end(self) -> None:
            now[0] += 1.0

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            written.append(now[0])
            now[0] += 1.0

    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(accelerator="cpu", max_epochs=13, callbacks=[PruningCallback(0.9), point], **quiet)
    trainer.fit(Model(), LOADERS["plain"](), DataLoader(rows(), 32))
    assert written == [1.0, 5.0, 9.0, 13.0]  # one second each, three of training between


def test_a_missing_copy_of_the_metrics_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path, "plain", 13)
    (tmp_path / "points" / "metrics.csv").unlink()
    with pytest.warns(UserWarning, match=r"holds 0 of the \d+ rows"):
        fit(tmp_path, "plain", resume=True)


@pytest.mark.parametrize("damage", [{"version": 7}, {"random": [1]}, {"metrics": [{"rows": -1}]}], ids=str)
def test_a_damaged_part_is_refused_by_its_name(tmp_path: Path, damage: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path, "plain", 13)
    file = tmp_path / "points" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    content["resume_point"] |= damage
    torch.save(content, file)
    (field,) = damage
    with pytest.raises(ValueError, match=field):
        fit(tmp_path, "plain", resume=True)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_out_of_range_is_an_error(tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match=f"share={share}"):
        ResumePoint(tmp_path, share)


def test_random_states_go_from_process_to_process() -> None:
    """torch sends them pickled, and cannot take every type of tensor back."""
    from lightning_prune.callbacks import random_states

    (state,) = random_states.checked([pickle.loads(pickle.dumps(random_states._own()))])
    drawn = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    random_states.put_back(Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"), [state])
    assert drawn == (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
