"""A classifier on real digits: it learns, and logs what it says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy

from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.data.digits import Digits
from lightning_prune.tasks.nets import MLP, digits_cnn

NAMES = {f"{stage}/{value}" for stage in ("train", "val") for value in ("loss", "accuracy")}


def test_digits_are_learned_and_the_numbers_logged_are_true(make_trainer: Callable[..., Trainer]) -> None:
    seed_everything(0)
    model, data = Classifier(digits_cnn(), lr=2e-3), Digits(batch_size=64)
    trainer = make_trainer(max_epochs=3)
    trainer.fit(model, datamodule=data)
    logged = trainer.callback_metrics
    assert set(logged) == NAMES
    assert logged["val/accuracy"] > 0.9
    assert logged["train/accuracy"] > 0.9

    images, labels = data.validation_set.inputs, data.validation_set.targets
    with torch.no_grad():
        logits = model.eval()(images)
    assert logged["val/accuracy"].item() == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert logged["val/loss"].item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-4)

    (tested,) = trainer.test(model, datamodule=data, verbose=False)
    assert set(tested) == {"test/loss", "test/accuracy"}
    assert tested["test/accuracy"] > 0.85


def test_two_runs_with_one_seed_end_in_equal_bits(make_trainer: Callable[..., Trainer]) -> None:
    ends: list[torch.Tensor] = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        model = Classifier(MLP((64, 32, 10)))
        make_trainer(max_steps=20).fit(model, datamodule=Digits(seed=seed))
        ends.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.slow
def test_a_run_resumed_anywhere_ends_in_the_bits_of_one_that_never_stopped(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def fit(resume: Path | None) -> dict[str, torch.Tensor]:
        model = Classifier(MLP((64, 32, 10)), hold=0.5)
        keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = make_trainer(max_epochs=3, limit_train_batches=8, callbacks=[keep], enable_checkpointing=True)
        trainer.fit(model, datamodule=Digits(), ckpt_path=resume)
        assert trainer.global_step == 24
        return model.state_dict()

    whole = fit(None)
    for step in (1, 7, 8, 9, 16, 21):  # 8 and 16 are ends of an epoch
        resumed = fit(tmp_path / f"step={step}.ckpt")
        for name, weight in whole.items():
            assert torch.equal(weight, resumed[name]), (step, name)


def test_a_checkpoint_holds_the_network_and_numbers_only(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    model = Classifier(MLP((64, 10)), lr=0.01)
    trainer = make_trainer(max_steps=1)
    trainer.fit(model, datamodule=Digits())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    state = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert state["hyper_parameters"] == {"lr": 0.01, "weight_decay": 0.01, "warmup": 0.0, "hold": 0.0}
    assert set(state["state_dict"]) == {"net.layers.0.weight", "net.layers.0.bias"}
    loaded = Classifier.load_from_checkpoint(tmp_path / "end.ckpt", net=MLP((64, 10)))
    assert loaded.lr == 0.01
    assert torch.equal(loaded(torch.ones(1, 64)), model(torch.ones(1, 64)))


def test_the_example_input_is_the_networks_own_or_what_it_is_set_to() -> None:
    net = MLP((64, 10))
    model = Classifier(net)
    assert model.example_input_array is net.example_input
    assert set(model.state_dict()) == {"net.layers.0.weight", "net.layers.0.bias"}
    model.example_input_array = torch.zeros(1, 1, 8, 8)
    assert model(model.example_input_array).shape == (1, 10)
    assert Classifier(torch.nn.Linear(4, 2)).example_input_array is None
