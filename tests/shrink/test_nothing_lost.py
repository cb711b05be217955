"""A trained model outlives whatever goes wrong while it is made smaller."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_prune import LearnedMasks, Pruner, PruningCallback
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from lightning_prune.shrink import NotEqualError
from tests.guarantees.helpers import trainer
from tests.shrink.test_checkpoints import Conv, Heads, Task, data, shrinking


class StubbornError(Exception):
    """Says the same whatever it is told."""

    def __str__(self) -> str:
        return "as ever"


class Holding(Task):
    """Takes a lock while it trains, so that it cannot be copied after training."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if out.requires_grad and self.global_step >= 7:
            self.lock = threading.Lock()
        return out


def lost(tmp_path: Path, error: type[BaseException], model: Task, *, learned: bool = False) -> tuple[str, Task]:
    """Fit a model whose shrinking fails, and return what was said and the model that the file gives back."""
    pruner = LearnedMasks(Polynomial(0.5, 1, 6, 1)) if learned else Pruner(Polynomial(0.5, 1, 6, 1), pattern=Channel())
    files = ModelCheckpoint(tmp_path, save_last=True)
    run = trainer(
        callbacks=[files, PruningCallback(pruner, shrink=True)],
        max_epochs=2,
        enable_checkpointing=True,
        num_sanity_val_steps=0,
    )
    with pytest.raises(error) as caught:
        run.fit(model, data())
    again = Task(type(model.net))  # pyright: ignore
    again.load_state_dict(torch.load(tmp_path / "masked.pt", weights_only=True))
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in last(tmp_path).items())
    assert sum(int((p == 0).sum()) for p in again.parameters()) > 20
    return str(caught.value), again


def last(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("step", "net", "error", "raised"),
    [
        ("plain_copy", Conv, RuntimeError("CUDA out of memory"), RuntimeError),
        ("shrink_", Conv, NotEqualError("outputs differ"), NotEqualError),
        ("shrink_", Heads, OSError(28, "No space left on device"), RuntimeError),
        ("shrink_", Conv, StubbornError(), RuntimeError),
        ("shrink_averages", Conv, KeyError("outputs"), KeyError),
        ("compare", Heads, RuntimeError("CUDA out of memory"), RuntimeError),
    ],
)
def test_whatever_step_fails_in_whatever_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    net: type[nn.Module],
    error: Exception,
    raised: type[Exception],
) -> None:
    what = str(error)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(f"lightning_prune.callbacks.ending.{step}", fail)
    said, _ = lost(tmp_path, raised, Task(net))
    assert f"is saved in {tmp_path / 'masked.pt'}" in said
    assert what in said


@pytest.mark.parametrize("learned", [False, True])
def test_a_model_that_cannot_be_copied_any_more(tmp_path: Path, learned: bool) -> None:
    said, _ = lost(tmp_path, TypeError, Holding(), learned=learned)
    assert "masked.pt" in said
    assert "cannot pickle '_thread.lock' object" in said


def test_an_interrupt_while_it_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_prune.callbacks.ending.shrink_", stop)
    lost(tmp_path, (KeyboardInterrupt, SystemExit), Task())  # pyright: ignore


def test_where_the_file_cannot_be_written_the_first_error_is_still_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the first")

    monkeypatch.setattr("lightning_prune.callbacks.ending.shrink_", fail)
    (tmp_path / "file").touch()
    run = trainer(callbacks=[shrinking()], max_epochs=2, default_root_dir=tmp_path / "file")
    with pytest.raises(RuntimeError, match=r"could not be saved in .*masked.pt.*made smaller: the first"):
        run.fit(Task(), data())
