"""Rounds on real runs: what comes out, what is saved, and that a stopped run goes on as if nothing had been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from safetensors.torch import load_file

from lightning_prune.cost import count
from lightning_prune.criterion import KMeans, Random
from lightning_prune.rounds import PruningRounds
from lightning_prune.shrink import load_shrunk
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.digits import Digits

from .conftest import ADDED, FIRST, HIDDEN, QUIET, MakeTrainer, new_model


def widths(model: Any) -> tuple[int, int, int, int]:
    net = model.net
    return net.first.out_channels, net.left.out_channels, net.right.out_channels, net.hidden.out_features


def test_the_model_comes_out_smaller_with_a_record_of_each_round(
    model: Classifier, data: Digits, make_trainer: MakeTrainer, made: list[pl.Trainer]
) -> None:
    history = PruningRounds(0.7, maximum_rounds=2).run(model, make_trainer, data)
    assert widths(model) == (5, 7, 7, 10)
    assert [each.factor for each in history.rounds] == [None, 0.7, 0.7]
    assert [dict(each.units) for each in history.rounds] == [
        {FIRST: (10, 10), ADDED: (12, 12), HIDDEN: (20, 20)},
        {FIRST: (10, 7), ADDED: (12, 9), HIDDEN: (20, 14)},
        {FIRST: (7, 5), ADDED: (9, 7), HIDDEN: (14, 10)},
    ]
    last = history.rounds[-1]
    assert last.parameters == sum(p.numel() for p in model.parameters()) == count(model).parameters
    assert last.macs == count(model).macs < history.rounds[1].macs < history.rounds[0].macs
    assert {"train/loss", "val/accuracy", "test/accuracy"} <= set(last.metrics)
    assert {"val/accuracy", "test/accuracy"} == {name for name in history.rounds[0].metrics if "accuracy" in name}
    assert history.stopped == "stopped after round 2: maximum_rounds=2 is reached"
    assert history.stopped in history.table()
    assert history.share == pytest.approx(1 - 22 / 42)
    assert [trainer.global_step for trainer in made] == [0, 12, 12]  # the first only evaluates


@pytest.mark.parametrize("criterion", [Random(), KMeans()], ids=["random", "k_means"])
def test_the_references_methods_reach_the_same_widths(
    model: Classifier, data: Digits, make_trainer: MakeTrainer, criterion: Any
) -> None:
    PruningRounds(0.5, maximum_rounds=1, criterion=criterion).run(model, make_trainer, data)
    assert widths(model) == (5, 6, 6, 10)


def test_each_round_trains_the_smaller_weights(model: Classifier, data: Digits) -> None:
    stepped: list[set[int]] = []

    class Watch(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            state = trainer.optimizers[0].state
            stepped.append({id(parameter) for parameter in state})
            assert all(state[p]["exp_avg"].shape == p.shape for p in state)

    PruningRounds(0.5, maximum_rounds=2).run(model, lambda: pl.Trainer(**QUIET, callbacks=[Watch()]), data)
    assert len(stepped) == 2
    assert stepped[1] == {id(parameter) for parameter in model.parameters()}


def test_layers_and_bins_hold_through_all_rounds(model: Classifier, data: Digits, make_trainer: MakeTrainer) -> None:
    rounds = PruningRounds(0.5, layers=["first", "hidden"], bins={10: 1.0}, maximum_rounds=5)
    history = rounds.run(model, make_trainer, data)
    assert widths(model) == (10, 12, 12, 10)
    assert list(history.left) == [FIRST, HIDDEN]
    assert history.stopped.startswith("stopped after round 1: nothing is left to prune")


def test_a_mapping_gives_a_new_trainer_each_round_and_stays_as_it_is(model: Classifier, data: Digits) -> None:
    stopping = EarlyStopping("val/loss")
    arguments = QUIET | {"callbacks": [stopping]}
    history = PruningRounds(0.5, maximum_rounds=2).run(model, arguments, data)
    assert len(history.rounds) == 3
    assert stopping.best_score == float("inf")


def test_a_trainer_that_has_run_is_an_error(model: Classifier, data: Digits) -> None:
    trainer = pl.Trainer(**QUIET)
    with pytest.raises(ValueError, match="must make a new one each time"):
        PruningRounds(0.5, maximum_rounds=2).run(model, lambda: trainer, data)


def test_first_trains_the_dense_model(model: Classifier, data: Digits, make_trainer: MakeTrainer) -> None:
    history = PruningRounds(0.5, maximum_rounds=0).run(model, make_trainer, data, first=QUIET | {"max_epochs": 2})
    assert "train/accuracy" in history.rounds[0].metrics
    assert widths(model) == (10, 12, 12, 20)


def test_runs_down_to_one_unit_of_each_group(model: Classifier, data: Digits, make_trainer: MakeTrainer) -> None:
    history = PruningRounds(0.05).run(model, make_trainer, data)
    assert widths(model) == (1, 1, 1, 1)
    assert history.stopped == "stopped after round 1: nothing is left to prune, every group is down to one unit"


# Files


def test_each_rounds_model_comes_back_in_a_plain_one(
    model: Classifier, data: Digits, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    PruningRounds(0.7, maximum_rounds=2).run(model, make_trainer, data, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"rounds.json", "rounds", "model.safetensors", "shrunk.json"}
    expected = [(10, 12, 12, 20), (7, 9, 9, 14), (5, 7, 7, 10)]
    for number, sizes in enumerate(expected):
        assert widths(load_shrunk(new_model(1), tmp_path / "rounds" / str(number))) == sizes
    back = load_shrunk(new_model(1), tmp_path)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())
    # sizes of all rounds are in the recipe: a layer that the last round left alone says its size, too
    modules = {name: module for name, module in model.named_modules() if hasattr(module, "out_channels")}
    for name, module in modules.items():
        assert back.get_submodule(name).out_channels == module.out_channels


def test_a_recipe_holds_the_sizes_of_every_round(data: Digits, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    model = new_model()
    rounds = PruningRounds(0.5, bins={6: 1.0}, maximum_rounds=2)  # the second round leaves two groups alone
    assert [list(step.values()) for step in rounds.plan(model)[0]] == [[10, 12, 20], [5, 6, 10], [5, 6, 5]]
    rounds.run(model, make_trainer, data, tmp_path)
    back: Any = load_shrunk(new_model(1), tmp_path)
    assert widths(back) == widths(model) == (5, 6, 6, 5)
    assert back.net.norm.num_features == 5


def test_nothing_of_an_optimizer_is_saved(
    model: Classifier, data: Digits, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    PruningRounds(0.5, maximum_rounds=1).run(model, make_trainer, data, tmp_path)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or path.suffix in (".safetensors", ".json")
    assert set(load_file(tmp_path / "model.safetensors")) == set(model.state_dict())


class _Stop(pl.Callback):
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        raise RuntimeError("out of time")


def test_goes_on_after_the_last_finished_round_to_the_bit(data: Digits, tmp_path: Path) -> None:
    rounds = PruningRounds(0.7, maximum_rounds=3, criterion=Random(), seed=5)
    whole = new_model()
    expected = rounds.run(whole, QUIET, data, tmp_path / "whole")

    calls = 0

    def until_the_second() -> pl.Trainer:
        nonlocal calls
        calls += 1
        return pl.Trainer(**QUIET, callbacks=[_Stop()] if calls == 3 else [])

    with pytest.raises(RuntimeError, match="out of time"):
        rounds.run(new_model(), until_the_second, data, tmp_path / "parts")
    assert len(json.loads((tmp_path / "parts" / "rounds.json").read_text(encoding="utf-8"))["rounds"]) == 2
    torch.manual_seed(99)
    ended = new_model(3)  # its values do not matter
    history = rounds.run(ended, QUIET, data, tmp_path / "parts")
    assert history == expected
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ended.state_dict().items())


def test_a_finished_folder_trains_nothing_and_a_later_end_goes_on(
    data: Digits, make_trainer: MakeTrainer, made: list[pl.Trainer], tmp_path: Path
) -> None:
    PruningRounds(0.7, maximum_rounds=1).run(new_model(), make_trainer, data, tmp_path)
    assert len(made) == 2
    again = new_model(1)
    history = PruningRounds(0.7, maximum_rounds=1).run(again, make_trainer, data, tmp_path)
    assert (len(made), widths(again), len(history.rounds)) == (2, (7, 9, 9, 14), 2)
    further = new_model(2)
    assert len(PruningRounds(0.7, maximum_rounds=2).run(further, make_trainer, data, tmp_path).rounds) == 3
    assert (len(made), widths(further)) == (3, (5, 7, 7, 10))


def test_a_folder_with_other_rounds_is_an_error(data: Digits, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    PruningRounds(0.7, maximum_rounds=0).run(new_model(), make_trainer, data, tmp_path)
    with pytest.raises(ValueError, match=r"holds rounds made with factor=0.7, not 0.5: choose another folder"):
        PruningRounds(0.5, maximum_rounds=1).run(new_model(), make_trainer, data, tmp_path)


def test_fewer_things_in_a_model_without_data_module_test_or_validation(make_trainer: MakeTrainer) -> None:
    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            self.example_input_array = torch.randn(2, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            return self(batch).square().mean()

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(torch.randn(24, 4).split(2), batch_size=None)  # pyright: ignore

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Plain()
    history = PruningRounds(0.5, maximum_rounds=1).run(model, make_trainer)
    assert (history.left, dict(history.metrics)) == ({"net.0.weight": 4}, {})
    assert "net.0.weight" in history.table()
