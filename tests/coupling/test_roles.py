"""What is a weight and what is not: vectors in disguise, tables, gains, adapters, weights that are made of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

from lightning_prune.targets import Targets


class Holder(nn.Module):
    """One bare parameter, beside a layer that is pruned."""

    def __init__(self, name: str, *shape: int) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        self.layer = nn.Linear(3, 3)


class PosEmbedRel(Holder):
    """timm's relative positions of BoTNet are called `height_rel` and `width_rel`."""


class VocabEmbedding(Holder):
    """A table that is no nn.Embedding."""


VECTOR, GAIN = "fewer than two dimensions larger than 1", "scale, shift or gain"
TABLE, TOKEN = "table of positions", "token: an input that is learned"
LOG = "logarithm or decay: a zero in it is no zero of what is computed with"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Holder("w", 8, 1, 1), VECTOR),
        (lambda: Holder("w", 1, 1, 1, 8), VECTOR),
        (lambda: Holder("w", 1, 8, 1), VECTOR),
        (lambda: Holder("w", 1, 1), VECTOR),
        (lambda: Holder("w", 8), "fewer than two dimensions"),
        (lambda: Holder("w", 1, 8, 2), None),
        (lambda: Holder("layer_scale_1", 8, 1, 1), GAIN),
        (lambda: Holder("gamma", 4, 8), GAIN),
        (lambda: Holder("beta_2", 4, 8), GAIN),
        (lambda: Holder("logit_scale", 4, 2, 1), GAIN),
        (lambda: Holder("skip_scale", 4, 8), GAIN),
        (lambda: Holder("temperature", 4, 8), GAIN),
        (lambda: Holder("scale_shift_table", 6, 8), GAIN),
        (lambda: Holder("alpha", 4, 8), GAIN),
        (lambda: Holder("rescaled", 4, 8), None),
        (lambda: Holder("alphabet", 4, 8), None),
        (lambda: Holder("position_projection_of", 4, 8), TABLE),
        (lambda: Holder("composition", 4, 8), None),
        (lambda: Holder("rel_pos_h", 7, 8), TABLE),
        (lambda: Holder("pos_embed1", 1, 7, 8), TABLE),
        (lambda: Holder("relative_position_bias_table", 9, 2), TABLE),
        (lambda: PosEmbedRel("height_rel", 9, 8), TABLE),
        (lambda: Holder("attention_biases", 4, 9), "bias"),
        (lambda: Holder("cls_token_0", 2, 4, 8), TOKEN),
        (lambda: Holder("latents", 4, 8), TOKEN),
        (lambda: Holder("codevectors", 1, 4, 8), "embedding"),
        (lambda: VocabEmbedding("weight", 4, 8), "embedding"),
        (lambda: Holder("A_log", 4, 8), LOG),
        (lambda: Holder("time_decay", 4, 8), LOG),
        (lambda: Holder("logits_of", 4, 8), None),
        (lambda: Holder("gate_up_proj", 2, 4, 8), None),
    ],
)
def test_G31_a_bare_parameter_is_a_weight_or_has_a_reason(make: Callable[[], Holder], reason: str | None) -> None:
    model = make()
    (name,) = (n for n, _ in model.named_parameters() if not n.startswith("layer."))
    assert Targets().find(model).skipped.get(name) == reason


def test_G31_parameters_in_lists_and_dicts_are_what_the_list_is_called() -> None:
    model = nn.Module()
    model.gamma = nn.ParameterList([torch.ones(3, 4), torch.ones(3, 4)])
    model.experts = nn.ParameterDict({"up": torch.ones(3, 4), "scale": torch.ones(3, 4)})
    found = Targets().find(model)
    assert [target.name for target in found.targets] == ["experts.up"]
    assert found.skipped == {"gamma.0": GAIN, "gamma.1": GAIN, "experts.scale": GAIN}


class ConvNorm(nn.Conv1d):
    """A convolution, whatever it is called."""


