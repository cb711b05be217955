"""How long an update waits until all that it needs was seen."""

from __future__ import annotations

PATIENCE = 16
"""Steps, since several optimizers may step in turn; then what still was not seen is an error."""


class Patience:
    """Counts the steps at which something was still missing, each of them once."""

    def __init__(self) -> None:
        self._waited = 0
        self._step: int | None = None

    def lasts(self, step: int) -> bool:
        """Return whether to wait on, when something is missing at a step."""
        self._waited += step != self._step
        self._step = step
        return self._waited <= PATIENCE

    def renew(self) -> None:
        """Begin to count anew: an update was made."""
        self._waited = 0
