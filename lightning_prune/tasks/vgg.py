"""VGG-16 for 32x32 images (Simonyan and Zisserman, 2014), with BatchNorm and one linear layer in place of three."""

from torch import nn

from lightning_prune.tasks.example import example_images

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16() -> nn.Sequential:
    """Thirteen 3x3 convolutions, pooled five times down to one pixel, and a linear layer.

    14,715,584 weights, 313 million multiplications per image.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for widths in STAGES:
        for outputs in widths:
            convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, 10))
    net.example_input = example_images(3, 32, 32)
    return net
