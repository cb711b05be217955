"""The convolutional architectures: how to build each, and what must be found in it."""

from torch import nn

from tests.coupling.architecture import ANY_SIZE, NORMALISES, OTHER_BATCH, OUTPUT, Architecture, images
from tests.coupling.nets import convolutions as nets


def _plain_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 5)
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

CONVOLUTIONS = {
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
    "local_response_norm": Architecture(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.LocalResponseNorm(3), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 4, 1)
        ),
        images,
        ANY_SIZE,
        {"2.weight": ("4.weight",)},
        {"0.weight": NORMALISES},
    ),
    "frozen": Architecture(
        _resnet,
        images,
        ANY_SIZE,
        {name: _RESNET[name] for name in ("0.0.weight", "1.conv1.weight", "2.conv1.weight")},
        {"3.conv1.weight": "frozen"},
        frozen=("3.conv1",),
    ),
}
