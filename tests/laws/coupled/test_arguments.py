"""What `Channel` takes: multiples and kinds that are none are refused, and example inputs are no part of its value."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_prune.pattern import Channel
from tests.laws.coupled.nets import EXAMPLE


@pytest.mark.parametrize("multiple", [0, -1, 1.5, True])
def test_G13_a_multiple_that_is_none(multiple: Any) -> None:
    with pytest.raises(ValueError, match="multiple="):
        Channel(multiple=multiple)


@pytest.mark.parametrize("kinds", ["head", (), ("heads",), ("channel", "unit")])
def test_G13_kinds_that_are_none(kinds: Any) -> None:
    with pytest.raises(ValueError, match="kinds="):
        Channel(kinds=kinds)


def test_patterns_with_other_examples_are_equal_and_do_not_print_them() -> None:
    assert replace(Channel(), example_inputs=torch.zeros(3, 7)) == Channel()
    assert "tensor" not in repr(EXAMPLE)
