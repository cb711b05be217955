"""Push probabilities to 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_prune import given

_MOST = 1 << 24
"""How many values torch.quantile takes, on any device; float32 could not tell the ranks of more."""


@dataclass(frozen=True)
class Binarizer:
    """Add - strength * mean of |p - tau|^q over all units of all layers: a p below tau goes to 0, one above it to 1.

    A larger tau prunes more. Without one, tau is the p below which the schedule's share of all units lies, so that the
    schedule says how many go to 0. Source: MaskPruning.

    Args:
        tau: the watershed, in [0, 1]; None to follow the schedule.
        q: exponent, at least 1.
        strength: factor, at least 0.

    Raises:
        ValueError: an argument is out of range.
    """

    tau: float | None = 0.9
    q: float = 2.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.tau is not None:
            given.number("tau", self.tau, least=0, most=1, hint=", or None to follow the schedule")
        given.number("q", self.q, least=1)
        given.number("strength", self.strength, least=0)

    @property
    def needs_schedule(self) -> bool:
        """Whether it means something only where a schedule asks for a sparsity."""
        return self.tau is None

    def __call__(self, p: Tensor, expected: Tensor, asked: float) -> Tensor:
        """Return the penalty for the probabilities of all units; `asked` is the share that is to go by now."""
        tau = _quantile(p.detach(), asked) if self.tau is None else self.tau
        return -self.strength * (p - tau).abs().pow(self.q).mean()


def _quantile(values: Tensor, share: float) -> Tensor:
    """Return the value below which a share of the values lies, between two of them where none does."""
    if values.numel() <= _MOST:
        return values.quantile(share)
    place = share * (values.numel() - 1)
    below = min(int(place), values.numel() - 2)
    one, next_one = (values.kthvalue(number).values for number in (below + 1, below + 2))
    return one.lerp(next_one, place - below)
