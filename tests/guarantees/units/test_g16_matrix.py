"""G16 for whole units: every precision, accumulation and clipping, copies, and a compiled part."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_prune.regularizer import L1
from tests.guarantees.helpers import PRECISIONS, Units, assert_plain, bits, differences, fit, momentum
from tests.guarantees.whole_units import assert_pruned, channels


@pytest.mark.parametrize("precision", PRECISIONS)
def test_G16_every_precision(precision: str) -> None:
    model, callback = Units(momentum), channels(regularizer=L1(1e-3))
    fit(model, callback, max_steps=20, **PRECISIONS[precision]())
    assert_pruned(model, callback)


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 4},
        {"gradient_clip_val": 0.05},
        {"accumulate_grad_batches": 3, "gradient_clip_val": 0.05, "precision": "bf16-mixed"},
        {"val": 2, "val_check_interval": 1},
        {"detect_anomaly": True},
    ],
    ids=str,
)
def test_G16_accumulation_and_clipping(options: dict[str, Any]) -> None:
    model, callback = Units(), channels()
    fit(model, callback, max_steps=20, **options)
    assert_pruned(model, callback)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_G16_model_and_pruner_are_copied_in_the_middle_of_a_fit(way: str) -> None:
    model, callback = Units(), channels()
    copies: list[Any] = []

    def copied(run: pl.Trainer) -> None:
        if run.global_step == 10:
            pair = model.net, callback.pruner
            copies.append(copy.deepcopy(pair) if way == "deepcopy" else pickle.loads(pickle.dumps(pair)))

    model.after_batch.append(copied)
    fit(model, callback, max_steps=20)
    net, pruner = copies[0]
    assert pruner.attached
    pruner.after_step(13)
    report = pruner.strip()
    assert report.sparsity == pytest.approx(0.8, abs=report.grain / report.size)
    assert_plain(net)
    assert_plain(model)


def test_G16_the_whole_module_is_copied_in_the_middle_and_fitted() -> None:
    copies: list[Units] = []
    model = Units()
    model.after_batch.append(lambda run: copies.append(copy.deepcopy(model)) if run.global_step == 10 else None)
    fit(model, channels(), max_steps=20)
    other, callback, kept = copies[0], channels(), bits(model)
    other.after_batch = []
    fit(other, callback, max_steps=20)
    assert_pruned(other, callback)
    assert differences(kept, bits(model)) == []


def test_G16_a_compiled_part_prunes_like_the_plain_one() -> None:
    plain, compiled = Units(), Units()
    compiled.net = torch.compile(compiled.net, backend="eager")
    first, second = channels(), channels()
    fit(plain, first, max_steps=20)
    fit(compiled, second, max_steps=20)
    assert first.report == second.report
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), compiled.parameters(), strict=True))
