"""Small versions of well-known convolutional networks, as users write them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Pooled(nn.Sequential):
    """Layers, then the mean over all positions, then a linear layer."""

    def __init__(self, *layers: nn.Module, width: int, classes: int = 5) -> None:
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class BasicBlock(nn.Module):
    """He et al. 2015; with option B where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, with the 3x3 in groups for ResNeXt (Xie et al. 2016)."""

    def __init__(self, inputs: int, width: int, outputs: int, groups: int = 1) -> None:
        super().__init__()
        self.reduce = conv_bn(inputs, width, 1)
        self.conv = conv_bn(width, width, 3, groups=groups)
        self.expand = nn.Sequential(nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.expand(self.conv(self.reduce(x))) + self.downsample(x))


class InvertedResidual(nn.Module):
    """MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self, width: int, outputs: int, expand: int = 4) -> None:
        super().__init__()
        hidden = width * expand
        self.use_res_connect = width == outputs
        self.conv = nn.Sequential(
            conv_bn(width, hidden, 1),
            conv_bn(hidden, hidden, 3, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class DenseNet(nn.Module):
    """Huang et al. 2016: every layer reads all before it; a transition; a second block."""

    def __init__(self, growth: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.ModuleList([self._layer(8 + i * growth, growth) for i in range(3)])
        self.transition = nn.Sequential(conv_bn(8 + 3 * growth, 12, 1), nn.AvgPool2d(2))
        self.two = nn.ModuleList([self._layer(12 + i * growth, growth) for i in range(2)])
        self.norm = nn.BatchNorm2d(12 + 2 * growth)
        self.head = nn.Linear(12 + 2 * growth, 5)

    def _layer(self, inputs: int, growth: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, growth, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.one:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        for layer in self.two:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.relu(self.norm(x)).mean((2, 3)))


class UNet(nn.Module):
    """Ronneberger et al. 2015, two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = conv_bn(3, 8), conv_bn(8, 12)
        self.bottom = conv_bn(12, 16)
        self.up2 = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.merge2 = conv_bn(24, 12)
        self.up1 = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.merge1 = conv_bn(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        bottom = self.bottom(F.max_pool2d(two, 2))
        up = self.merge2(torch.cat([self.up2(bottom), two], 1))
        return self.head(self.merge1(torch.cat([self.up1(up), one], 1)))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Liu et al. 2022: depthwise convolution, LayerNorm, MLP on the last dimension, layer scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.gamma * self.pwconv2(F.gelu(self.pwconv1(out)))
        return x + out.permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Hu et al. 2017, with 1x1 convolutions as in torchvision, or linear layers as in the paper."""

    def __init__(self, channels: int, squeezed: int, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.fc1 = nn.Linear(channels, squeezed) if linear else nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Linear(squeezed, channels) if linear else nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.linear:
            scale = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
            return x * scale.view(x.shape[0], -1, 1, 1)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class Inception(nn.Module):
    """Szegedy et al. 2014: four branches side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = conv_bn(inputs, 4, 1)
        self.branch3 = nn.Sequential(conv_bn(inputs, 4, 1), conv_bn(4, 6))
        self.branch5 = nn.Sequential(conv_bn(inputs, 2, 1), conv_bn(2, 4, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(inputs, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.pool(x)], 1)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2 (Ma et al. 2018): split, one half through convolutions, concatenate, shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        out = torch.cat([one, self.branch(two)], 1)
        b, c, h, w = out.shape
        return out.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class GroupNormNet(nn.Module):
    """Group norm mixes its channels, instance norm does not; PReLU has a slope a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.conv2, self.norm2 = nn.Conv2d(8, 12, 3, padding=1), nn.InstanceNorm2d(12, affine=True)
        self.conv3, self.norm3 = nn.Conv2d(12, 10, 3, padding=1), nn.GroupNorm(10, 10)
        self.slope = nn.PReLU(10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.head(self.slope(self.norm3(self.conv3(x))).mean((2, 3)))
