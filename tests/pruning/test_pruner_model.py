"""The engine on a model: gradients, tied weights and copies while masks are on; then a plain model and a report."""

import copy
import io
import json
import pickle

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.pattern import Block
from lightning_prune.regularizer import L1
from lightning_prune.report import percent
from lightning_prune.schedule import OneShot
from tests.helpers import backward, conv_net, grad_of, mlp, pruned_once, same, sgd, train, zeros


class Tied(nn.Module):
    """Two layers that share a weight, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.own = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 7)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.own(self.second(self.first(inputs)))


def test_G15_tied_weights_stay_tied_and_count_once() -> None:
    model = Tied()
    pruner = pruned_once(model, 0.5)
    assert pruner.masks["first.weight"] is pruner.masks["second.weight"]
    assert list(pruner.masks) == ["first.weight", "own.weight"]
    assert pruner.report().size == 36 + 42
    assert pruner.report().parameters == sum(p.numel() for p in model.parameters())
    assert zeros([model.first.weight, model.own.weight]) == 39
    assert model.first.weight_mask is model.second.weight_mask
    report = pruner.strip()
    assert model.second.weight is model.first.weight
    assert report.zeros == 39
    assert not hasattr(model.first, "weight_mask")
    assert not hasattr(model.second, "weight_mask")


def test_G18_the_regularizers_gradient_is_the_one_by_hand_and_is_masked() -> None:
    model = mlp()
    pruner = pruned_once(model, 0.5, regularizer=L1(0.25))
    backward(model, 0)
    weight = model.get_parameter("0.weight")
    before, bias = (grad_of(model, name).clone() for name in ("0.weight", "0.bias"))
    mask = pruner.masks["0.weight"].mask
    pruner.before_step(grad_scale=8.0)
    torch.testing.assert_close(grad_of(model, "0.weight"), (before + 8.0 * 0.25 * weight.detach().sign()) * mask)
    assert torch.equal(grad_of(model, "0.bias"), bias)
    total = sum(
        float(w.detach().abs().sum()) for w in (model.get_parameter("0.weight"), model.get_parameter("3.weight"))
    )
    assert pruner.penalty == pytest.approx(0.25 * total)
    model.zero_grad()
    pruner.before_step()
    assert weight.grad is None, "without a loss there is no step to add to"
    model.get_parameter("3.weight").grad = torch.zeros(5, 12)
    pruner.before_step()
    torch.testing.assert_close(weight.grad, 0.25 * weight.detach().sign())


def test_G9_G19_strip_leaves_a_plain_model_with_the_same_outputs() -> None:
    model, twin = mlp(), mlp()
    pruner = Pruner(OneShot(0.75, 2))
    pruner.attach(model)
    train(model, pruner, sgd(model), range(4))
    inputs = torch.randn(9, 7)
    for training in (True, False):
        model.train(training)
        state = copy.deepcopy(model.state_dict())
        masked = model(inputs)
        model.load_state_dict(state)
        report = pruner.strip()
        assert torch.equal(model(inputs), masked)
        model.load_state_dict(state)
    assert [vars(module).keys() for module in model.modules()] == [vars(module).keys() for module in twin.modules()]
    twin.load_state_dict(model.state_dict(), strict=True)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in twin.named_parameters()]
    for weight in report.weights:
        assert weight.zeros == zeros([twin.get_parameter(weight.name)])
    assert report.zeros == 108
    assert not pruner.attached
    assert pruner.strip() == report, "twice is once"
    assert pruner.report() == report


def test_G19_the_report_is_json_and_agrees_with_itself() -> None:
    report = pruned_once(conv_net(), 0.7).strip()
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["sparsity"] == report.sparsity == report.zeros / report.size
    assert sum(weight["zeros"] for weight in plain["weights"]) == plain["zeros"] == round(0.7 * 3735)
    assert plain["prunable"] == sum(weight["size"] for weight in plain["weights"]) == 3735
    assert plain["weights"][0]["shape"] == [10, 3, 3, 3]
    assert set(plain["skipped"]) == {"0.bias", "2.bias", "3.weight", "3.bias", "5.bias"}
    scalars = report.scalars()
    assert scalars["sparsity"] == report.sparsity
    assert scalars["sparsity/0.weight"] == plain["weights"][0]["sparsity"]
    assert all(isinstance(value, float) for value in scalars.values())
    for text in (report.table(), report.plan()):
        assert "2.weight" in text
        assert "left whole, norm: 3.weight, 3.bias" in text
    assert f"{report.zeros:,}" in report.table()


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.00 %"),
        (1.0, "100.00 %"),
        (0.5, "50.00 %"),
        (0.999999, "99.9999 %"),
        (1e-7, "0.00001 %"),
        (0.98765, "98.77 %"),
    ],
)
def test_G19_a_share_is_told_apart_from_nothing_and_everything(share: float, text: str) -> None:
    assert percent(share) == text


def test_G16_copies_and_pickles_of_the_model_while_masks_are_on() -> None:
    model = mlp()
    pruner = pruned_once(model, 0.5)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    for other in copies:
        assert same(other.state_dict(), model.state_dict())
        assert other.state_dict().keys() == mlp().state_dict().keys()
        backward(other, 0)
        sgd(other).step()
        again = pruned_once(other, 0.8)
        assert again.strip().zeros == round(0.8 * 144)
    pruner.after_step(3)
    assert zeros([model.get_parameter("0.weight"), model.get_parameter("3.weight")]) == 72


def test_a_block_mask_of_a_channels_last_model() -> None:
    model = conv_net().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    plain = conv_net()
    for net in (model, plain):
        pruned_once(net, 0.6, pattern=Block(2, 3))
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    assert model.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