def conv1d_of_gpt2(size: int) -> nn.Module:
    layer: Any = type("Conv1D", (nn.Module,), {})()
    layer.nf, layer.weight = size, nn.Parameter(torch.ones(4, size))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(64, 1),
        nn.Linear(1, 64),
        nn.Linear(1, 1),
        nn.Conv2d(1, 8, 1),
        nn.Conv2d(8, 8, 1, groups=8),
        nn.Conv1d(8, 1, 1),
        nn.Bilinear(1, 1, 3),
        nn.LSTM(1, 1),
        nn.GRUCell(1, 1),
        nn.MultiheadAttention(1, 1),
        conv1d_of_gpt2(1),
        ConvNorm(1, 4, 1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_G31_the_weights_of_layers_are_weights_whatever_their_shape(layer: nn.Module) -> None:
    model = nn.ModuleDict({"layer": layer})
    expected = {n for n, p in model.named_parameters() if p.dim() > 1}
    assert {target.name for target in Targets().find(model).targets} == expected


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt block: depthwise convolution, two 1x1 layers, and a scale for each channel."""

    def __init__(self, width: int, permuted: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(width, width, 7, groups=width), nn.Linear(width, 4 * width)])
        self.layer_scale = nn.Parameter(torch.full((width,) if permuted else (width, 1, 1), 1e-6))
        self.grn = nn.Parameter(torch.zeros(1, 1, 1, 4 * width))


@pytest.mark.parametrize("permuted", [True, False])
def test_G31_layer_scales_are_left_whole(permuted: bool) -> None:
    model = nn.Sequential(*(ConvNeXtBlock(width, permuted) for width in (2, 4)))
    found = Targets().find(model)
    assert all(".layers." in target.name for target in found.targets)
    assert len(found.targets) == 4
    assert found.skipped["0.layer_scale"] == GAIN


# Weights made of others


@pytest.mark.parametrize(
    ("layer", "parameter"),
    [
        (lambda: weight_norm(nn.Linear(3, 4)), "0.weight_v"),
        (lambda: weight_norm(nn.Conv1d(3, 4, 2)), "0.weight_g"),
        (lambda: weight_norm(nn.LSTM(3, 4), "weight_hh_l0"), "0.weight_hh_l0_v"),
        (lambda: spectral_norm(nn.Linear(3, 4)), "0.weight_orig"),
        (lambda: spectral_norm(nn.Conv2d(3, 4, 2)), "0.weight_orig"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_G31_weights_that_hooks_make_are_left_whole(layer: Callable[[], nn.Module], parameter: str) -> None:
    model = nn.Sequential(layer(), nn.Linear(4, 4))
    found = Targets().find(model)
    reason = "spectral norm" if parameter.endswith("_orig") else "weight norm"
    assert found.skipped[parameter].startswith(f"{reason}: the weight is made of it in each forward")
    assert not {parameter, parameter.replace("_v", "_g")} & {target.name for target in found.targets}
    assert "1.weight" in {target.name for target in found.targets}


# Parameters that cannot have a mask


def sparse() -> Tensor:
    return torch.eye(4).to_sparse()


UNFIT: dict[str, tuple[Callable[[], Tensor], str]] = {
    "coo": (sparse, "torch.sparse_coo, not a dense tensor"),
    "csr": (lambda: torch.eye(4).to_sparse_csr(), "torch.sparse_csr, not a dense tensor"),
    "float8": (lambda: torch.ones(4, 4).to(torch.float8_e4m3fn), "torch.float8_e4m3fn, too short a float to be ranked"),
    "float8 with more range": (
        lambda: torch.ones(4, 4).to(torch.float8_e5m2),
        "torch.float8_e5m2, too short a float to be ranked",
    ),
    "complex": (lambda: torch.ones(4, 4, dtype=torch.complex64), "torch.complex64, not a float"),
    "int": (lambda: torch.ones(4, 4, dtype=torch.int8), "torch.int8, not a float"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.quint8),
        "torch.quint8, not a float",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize("case", UNFIT)
def test_G31_what_cannot_have_a_mask_is_skipped_and_refused_by_name(case: str) -> None:
    make, reason = UNFIT[case]
    model = nn.Module()
    model.kernel = nn.Parameter(make(), requires_grad=False)
    model.layer = nn.Linear(2, 2)
    assert Targets().find(model).skipped["kernel"] == reason
    with pytest.raises(
        ValueError, match=rf"include pattern 'k\.\*l' names 'kernel', which cannot be masked \({reason}"
    ):
        Targets(include=("layer", "k.*l")).find(model)
    left = Targets(include=("layer", "k.*l"), exclude=("kernel",)).find(model)
    assert left.skipped["kernel"] == "excluded by 'kernel'"
