"""How a running average of weights forgets, for Lightning's ``WeightAveraging(avg_fn=...)``."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WarmAverage:
    """An exponential average that begins short and lengthens: after n updates it keeps min(decay, (1 + n) / (10 + n)).

    So it never leans on the values of the start, as one with a fixed ``decay`` does for several times
    ``1 / (1 - decay)`` steps. That is how TensorFlow's ``ExponentialMovingAverage`` goes when told of steps.

    Raises:
        ValueError: If ``decay`` is not in [0, 1).
    """

    decay: float

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay={self.decay}: give a share in [0, 1)")

    def __call__(self, averaged: Tensor, newest: Tensor, updates: Tensor | int) -> Tensor:
        """Return the new average of the one so far and the newest values, after so many updates."""
        n = torch.as_tensor(updates, device=averaged.device)  # a tensor: to read it would make a GPU wait
        taken = 1 - ((1 + n) / (10 + n)).clamp(max=self.decay)
        return averaged + (newest - averaged) * taken.to(averaged.dtype)
