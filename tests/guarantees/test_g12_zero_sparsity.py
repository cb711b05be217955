"""G12: a final sparsity of 0 is bitwise the run without the callback, and pruning draws from no global generator."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import Rewind
from lightning_prune.criterion import Random
from lightning_prune.schedule import Polynomial
from tests.guarantees.helpers import Net, bits, differences, logged_rows, momentum, trainer


class Noisy(Net):
    """Draws from every global generator in each step, and logs what it drew."""

    def __init__(self) -> None:
        super().__init__(momentum, net=nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4)))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y) + 0 * torch.rand(())
        self.log("drawn", float(np.random.rand()) + random.random())
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))


def _logged(folder: Path, *callbacks: pl.Callback, **options: Any) -> tuple[Any, Any, Any]:
    pl.seed_everything(11, verbose=False)
    model = Noisy()
    data = TensorDataset(torch.randn(40, 12), torch.randint(4, (40,)))
    loaders = DataLoader(data, 8, shuffle=True), DataLoader(data, 8)
    logger = CSVLogger(folder, "", "")
    settings: dict[str, Any] = {"max_epochs": 3, "log_every_n_steps": 1, "num_sanity_val_steps": 2} | options
    run = trainer(callbacks=list(callbacks), logger=logger, **settings)
    run.fit(model, *loaders)
    rows = [{k: v for k, v in row.items() if v and not k.startswith("pruning/")} for row in logged_rows(folder)]
    rows = sorted((row for row in rows if set(row) - {"step", "epoch"}), key=str)
    keys = np.random.get_state(legacy=False)["state"]["key"].tolist()
    generators = [torch.get_rng_state(), keys, random.getstate()]
    state = [bits(model), run.optimizers[0].state_dict()["state"]]
    return state, rows, generators


DENSE = {
    "number": lambda: PruningCallback(0.0),
    "schedule": lambda: PruningCallback(Polynomial(0.0, 2, 9, 2)),
    "random": lambda: PruningCallback(Pruner(Polynomial(0.0, 2, 9, 2), Random())),
    "reversible": lambda: PruningCallback(Pruner(Polynomial(0.0, 2, 9, 2), reversible=True)),
}


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", DENSE)
def test_G12_zero_sparsity_is_bitwise_the_run_without_the_callback(name: str, accumulate: int, tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}
    without = _logged(tmp_path / "without", **options)
    with_callback = _logged(tmp_path / "with", DENSE[name](), **options)
    assert differences(without[0], with_callback[0]) == []
    assert without[1] == with_callback[1]
    assert len(without[1]) > 10
    assert differences(without[2], with_callback[2]) == []


@pytest.mark.parametrize(
    "make",
    [lambda: PruningCallback(0.8), lambda: PruningCallback(Pruner(Polynomial(0.8, 2, 9, 2), Random()))],
    ids=["magnitude", "random"],
)
def test_G12_pruning_itself_draws_from_no_global_generator(make: Any, tmp_path: Path) -> None:
    without = _logged(tmp_path / "without")
    pruned = _logged(tmp_path / "with", make())
    assert differences(without[0], pruned[0]) != []
    assert differences(without[2], pruned[2]) == []


def test_G12_drawing_weights_anew_moves_no_global_generator(tmp_path: Path) -> None:
    without = _logged(tmp_path / "without")
    rewound = _logged(tmp_path / "with", PruningCallback(Polynomial(0.8, 2, 9, 2), rewind=Rewind("init")))
    assert differences(without[2], rewound[2]) == []
