"""VGG-16 for 32x32 images (Simonyan and Zisserman, 2014), with BatchNorm and one linear layer in place of three."""

from torch import nn

from lightning_prune.tasks.example import example_images

STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


def vgg16(width: int = 64) -> nn.Sequential:
    """Thirteen 3x3 convolutions, pooled five times down to one pixel, and a linear layer.

    14,715,584 weights, 313 million multiplications per image; at half the width a quarter of them.

    Args:
        width: Output channels of the first convolution; the last ones have eight times as many.

    Raises:
        ValueError: If ``width`` is below 1.
    """
    if width < 1:
        raise ValueError(f"width={width} must be 1 or more")
    layers: list[nn.Module] = []
    inputs = 3
    for stage in STAGES:
        for times in stage:
            outputs = times * width
            convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, 10))
    net.example_input = example_images(3, 32, 32)
    return net
