"""Networks for small images, as plain modules that return logits of shape ``(batch, classes)``.

Each holds an ``example_input``, two images to trace it with.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from lightning_prune.tasks.example import example_images


@final
class MLP(nn.Module):
    """Linear layers with an activation between each two; images are flattened first.

    Args:
        sizes: Features of the input, of each hidden layer, and classes at the end; two numbers at least.
        activation: Called once per hidden layer to make its activation.

    Raises:
        ValueError: If ``sizes`` has fewer than two numbers, or one below 1.
    """

    def __init__(self, sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes={list(sizes)}: give the features of input and output at least, each 1 or more")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation()]
        self.layers = nn.Sequential(*layers[:-1])
        self.example_input = example_images(sizes[0])

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(batch, sizes[-1])`` of ``images``, whose dimensions after the first hold ``sizes[0]`` numbers."""
        return self.layers(images.flatten(1))


def lenet300() -> MLP:
    """LeNet-300-100 for 28x28 images: 266,200 weights in three linear layers."""
    return MLP((28 * 28, 300, 100, 10))


def lenet5() -> nn.Sequential:
    """LeNet-5 for 1x28x28 images, with ReLU and max pooling: 61,470 weights in five layers."""
    net = nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    net.example_input = example_images(1, 28, 28)
    return net


def digits_cnn() -> nn.Sequential:
    """Three convolutions with BatchNorm and a linear layer for 1x8x8 images: 58,144 weights."""
    net = nn.Sequential(
        *_convolution(1, 32),
        *_convolution(32, 64),
        nn.MaxPool2d(2),
        *_convolution(64, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 2 * 2, 10),
    )
    net.example_input = example_images(1, 8, 8)
    return net


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    # BatchNorm has a bias of its own, so the convolution's would be redundant.
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
