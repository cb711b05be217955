"""The architectures on which pruning, shrinking and loading are tried: how to build each, and what must be found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.coupling import nets


def images(batch: int = 2, size: int = 8) -> Tensor:
    return torch.randn(batch, 3, size, size)


def tokens(batch: int = 2, length: int = 6) -> Tensor:
    return torch.randint(0, 11, (batch, length))


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        build: makes it, with random weights.
        example: makes the example inputs.
        others: other inputs that it takes.
        found: the first weight of every group that must be found -> other weights that must be in it.
        refused: weights that must stay whole -> what the reason says.
        frozen: beginnings of the names of parameters that do not train.
    """

    build: Callable[[], nn.Module]
    example: Callable[[], Any]
    others: tuple[Callable[[], Any], ...]
    found: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    frozen: tuple[str, ...] = ()

    def model(self) -> nn.Module:
        """Return it with statistics in its norms that are no longer 0 and 1."""
        torch.manual_seed(0)
        model = self.build()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):  # small, or little is left of what comes in
                buffer.copy_(0.1 * torch.randn_like(buffer))
            if name.endswith("running_var"):
                buffer.copy_(0.1 * torch.rand_like(buffer) + 0.05)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen or ("no such",)))
        return model.eval()


OUTPUT, NORMALISES = "model's output", "normalises over its channels"
ANY_SIZE = (lambda: images(5), lambda: images(1, 12))
ANY_LENGTH = (lambda: tokens(5), lambda: tokens(1, 9))
OTHER_BATCH = (lambda: images(5),)


def _plain_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 5)
    )


def _weight_norm() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
    return nn.Sequential(
        first, nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(12, 4, 1)
    )


def _vgg() -> nn.Module:
    features = (nets.conv_bn(3, 8), nets.conv_bn(8, 8), nn.MaxPool2d(2), nets.conv_bn(8, 16), nn.MaxPool2d(2))
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5))


def _resnet() -> nn.Module:
    blocks = (nets.BasicBlock(8, 8), nets.BasicBlock(8, 16, 2), nets.BasicBlock(16, 16))
    return nets.Pooled(nets.conv_bn(3, 8), *blocks, width=16)


def _bottlenecks(groups: int = 1) -> nn.Module:
    blocks = (nets.Bottleneck(16, 16, 32, groups), nets.Bottleneck(32, 16, 32, groups))
    return nets.Pooled(nets.conv_bn(3, 16), *blocks, width=32)


def _mobilenet() -> nn.Module:
    blocks = (nets.InvertedResidual(8, 8), nets.InvertedResidual(8, 12), nets.InvertedResidual(12, 12))
    return nets.Pooled(nets.conv_bn(3, 8), *blocks, width=12)


def _convnext() -> nn.Module:
    stem = (nn.Conv2d(3, 8, 2, 2), nets.LayerNorm2d(8))
    return nets.Pooled(*stem, nets.ConvNeXtBlock(8), nets.ConvNeXtBlock(8), width=8)


def _squeeze_excite() -> nn.Module:
    return nets.Pooled(
        nets.conv_bn(3, 12),
        nets.SqueezeExcite(12, 4),
        nets.conv_bn(12, 12),
        nets.SqueezeExcite(12, 4, linear=True),
        width=12,
    )


def _transformer(*names: str) -> dict[str, tuple[str, ...]]:
    """Return what is found in both of its blocks: the heads, and the hidden units."""
    heads, project, first, second = names
    found: dict[str, tuple[str, ...]] = {}
    for block in (0, 1):
        at = heads.format(block)
        found[at] = (project.format(block),)
        found[first.format(block)] = (second.format(block),)
    return found


_BLOCK_MLP = ("blocks.{}.mlp.fc1.weight", "blocks.{}.mlp.fc2.weight")
_GPT = _transformer("blocks.{}.attn.c_attn.weight", "blocks.{}.attn.c_proj.weight", *_BLOCK_MLP)
_ENCODER = _transformer(
    "encoder.layers.{}.self_attn.in_proj_weight",
    "encoder.layers.{}.self_attn.out_proj.weight",
    "encoder.layers.{}.linear1.weight",
    "encoder.layers.{}.linear2.weight",
)
_RESNET = {
    "0.0.weight": ("1.conv1.weight", "1.conv2.weight", "1.bn2.weight", "2.conv1.weight", "2.downsample.0.weight"),
    "2.conv2.weight": ("2.downsample.0.weight", "3.conv1.weight", "3.conv2.weight", "6.weight"),
    "1.conv1.weight": ("1.bn1.weight", "1.conv2.weight"),
    "2.conv1.weight": ("2.bn1.weight", "2.conv2.weight"),
    "3.conv1.weight": ("3.bn1.weight", "3.conv2.weight"),
}
_BOTTLENECK = {
    "0.0.weight": ("1.reduce.0.weight", "1.downsample.weight"),
    "1.expand.0.weight": ("1.downsample.weight", "2.reduce.0.weight", "2.expand.0.weight", "5.weight"),
    "1.reduce.0.weight": ("1.conv.0.weight",),
    "1.conv.0.weight": ("1.expand.0.weight",),
    "2.reduce.0.weight": ("2.conv.0.weight",),
    "2.conv.0.weight": ("2.expand.0.weight",),
}

