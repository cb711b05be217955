"""Adapters: left whole by default; a frozen base is pruned by name, and its zeros outlive the merge."""

from __future__ import annotations

import re
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.masks import mask_merged, zeros_of
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets

ADAPTER = "adapter: what it adds to a weight is dense, whatever zeros it has"


class Lora(nn.Module):
    """A frozen layer and the product of two small ones beside it, with the names of PEFT."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))

    def merged(self) -> nn.Linear:
        """Return the base with the product added, in place, as PEFT does."""
        a: Any = self.lora_A["default"].weight
        b: Any = self.lora_B["default"].weight
        self.base_layer.weight.data = self.base_layer.weight.data + b.detach() @ a.detach()
        return self.base_layer


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.query(x).relu())


class Peft(nn.Module):
    """The wrapper around a model with adapters, by the names that PEFT gives it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        model.query, model.out = Lora(model.query), Lora(model.out)
        self.base_model = nn.ModuleDict({"model": model})

    def forward(self, x: Tensor) -> Tensor:
        return self.base_model["model"](x)

    def merge_and_unload(self) -> nn.Module:
        model: Any = self.base_model["model"]
        model.query, model.out = model.query.merged(), model.out.merged()
        return model


BASES = Targets(include=(r"base_layer\.weight",))


def test_G31_adapters_are_left_whole_and_their_base_is_frozen() -> None:
    with pytest.raises(ValueError, match="Targets select no weight of Peft"):
        Targets().find(Peft(Model()))
    model = nn.Sequential(Peft(Model()), nn.Linear(3, 3))
    found = Targets().find(model)
    assert [target.name for target in found.targets] == ["1.weight"]
    for layer in ("query", "out"):
        prefix = f"0.base_model.model.{layer}"
        assert found.skipped[f"{prefix}.base_layer.weight"] == "frozen"
        assert {found.skipped[f"{prefix}.lora_{which}.default.weight"] for which in "AB"} == {ADAPTER}


@pytest.mark.parametrize(
    "name",
    [
        "lora_A",
        "lora_b",
        "lora_embedding_A",
        "lora_magnitude_vector",
        "lora_up",
        "hada_w1_a",
        "lokr_w2",
        "vera_lambda_d",
        "ia3_l",
        "oft_r",
    ],
)
def test_G31_names_of_adapters(name: str) -> None:
    layer = nn.Linear(4, 4)
    layer.register_parameter(name, nn.Parameter(torch.ones(4, 4)))  # as loralib has them, in a linear layer
    found = Targets().find(layer)
    assert found.skipped[name] == ADAPTER
    assert [target.name for target in found.targets] == ["weight"]


@pytest.mark.parametrize("name", ["flora_A", "lora_Architecture", "explora"])
def test_G31_names_like_those_of_adapters(name: str) -> None:
    layer = nn.Linear(4, 4)
    layer.register_parameter(name, nn.Parameter(torch.ones(4, 4)))
    assert name not in Targets().find(layer).skipped


def train(model: nn.Module, pruner: Pruner, steps: int) -> None:
    """Train the adapters with the bases pruned on the way."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.05)
    pruner.attach(model, steps)
    for step in range(1, steps + 1):
        model(torch.randn(5, 6)).square().mean().backward()
        pruner.before_step()
        optimizer.step()
        pruner.after_step(step, [optimizer])
        optimizer.zero_grad()
    pruner.strip()


@pytest.mark.parametrize("wrapped", [False, True])
def test_G31_zeros_of_a_frozen_base_outlive_the_merge(wrapped: bool) -> None:
    torch.manual_seed(0)
    model = Peft(Model())
    pruner = Pruner(Polynomial(0.5, 2, 8, 2), targets=BASES)
    train(model, pruner, 10)
    report = pruner.report()
    assert (report.size, report.zeros) == (72, 36)
    masks = zeros_of(model, (weight.name for weight in report.weights))
    adapted = model(torch.eye(6))
    merged: Any = model.merge_and_unload()
    assert torch.allclose(merged(torch.eye(6)), adapted, atol=1e-6)
    dense = {name: p.detach().clone() for name, p in merged.named_parameters()}
    assert all(bool((dense[f"{layer}.weight"] != 0).all()) for layer in ("query", "out"))
    filled = mask_merged(nn.ModuleDict({"net": merged}) if wrapped else merged, masks)
    assert filled == 36
    for layer in ("query", "out"):
        mask, weight = masks[f"base_model.model.{layer}.base_layer.weight"], merged.get_parameter(f"{layer}.weight")
        assert torch.equal(weight.detach(), dense[f"{layer}.weight"] * mask)
    assert torch.equal(merged.query.bias, dense["query.bias"])
    assert mask_merged(merged, masks) == 0


def test_G31_a_frozen_base_is_pruned_in_a_fit() -> None:
    class Tuning(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Peft(Model())

        def training_step(self, batch: Tensor, _: int) -> Tensor:
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.01)

        def train_dataloader(self) -> Any:
            return torch.randn(10, 5, 6)

    torch.manual_seed(0)
    module = Tuning()
    base: Any = module.get_parameter("net.base_model.model.query.base_layer.weight")
    before = base.detach().clone()
    callback = PruningCallback(Pruner(Polynomial(0.5, 2, 8, 2), targets=BASES))
    pl.Trainer(
        max_steps=10,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    ).fit(module)
    assert callback.report is not None
    assert callback.report.zeros == 36
    assert not base.requires_grad
    assert torch.equal(base.detach(), before * (base != 0)), "kept entries of a frozen weight have their bits"


NOTHING = torch.zeros(8, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"query.base_layer.weight": NOTHING, "key.weight": NOTHING}, "mask of 'key.weight' fits no weight of"),
        ({"query.weight": NOTHING, "out.weight": NOTHING}, "has shape (8, 6), the merged weight 'out.weight' (3, 8)"),
    ],
)
def test_G13_masks_without_a_weight_are_refused_and_nothing_is_changed(masks: dict[str, Tensor], message: str) -> None:
    model = Model()
    before = model.query.weight.detach().clone()
    with pytest.raises(ValueError, match=re.escape(message)):
        mask_merged(model, masks)
    assert torch.equal(model.query.weight, before)


def test_G13_a_name_that_fits_two_weights_is_refused() -> None:
    both = nn.ModuleDict({"one": Model(), "two": Model()})
    with pytest.raises(
        ValueError, match=r"fits 2 weights, one\.query\.weight, two\.query\.weight, of the merged model"
    ):
        mask_merged(both, {"query.weight": torch.ones(8, 6, dtype=torch.bool)})


def test_G13_masks_are_taken_before_the_merge() -> None:
    pruner = Pruner(OneShot(0.5, 1), targets=BASES)
    peft = Peft(Model())
    pruner.attach(peft)
    pruner.after_step(1)
    names = [weight.name for weight in pruner.strip().weights]
    merged = peft.merge_and_unload()
    with pytest.raises(ValueError, match=r"Model has no parameter .*base_layer\.weight': take masks before the merge"):
        zeros_of(merged, names)
