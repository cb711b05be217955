"""Which weights are selected: golden selections for whole layers and models, and the errors for rules that miss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_prune.targets import Targets, groups


class Vit(nn.Module):
    """The parts of a vision transformer that hold parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.patch_embed = nn.Conv2d(3, 8, 4, stride=4)
        self.qkv = nn.Linear(8, 24, bias=False)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 10)


class TiedHead(nn.Module):
    """A language model whose head is its embedding, and two linear layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.up = nn.Linear(6, 6)
        self.down = nn.Linear(6, 6)
        self.down.weight = self.up.weight
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight


class Bare(nn.Module):
    """Parameters that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(3, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.out_bias = nn.Parameter(torch.ones(1, 4))
        self.experts = nn.ParameterList([torch.ones(2, 2, 2), torch.ones(2)])
        self.table = nn.Parameter(torch.ones(2, 2, dtype=torch.int32), requires_grad=False)
        self.nothing = nn.Parameter(torch.ones(0, 3))


def frozen_backbone() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.GroupNorm(2, 4),
        nn.LayerNorm([4, 6, 6]),
        nn.InstanceNorm2d(4, affine=True),
        nn.ConvTranspose1d(4, 2, 3),
        nn.ConvTranspose2d(4, 2, 3),
        nn.ConvTranspose3d(4, 2, 3),
        nn.PReLU(4),
        nn.Bilinear(2, 3, 4),
    )


BIDIRECTIONAL = [
    f"weight_{which}_l{layer}{reverse}" for layer in (0, 1) for reverse in ("", "_reverse") for which in ("ih", "hh")
]

GOLDEN: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "mlp": (mlp, ["0.weight", "3.weight"]),
    "conv net": (conv_net, ["0.weight", "4.weight", "5.weight", "6.weight", "8.weight"]),
    "lstm cell": (lambda: nn.LSTMCell(3, 4), ["weight_ih", "weight_hh"]),
    "gru cell": (lambda: nn.GRUCell(3, 4), ["weight_ih", "weight_hh"]),
    "lstm": (lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True), BIDIRECTIONAL),
    "gru": (lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True), BIDIRECTIONAL),
    "lstm with projection": (lambda: nn.LSTM(3, 4, proj_size=2), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
    "attention": (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), ["in_proj_weight", "out_proj.weight"]),
    "attention of three widths": (
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6),
        ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
    ),
    "encoder layer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16),
        ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"],
    ),
    "vit": (Vit, ["patch_embed.weight", "qkv.weight", "head.weight"]),
    "tied head": (TiedHead, ["up.weight"]),
    "bare": (Bare, ["kernel", "experts.0"]),
    "frozen": (frozen_backbone, ["1.weight"]),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 2)),
        ["1.weight"],
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_G14_golden_selections(case: str) -> None:
    make, expected = GOLDEN[case]
    model = make()
    found = Targets().find(model)
    assert [target.name for target in found.targets] == expected
    everything = {name for name, _ in model.named_parameters()}
    assert set(found.skipped) == everything - set(expected), "every other parameter has its reason"
    for target in found.targets:
        assert target.parameter is model.get_parameter(target.name)


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (mlp, "1.weight", "norm"),
        (mlp, "0.bias", "bias"),
        (conv_net, "2.weight", "norm"),
        (conv_net, "7.weight", "fewer than two dimensions"),
        (Vit, "cls_token", "token: an input that is learned"),
        (Vit, "pos_embed", "table of positions"),
        (Vit, "relative_position_bias_table", "table of positions"),
        (TiedHead, "embedding.weight", "embedding (tied: embedding.weight, head.weight)"),
        (Bare, "table", "torch.int32, not a float"),
        (Bare, "out_bias", "bias"),
        (Bare, "nothing", "empty"),
        (frozen_backbone, "0.weight", "frozen"),
    ],
)
def test_G14_the_reason_is_said(make: Callable[[], nn.Module], name: str, reason: str) -> None:
    assert Targets().find(make()).skipped[name] == reason


