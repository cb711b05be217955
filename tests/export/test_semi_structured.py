"""2:4 for sparse tensor cores: which layers go, which stay and why. On a CPU a stand-in takes the place of the GPU."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_prune import Pruner
from lightning_prune.export import (
    SemiStructured,
    check_gpu,
    holds_two_of_four,
    load_semi_structured,
    save_semi_structured,
    semi_structured,
    stored,
    to_semi_structured,
)
from lightning_prune.pattern import NofM
from lightning_prune.schedule import OneShot


def two_of_four(*shape: int) -> Tensor:
    weight = torch.randn(*shape)
    weight.unflatten(-1, (-1, 4))[..., :2] = 0
    return weight


def sparse_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Flatten(), nn.Linear(64, 10))
    pruner = Pruner(OneShot(0.5, 1), pattern=NofM(2, 4))
    pruner.attach(net)
    pruner.after_step(1)
    pruner.strip()
    return net


class StandIn:
    """Takes the place of torch's conversion: refuses odd shapes as it does, and may err."""

    def __init__(self, error: float = 0.0) -> None:
        self.error, self.shapes = error, list[tuple[int, ...]]()

    def __call__(self, weight: Tensor) -> Tensor:
        if weight.shape[0] % 32:
            raise RuntimeError(f"Error original_tensor.shape {weight.shape}\n is not supported!")
        self.shapes.append(tuple(weight.shape))
        return weight.detach() * (1 + self.error)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    def there(model: nn.Module | None = None) -> None:
        pass

    stand_in = StandIn()
    for module in (semi_structured, stored):
        monkeypatch.setattr(module, "check_gpu", there)
    monkeypatch.setattr(semi_structured, "to_sparse_semi_structured", stand_in)
    return stand_in


def weight_of(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight")


def reasons(result: SemiStructured) -> dict[str, str | None]:
    return {layer.name: layer.reason for layer in result.layers}


def test_on_a_cpu_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    needs = "needs a CUDA GPU of compute capability 8.0 or later, and there is no CUDA GPU here"
    with pytest.raises(RuntimeError, match=needs):
        to_semi_structured(sparse_net())
    with pytest.raises(RuntimeError, match=needs):
        load_semi_structured(sparse_net(), tmp_path)


def test_a_model_left_on_the_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RuntimeError, match=r"the model is on cpu: move it there with model.cuda\(\)"):
        check_gpu(sparse_net())


def test_an_older_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class There(nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            class Parameter:
                device = torch.device("cuda", 0)

            return iter([Parameter()])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(RuntimeError, match=r"and Tesla T4 has 7\.5"):
        check_gpu(There())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    check_gpu(There())


def test_the_pattern_is_read_along_the_inputs() -> None:
    assert holds_two_of_four(two_of_four(3, 8))
    assert holds_two_of_four(torch.zeros(3, 8))
    assert not holds_two_of_four(two_of_four(8, 8).t())
    assert holds_two_of_four(torch.tensor([[0.0, 0, 1, 1, 1, 1, 0, 0]]))
    assert not holds_two_of_four(torch.tensor([[0.0, 1, 1, 1, 1, 0, 0, 0]]))  # half, but three of them in one group
    assert not holds_two_of_four(torch.zeros(3, 6))
    assert not holds_two_of_four(torch.zeros(8))
    one_too_many = two_of_four(3, 8)
    one_too_many[2, 4] = 1e-30
    assert not holds_two_of_four(one_too_many)


def test_what_the_pruner_leaves_holds_the_pattern() -> None:
    net = sparse_net()
    assert all(holds_two_of_four(layer.weight) for layer in net if isinstance(layer, nn.Linear))


def test_converts_what_fits_and_says_why_not_of_the_rest(gpu: StandIn) -> None:
    net = sparse_net()
    before = copy.deepcopy(net.state_dict())
    result = to_semi_structured(net)
    assert gpu.shapes == [(64, 64), (64, 64)]
    assert result.converted == ["0", "2"]
    refused = "torch refuses it: Error original_tensor.shape torch.Size([10, 64]) is not supported!"
    assert reasons(result) == {"0": None, "2": None, "4": refused}
    assert result.layers[0].difference == 0
    inputs = torch.randn(3, 64)
    assert torch.equal(result.model(inputs), net(inputs))
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in result.model.parameters())
    assert result.table().splitlines()[2].split() == ["0", "64x64", "0.0e+00", "converted"]


