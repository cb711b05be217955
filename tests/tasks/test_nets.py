"""The networks: shapes, numbers of weights, messages."""

import pytest
import torch
from torch import nn

from lightning_prune.tasks.char_lstm import CharLSTM
from lightning_prune.tasks.nets import MLP, digits_cnn, lenet5, lenet300


@pytest.mark.parametrize(
    ("net", "image", "weights"),
    [
        pytest.param(lenet300(), (1, 28, 28), 784 * 300 + 300 * 100 + 100 * 10, id="lenet300"),
        pytest.param(lenet5(), (1, 28, 28), 6 * 25 + 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10, id="lenet5"),
        pytest.param(digits_cnn(), (1, 8, 8), 9 * (32 + 32 * 64 + 64 * 64) + 256 * 10, id="digits_cnn"),
    ],
)
def test_image_nets_give_ten_logits_and_have_the_weights_they_say(
    net: nn.Module, image: tuple[int, ...], weights: int
) -> None:
    assert net(torch.randn(3, *image)).shape == (3, 10)
    assert sum(p.numel() for p in net.parameters() if p.dim() > 1) == weights


def test_mlp_puts_an_activation_between_layers_and_none_at_the_end() -> None:
    kinds = [type(layer) for layer in MLP((4, 3, 3, 2), nn.Tanh).layers]
    assert kinds == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]


@pytest.mark.parametrize("sizes", [(), (4,), (4, 0)])
def test_mlp_refuses_sizes_that_make_no_layer(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"sizes=\["):
        MLP(sizes)


def test_char_lstm_gives_logits_that_do_not_see_the_future() -> None:
    net = CharLSTM(vocab=7, embedding=5, hidden=6, layers=2).eval()
    characters = torch.randint(7, (3, 11))
    changed = characters.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 7
    before, after = net(characters), net(changed)
    assert before.shape == (3, 11, 7)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


def test_char_lstm_drops_in_training_only_with_one_layer_too() -> None:
    net = CharLSTM(vocab=7, hidden=32, dropout=0.5)
    characters = torch.randint(7, (2, 5))
    assert not torch.equal(net(characters), net(characters))
    net.eval()
    assert torch.equal(net(characters), net(characters))


@pytest.mark.parametrize(
    ("name", "value"), [("vocab", 0), ("embedding", 0), ("hidden", -1), ("layers", 0), ("dropout", 1.0)]
)
def test_char_lstm_names_the_argument_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        CharLSTM(**{"vocab": 7, name: value})  # pyright: ignore[reportArgumentType]
