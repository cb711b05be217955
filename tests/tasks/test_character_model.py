"""A character model on a small text: it learns, and logs what it says."""

from collections.abc import Callable
from math import log, log2
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything

from lightning_prune.tasks.char_lstm import CharLSTM
from lightning_prune.tasks.character_model import CharacterModel
from lightning_prune.tasks.data.text import Shakespeare


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / "shakespeare.txt").write_text("to be or not to be, " * 400, encoding="utf-8")
    return tmp_path


def test_a_text_is_learned_and_the_numbers_logged_are_true(make_trainer: Callable[..., Trainer], root: Path) -> None:
    seed_everything(0)
    data = Shakespeare(root, batch_size=16, length=20)
    model = CharacterModel(CharLSTM(vocab=8, embedding=16, hidden=32), lr=0.02)
    trainer = make_trainer(max_epochs=5)
    trainer.fit(model, datamodule=data)
    logged = trainer.callback_metrics
    assert set(logged) == {f"{s}/{v}" for s in ("train", "val") for v in ("loss", "bits_per_character", "accuracy")}
    assert logged["val/bits_per_character"].item() == pytest.approx(logged["val/loss"].item() / log(2))
    assert logged["val/bits_per_character"] < 0.5 * log2(8)
    assert logged["val/accuracy"] > 0.8

    characters, following = data.validation_set.inputs, data.validation_set.targets
    with torch.no_grad():
        logits = model.eval()(characters)
    assert logged["val/accuracy"].item() == pytest.approx((logits.argmax(2) == following).float().mean().item())

    (tested,) = trainer.test(model, datamodule=data, verbose=False)
    assert set(tested) == {"test/loss", "test/bits_per_character", "test/accuracy"}


def test_a_vocabulary_too_small_for_the_text_is_named_before_training(
    make_trainer: Callable[..., Trainer], root: Path
) -> None:
    with pytest.raises(ValueError, match=r"vocab=7: the text has 8 different characters"):
        make_trainer(max_steps=1).fit(CharacterModel(CharLSTM(vocab=7)), datamodule=Shakespeare(root, length=20))
