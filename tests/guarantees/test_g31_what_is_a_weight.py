"""G31: what is pruned is what the forward uses; the default rule on architectures of three libraries.

tests/golden/parameters.json holds their parameters, made by make_parameters.py beside it. Here a model is rebuilt from
them: modules of the same types, empty parameters of the same names and shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lightning_prune.report import percent
from lightning_prune.targets import Targets
from tests.guarantees.helpers import Net, fit, ramp

TABLE: dict[str, list[tuple[str, list[int], str, str, int]]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "parameters.json").read_text(encoding="utf-8")
)


def plain(self: Any, input: Tensor) -> Tensor:
    """A forward of its own that computes with the weight."""
    return _applied(self, input, self.weight)


def standardises(self: Any, input: Tensor) -> Tensor:
    """A forward of its own that computes with the weight minus its mean."""
    return _applied(self, input, self.weight - self.weight.mean())


def _applied(self: Any, input: Tensor, weight: Tensor) -> Tensor:
    return F.linear(input, weight) if isinstance(self, nn.Linear) else F.conv2d(input, weight)


TORCHS: dict[str, Any] = vars(nn) | {"NonDynamicallyQuantizableLinear": NonDynamicallyQuantizableLinear}


def module_of(kind: str, shape: list[int]) -> nn.Module:
    """Return an empty module of a kind as the table writes it: `Name`, or `Name<TorchsOwn~forward>`."""
    name, _, behind = kind.partition("<")
    base, _, forward = (behind or name).partition("~")
    made = TORCHS[base]
    if behind:
        verbs = {"plain": {"forward": plain}, "standardises": {"forward": standardises}, "": {}}[forward]
        made = type(name, (made,), verbs)
    module = made.__new__(made)
    nn.Module.__init__(module)
    if len(shape) > 1:
        module.__dict__ |= {"in_features": shape[1], "in_channels": shape[1], "nf": shape[1]}
    module.__dict__ |= {"kernel_size": tuple(shape[2:]), "dilation": (1,) * len(shape[2:])}
    return module


def rebuilt(architecture: str) -> nn.Module:
    """Return a model with an architecture's parameters."""
    root, kinds = nn.Module(), dict[str, tuple[str, list[int]]]()
    for names, shape, kind, _, _ in TABLE[architecture]:
        for name, its in zip(names.split(" "), kind.split(" "), strict=True):
            path, _, attribute = name.rpartition(".")
            if (
                path not in kinds or attribute == "weight"
            ):  # its row says how many inputs there are, and what forward does
                kinds[path] = its, shape
    modules = {path: module_of(kind, shape) for path, (kind, shape) in kinds.items() if path}
    for path in sorted({".".join(p.split(".")[:i]) for p in modules for i in range(1, p.count(".") + 2)}):
        parent, _, name = path.rpartition(".")
        root.get_submodule(parent)._modules[name] = modules.get(path, nn.Module())
    for names, shape, _, verdict, _ in TABLE[architecture]:
        parameter = nn.Parameter(torch.empty(shape, device="meta"), requires_grad=verdict != "frozen")
        for name in names.split(" "):
            path, _, attribute = name.rpartition(".")
            root.get_submodule(path)._parameters[attribute] = parameter
    return root


@pytest.mark.parametrize("architecture", TABLE)
def test_G31_what_is_taken_of_an_architecture(architecture: str) -> None:
    found = Targets().find(rebuilt(architecture))
    taken = {name for target in found.targets for name in target.names}
    for names, shape, kind, verdict, _ in TABLE[architecture]:
        reason = next((found.skipped[name] for name in names.split(" ") if name in found.skipped), "taken")
        now = "taken" if taken & set(names.split(" ")) else reason.partition(" (tied")[0]
        assert now == verdict, f"{names} {shape} of {kind}"


def test_G31_the_table_is_of_many_architectures_and_reasons() -> None:
    assert len(TABLE) >= 40
    assert {architecture.split(" ")[0] for architecture in TABLE} == {"timm", "torchvision", "transformers"}
    reasons = {row[3] for rows in TABLE.values() for row in rows}
    assert len(reasons) >= 12
    for rows in TABLE.values():
        assert any(row[3] == "taken" for row in rows)


class StdConv2d(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Scaled(nn.Module):
    """A net that peers prune wrongly: a standardised convolution, a scale of one value a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = StdConv2d(1, 4, 3)
        self.layer_scale = nn.Parameter(torch.full((4, 1, 1), 1e-6))
        self.out = nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(8, 1, 3, 4).repeat(1, 1, 1, 3)
        return self.out((self.conv(x) * self.layer_scale).flatten(1))


def test_G31_a_fit_leaves_them_whole_and_says_why() -> None:
    torch.manual_seed(0)
    model, callback = Net(net=Scaled()), ramp()
    fit(model, callback, max_steps=20)
    report = callback.report
    assert report is not None
    assert [weight.name for weight in report.weights] == ["net.out.weight"]
    assert percent(report.sparsity) == "80.00 %"
    assert "left whole, scale, shift or gain: net.layer_scale" in report.table()
    assert "StdConv2d computes with a weight made of it, where zeros do not stay: net.conv.weight" in report.table()
    net: Any = model.net
    assert bool((net.layer_scale != 0).all())
    assert bool((net.conv.weight != 0).all())
