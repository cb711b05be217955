"""Layers with a forward of their own: where zeros of a weight are zeros of what is computed with, it is pruned."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets


class StdConv2d(nn.Conv2d):
    """BiT's: minus the mean of each filter, over its deviation."""

    def forward(self, input: Tensor) -> Tensor:
        var, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, correction=0)
        return self._conv_forward(input, (self.weight - mean) * (var + 1e-6).rsqrt(), self.bias)


class ScaledStdConv2d(nn.Conv2d):
    """timm's: standardised by a batch norm, with a gain."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(torch.zeros(self.out_channels, 1, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, weight=self.gain.view(-1), training=True).reshape_as(self.weight)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Standardised1d(nn.Conv1d):
    """One in which only what forward calls is changed."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight - weight.mean((1, 2), keepdim=True), bias)


class Centred(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return input @ (self.weight - self.weight.mean()).t()


class Signs(nn.Linear):
    """Weights of plus and minus one."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, torch.where(self.weight >= 0, 1.0, -1.0), self.bias)


class InTrainingAlone(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight + 0.1 if self.training else self.weight, self.bias)


class Plain(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias).relu()


class Cast(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return (input.bfloat16() @ self.weight.to(torch.bfloat16).t()).to(input.dtype)


class Equalised(nn.Linear):
    """StyleGAN's: scaled when it runs."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * 0.3, self.bias)


class Cosine(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input), F.normalize(self.weight))


class Same(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(F.pad(input, [1, 1, 1, 1]), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Transposing(nn.ConvTranspose2d):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.conv_transpose2d(input, self.weight, self.bias, self.stride)


class Unfolded(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        columns = F.unfold(input, (3, 3))
        return torch.einsum("of,bfl->bol", self.weight.flatten(1), columns)


class Rounded(nn.Linear):
    """Eight bits, with the gradient passed through."""

    def forward(self, input: Tensor) -> Tensor:
        step = self.weight.abs().max() / 127
        rounded = (self.weight / step).round() * step
        return F.linear(input, self.weight + (rounded - self.weight).detach(), self.bias)


class Styled(nn.Linear):
    """It cannot be tried alone: it needs a second input."""

    def forward(self, input: Tensor, style: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return F.linear(input * style, self.weight, self.bias)


class StyledSigns(Signs):
    def forward(self, input: Tensor, style: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(input * style)


class Net(nn.Module):
    """A model around such a layer, with an example input or without."""

    def __init__(self, layer: nn.Module, example: bool) -> None:
        super().__init__()
        self.layer, self.out = layer, nn.Linear(4, 2)
        self.example_input_array = torch.randn(3, 4) if example else None

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x, torch.ones(4)))


LOST = [
    StdConv2d(2, 3, 3),
    StdConv2d(4, 4, 3, 1, 0, 1, 4),
    ScaledStdConv2d(2, 3, 3),
    Standardised1d(2, 3, 3),
    Centred(3, 4),
    Signs(3, 4),
    InTrainingAlone(3, 4),
]
KEPT = [
    Plain(3, 4),
    Cast(3, 4),
    Equalised(3, 4),
    Cosine(3, 4),
    Same(2, 3, 3),
    Same(2, 2, 3, groups=2),
    Transposing(2, 3, 3),
    Unfolded(2, 3, 3),
    Rounded(3, 4),
]


def name_of(layer: nn.Module) -> str:
    return type(layer).__name__


@pytest.mark.parametrize("layer", LOST, ids=name_of)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_G31_where_zeros_do_not_stay_the_weight_is_left_whole(layer: nn.Module, device: str) -> None:
    found = Targets().find(nn.Sequential(layer, nn.Linear(2, 2)).to(device))
    assert found.skipped["0.weight"] == f"{name_of(layer)} computes with a weight made of it, where zeros do not stay"
    assert [target.name for target in found.targets] == ["1.weight"]


@pytest.mark.parametrize("layer", KEPT, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_G31_where_zeros_stay_it_is_pruned(layer: nn.Module, dtype: torch.dtype) -> None:
    assert [target.name for target in Targets().find(layer.to(dtype)).targets] == ["weight"]


@pytest.mark.parametrize(("layer", "kept"), [(Styled(4, 4), True), (StyledSigns(4, 4), False)])
def test_G31_a_layer_that_cannot_be_tried_alone_is_tried_in_the_model(layer: nn.Module, kept: bool) -> None:
    names = [target.name for target in Targets().find(Net(layer, example=True)).targets]
    assert names == (["layer.weight", "out.weight"] if kept else ["out.weight"])


@pytest.mark.parametrize("layer", [Styled(4, 4), StyledSigns(4, 4)], ids=name_of)
def test_G31_without_an_example_it_is_left_whole_and_named(layer: nn.Module) -> None:
    found = Targets().find(Net(layer, example=False))
    assert "a trial did not show that it computes with this weight" in found.skipped["layer.weight"]
    named = Targets(include=("layer.weight",)).find(Net(layer, example=False))
    assert [target.name for target in named.targets] == ["layer.weight"]


def test_a_trial_changes_no_weight_and_no_random_state_and_calls_no_hook() -> None:
    layer, calls = StdConv2d(2, 3, 3), 0
    model = nn.Sequential(layer, nn.Linear(2, 2))

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    layer.register_forward_hook(count)
    before, state, training = layer.weight.clone(), torch.get_rng_state(), layer.training
    Targets().find(model)
    assert torch.equal(layer.weight, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (layer.training, calls) == (training, 0)


def test_G31_the_reason_is_true() -> None:
    """A pruned entry of a standardised weight goes on to count, one of a scaled weight does not."""
    for layer, counts in ((StdConv2d(2, 1, 3), True), (Equalised(2, 1), False)):
        pruner = Pruner(OneShot(0.5, 1), targets=Targets(include=("^weight",)))
        pruner.attach(layer)
        pruner.after_step(1)
        pruner.strip()
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
        x = torch.zeros(1, *((2, 3, 3) if isinstance(layer, nn.Conv2d) else (2,)))
        x[:] = (layer.weight == 0).float()  # reaches pruned entries alone
        with torch.no_grad():
            change = layer(x) - layer(torch.zeros_like(x))
        assert bool((change.abs() > 1e-3).any()) == counts


def test_G31_a_lightning_module_is_tried_with_its_trainer_on() -> None:
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(Styled(4, 4), example=False)
            self.example_input_array = torch.randn(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    module = Module()
    module.trainer = trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    assert [target.name for target in Targets().find(module).targets] == ["net.layer.weight", "net.out.weight"]
    assert module.trainer is trainer
