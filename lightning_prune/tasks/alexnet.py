"""AlexNet (Krizhevsky et al., 2012) with BatchNorm, for 32x32 images: narrow, or in its own size on enlarged ones."""

from collections.abc import Sequence

from torch import nn

from lightning_prune.tasks.example import example_images


def alexnet(
    widths: Sequence[int] = (32, 64, 96, 96, 64),
    dense: int = 512,
    dropout: float = 0.5,
    classes: int = 10,
    enlarge: bool = False,
) -> nn.Sequential:
    """Five convolutions, pooled after the first, second and last, and three linear layers with dropout.

    Args:
        widths: Output channels of the convolutions; in the original 96, 256, 384, 384, 256.
        dense: Units of each of the two hidden linear layers; in the original 4096.
        dropout: Share of these units dropped in training.
        classes: Outputs.
        enlarge: Scale images to 227x227 and begin with the original's 11x11 convolution of stride 4; else with a 3x3
            one of stride 1.

    Raises:
        ValueError: If there are not five widths, a size is below 1, or ``dropout`` is not in [0, 1).
    """
    if len(widths) != 5 or min(*widths, dense, classes) < 1:
        raise ValueError(f"widths={list(widths)}, dense={dense}, classes={classes}: give five widths, each 1 or more")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: give a share in [0, 1)")
    one, two, three, four, five = widths
    padding = 0 if enlarge else 1
    first = nn.Conv2d(3, one, 11, stride=4) if enlarge else nn.Conv2d(3, one, 3, padding=1)
    layers: list[nn.Module] = [nn.Upsample(size=(227, 227), mode="bilinear")] if enlarge else []
    layers += [first, nn.BatchNorm2d(one), nn.ReLU(), nn.MaxPool2d(3, 2, padding)]
    layers += [nn.Conv2d(one, two, 5, padding=2), nn.BatchNorm2d(two), nn.ReLU(), nn.MaxPool2d(3, 2, padding)]
    layers += [nn.Conv2d(two, three, 3, padding=1), nn.BatchNorm2d(three), nn.ReLU()]
    layers += [nn.Conv2d(three, four, 3, padding=1), nn.BatchNorm2d(four), nn.ReLU()]
    layers += [nn.Conv2d(four, five, 3, padding=1), nn.BatchNorm2d(five), nn.ReLU(), nn.MaxPool2d(3, 2, padding)]
    pixels = 6 * 6 if enlarge else 4 * 4
    hidden = [nn.Flatten(), nn.Linear(five * pixels, dense), nn.ReLU(), nn.Dropout(dropout)]
    hidden += [nn.Linear(dense, dense), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dense, classes)]
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*layers))
    net.add_module("dense", nn.Sequential(*hidden))
    net.example_input = example_images(3, 32, 32)
    return net
