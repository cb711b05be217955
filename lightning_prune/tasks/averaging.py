"""How a running average of weights forgets, for Lightning's ``WeightAveraging(avg_fn=...)``."""

from collections.abc import Callable

import torch
from torch import Tensor

Average = Callable[[Tensor, Tensor, Tensor | int], Tensor]
"""Average so far, newest value and number of updates before this one -> the new average."""


def warm_average(decay: float) -> Average:
    """An exponential average that begins short and lengthens: after n updates it keeps min(decay, (1 + n) / (10 + n)).

    So it never leans on the values of the start, as one with a fixed ``decay`` does for several times
    ``1 / (1 - decay)`` steps. That is how TensorFlow's ``ExponentialMovingAverage`` goes when told of steps.

    Raises:
        ValueError: If ``decay`` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay}: give a share in [0, 1)")

    def average(averaged: Tensor, newest: Tensor, updates: Tensor | int) -> Tensor:
        n = torch.as_tensor(updates, device=averaged.device)  # a tensor: to read it would make a GPU wait
        taken = 1 - ((1 + n) / (10 + n)).clamp(max=decay)
        return averaged + (newest - averaged) * taken.to(averaged.dtype)

    return average
