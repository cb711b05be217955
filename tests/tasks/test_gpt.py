"""The small GPT: sees no future, learns, and goes on with fewer heads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from torch import nn

from lightning_prune.tasks.character_model import CharacterModel
from lightning_prune.tasks.data.text import Shakespeare
from lightning_prune.tasks.gpt import GPT, Attention


def small(**options: Any) -> GPT:
    return GPT(**{"vocab": 7, "length": 11, "width": 12, "heads": 3, "layers": 2, **options})


def test_logits_do_not_see_the_future() -> None:
    net = small().eval()
    characters = torch.randint(7, (3, 11))
    changed = characters.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 7
    before, after = net(characters), net(changed)
    assert before.shape == (3, 11, 7)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


def test_a_shorter_text_gives_the_same_logits() -> None:
    net = small().eval()
    characters = torch.randint(7, (3, 11))
    torch.testing.assert_close(net(characters[:, :5]), net(characters)[:, :5])


def test_a_longer_text_than_it_sees_is_refused() -> None:
    with pytest.raises(ValueError, match=r"12 characters: the network sees length=11 at most"):
        small()(torch.zeros(1, 12, dtype=torch.int64))


def test_it_drops_in_training_only() -> None:
    net = small(dropout=0.5)
    characters = torch.randint(7, (2, 5))
    assert not torch.equal(net(characters), net(characters))
    net.eval()
    assert torch.equal(net(characters), net(characters))


def test_attention_without_a_head_is_attention_with_that_head_silent() -> None:
    torch.manual_seed(0)
    attention = Attention(width=12, heads=3, dropout=0.0)
    states = torch.randn(2, 5, 12)
    kept = torch.tensor([*range(4), *range(8, 12)])  # the heads 0 and 2
    with torch.no_grad():
        attention.out.weight[:, 4:8] = 0
        expected = attention(states)
        for name in ("q", "k", "v"):
            layer = attention.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            layer.weight, layer.bias = nn.Parameter(layer.weight[kept]), nn.Parameter(layer.bias[kept])
        attention.out.weight = nn.Parameter(attention.out.weight[:, kept])
        torch.testing.assert_close(attention(states), expected)


def test_a_text_is_learned(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / "shakespeare.txt").write_text("to be or not to be, " * 400, encoding="utf-8")
    seed_everything(0)
    model = CharacterModel(GPT(vocab=8, length=20, width=32, heads=2, layers=2), lr=0.01)
    trainer = make_trainer(max_epochs=5)
    trainer.fit(model, datamodule=Shakespeare(tmp_path, batch_size=16, length=20))
    assert trainer.callback_metrics["val/accuracy"] > 0.8


@pytest.mark.parametrize(
    ("name", "value"),
    [("vocab", 0), ("length", 0), ("width", 0), ("heads", 0), ("heads", 5), ("layers", -1), ("dropout", 1.0)],
)
def test_the_argument_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        small(**{name: value})
