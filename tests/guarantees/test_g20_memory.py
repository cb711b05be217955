"""G20: a stripped checkpoint is as small as a dense one, and masks of whole units take a byte an entry.

For single weights: tests/pruning/test_pruner_memory.py.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Net, fit, zeros
from tests.guarantees.whole_units import whole_units
from tests.helpers import tensors_of


def in_tensors(saved: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(saved))


def test_G20_a_stripped_checkpoint_is_as_small_as_a_dense_one(tmp_path: Path) -> None:
    """Beyond the dense one it holds only names and numbers; so does one from the middle of a run."""

    def wide() -> Net:
        return Net(net=nn.Sequential(nn.Linear(12, 400), nn.ReLU(), nn.Linear(400, 400), nn.Linear(400, 4)))

    def saved(name: str, *callbacks: pl.Callback) -> Path:
        torch.manual_seed(0)
        save = ModelCheckpoint(tmp_path, f"{name}-middle", every_n_train_steps=4, enable_version_counter=False)
        model = wide()
        run = fit(model, *callbacks, save, max_steps=4)
        run.save_checkpoint(tmp_path / f"{name}.ckpt")
        return tmp_path / f"{name}.ckpt"

    files = {"dense": saved("dense"), "pruned": saved("pruned", PruningCallback(OneShot(0.9, 2)))}
    ends = {name: torch.load(file, weights_only=True) for name, file in files.items()}
    prunable = 400 * (12 + 400 + 4)
    weights = Net(net=wide().net)
    weights.load_state_dict(ends["pruned"]["state_dict"])
    assert sum(zeros(weights).values()) == round(0.9 * prunable)
    assert in_tensors(ends["pruned"]) == in_tensors(ends["dense"])
    assert files["pruned"].stat().st_size <= files["dense"].stat().st_size + 2048
    middle = [torch.load(tmp_path / f"{name}-middle.ckpt", weights_only=True) for name in ("pruned", "dense")]
    assert in_tensors(middle[0]) == in_tensors(middle[1])


@pytest.mark.parametrize("reversible", [False, True])
def test_G20_masks_take_a_byte_an_entry(reversible: bool) -> None:
    def held() -> int:
        gc.collect()
        found = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter) and t.layout == torch.strided]
        tensors = {t.untyped_storage().data_ptr(): t for t in found}
        return sum(t.untyped_storage().nbytes() for t in tensors.values())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 700), nn.ReLU(), nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 9))
    pruner = Pruner(OneShot(0.6, 0), pattern=whole_units(example_inputs=torch.zeros(1, 300)), reversible=reversible)
    before = held()
    pruner.attach(model)
    pruner.after_step(0)
    entries = sum(p.numel() for p in model.parameters())
    assert held() - before <= entries * (5 if reversible else 1) + 40 * 2 * 1400 + 4096
    pruner.strip()
    assert pruner.report().sparsity == pytest.approx(0.6, abs=0.01)
