"""A module without an example_input_array is traced with examples of the training data, and nothing else is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import assert_plain, bits, differences

EXAMPLES, WIDTH = 60, 8
X = torch.randn(EXAMPLES, WIDTH, generator=torch.Generator().manual_seed(1))
Y = X[:, :4].argmax(1)


class Net(pl.LightningModule):
    """Its dropout and its shuffled data show whether a random generator was moved."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = (
                nn.Linear(width, 24),
                nn.BatchNorm1d(24),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Linear(24, 12),
                nn.ReLU(),
            )
            self.net = nn.Sequential(*layers, nn.Linear(12, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        return (batch[0],)

    def labels(self, batch: Any) -> Tensor:
        return batch[-1]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        y = (
            batch["y"]
            if isinstance(batch, dict)
            else batch[-1]
            if isinstance(batch, (list, tuple))
            else Y[: len(batch)]
        )
        return nn.functional.cross_entropy(self(*self.inputs(batch)), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class OfTensors(Net):
    def inputs(self, batch: Any) -> tuple[Any, ...]:
        return (batch,)

    def labels(self, batch: Any) -> Tensor:
        return batch[:, :4].argmax(1)


class OfNames(Net):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.net(x * scale)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        return (batch["x"],)

    def labels(self, batch: Any) -> Tensor:
        return batch["y"]


class OfTwo(Net):
    def forward(self, x: Tensor, other: Tensor, scale: float = 1.0) -> Tensor:  # pyright: ignore
        return self.net(x + scale * other)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        return tuple(batch[:2])


class Items(Dataset[Any]):
    """What a function makes of an index; it counts how often it is asked."""

    def __init__(self, item: Callable[[int], Any], size: int = EXAMPLES) -> None:
        self.item, self.size, self.asked = item, size, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return self.item(index)


class InOrder(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return zip(X, Y, strict=True)


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return pairs()


def loader(data: Any, **options: Any) -> DataLoader[Any]:
    given: dict[str, Any] = {"batch_size": 10, "shuffle": True, "generator": torch.Generator().manual_seed(5)}
    given.update(options)
    return DataLoader(data, **given)


def pairs() -> DataLoader[Any]:
    return loader(TensorDataset(X, Y))


def whole_batches() -> DataLoader[Any]:
    return loader(Items(lambda i: (X[10 * i :][:10], Y[10 * i :][:10]), 6), batch_size=None)


KINDS: dict[str, tuple[type[Net], Callable[[], Any], Any]] = {
    "pairs": (Net, pairs, (X[:2],)),
    "a data module": (Net, Data, (X[:2],)),
    "tensors": (OfTensors, lambda: loader(Items(lambda i: X[i])), X[:2]),
    "names": (OfNames, lambda: loader(Items(lambda i: {"x": X[i], "y": Y[i], "id": i})), {"x": X[:2]}),
    "two inputs": (OfTwo, lambda: loader(TensorDataset(X, X.flip(0), Y)), (X[:2], X.flip(0)[:2])),
    "whole batches": (Net, whole_batches, (X[:10],)),
}


def callback(inputs: Any = None) -> PruningCallback:
    return PruningCallback(Pruner(Polynomial(0.5, 1, 8, 2), pattern=Channel(example_inputs=inputs)), shrink=True)


def run(model: Any, data: Any, *callbacks: Any, pl: Any = pl, ckpt: Path | None = None, **options: Any) -> None:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings = {"max_steps": 12, "accelerator": "cpu", "logger": False, "callbacks": list(callbacks)} | quiet | options
    torch.manual_seed(3)
    pl.Trainer(**settings).fit(model, data, ckpt_path=ckpt)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_pruned_as_with_example_inputs_that_are_given(kind: str) -> None:
    make, data, inputs = KINDS[kind]
    model, given = make(), make()
    run(model, data(), callback())
    run(given, data(), callback(inputs))
    assert differences(bits(given), bits(model)) == []
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in make().parameters())
    assert model.example_input_array is None


def test_the_plan_says_where_they_are_from(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run(OfTwo(), KINDS["two inputs"][1](), callback())
    words = "OfTwo has no example_input_array, so its graph is traced with the first examples of the training data, "
    assert words + "(2, 8) of float32, (2, 8) of float32" in caplog.text


def test_data_are_not_looked_at_where_nothing_is_traced() -> None:
    data = Items(lambda i: (X[i], Y[i]))
    run(Net(), loader(data, batch_size=EXAMPLES), PruningCallback(Pruner(Polynomial(0.5, 0, 1, 1))), max_steps=1)
    assert data.asked == EXAMPLES


def test_a_module_that_has_example_inputs_is_traced_with_those() -> None:
    model, data = Net(), Items(lambda i: (X[i], Y[i]))
    model.example_input_array = X[:3]
    run(model, loader(data, batch_size=EXAMPLES), callback())
    assert data.asked == 12 * EXAMPLES


def test_another_fit_takes_examples_of_its_own_data() -> None:
    prune = callback()
    run(Net(), pairs(), prune)
    wide = torch.randn(EXAMPLES, 20, generator=torch.Generator().manual_seed(2))
    model = Net(20)
    run(model, loader(TensorDataset(wide, wide[:, :4].argmax(1))), prune)
    first: Any = model.net[0]
    assert first.weight.shape[0] < 24
    assert first.weight.shape[1] == 20


@pytest.mark.filterwarnings("ignore:.*(your dataloader is not resumable|when using `ckpt_path`)")
def test_a_resumed_run_ends_in_the_bits_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    def model() -> Net:
        made = Net()
        made.net[3] = nn.Identity()  # a resumed run draws dropout of its own
        return made

    def data() -> Any:
        return loader(TensorDataset(X, Y), batch_size=EXAMPLES, shuffle=False)  # each step has the same

    whole, resumed = model(), model()
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    run(whole, data(), callback(), saving, enable_checkpointing=True)
    run(resumed, data(), callback(), ckpt=tmp_path / "step=4.ckpt")
    assert differences(bits(whole), bits(resumed)) == []


def test_either_package_of_lightning() -> None:
    class Other(lightning.pytorch.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net().net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    ours, other = Net(), Other()
    run(ours, pairs(), callback())
    run(other, pairs(), callback(), pl=lightning.pytorch)
    assert differences(bits(ours), bits(other)) == []


class NoForward(Net):
    forward = pl.LightningModule.forward

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


class Unnamed(OfNames):
    def forward(self, pixels: Tensor) -> Tensor:  # pyright: ignore
        return self.net(pixels)


class Lacking(OfNames):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # pyright: ignore
        return self.net(x * mask)


def broken(index: int) -> Any:
    raise RuntimeError(f"no example {index}")


@pytest.mark.parametrize(
    ("make", "data", "words"),
    [
        (Net, lambda: loader(InOrder(), shuffle=False), r"InOrder gives its examples in order alone"),
        (Net, lambda: [(X, Y)], r"the training loader is a list, not a DataLoader"),
        (Net, lambda: loader(Items(broken), shuffle=False), r"the training data gives none \(no example 0\)"),
        (Net, lambda: loader(Items(lambda i: ("a", i))), r"a batch is \(tuple, Tensor\), and forward takes x: "),
        (Unnamed, KINDS["names"][1], r"a batch has x, y, id, and forward takes pixels: "),
        (Lacking, KINDS["names"][1], r"a batch has x, y, id, and forward takes x: .*, mask: "),
        (NoForward, pairs, r"NoForward has no example inputs .*, and no forward: define one"),
    ],
)
def test_what_gives_no_examples_is_refused_with_the_remedy(
    make: type[Net], data: Callable[[], Any], words: str
) -> None:
    model, prune = make(), callback()
    before = bits(model)
    with pytest.raises(ValueError, match=words) as error:
        run(model, data(), prune)
    assert "set self.example_input_array in the module, or pass Channel(example_inputs=...)" in str(error.value)
    assert_plain(model, callback=prune)
    assert differences(before, bits(model)) == []
