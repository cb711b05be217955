"""Which units masks leave alive, how many weights are zero, and what units are worth, by hand."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_prune.coupling.units import Group, alive_along
from lightning_prune.pruning import Pruner


def alive_units(group: Group, masks: Mapping[str, Tensor]) -> Tensor:
    """Return which units are alive; all of a unit's slices must say the same."""
    said: list[Tensor] = []
    for part in group.parts:
        if part.name in masks:
            mask = masks[part.name].movedim(part.dim, 0)
            entries = mask.reshape(len(mask), -1).any(1)[part.index]
            assert torch.equal(entries.any(1), entries.all(1)), part.name
            said.append(entries.any(1))
    assert all(torch.equal(said[0], other) for other in said)
    return said[0]


def masks_by_hand(
    groups: Sequence[Group], keeps: Sequence[Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Return the masks of tensors of these shapes where those units of each group stay."""
    along = alive_along(groups, keeps, shapes)
    masks: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        masks[name] = torch.ones(shape, dtype=torch.bool)
        for dim, alive in along[name].items():
            masks[name] &= alive.view([-1 if d == dim else 1 for d in range(len(shape))])
    return masks


def zeros_of(groups: Sequence[Group], keeps: Sequence[Tensor], shapes: Mapping[str, torch.Size]) -> int:
    """Return how many entries of tensors of these shapes are zero where those units of each group stay."""
    return sum(int((~mask).sum()) for mask in masks_by_hand(groups, keeps, shapes).values())


def assert_whole_units(groups: Sequence[Group], masks: Mapping[str, Tensor]) -> list[Tensor]:
    """Assert that the masks are those of whole units, and return which are alive."""
    units = [alive_units(group, masks) for group in groups]
    expected = masks_by_hand(groups, units, {name: mask.shape for name, mask in masks.items()})
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), name
    return units


def counted(pruner: Pruner) -> tuple[int, int]:
    """Return how many weights are zero by the masks, and how many there are."""
    names = [weight.name for weight in pruner.report().weights]
    return sum(int((~pruner.masks[n].mask).sum()) for n in names), sum(pruner.masks[n].mask.numel() for n in names)


def worth(group: Group, model: nn.Module, readers: bool = False) -> Tensor:
    """Return by hand what units are worth under `Magnitude`: the sum of the mean |w| of the weights that compute it.

    With `readers` of those that read it as well.
    """
    named = dict(model.named_parameters())
    scores = torch.zeros(group.units, dtype=torch.float64)
    for part in group.of("out", "in") if readers else group.of("out"):
        rows = named[part.name].detach().double().abs().movedim(part.dim, 0)
        scores += torch.stack([rows[index].mean() for index in part.index])
    return scores
