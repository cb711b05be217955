"""G22: a rewind is exact, happens where it was asked for, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import Rewind
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import RAMP, UPDATES, Batches, Net, bits, copied, differences, fit, momentum, sparsity

State = dict[str, Tensor]


class Watch(pl.Callback):
    """The model at the start, right before the pruning callback acts on a step, and after it did."""

    def __init__(self, callback: PruningCallback) -> None:
        self.callback = callback
        self.before: dict[int, State] = {}
        self.after: dict[int, State] = {}
        self.masks: dict[int, State] = {}
        self.moments: dict[int, int] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before[0] = bits(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.before.setdefault(trainer.global_step, bits(pl_module))

    def look(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        self.after[step] = bits(trainer.lightning_module)
        self.masks[step] = {n: w.mask.clone() for n, w in self.callback.pruner.masks.items()}
        self.moments[step] = sum(len(s) for s in trainer.optimizers[0].state.values())


def watched(rewind: Any, model: Net | None = None, **options: Any) -> Watch:
    callback = PruningCallback(Pruner(RAMP), rewind=rewind)
    watch = Watch(callback)
    model = model or Net(momentum)
    model.after_batch.append(watch.look)
    settings: dict[str, Any] = {"max_steps": 20} | options
    fit(model, watch, callback, **settings)
    assert sparsity(model) == 205 / 256
    return watch


def rewound(saved: State, masks: State, state: State) -> bool:
    """Whether every trainable parameter has the saved bits where it is kept, and zero where it is not."""
    trainable = [n for n in state if "running" not in n and "num_batches" not in n]
    expected = copied({n: saved[n] for n in trainable})
    for name, mask in masks.items():
        expected[name][~mask] = 0.0
    return differences(expected, {n: state[n] for n in trainable}) == []


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("to", [0, 1, 5, 6])
def test_G22_kept_weights_go_back_to_the_step_bit_by_bit(to: int, accumulate: int) -> None:
    watch = watched(to, accumulate_grad_batches=accumulate)
    for step in UPDATES:
        back = rewound(watch.before[to], watch.masks[step], watch.after[step])
        assert back == (to <= step < UPDATES[-1])
        assert (watch.moments[step] == 0) == back
    assert not any(
        rewound(watch.before[to], watch.masks[s], watch.after[s]) for s in range(1, 21) if s not in (*UPDATES, to)
    )


def test_G22_after_the_last_update_if_asked() -> None:
    watch = watched(Rewind(2, after_last=True))
    assert all(rewound(watch.before[2], watch.masks[step], watch.after[step]) for step in UPDATES)


def test_G22_off_by_default_and_then_an_update_leaves_kept_weights_alone() -> None:
    watch = watched(None)
    for step in UPDATES:
        assert rewound(watch.before[step], watch.masks[step], watch.after[step])
        assert not rewound(watch.before[0], watch.masks[step], watch.after[step])
        assert watch.moments[step] > 0


def test_G22_the_last_update_leaves_kept_weights_alone() -> None:
    watch = watched(0)
    assert rewound(watch.before[13], watch.masks[13], watch.after[13])


def test_G22_one_shot_with_after_last_is_a_lottery_ticket() -> None:
    callback = PruningCallback(OneShot(0.5, 12), rewind=Rewind(0, after_last=True))
    watch, model = Watch(callback), Net(momentum)
    model.after_batch.append(watch.look)
    fit(model, watch, callback, max_steps=20)
    assert rewound(watch.before[0], watch.masks[12], watch.after[12])
    assert sparsity(model) == 0.5


def test_G22_statistics_and_frozen_parameters_are_not_rewound() -> None:
    model = Net(momentum)
    model.net[3].bias.requires_grad_(False)
    model.after_batch.append(lambda _: model.net[3].bias.data.add_(1.0))
    watch = watched(0, model)
    for step in UPDATES:
        for name in ("net.1.running_mean", "net.1.running_var", "net.1.num_batches_tracked", "net.3.bias"):
            assert torch.equal(watch.after[step][name], watch.before[step][name] + float(name == "net.3.bias"))


def test_G22_drawn_anew_is_new_each_time_and_the_same_in_each_run() -> None:
    first, second, other = watched("init"), watched("init"), watched(Rewind("init", seed=1))
    name = "net.0.weight"
    seen: list[Tensor] = []
    for step in UPDATES[:-1]:
        kept = first.masks[step][name]
        now = first.after[step][name]
        assert torch.equal(now == 0, ~kept)
        assert not bool((now[kept] == first.before[step][name][kept]).any())
        seen.append(now)
        limit = 12**-0.5  # nn.Linear draws from U(-1/sqrt(n), 1/sqrt(n))
        assert float(now.abs().max()) <= limit
    assert not torch.equal(seen[-1][first.masks[12][name]], seen[-2][first.masks[12][name]])
    assert rewound(first.before[13], first.masks[13], first.after[13])
    assert differences(first.after, second.after) == []
    assert differences(first.after[20], other.after[20]) != []


def test_G22_after_the_fit_nothing_is_kept_for_a_rewind() -> None:
    callback = PruningCallback(Pruner(RAMP), rewind=0)
    fit(Net(), callback, max_steps=20)
    assert "rewind" not in callback.state_dict()


def test_G22_validation_after_fit_leaves_saved_values_alone() -> None:
    """A peer's `validate()` after `fit` overwrites them, as its `setup` saves whatever is there."""
    callback = PruningCallback(Pruner(RAMP), rewind=0)
    model, twin = Net(), Net()
    run = fit(model, callback, max_steps=20, val=1)
    after_first = bits(model)
    run.validate(model, Batches(1), verbose=False)
    assert differences(after_first, bits(model)) == []
    again = Net()
    fit(again, callback, max_steps=20)
    fit(twin, PruningCallback(Pruner(RAMP), rewind=0), max_steps=20)
    assert differences(bits(twin), bits(again)) == []


def test_drawing_anew_leaves_the_generators_of_all_devices_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[Tensor] = []
    after: list[Tensor] = []
    model = Net(momentum)
    callback = PruningCallback(Pruner(RAMP), rewind="init")
    update = callback._update

    def watch(run: pl.Trainer) -> bool:
        before.append(torch.get_rng_state())
        updated = update(run)
        after.append(torch.get_rng_state())
        return updated

    monkeypatch.setattr(callback, "_update", watch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # where torch warns of a fork that names no devices
    fit(model, callback, max_steps=20)
    assert len(before) > 4
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
