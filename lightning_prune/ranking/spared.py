"""Values that stay whatever the others are: the largest of some tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spared:
    """The `least` largest contenders of the tensors `first` to `end` stay; of equal ones the first.

    Attributes:
        first: index of the first of these tensors.
        end: index behind the last.
        least: how many stay, at most as many as contend there.
    """

    first: int
    end: int
    least: int
