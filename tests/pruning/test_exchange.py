"""An exchange worked out by hand: what a layer drops, what returns, and what does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_prune.pruning.exchange import Exchange, exchanged

VALUES = torch.tensor([5.0, 1.0, 2.0, 9.0, 0.0, 0.0, 0.0, 0.0])
KEEP = torch.tensor([True, True, True, True, False, False, False, False])


def layer(worth: list[float], values: Tensor = VALUES, keep: Tensor = KEEP) -> Exchange:
    return Exchange("net.0.weight", [values], [keep], [torch.tensor(worth)])


def stay(worth: list[float], share: float) -> list[int]:
    ((mask,),) = exchanged([layer(worth)], share)
    return mask.nonzero().flatten().tolist()


def test_the_smallest_go_and_those_worth_most_return() -> None:
    assert stay([0.0, 0.0, 0.0, 0.0, 1.0, 4.0, 3.0, 2.0], 0.5) == [0, 3, 5, 6]
    assert stay([0.0, 0.0, 0.0, 0.0, 1.0, 4.0, 3.0, 2.0], 0.25) == [0, 2, 3, 5]


def test_no_more_go_than_others_have_any_worth() -> None:
    assert stay([9.0, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0], 0.5) == [0, 1, 2, 3]
    assert stay([0.0, 0.0, 0.0, 0.0, 0.0, 7.0, 0.0, 0.0], 0.5) == [0, 2, 3, 5]


def test_what_was_dropped_just_now_returns_if_nothing_is_worth_more() -> None:
    assert stay([0.0, 8.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], 0.25) == [0, 1, 2, 3]


def test_less_than_one_is_none() -> None:
    assert stay([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], 0.24) == [0, 1, 2, 3]


def test_each_layer_by_itself() -> None:
    first, second = exchanged([layer([0, 0, 0, 0, 1.0, 0, 0, 0]), layer([0.0] * 8)], 0.25)
    assert first[0].nonzero().flatten().tolist() == [0, 2, 3, 4]
    assert torch.equal(second[0], KEEP)


@pytest.mark.parametrize("at", [0, 3, 6], ids=["kept", "kept, the largest", "pruned"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_G24_a_worth_that_is_not_finite_is_named_wherever_it_lies(at: int, value: float) -> None:
    worth = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    worth[at] = value
    with pytest.raises(ValueError, match=r"'net\.0\.weight' is not finite"):
        exchanged([layer(worth)], 0.5)


def test_G24_nor_is_it_missed_where_nothing_would_move() -> None:
    with pytest.raises(ValueError, match=r"'net\.0\.weight' is not finite"):
        exchanged([layer([0.0, 0.0, 0.0, 0.0, float("nan"), 0.0, 0.0, 0.0])], 0.5)


def test_the_smallest_are_those_of_the_smallest_magnitude() -> None:
    signed = torch.tensor([-5.0, 1.0, -2.0, -9.0, 0.0, 0.0, 0.0, 0.0])
    ((mask,),) = exchanged([layer([0.0, 0.0, 0.0, 0.0, 1.0, 4.0, 3.0, 2.0], signed)], 0.5)
    assert mask.nonzero().flatten().tolist() == [0, 3, 5, 6]