def test_G14_frozen_and_normed_weights_on_request() -> None:
    names = [target.name for target in Targets(include=(r"^0\.weight$", "1.bias")).find(frozen_backbone()).targets]
    assert names == ["0.weight", "1.bias"]


def test_an_embedding_on_request_through_either_of_its_names() -> None:
    for pattern in ("embedding", r"^head\.weight$"):
        (target,) = Targets(include=(pattern,)).find(TiedHead()).targets
        assert target.name == "embedding.weight"
        assert target.names == ("embedding.weight", "head.weight")


def test_G15_a_tied_weight_is_one_target_with_all_its_owners() -> None:
    model = TiedHead()
    (target,) = Targets().find(model).targets
    assert target.names == ("up.weight", "down.weight")
    assert target.owners == ((model.up, "weight"), (model.down, "weight"))


def test_exclude_wins_over_include_and_holds_for_every_name_of_a_tied_weight() -> None:
    targets = Targets(include=("up.weight", "embedding"), exclude=("^down",))
    found = targets.find(TiedHead())
    assert [target.name for target in found.targets] == ["embedding.weight"]
    assert found.skipped["up.weight"] == "excluded by '^down'"


@pytest.mark.parametrize(
    ("layer", "layout"),
    [
        (nn.ConvTranspose1d(2, 3, 2), "in out k0"),
        (nn.ConvTranspose2d(2, 3, 2), "in out k0 k1"),
        (nn.ConvTranspose3d(2, 3, 2), "in out k0 k1 k2"),
        (nn.Conv2d(2, 3, 2), "out in k0 k1"),
        (nn.Linear(2, 3), "out in"),
    ],
)
def test_which_weights_have_their_inputs_first(layer: nn.Module, layout: str) -> None:
    assert [str(target.layout) for target in Targets().find(layer).targets] == [layout]


def layouts(targets: Targets, model: nn.Module) -> dict[str, str | None]:
    return {target.name: target.layout and str(target.layout) for target in targets.find(model).targets}


def test_G31_a_layout_that_nobody_declares_is_not_guessed() -> None:
    assert layouts(Targets(), Bare()) == {"kernel": None, "experts.0": None}


def test_G31_the_first_layout_that_matches_holds_over_what_is_known() -> None:
    declared = Targets(layout={"experts": "expert in out", r"^e": "out in k", "kernel": "in out"})
    assert layouts(declared, Bare()) == {"kernel": "in out", "experts.0": "expert in out"}
    assert layouts(Targets(layout={"^0": "in out"}), mlp()) == {"0.weight": "in out", "3.weight": "out in"}


