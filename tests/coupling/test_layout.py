"""A layout names the dimensions of a weight: what it turns comes back, and what layers are known to hold."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from lightning_prune.coupling.layout import Layout, layout_of

AXES = st.sampled_from(
    [("out", "in"), ("out", "in", "expert"), ("out", "in", "kh", "kw"), ("out", "in", "expert", "k")]
)
"""The names of a weight's dimensions, to be put in any order."""


@given(axes=AXES.flatmap(st.permutations), sizes=st.permutations([2, 3, 4, 5]))
def test_outputs_come_first_and_go_back(axes: list[str], sizes: list[int]) -> None:
    layout, shape = Layout(tuple(axes)), sizes[: len(axes)]
    tensor = torch.randn(shape)
    canonical = layout.canonical(tensor)
    size = dict(zip(axes, shape, strict=True))
    assert canonical.shape[0] == size.get("expert", 1) * size["out"]
    assert canonical.shape[1] == size["in"]
    assert canonical.shape[2:] == tuple(size[name] for name in axes if name.startswith("k")), "in their order"
    experts = layout.experts(tensor.shape)
    assert experts == size.get("expert", 1)
    assert torch.equal(layout.restore(canonical, experts), tensor)
    for expert in range(experts):
        one = canonical.unflatten(0, (experts, -1))[expert]
        taken = tensor.select(axes.index("expert"), expert) if "expert" in axes else tensor
        rest = [name for name in axes if name != "expert"]
        order = [rest.index(name) for name in ("out", "in", *(name for name in rest if name.startswith("k")))]
        assert torch.equal(one, taken.permute(order))


@pytest.mark.parametrize("text", ["out in", "expert out in kh kw", "in out k"])
def test_a_turned_weight_shares_its_memory_where_it_can(text: str) -> None:
    layout = Layout.parse(text)
    tensor = torch.randn([3] * len(layout.axes))
    assert layout.canonical(tensor).data_ptr() == tensor.data_ptr()
    assert str(layout) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out", "'out' has no 'in': it needs one 'out' and one 'in'"),
        ("", "'' has no 'out'"),
        ("expert in kh", "'expert in kh' has no 'out'"),
        ("out in out", "'out in out' has 'out' twice"),
        ("out in kh kh", "'out in kh kh' has 'kh' twice"),
        ("expert expert out in", "'expert expert out in' has 'expert' twice"),
        ("experts out in", "'experts out in' has 'experts': the names are 'out', 'in' and 'expert'"),
        ("Out in", "'Out in' has 'Out': the names are"),
        ("outputs inputs", "'outputs inputs' has 'outputs': the names are"),
        ("out,in", "'out,in' has 'out,in': the names are"),
    ],
)
def test_G13_a_layout_that_is_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Layout.parse(text)


class Stacked(nn.Linear):
    """A layer that is a Linear by its class and keeps three weights in one."""

    def __init__(self) -> None:
        super().__init__(2, 3)
        self.weight = nn.Parameter(torch.ones(3, 3, 2))
        self.lora = nn.Parameter(torch.ones(2, 2))


KNOWN: list[tuple[str, Callable[[], nn.Module], dict[str, str | None]]] = [
    ("linear", lambda: nn.Linear(2, 3), {"weight": "out in"}),
    ("conv", lambda: nn.Conv2d(2, 4, 3, groups=2), {"weight": "out in k0 k1"}),
    ("conv 3d", lambda: nn.Conv3d(2, 4, 3), {"weight": "out in k0 k1 k2"}),
    ("transposed conv", lambda: nn.ConvTranspose1d(2, 3, 3), {"weight": "in out k0"}),
    ("GPT-2's linear layer", lambda: Conv1D(6, 2), {"weight": "in out"}),
    ("bilinear", lambda: nn.Bilinear(2, 3, 4), {"weight": "out in k0"}),
    ("embedding", lambda: nn.Embedding(5, 2), {"weight": "out in"}),
    ("embedding bag", lambda: nn.EmbeddingBag(5, 2), {"weight": "out in"}),
    ("lstm", lambda: nn.LSTM(3, 4, proj_size=2), dict.fromkeys(("weight_ih_l0", "weight_hr_l0"), "out in")),
    ("gru cell", lambda: nn.GRUCell(3, 4), dict.fromkeys(("weight_ih", "weight_hh"), "out in")),
    ("attention", lambda: nn.MultiheadAttention(4, 2), {"in_proj_weight": "out in", "out_proj.weight": "out in"}),
    (
        "attention of three widths",
        lambda: nn.MultiheadAttention(4, 2, kdim=2, vdim=3, add_bias_kv=True),
        {"q_proj_weight": "out in", "k_proj_weight": "out in", "v_proj_weight": "out in", "bias_k": None},
    ),
    ("stacked", Stacked, {"weight": None, "lora": None, "bias": None}),
    ("bare", lambda: nn.ParameterList([torch.ones(2, 2)]), {"0": None}),
]


@pytest.mark.parametrize(("make", "expected"), [case[1:] for case in KNOWN], ids=[case[0] for case in KNOWN])
def test_what_layers_are_known_to_hold(make: Callable[[], Any], expected: dict[str, str | None]) -> None:
    model = make()
    for name, text in expected.items():
        path, _, attribute = name.rpartition(".")
        layout = layout_of(model.get_submodule(path), attribute, model.get_parameter(name).dim())
        assert (layout and str(layout)) == text


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(5, 4), torch.randn(1, 5)),
        (Conv1D(4, 5), torch.randn(1, 5)),
        (nn.Conv1d(5, 4, 1), torch.randn(1, 5, 1)),
        (nn.ConvTranspose1d(5, 4, 1), torch.randn(1, 5, 1)),
    ],
    ids=["Linear", "Conv1D", "Conv1d", "ConvTranspose1d"],
)
def test_a_row_of_the_canonical_weight_is_what_leads_to_one_output(layer: Any, inputs: torch.Tensor) -> None:
    """By the layer's own forward: without a row the output is the bias, without a column the input has no effect."""
    layout = layout_of(layer, "weight", layer.weight.dim())
    assert layout
    with torch.no_grad():
        layout.canonical(layer.weight)[2] = 0
        assert layer(inputs).flatten()[2] == layer.bias[2]
        layout.canonical(layer.weight)[:, 3] = 0
        before = layer(inputs).clone()
        inputs[0, 3] += 1
        assert torch.equal(layer(inputs), before)
