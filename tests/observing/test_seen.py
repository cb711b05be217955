"""What is seen of a layer is what its weight multiplies and gives: multiplied out, it is the layer's output."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from lightning_prune.coupling.layout import layout_of
from lightning_prune.observing import channels_of, inputs_of, outputs_of, squared_inputs_of, units_of, why_unseen

LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear over a sequence": (nn.Linear(5, 3), (4, 6, 5)),
    "linear over two dimensions": (nn.Linear(5, 3, bias=False), (4, 2, 3, 5)),
    "linear without a batch": (nn.Linear(5, 3), (5,)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 6)),
    "strided, dilated": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(2, 0)), (2, 4, 9, 8)),
    "in groups": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1, bias=False), (2, 4, 7, 6)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same"), (2, 4, 7, 6)),
    "valid": (nn.Conv1d(4, 6, 3, padding="valid"), (2, 4, 7)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 6)),
    "circular, same": (nn.Conv1d(4, 6, 4, padding="same", padding_mode="circular"), (2, 4, 7)),
    "conv3d": (nn.Conv3d(2, 3, 2, padding=1), (2, 2, 4, 5, 3)),
    "one image": (nn.Conv2d(4, 6, 3), (4, 7, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 4)),
    "transposed, strided": (nn.ConvTranspose2d(4, 6, (3, 4), (2, 3), (1, 0), output_padding=(1, 2)), (2, 4, 5, 4)),
    "transposed, dilated": (nn.ConvTranspose1d(4, 6, 3, stride=2, dilation=2, padding=3), (2, 4, 9)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_weight_times_what_is_seen_is_the_output_without_the_bias(name: str) -> None:
    layer, shape = LAYERS[name]
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layout: Any = layout_of(layer, "weight", layer.weight.dim())
    weight = layout.canonical(layer.weight.detach())
    seen = inputs_of(layer, x)
    groups = getattr(layer, "groups", 1)
    assert seen.shape[1 : 1 + weight.dim()] == (groups, *weight.shape[1:])
    flat = seen.flatten(2, weight.dim()).flatten(3)  # examples, groups, entries, positions
    product = torch.einsum("goe,ngep->ngop", weight.flatten(1).unflatten(0, (groups, -1)), flat).flatten(1, 2)
    torch.testing.assert_close(product, outputs_of(layer, layer(x).detach()))
    torch.testing.assert_close(squared_inputs_of(layer, x).flatten(1 + weight.dim()).sum(-1), _squares(seen, weight))


def _squares(seen: Tensor, weight: Tensor) -> Tensor:
    return seen.square().flatten(1 + weight.dim()).sum((0, -1))[None]


def test_what_is_seen_of_a_plain_layer_takes_no_memory() -> None:
    x = torch.randn(2, 4, 8, 8)
    assert inputs_of(nn.Conv2d(4, 6, 3), x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert inputs_of(nn.Linear(8, 2), x).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_units_lie_beside_their_positions() -> None:
    x = torch.arange(2.0 * 6).view(2, 6)
    index = torch.arange(6).view(2, 3)  # two channels, flattened over three positions
    assert torch.equal(units_of(nn.Linear(6, 2), x, index), x.view(2, 2, 3))
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(units_of(nn.Conv2d(3, 2, 1), maps, None), maps.flatten(2))
    some = torch.tensor([[2], [0]])
    assert torch.equal(units_of(nn.Conv2d(3, 2, 1), maps, some), maps.flatten(2)[:, [2, 0]])


def test_in_a_grouped_convolution_a_column_reads_a_channel_of_every_group() -> None:
    assert channels_of(nn.Conv2d(6, 4, 3, groups=2), torch.tensor([[0], [2]])).tolist() == [[0, 3], [2, 5]]
    assert channels_of(nn.Conv2d(6, 4, 3), torch.tensor([[0], [2]])).tolist() == [[0], [2]]


def test_sequences_of_any_length_are_seen_step_by_step() -> None:
    layer = nn.LSTM(3, 4)
    packed = pack_sequence([torch.ones(4, 3), torch.zeros(2, 3)])
    assert units_of(layer, packed, torch.arange(3)[:, None]).shape == (6, 3, 1)
    time_first = torch.randn(7, 2, 3)
    assert torch.equal(
        units_of(layer, time_first, torch.arange(3)[:, None]), time_first.transpose(0, 1).transpose(1, 2)
    )


def test_what_cannot_be_seen_says_why() -> None:
    assert why_unseen(nn.LSTM(3, 4)) == "LSTM reads them inside"
    assert why_unseen(nn.LSTM(3, 4), units=True) is None
    attention = nn.MultiheadAttention(4, 2)
    assert why_unseen(attention.out_proj) == "attention reads them inside"
    assert why_unseen(nn.Bilinear(2, 2, 2)) == "Bilinear reads them inside"
    assert why_unseen(nn.ConvTranspose2d(4, 4, 3, groups=2)) is not None