class TiedToItsTurn(nn.Module):
    """One parameter in two layers that disagree on what its dimensions are."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 3)
        self.down = nn.Module()
        self.down.weight = self.up.weight
        self.turned = nn.ConvTranspose1d(3, 3, 1)
        self.straight = nn.Conv1d(3, 3, 1)
        self.straight.weight = self.turned.weight


def test_G31_a_tied_weight_has_the_layout_that_its_layers_agree_on() -> None:
    assert layouts(Targets(), TiedToItsTurn()) == {"up.weight": "out in", "turned.weight": None}
    included = Targets(include=("head",), layout={"embedding": "in out"})
    assert layouts(included, TiedHead()) == {"embedding.weight": "in out"}, "by either name"


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"kernl": "out in"}, "layout pattern 'kernl' matches no weight; near matches: kernel"),
        ({"scale": "out in"}, "layout pattern 'scale' matches no weight; near matches: "),
        (
            {"experts": "out in"},
            r"layout\['experts'\]: 'out in' names 2 dimensions, and 'experts.0' has 3, of shape \(",
        ),
        ({"k": "expert out in"}, r"'expert out in' names 3 dimensions, and 'kernel' has 2, of shape \(3, 4\)"),
    ],
)
def test_G13_a_layout_that_fits_no_weight(layout: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Targets(layout=layout).find(Bare())


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"kernel": "out"}, r"layout\['kernel'\]: 'out' has no 'in'"),
        ({"kernel": 2}, r"layout\['kernel'\]: 2 must be a string of names"),
        ("out in", "layout='out in' must map patterns to layouts"),
    ],
)
def test_G13_a_layout_that_is_none(layout: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Targets(layout=layout)


def test_both_weights_of_a_recurrent_layer_are_one_group() -> None:
    model = nn.ModuleDict(
        {"rnn": nn.LSTM(3, 4, 2, bidirectional=True), "cell": nn.GRUCell(2, 2), "out": nn.Linear(4, 2)}
    )
    ((rule, by_group),) = groups(Targets().find(model))
    assert rule is None
    members = {name: [target.name.rpartition(".")[2] for target in targets] for name, targets in by_group.items()}
    assert members == {
        "rnn.weight_l0": ["weight_ih_l0", "weight_hh_l0"],
        "rnn.weight_l0_reverse": ["weight_ih_l0_reverse", "weight_hh_l0_reverse"],
        "rnn.weight_l1": ["weight_ih_l1", "weight_hh_l1"],
        "rnn.weight_l1_reverse": ["weight_ih_l1_reverse", "weight_hh_l1_reverse"],
        "cell.weight": ["weight_ih", "weight_hh"],
        "out.weight": ["weight"],
    }


def test_the_first_sparsity_rule_that_matches_holds() -> None:
    found = Targets(sparsity={"^3": 0.5, "weight": 0.8}).find(mlp())
    assert [(target.name, target.rule) for target in found.targets] == [("0.weight", "weight"), ("3.weight", "^3")]


def test_names_are_those_without_the_wrapper_of_a_compiled_module() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    wrapped: Any = torch.compile(model)
    found = Targets(include=(r"^0\.weight$",)).find(wrapped)
    assert [target.names for target in found.targets] == [("0.weight",)]


@pytest.mark.parametrize("key", ["include", "exclude", "sparsity"])
def test_G13_a_pattern_that_matches_nothing_names_near_ones(key: str) -> None:
    pattern: Any = {"encodr.weight": 0.5} if key == "sparsity" else ["encodr.weight"]
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "zzz": nn.Linear(2, 2)})
    with pytest.raises(
        ValueError, match=rf"{key} pattern 'encodr.weight' matches no weight; near matches: encoder.weight"
    ):
        Targets(**{key: pattern}).find(model)


def test_G13_a_sparsity_for_what_is_left_whole_matches_nothing() -> None:
    with pytest.raises(ValueError, match="sparsity pattern 'bias' matches no weight"):
        Targets(sparsity={"bias": 0.5}).find(mlp())


@pytest.mark.parametrize("key", ["include", "exclude", "sparsity", "layout"])
def test_G13_a_bad_regular_expression(key: str) -> None:
    pattern: Any = {"sparsity": {"*.weight": 0.5}, "layout": {"*.weight": "out in"}}.get(key, ["*.weight"])
    with pytest.raises(ValueError, match=rf"{key} has '\*\.weight', which is no regular expression"):
        Targets(**{key: pattern})


def test_G13_a_string_where_patterns_belong() -> None:
    pattern: Any = "head"
    with pytest.raises(ValueError, match=r"include='head' must be a sequence of patterns: \['head'\]"):
        Targets(include=pattern)


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.5", True])
def test_G13_a_sparsity_that_is_no_share(value: Any) -> None:
    with pytest.raises(ValueError, match="sparsity"):
        Targets(sparsity={"weight": value})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.BatchNorm1d(3), r"select no weight of BatchNorm1d \(weight: norm; bias: norm\)"),
        (nn.ReLU(), r"select no weight of ReLU \(it has no parameters\)"),
        (nn.LazyLinear(3), "'weight' has no shape yet"),
    ],
)
def test_G13_nothing_to_prune(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Targets().find(model)
