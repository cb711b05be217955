"""ResNets for 32x32 images (He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2)."""

from typing import final

from torch import Tensor, nn
from torch.nn.functional import relu

from lightning_prune.tasks.example import example_images

WIDTHS = (16, 32, 64)


@final
class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Where the shape changes the shortcut is a 1x1 convolution with BatchNorm, the paper's option B. Option A, zeros for
    the channels that are new, has no weights there, but ties the places of channels of different layers to each other,
    which leaves little to remove.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, images: Tensor) -> Tensor:
        """Channels ``(batch, outputs, height / stride, width / stride)``."""
        inner = relu(self.norm1(self.conv1(images)))
        return relu(self.norm2(self.conv2(inner)) + self.shortcut(images))


@final
class ResNet(nn.Module):
    """A 3x3 convolution, three stages of residual blocks at 32, 16 and 8 pixels, the mean over pixels, a linear layer.

    Args:
        blocks: Residual blocks per stage; 6 * blocks + 2 layers in all.
        classes: Logits per image.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        for name, number in (("blocks", blocks), ("classes", classes)):
            if number < 1:
                raise ValueError(f"{name}={number}: give 1 or more")
        self.conv = nn.Conv2d(3, WIDTHS[0], kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        self.stages = nn.Sequential(*(self._stage(stage, blocks) for stage in range(len(WIDTHS))))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(WIDTHS[-1], classes)
        self.example_input = example_images(3, 32, 32)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` of ``images`` ``(batch, 3, 32, 32)``."""
        features = self.stages(relu(self.norm(self.conv(images))))
        return self.linear(self.pool(features).flatten(1))

    @staticmethod
    def _stage(stage: int, blocks: int) -> nn.Sequential:
        width = WIDTHS[stage]
        first = Residual(WIDTHS[stage - 1], width, stride=2) if stage else Residual(width, width, stride=1)
        return nn.Sequential(first, *(Residual(width, width, stride=1) for _ in range(blocks - 1)))


def resnet20() -> ResNet:
    """ResNet-20: 270,896 weights, 40.8 million multiplications per image."""
    return ResNet(blocks=3)


def resnet56() -> ResNet:
    """ResNet-56: 851,504 weights, 125.7 million multiplications per image."""
    return ResNet(blocks=9)
