"""Random crops, reflections, brightness and contrast, and each image to mean 0 and standard deviation 1."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

STREAM = 2  # keeps these draws apart from those of order and shifts, which have the same seed and epoch


@dataclass(frozen=True)
class Look:
    """How far training images may be changed.

    Attributes:
        crop: Pixels of the part that is taken, both ways.
        brightness: The most that is added to or taken from all pixels, of 255. Standardisation takes it away again:
            it is there because the older system's example has it.
        contrast: Least and largest factor on each channel's distance from its mean.

    Raises:
        ValueError: If a number is out of its range.
    """

    crop: int
    brightness: float
    contrast: tuple[float, float]

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ValueError(f"crop={self.crop}: give 1 or more")
        if not self.brightness >= 0:
            raise ValueError(f"brightness={self.brightness}: give 0 or more")
        if len(self.contrast) != 2 or not 0 < self.contrast[0] <= self.contrast[1]:
            raise ValueError(f"contrast={list(self.contrast)}: give two factors above 0, the smaller first")


@final
class RandomCrops:
    """Changes each image by draws that are its own in each epoch, wherever in the order it comes; a batch at once.

    Args:
        samples: Number of samples.
        size: Height and width of the images.
        seed: 0 or more.
        look: How far.

    Raises:
        ValueError: If ``seed`` is below 0, or the crop is larger than the images.
    """

    def __init__(self, samples: int, size: int, seed: int, look: Look) -> None:
        if seed < 0:
            raise ValueError(f"seed={seed}: give 0 or more")
        if look.crop > size:
            raise ValueError(f"crop={look.crop}: the images have {size} pixels")
        self.samples = samples
        self.size = size
        self.seed = seed
        self.look = look
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw for ``epoch``, counted from 0."""
        generator = np.random.default_rng((self.seed, epoch, STREAM))
        corners = generator.integers(0, self.size - self.look.crop + 1, (self.samples, 2))
        self.corners = torch.from_numpy(corners)
        self.mirrored = torch.from_numpy(generator.integers(0, 2, self.samples, dtype=np.uint8)).bool()
        most = self.look.brightness
        self.brighter = torch.from_numpy(generator.uniform(-most, most, self.samples).astype(np.float32))
        self.contrast = torch.from_numpy(generator.uniform(*self.look.contrast, self.samples).astype(np.float32))

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Crops ``(batch, channels, crop, crop)``, float32; ``rows`` says which samples the ``images`` are."""
        windows = images.unfold(2, self.look.crop, 1).unfold(3, self.look.crop, 1)
        top, left = self.corners[rows].unbind(1)
        crops = windows[torch.arange(len(rows)), :, top, left]
        crops = torch.where(_each(self.mirrored[rows]), crops.flip(3), crops)
        crops = crops.to(torch.float32, memory_format=torch.channels_last) + _each(self.brighter[rows])
        means = crops.mean((2, 3), keepdim=True)
        return standardised((crops - means) * _each(self.contrast[rows]) + means)


@dataclass(frozen=True)
class CentralCrop:
    """The middle of each image, for evaluation."""

    crop: int

    def set_epoch(self, epoch: int) -> None:
        """Nothing is drawn."""

    def __call__(self, images: Tensor, rows: Tensor) -> Tensor:
        """Crops ``(batch, channels, crop, crop)``, float32."""
        top, left = ((length - self.crop) // 2 for length in images.shape[2:])
        middle = images[:, :, top : top + self.crop, left : left + self.crop]
        return standardised(middle.to(torch.float32, memory_format=torch.channels_last))


def standardised(images: Tensor) -> Tensor:
    """Each image less its mean, over its standard deviation, which counts as at least 1 / sqrt(its number of values).

    Args:
        images: Floats ``(batch, channels, height, width)``.
    """
    variance, mean = torch.var_mean(images, (1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / variance.sqrt().clamp(min=images[0].numel() ** -0.5)


def _each(numbers: Tensor) -> Tensor:
    return numbers.view(-1, 1, 1, 1)
