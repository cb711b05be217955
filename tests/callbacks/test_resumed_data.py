"""Where the data of a resumed run go on, by loader and by when the checkpoint was written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_prune import Pruner, PruningCallback
from lightning_prune.targets import Targets
from tests.guarantees.helpers import RAMP, Net, draw, raise_at, ramp, trainer
from tests.guarantees.resume_worker import Save

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

BATCH, BATCHES, EPOCHS = 2, 5, 3  # the schedule of `ramp` ends in the last epoch


class Numbers(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> Tensor:
        if index >= len(self):
            raise IndexError
        return torch.tensor(index)


class Stream(IterableDataset[Tensor]):
    """The same without a length; it knows its place."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Any:
        while self.at < BATCH * BATCHES:
            self.at += 1
            yield torch.tensor(self.at - 1)
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class Seen(Net):
    """Writes down the samples of every batch. `early`: asks for the run's length where learning rates are set up."""

    def __init__(self, early: bool = False) -> None:
        super().__init__()
        self.early = early
        self.seen: list[list[int]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for act in self.in_step:
            act(self.trainer)
        self.seen.append(batch.tolist())
        return self.loss_of(*draw(int(batch.sum()), torch.zeros(0)))

    def configure_optimizers(self) -> Any:
        if self.early:
            assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


class TwoOptimizers(Seen):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net[i].parameters(), lr=0.1) for i in (0, 3)]


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": lambda: StatefulDataLoader(Numbers(), BATCH, shuffle=True),
    "workers": lambda: StatefulDataLoader(Numbers(), BATCH, shuffle=True, num_workers=2),
    "by epoch": lambda: StatefulDataLoader(Numbers(), BATCH, sampler=DistributedSampler(Numbers(), 1, 0)),
    "plain": lambda: DataLoader(Numbers(), BATCH),
    "plain by epoch": lambda: DataLoader(Numbers(), BATCH, sampler=DistributedSampler(Numbers(), 1, 0), num_workers=1),
    "stream": lambda: StatefulDataLoader(Stream(), BATCH),
    "plain stream": lambda: DataLoader(Stream(), BATCH),
}


def fit(
    loader: str, folder: Path, resume: Path | None = None, model: Seen | None = None, **options: Any
) -> list[list[int]]:
    torch.manual_seed(0 if resume is None else 1)
    model = Seen() if model is None else model
    keep = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"max_epochs": EPOCHS, "callbacks": [ramp(), keep]} | options
    trainer(**options).fit(model, LOADERS[loader](), ckpt_path=resume)
    return model.seen


