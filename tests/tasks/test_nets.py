"""The networks: shapes, numbers of weights, messages."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.tasks.alexnet import alexnet
from lightning_prune.tasks.char_lstm import CharLSTM
from lightning_prune.tasks.gpt import GPT
from lightning_prune.tasks.nets import MLP, digits_cnn, lenet5, lenet300
from lightning_prune.tasks.resnet import ResNet, resnet20, resnet56
from lightning_prune.tasks.vgg import vgg16


@pytest.mark.parametrize(
    ("make", "image", "weights"),
    [
        pytest.param(lenet300, (1, 28, 28), 784 * 300 + 300 * 100 + 100 * 10, id="lenet300"),
        pytest.param(lenet5, (1, 28, 28), 6 * 25 + 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10, id="lenet5"),
        pytest.param(digits_cnn, (1, 8, 8), 9 * (32 + 32 * 64 + 64 * 64) + 256 * 10, id="digits_cnn"),
        pytest.param(resnet20, (3, 32, 32), 270_896, id="resnet20"),
        pytest.param(resnet56, (3, 32, 32), 851_504, id="resnet56"),
        pytest.param(vgg16, (3, 32, 32), 14_715_584, id="vgg16"),
        pytest.param(partial(vgg16, 32), (3, 32, 32), 3_680_608, id="vgg16_narrow"),
        pytest.param(alexnet, (3, 32, 32), 1_037_152, id="alexnet"),
        pytest.param(partial(alexnet, (8, 8, 8, 8, 8), 16, enlarge=True), (3, 32, 32), 11_256, id="alexnet_enlarged"),
    ],
)
def test_image_nets_give_ten_logits_and_have_the_weights_they_say(
    make: Callable[[], nn.Module], image: tuple[int, ...], weights: int
) -> None:
    net = make()
    assert net(torch.randn(3, *image)).shape == (3, 10)
    assert sum(p.numel() for p in net.parameters() if p.dim() > 1) == weights


@pytest.mark.parametrize(
    ("make", "shape", "dtype"),
    [
        (lenet300, (2, 784), torch.float32),
        (lenet5, (2, 1, 28, 28), torch.float32),
        (digits_cnn, (2, 1, 8, 8), torch.float32),
        (resnet20, (2, 3, 32, 32), torch.float32),
        (vgg16, (2, 3, 32, 32), torch.float32),
        (alexnet, (2, 3, 32, 32), torch.float32),
        (partial(CharLSTM, 7), (2, 8), torch.int64),
        (partial(GPT, 7, length=16), (2, 16), torch.int64),
    ],
)
def test_a_net_brings_an_example_that_is_no_part_of_its_state(
    make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    net = make().eval()
    example = net.example_input
    assert isinstance(example, torch.Tensor)
    assert (example.shape, example.dtype) == (shape, dtype)
    assert len(net(example)) == 2
    assert not [name for name in net.state_dict() if "example" in name]
    assert torch.equal(copy.deepcopy(net)(example), net(example))


def test_a_resnet_has_the_layers_in_its_name_besides_the_shortcuts() -> None:
    for blocks in (1, 3, 9):
        layers = [
            name
            for name, module in ResNet(blocks).named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear)) and "shortcut" not in name
        ]
        assert len(layers) == 6 * blocks + 2


@pytest.mark.parametrize(("name", "value"), [("blocks", 0), ("classes", 0)])
def test_resnet_names_the_argument_out_of_range(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ResNet(**{"blocks": 1, name: value})


def test_vgg_names_the_width_out_of_range() -> None:
    with pytest.raises(ValueError, match="width=0"):
        vgg16(0)


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


@pytest.mark.parametrize(
    ("arguments", "message"), [({"widths": (1, 2, 3, 4)}, "widths"), ({"dropout": 1.0}, "dropout")]
)
def test_alexnet_of_sizes_that_are_none(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alexnet(**arguments)
