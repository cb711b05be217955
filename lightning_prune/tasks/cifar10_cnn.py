"""The network of TensorFlow's CIFAR-10 tutorial, which its ``model_pruning`` took for its example."""

from collections import OrderedDict

from torch import nn

from lightning_prune.tasks.example import example_images
from lightning_prune.tasks.local_response import LocalResponseNorm

PIXELS = 24  # of the crops it takes, both ways


def cifar10_cnn(classes: int = 10) -> nn.Sequential:
    """Two convolutions with local response normalization, two dense layers, one linear layer; for images 3x24x24.

    1,067,584 weights in five layers, 18.5 million multiplications per image and 1.2 million in the norms. Pooling is
    3x3 of stride 2 and takes in the last row and column, as padding at the end does.

    Args:
        classes: Outputs.

    Raises:
        ValueError: If ``classes`` is below 1.
    """
    if classes < 1:
        raise ValueError(f"classes={classes}: give 1 or more")
    pixels = PIXELS // 4
    net = nn.Sequential(
        OrderedDict[str, nn.Module](
            conv1=_drawn(nn.Conv2d(3, 64, 5, padding=2), 0.05, 0.0),
            relu1=nn.ReLU(),
            pool1=_pool(),
            norm1=_norm(),
            conv2=_drawn(nn.Conv2d(64, 64, 5, padding=2), 0.05, 0.1),
            relu2=nn.ReLU(),
            norm2=_norm(),
            pool2=_pool(),
            flat=nn.Flatten(),
            dense1=_drawn(nn.Linear(64 * pixels * pixels, 384), 0.04, 0.1),
            relu3=nn.ReLU(),
            dense2=_drawn(nn.Linear(384, 192), 0.04, 0.1),
            relu4=nn.ReLU(),
            linear=_drawn(nn.Linear(192, classes), 1 / 192, 0.0),
        )
    )
    net.example_input = example_images(3, PIXELS, PIXELS)
    return net


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _norm() -> LocalResponseNorm:
    return LocalResponseNorm(size=9, alpha=0.001, beta=0.75, k=1.0)


def _drawn(layer: nn.Module, deviation: float, bias: float) -> nn.Module:
    """The layer with weights from a normal distribution cut off at two deviations, and this bias."""
    nn.init.trunc_normal_(layer.get_parameter("weight"), std=deviation, a=-2 * deviation, b=2 * deviation)
    nn.init.constant_(layer.get_parameter("bias"), bias)
    return layer