def said(act: Callable[[], object]) -> list[str]:
    """What is said of data that begin again or are left out, by Lightning or by the callback."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [text for w in caught if (text := str(w.message)).startswith(("the resumed run", "You're resuming"))]


@pytest.mark.parametrize("early", [False, True], ids=["", "length_asked_first"])
@pytest.mark.parametrize(
    ("loader", "steps"),
    [
        ("shuffled", (4, 5, 7, 10)),
        ("by epoch", (5, 7)),
        ("workers", (5, 7)),
        ("plain by epoch", (5,)),
    ],
)
def test_a_resumed_run_sees_the_batches_to_come(
    loader: str, steps: tuple[int, ...], early: bool, tmp_path: Path
) -> None:
    whole = fit(loader, tmp_path)
    assert len(whole) == EPOCHS * BATCHES
    assert whole[:BATCHES] != whole[BATCHES : 2 * BATCHES]
    for step in steps:
        by_steps = {"max_epochs": 100, "max_steps": EPOCHS * BATCHES} if step == 5 else {}
        resumed = fit(loader, tmp_path / "resumed", tmp_path / f"step={step}.ckpt", Seen(early), **by_steps)
        assert resumed == whole[step:], step


@pytest.mark.parametrize(
    ("when", "by"),
    [
        ("on_train_epoch_end", "epochs"),
        ("on_train_epoch_end", "steps"),
        ("after fit", "epochs"),
        ("after fit", "steps"),
        ("after fit, inside an epoch", "steps"),  # by epochs Lightning takes the broken one for a whole one
        ("dense", "epochs"),
    ],
)
def test_a_resumed_run_sees_the_batches_to_come_after(when: str, by: str, tmp_path: Path) -> None:
    """Whatever wrote the checkpoint; `dense`: a run without the callback, which is resumed with it."""
    whole = fit("shuffled", tmp_path)
    first, file = Seen(), tmp_path / "first.ckpt"
    if when == "on_train_epoch_end":
        keep = ModelCheckpoint(tmp_path / "end", "first", save_on_train_epoch_end=True)
        fit("shuffled", tmp_path, None, first, max_epochs=1, callbacks=[ramp(), keep])
        file = tmp_path / "end" / "first.ckpt"
    else:
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        steps = BATCHES if when == "after fit" else 8
        run = trainer(max_steps=steps, callbacks=[keep] if when == "dense" else [ramp(), keep])
        torch.manual_seed(0)
        run.fit(first, LOADERS["shuffled"]())
        if when == "dense":
            file = tmp_path / "step=8.ckpt"
        else:
            run.save_checkpoint(file)
    assert first.seen == whole[: len(first.seen)]
    options: dict[str, Any] = {"max_epochs": 100, "max_steps": EPOCHS * BATCHES} if by == "steps" else {}
    assert fit("shuffled", tmp_path / "resumed", file, **options) == whole[len(first.seen) :]


BEGIN_AGAIN = (
    "the resumed run will not have the bits of one that was not cut: 2 batches of the epoch were done, and the "
)


@pytest.mark.parametrize(
    ("loader", "options", "model", "batch", "words"),
    [
        ("plain", {}, Seen, 7, "You're resuming from a checkpoint that ended before the epoch ended"),
        ("plain", {"accumulate_grad_batches": 3}, Seen, 7, BEGIN_AGAIN),
        ("plain", {"limit_train_batches": 4}, TwoOptimizers, 6, BEGIN_AGAIN),
        ("plain stream", {}, Seen, 7, BEGIN_AGAIN),
        ("plain", {"accumulate_grad_batches": 3}, Seen, 5, None),
        ("plain stream", {}, Seen, 5, None),
        ("shuffled", {}, Seen, 7, None),
    ],
    ids=["lightning", "accumulation", "two_optimizers", "no_length", "epoch_end", "no_length_end", "keeps_its_place"],
)
def test_data_that_begin_again_are_said_once(
    loader: str, options: dict[str, Any], model: type[Seen], batch: int, words: str | None, tmp_path: Path
) -> None:
    fit(loader, tmp_path, None, model(), callbacks=[ramp(), Save(f"{tmp_path}/{{}}.ckpt", [batch])], **options)
    found = said(
        lambda: fit(loader, tmp_path, tmp_path / f"{batch}.ckpt", model(), callbacks=[ramp()], **options),
    )
    assert [text[: len(words or "")] for text in found] == ([] if words is None else [words])


def test_a_checkpoint_without_the_loaders_place_is_said(tmp_path: Path) -> None:
    """Written with a plain loader, resumed with one that keeps its place: Lightning loads nothing and says nothing."""
    fit("plain", tmp_path)
    found = said(lambda: fit("shuffled", tmp_path / "resumed", tmp_path / "step=7.ckpt"))
    assert len(found) == 1
    assert "the checkpoint holds no place of the loader" in found[0]


def test_a_batch_that_is_left_out_is_said(tmp_path: Path) -> None:
    """Drawn but not done: in a step that raises, and where Lightning fetches one batch ahead."""
    broken = Seen()
    broken.in_step.append(raise_at(7))
    whole = fit("shuffled", tmp_path)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit("shuffled", tmp_path, None, broken, callbacks=[ramp(), OnExceptionCheckpoint(tmp_path, "broken")])
    resumed = Seen()
    found = said(lambda: fit("shuffled", tmp_path / "resumed", tmp_path / "broken.ckpt", resumed))
    assert [("written inside a step" in text, "batch 2, counted from 0, is left out" in text) for text in found] == [
        (True, True)
    ]
    assert resumed.seen == whole[8:]

    fit("stream", tmp_path / "stream")
    found = said(lambda: fit("stream", tmp_path / "resumed", tmp_path / "stream" / "step=7.ckpt"))
    assert ["fetches one batch ahead" in text for text in found] == [True]


def test_two_callbacks_say_it_once(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        parts = (("a", "net.0"), ("b", "net.3"))
        return [
            PruningCallback(Pruner(RAMP, targets=Targets(include=(name,), exclude=("bias",))), tag=tag)
            for tag, name in parts
        ]

    whole = Seen()
    fit("shuffled", tmp_path, None, whole, callbacks=[*callbacks(), Save(f"{tmp_path}/{{}}.ckpt", [5])])
    assert fit("shuffled", tmp_path, tmp_path / "5.ckpt", callbacks=callbacks()) == whole.seen[5:]
    fit("plain stream", tmp_path, None, callbacks=[*callbacks(), Save(f"{tmp_path}/{{}}.ckpt", [7])])
    assert len(said(lambda: fit("plain stream", tmp_path, tmp_path / "7.ckpt", callbacks=callbacks()))) == 1
