"""A run that ends while an update waits for what it is to go by says that, and not that it was too short."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion import Snip, Wanda
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import Net, fit


class Unreached(Net):
    """Has a layer that its forward leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Linear(8, 8)


@pytest.mark.parametrize(("criterion", "what"), [(Wanda(), "squared input"), (Snip(), "gradient")])
def test_the_warning_at_the_end_names_what_was_not_seen(criterion: Any, what: str) -> None:
    pruner = Pruner(OneShot(0.5, 4), criterion)
    words = rf"update of step 4 was not made, since {type(criterion).__name__}\(.*has seen no {what} of 'aside.weight'"
    with pytest.warns(UserWarning, match=words):
        fit(Unreached(), PruningCallback(pruner), max_steps=8)
    assert pruner.put_off


def test_one_that_was_made_is_not_spoken_of() -> None:
    pruner = Pruner(OneShot(0.5, 4), Wanda())
    fit(Net(), PruningCallback(pruner), max_steps=8)
    assert pruner.put_off == ""
