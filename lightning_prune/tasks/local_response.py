"""Local response normalization, several times faster on a CPU than torch's, which pools over five dimensions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch's ``LocalResponseNorm`` for images ``(batch, channels, height, width)``, as one product with a band matrix.

    Each value is divided by ``(k + alpha / size * s) ** beta``, where ``s`` is the sum of squares at its place of the
    ``size`` channels around its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalised images, of the input's shape."""
        channels = torch.arange(input.shape[1], device=input.device)
        apart = channels - channels[:, None]
        near = (apart >= -(self.size // 2)) & (apart <= (self.size - 1) // 2)
        sums = conv2d(input.square(), near[:, :, None, None].to(input.dtype))
        return input * (self.k + self.alpha / self.size * sums).pow(-self.beta)
