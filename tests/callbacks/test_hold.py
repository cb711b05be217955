"""A checkpoint that is sparse already is fine-tuned with its zeros held: plain, under adapters, and quantized."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import pytorch_lightning as pl
import torch
import torch.ao.nn.qat as qat
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, MovingAveragePerChannelMinMaxObserver, QConfig
from torch.nn import functional

from lightning_prune import Pruner, PruningCallback
from lightning_prune.masks import mask_merged, zeros_of
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Hold, OneShot
from tests.guarantees.helpers import Net, Units, adamw, fit, sparsity, zeros


def sparse(model: Net, **ideas: Any) -> dict[str, Tensor]:
    """Return the state_dict of a model that a run has pruned."""
    fit(model, PruningCallback(Pruner(OneShot(0.75, 1), **ideas)), max_steps=3)
    return copy.deepcopy(model.state_dict())


def test_one_line_fine_tunes_a_sparse_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, callback = Net(), PruningCallback(Hold())
    model.load_state_dict(sparse(Net(seed=3)))
    before, values = zeros(model), copy.deepcopy(model.state_dict())
    trainer = fit(model, callback, max_steps=12)
    assert zeros(model) == before
    assert any(not torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert callback.report is not None
    assert callback.report.sparsity == sparsity(model) == callback.report.final_sparsity == 0.75
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    plain = Net()
    plain.load_state_dict(torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"])
    assert zeros(plain) == before


def test_dead_units_stay_dead_and_can_be_taken_out() -> None:
    model = Units()
    model.load_state_dict(sparse(Units(seed=1), pattern=Channel()))
    before = zeros(model)
    assert max(before.values()) > 0
    callback = PruningCallback(Pruner(Hold(), pattern=Channel()), shrink=True)
    size = sum(p.numel() for p in model.parameters())
    fit(model, callback, max_steps=6)
    assert callback.report is not None
    assert {w.name: w.zeros for w in callback.report.weights} == {
        w.name: before[w.name] for w in callback.report.weights
    }
    assert sum(p.numel() for p in model.parameters()) < size


def test_G13_a_dense_model_is_refused_before_training() -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"Hold\(\) found nothing that is zero in net.0.weight, net.3.weight"):
        fit(model, PruningCallback(Hold()), max_steps=3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_base_weights_under_adapters_keep_their_zeros_through_the_merge() -> None:
    plain = Net()
    plain.load_state_dict(sparse(Net(seed=2)))
    before = zeros(plain)
    config = peft.LoraConfig(r=2, target_modules=["0", "3"], init_lora_weights=True)
    model = Net(net=peft.get_peft_model(plain.net, config))  # pyright: ignore
    model.make_optimizer = lambda parameters: adamw([p for p in parameters if p.requires_grad])
    callback = PruningCallback(Hold())
    fit(model, callback, max_steps=8)
    assert callback.report is not None
    names = [weight.name for weight in callback.report.weights]
    assert names == [f"net.base_model.model.{i}.base_layer.weight" for i in (0, 3)]
    assert [weight.zeros for weight in callback.report.weights] == [before["net.0.weight"], before["net.3.weight"]]
    adapter = {n: p for n, p in model.named_parameters() if "lora_B" in n}
    assert all(bool((p != 0).any()) for p in adapter.values()), "an adapter that begins at zero trains"
    masks = zeros_of(model, names)
    model.net = model.net.merge_and_unload()
    assert mask_merged(model, masks) > 0
    assert zeros(model) == before


class Quantized(nn.Linear):
    """A linear layer that computes with its weight rounded to 8 bits, symmetric; gradients pass straight through."""

    def forward(self, input: Tensor) -> Tensor:
        scale = self.weight.detach().abs().amax(1).clamp(min=1e-8) / 127
        zero = torch.zeros(len(scale), dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(self.weight, scale, zero, 0, -128, 127)
        return functional.linear(input, weight, self.bias)


def torchs(linear: nn.Linear) -> nn.Module:
    """Return torch's own layer for quantization-aware training in place of a linear one."""
    weight = FakeQuantize.with_args(
        observer=MovingAveragePerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    layer: Any = qat.Linear(linear.in_features, linear.out_features, qconfig=QConfig(nn.Identity, weight))
    layer.load_state_dict(linear.state_dict(), strict=False)
    return layer


def own(linear: nn.Linear) -> nn.Module:
    layer = Quantized(linear.in_features, linear.out_features)
    layer.load_state_dict(linear.state_dict())
    return layer


@pytest.mark.parametrize("quantized", [torchs, own])
def test_masks_hold_under_fake_quantization(quantized: Any) -> None:
    model = Net()
    model.load_state_dict(sparse(Net(seed=4)))
    model.net[0], model.net[3] = quantized(model.net[0]), quantized(model.net[3])
    before = zeros(model)
    rounded: list[Tensor] = []

    def look(_: pl.Trainer) -> None:
        with torch.no_grad():
            rows = model.net[0](torch.eye(12)) - model.net[0].bias
        rounded.append(rows.T[model.net[0].weight == 0])

    model.in_step.append(look)
    callback = PruningCallback(Hold())
    fit(model, callback, max_steps=8)
    assert zeros(model) == before
    assert callback.report is not None
    assert callback.report.sparsity == 0.75
    assert len(rounded) == 8
    assert all(bool((values.abs() < 1e-6).all()) for values in rounded), "what is zero is zero when it is rounded"
