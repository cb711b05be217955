"""Architectures that are wired in ways of their own: how to build each, and what must be found in it."""

import torch
from torch import nn

from tests.coupling.architecture import ANY_SIZE, OUTPUT, Architecture, images
from tests.coupling.nets import unusual as nets


def _weight_norm() -> nn.Module:
    first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
    return nn.Sequential(
        first, nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(12, 4, 1)
    )


UNUSUAL = {
    "skips": Architecture(
        nets.Skips,
        lambda: torch.randn(2, 9),
        (lambda: torch.randn(7, 9),),
        {"first.weight": ("gated.weight",), "gated.weight": ("head.weight",)},
    ),
    "weight_norm": Architecture(
        _weight_norm,
        images,
        ANY_SIZE,
        {"2.weight": ("5.weight",)},
        {"0.parametrizations.weight.original1": "parametrized"},
    ),
    "tied": Architecture(
        nets.TiedMLP,
        lambda: torch.randn(2, 9),
        (lambda: torch.randn(7, 9),),
        {"first.weight": ("twice.weight", "last.weight"), "last.weight": ("out.weight",)},
    ),
    "unreached": Architecture(
        nets.Unreached,
        lambda: torch.randn(2, 9),
        (lambda: torch.randn(7, 9),),
        {"further.weight": ("head.weight",)},
        {
            "other.weight": "the outputs do not depend on it",
            "hidden.weight": "other is not reached with the example inputs, and may read its channels",
            "head.weight": OUTPUT,
        },
    ),
    "auxiliary_head": Architecture(
        nets.Auxiliary,
        lambda: torch.randn(2, 9),
        (lambda: torch.randn(7, 9),),
        {
            "first.weight": ("norm.weight", "second.weight", "aside.weight"),
            "second.weight": ("head.weight",),
            "aside.weight": ("aux.weight",),
        },
        {"aux.weight": OUTPUT, "head.weight": OUTPUT},
    ),
    "deep_supervision": Architecture(
        nets.DeepSupervision,
        images,
        ANY_SIZE,
        {
            "stages.0.weight": ("stages.1.weight", "stages.2.weight", "heads.0.weight", "heads.1.weight"),
            "stages.2.weight": ("heads.2.weight",),
        },
        {"heads.0.weight": OUTPUT, "heads.2.weight": OUTPUT},
    ),
}