ARCHITECTURES = {
    "plain_conv": Architecture(
        _plain_conv,
        images,
        OTHER_BATCH,
        {"0.weight": ("2.weight",), "2.weight": ("5.weight",)},
        {"5.weight": OUTPUT},
    ),
    "vgg": Architecture(
        _vgg,
        images,
        OTHER_BATCH,
        {"0.0.weight": ("1.0.weight",), "3.0.weight": ("3.1.weight", "6.weight"), "6.weight": ("9.weight",)},
        {"9.weight": OUTPUT},
    ),
    "resnet_basic": Architecture(_resnet, images, ANY_SIZE, _RESNET, {"6.weight": OUTPUT}),
    "resnet_bottleneck": Architecture(_bottlenecks, images, ANY_SIZE, _BOTTLENECK, {"5.weight": OUTPUT}),
    "resnext": Architecture(lambda: _bottlenecks(4), images, ANY_SIZE, _BOTTLENECK, {"5.weight": OUTPUT}),
    "mobilenet_v2": Architecture(
        _mobilenet,
        images,
        ANY_SIZE,
        {
            "0.0.weight": ("1.conv.0.0.weight", "1.conv.2.weight", "2.conv.0.0.weight"),
            "1.conv.0.0.weight": ("1.conv.1.0.weight", "1.conv.1.1.weight", "1.conv.2.weight"),
            "2.conv.0.0.weight": ("2.conv.1.0.weight", "2.conv.2.weight"),
            "2.conv.2.weight": ("3.conv.0.0.weight", "3.conv.2.weight", "6.weight"),
            "3.conv.0.0.weight": ("3.conv.1.0.weight", "3.conv.2.weight"),
        },
    ),
    "densenet": Architecture(
        nets.DenseNet,
        images,
        ANY_SIZE,
        {
            "stem.weight": ("one.0.0.weight", "one.0.2.weight", "one.2.2.weight", "transition.0.0.weight"),
            "one.0.2.weight": ("one.1.2.weight", "one.2.2.weight", "transition.0.0.weight"),
            "one.2.2.weight": ("transition.0.0.weight",),
            "transition.0.0.weight": ("two.0.2.weight", "two.1.0.weight", "norm.weight", "head.weight"),
            "two.1.2.weight": ("norm.weight", "head.weight"),
        },
    ),
    "unet": Architecture(
        nets.UNet,
        images,
        ANY_SIZE,
        {
            "down1.0.weight": ("down2.0.weight", "merge1.0.weight"),
            "down2.0.weight": ("bottom.0.weight", "merge2.0.weight"),
            "bottom.0.weight": ("up2.weight",),
            "up2.weight": ("merge2.0.weight",),
            "merge2.0.weight": ("up1.weight",),
            "up1.weight": ("merge1.0.weight",),
        },
        {"head.weight": OUTPUT},
    ),
    "convnext": Architecture(
        _convnext,
        images,
        ANY_SIZE,
        {"2.pwconv1.weight": ("2.pwconv2.weight",), "3.pwconv1.weight": ("3.pwconv2.weight",)},
        {"0.weight": NORMALISES, "2.dwconv.weight": NORMALISES, "2.pwconv2.weight": NORMALISES},
    ),
    "squeeze_excite": Architecture(
        _squeeze_excite,
        images,
        ANY_SIZE,
        {
            "0.0.weight": ("1.fc1.weight", "1.fc2.weight", "2.0.weight"),
            "1.fc1.weight": ("1.fc2.weight",),
            "2.0.weight": ("3.fc1.weight", "3.fc2.weight", "6.weight"),
            "3.fc1.weight": ("3.fc2.weight",),
        },
    ),
    "inception": Architecture(
        lambda: nets.Pooled(nets.conv_bn(3, 8), nets.Inception(8), nets.Inception(18), width=18),
        images,
        ANY_SIZE,
        {
            "0.0.weight": ("1.branch1.0.weight", "1.branch5.0.0.weight", "1.pool.1.0.weight"),
            "1.branch3.0.0.weight": ("1.branch3.1.0.weight",),
            "1.branch3.1.0.weight": ("2.branch1.0.weight", "2.branch3.0.0.weight", "2.pool.1.0.weight"),
            "1.pool.1.0.weight": ("2.branch1.0.weight",),
            "2.branch1.0.weight": ("5.weight",),
        },
    ),
    "shufflenet": Architecture(
        lambda: nets.Pooled(nets.conv_bn(3, 16), nets.ShuffleUnit(16), nets.ShuffleUnit(16), width=16),
        images,
        ANY_SIZE,
        {
            "1.branch.0.0.weight": ("1.branch.1.weight", "1.branch.3.0.weight"),
            "2.branch.0.0.weight": ("2.branch.1.weight", "2.branch.3.0.weight"),
        },
        {"0.0.weight": "hang together", "1.branch.3.0.weight": "hang together"},
    ),
    "group_norm": Architecture(
        nets.GroupNormNet,
        images,
        ANY_SIZE,
        {"conv2.weight": ("norm2.weight", "conv3.weight"), "conv3.weight": ("norm3.weight", "slope.weight")},
        {"conv1.weight": f"norm1 {NORMALISES}"},
    ),
    "lstm": Architecture(
        lambda: nets.Recurrent(nn.LSTM, 2),
        tokens,
        ANY_LENGTH,
        {"rnn.weight_ih_l0": ("rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1", "head.weight")},
    ),
    "gru": Architecture(
        lambda: nets.Recurrent(nn.GRU, bidirectional=True),
        tokens,
        ANY_LENGTH,
        {"rnn.weight_ih_l0": ("rnn.weight_hh_l0", "rnn.weight_ih_l0_reverse", "head.weight")},
    ),
    "transformer_encoder": Architecture(nets.Encoder, tokens, ANY_LENGTH, _ENCODER, {"embed.weight": NORMALISES}),
    "transformer_encoder_norm_first": Architecture(lambda: nets.Encoder(True), tokens, ANY_LENGTH, _ENCODER),
    "gpt": Architecture(nets.GPT, tokens, ANY_LENGTH, _GPT, {"wte.weight": NORMALISES, "head.weight": OUTPUT}),
    "gpt_tied": Architecture(lambda: nets.GPT(tied=True), tokens, ANY_LENGTH, _GPT, {"wte.weight": ""}),
    "gpt_of_fixed_width": Architecture(
        lambda: nets.GPT(own=False),
        tokens,
        ANY_LENGTH,
        {"blocks.0.mlp.fc1.weight": (), "blocks.1.mlp.fc1.weight": ()},
        {"blocks.0.attn.c_attn.weight": "without some of them the model fails"},
    ),
    "vit": Architecture(
        nets.ViT,
        images,
        OTHER_BATCH,
        _transformer("blocks.{}.attn.qkv.weight", "blocks.{}.attn.proj.weight", *_BLOCK_MLP),
        {"patch_embed.weight": NORMALISES, "pos_embed": NORMALISES, "cls_token": NORMALISES},
    ),
    "vit_separate": Architecture(
        lambda: nets.ViT(separate=True),
        images,
        OTHER_BATCH,
        _transformer("blocks.{}.attn.to_q.weight", "blocks.{}.attn.to_out.0.weight", *_BLOCK_MLP),
    ),
    "mlp_mixer": Architecture(
        nets.Mixer,
        images,
        OTHER_BATCH,
        {f"blocks.{i}.{kind}_mlp.fc1.weight": () for i in (0, 1) for kind in ("token", "channel")},
        {"stem.weight": NORMALISES},
    ),
    "gated_mlp": Architecture(
        lambda: nn.Sequential(nets.GatedMLP(8, 12), nn.Linear(8, 3)),
        lambda: torch.randn(2, 5, 8),
        (lambda: torch.randn(7, 3, 8),),
        {"0.fc1.weight": ("0.fc2.weight",), "0.fc2.weight": ("1.weight",)},
    ),
    "skips": Architecture(
        nets.Skips,
        lambda: torch.randn(2, 9),
        (lambda: torch.randn(7, 9),),
        {"first.weight": ("gated.weight",), "gated.weight": ("head.weight",)},
    ),
    "attention_pool": Architecture(
        nets.AttentionPool,
        tokens,
        ANY_LENGTH,
        {"rnn.weight_ih_l0": ("rnn.weight_hh_l1_reverse", "score.weight", "head.weight")},
        {"score.weight": "it has one channel"},
    ),
    "local_response_norm": Architecture(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.LocalResponseNorm(3), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 4, 1)
        ),
        images,
        ANY_SIZE,
        {"2.weight": ("4.weight",)},
        {"0.weight": NORMALISES},
    ),
    "weight_norm": Architecture(
        _weight_norm,
        images,
        ANY_SIZE,
        {"2.weight": ("5.weight",)},
        {"0.parametrizations.weight.original1": "parametrized"},
    ),
    "frozen": Architecture(
        _resnet,
        images,
        ANY_SIZE,
        {name: _RESNET[name] for name in ("0.0.weight", "1.conv1.weight", "2.conv1.weight")},
        {"3.conv1.weight": "frozen"},
        frozen=("3.conv1",),
    ),
    "tied": Architecture(
        nets.TiedMLP,
        lambda: torch.randn(2, 9),
        (lambda: torch.randn(7, 9),),
        {"first.weight": ("twice.weight", "last.weight"), "last.weight": ("out.weight",)},
    ),
    "unreached": Architecture(
        nets.Unreached,
        lambda: torch.randn(2, 9),
        (lambda: torch.randn(7, 9),),
        {"hidden.weight": ("head.weight",)},
        {"other.weight": "the outputs do not depend on it", "head.weight": OUTPUT},
    ),
}