def test_names_the_reason_of_each_layer_that_stays(gpu: StandIn) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.good = nn.Linear(64, 32)
            self.dense = nn.Linear(64, 32)
            self.conv = nn.Conv2d(4, 4, 1)
            self.embedding = nn.Embedding(32, 64)
            self.tied = nn.Linear(64, 32, bias=False)
            self.tied.weight = self.embedding.weight
            self.normed = weight_norm(nn.Linear(64, 32))
            self.attention = nn.MultiheadAttention(64, 2)
            self.twice = nn.Sequential(self.good, self.good)
            for layer in (self.good, self.embedding, self.attention.out_proj):
                layer.weight.data = two_of_four(*layer.weight.shape)

    found = reasons(to_semi_structured(Net()))
    assert found == {
        "good": None,
        "dense": "its weight does not hold the pattern 2:4",
        "conv": "the kernel takes nn.Linear, not Conv2d",
        "embedding": "the kernel takes nn.Linear, not Embedding",
        "tied": "its weight is shared: embedding.weight, tied.weight",
        "normed": "the kernel takes nn.Linear, not ParametrizedLinear",
        "attention.out_proj": "the kernel takes nn.Linear, not NonDynamicallyQuantizableLinear",
    }


@pytest.mark.parametrize(("error", "tolerance", "good"), [(0.005, 1e-2, True), (0.02, 1e-2, False), (0.02, 0.1, True)])
def test_outputs_must_stay_within_the_tolerance(gpu: StandIn, error: float, tolerance: float, good: bool) -> None:
    net = nn.Linear(64, 64, bias=False)
    net.weight.data = two_of_four(64, 64)
    gpu.error = error
    if good:
        (layer,) = to_semi_structured(net, tolerance).layers
        assert layer.difference == pytest.approx(error, rel=1e-3)
    else:
        with pytest.raises(ValueError, match=f"outputs differ by more than {tolerance:g}"):
            to_semi_structured(net, tolerance)


def test_nothing_to_convert_is_an_error(gpu: StandIn) -> None:
    with pytest.raises(ValueError, match="no layer was converted to 2:4: 0: its weight does not hold the pattern"):
        to_semi_structured(nn.Sequential(nn.Linear(64, 64)))
    with pytest.raises(ValueError, match="there is no linear layer"):
        to_semi_structured(nn.ReLU())


def test_only_those_asked_for(gpu: StandIn) -> None:
    assert reasons(to_semi_structured(sparse_net(), only=["2"])) == {
        "0": "not asked for",
        "2": None,
        "4": "not asked for",
    }
    with pytest.raises(ValueError, match="these layers cannot be converted to 2:4: 4: torch refuses it"):
        to_semi_structured(sparse_net(), only=["2", "4"])
    with pytest.raises(ValueError, match="7: there is no such layer"):
        to_semi_structured(sparse_net(), only=["7"])


def test_comes_back_from_plain_files(gpu: StandIn, tmp_path: Path) -> None:
    net = sparse_net().half()
    result = to_semi_structured(net)
    save_semi_structured(net, result, tmp_path / "new" / "folder")
    assert {path.name for path in (tmp_path / "new/folder").iterdir()} == {"model.pt", "semi_structured.json"}
    facts = json.loads((tmp_path / "new/folder/semi_structured.json").read_text(encoding="utf-8"))
    assert facts == {"format": "2:4", "layers": ["0", "2"]}
    plain = copy.deepcopy(sparse_net())
    plain.load_state_dict(torch.load(tmp_path / "new/folder/model.pt", weights_only=True))
    assert holds_two_of_four(weight_of(plain, "0"))

    again = load_semi_structured(copy.deepcopy(sparse_net()), tmp_path / "new/folder", device="cpu")
    assert again.converted == result.converted
    assert weight_of(again.model, "0").dtype == torch.float16
    inputs = torch.randn(3, 64).half()
    assert torch.equal(again.model(inputs), result.model(inputs))


def test_a_tied_weight_is_written_once(gpu: StandIn, tmp_path: Path) -> None:
    net = nn.ModuleDict({"a": nn.Linear(64, 512), "b": nn.Linear(64, 512), "c": nn.Linear(64, 32)})
    net["b"].weight = net["a"].weight
    net["c"].weight.data = two_of_four(32, 64)
    save_semi_structured(net, to_semi_structured(net), tmp_path)
    assert (tmp_path / "model.pt").stat().st_size < 1.5 * weight_of(net, "a").nbytes


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0), reason="needs a GPU with 2:4"
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_a_gpu_for_real(tmp_path: Path, dtype: torch.dtype) -> None:
    net = sparse_net().to("cuda", dtype)
    result = to_semi_structured(net)
    assert result.converted == ["0", "2"]
    assert type(weight_of(result.model, "0").data).__name__.startswith("SparseSemiStructured")
    inputs = torch.randn(130, 64, device="cuda", dtype=dtype)
    expected = net(inputs)
    limit = 2e-2 * float(expected.abs().max())
    with torch.inference_mode():
        assert float((result.model(inputs) - expected).abs().max()) <= limit
    save_semi_structured(net, result, tmp_path)
    again = load_semi_structured(sparse_net(), tmp_path)
    assert again.converted == result.converted
    with torch.inference_mode():
        assert float((again.model(inputs) - expected).abs().max()) <= limit
