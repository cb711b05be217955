"""What goes along with units, what is counted, and what is left whole and why."""

import pytest
import torch
from torch import nn

from lightning_prune.pruning import Pruner
from lightning_prune.regularizer import L1
from lightning_prune.schedule import OneShot
from lightning_prune.targets import Targets
from tests.helpers import grad_of, masks_of, pruned_once
from tests.laws.coupled.nets import EXAMPLE, NAMES, Traced, net


def test_biases_and_norms_go_along_but_are_neither_counted_nor_regularized() -> None:
    model = net("convolutions")
    pruner = Pruner(OneShot(0.5, 0), pattern=Traced("convolutions"), regularizer=L1(0.1))
    pruner.attach(model)
    counted_names = {weight.name for weight in pruner.report().weights}
    assert counted_names == {n for n, p in model.named_parameters() if p.dim() > 1}
    assert set(pruner.masks) - counted_names
    pruner.after_step(0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pruner.before_step()
    for name, parameter in model.named_parameters():
        assert torch.equal(grad_of(model, name) != 0, (parameter != 0) & torch.tensor(name in counted_names)), name
    weights = [model.get_parameter(name).detach() for name in counted_names]
    assert pruner.penalty == pytest.approx(0.1 * float(torch.stack([w.abs().sum() for w in weights]).sum()))


@NAMES
def test_changed_is_the_share_of_all_mask_entries(name: str) -> None:
    pruner = pruned_once(net(name), 0.5, pattern=Traced(name))
    masks = list(masks_of(pruner).values())
    assert pruner.changed == sum(int((~m).sum()) for m in masks) / sum(m.numel() for m in masks)


def test_G14_what_is_left_whole_is_reported_with_its_reason() -> None:
    model = net("perceptron")
    pruner = pruned_once(model, 0.5, pattern=Traced("perceptron"), targets=Targets(exclude=("^3",)))
    report = pruner.report()
    assert {weight.name for weight in report.weights} == {"0.weight"}
    assert report.skipped["3.weight"] == "excluded by '^3'; but columns that read removed units go"
    assert "5.weight" in report.skipped
    assert (model[3].weight == 0).any(0).sum() > 0
    assert not (model[3].weight == 0).all(1).any()
    assert report.skipped["5.bias"] == "bias"
    assert "0.bias" not in report.skipped


def test_G14_a_weight_whose_outputs_a_frozen_layer_reads_is_named() -> None:
    model = nn.Sequential(nn.Linear(7, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 4))
    model[4].weight.requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 0), pattern=EXAMPLE)
    pruner.attach(model)
    reason = pruner.report().skipped["2.weight"]
    assert reason == "tied to 4.weight, which is frozen; but columns that read removed units go"
