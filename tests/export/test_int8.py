"""Weights of 8 bits: zeros stay in place, what stays float is named, and a file that differs is not left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.export import Int8Export, holds_two_of_four, int8_zeros, onnx_file, to_int8, to_onnx
from lightning_prune.export.int8_zeros import Held
from lightning_prune.pattern import NofM
from lightning_prune.schedule import OneShot

onnx: Any = pytest.importorskip("onnx")
onnxruntime: Any = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
with onnx_file.quiet():
    pytest.importorskip("torchao")


def sparse(net: nn.Module, share: float = 0.8) -> nn.Module:
    """Return the net with that share of its weights zero, and norms that have seen something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() >= 2:
                parameter[torch.rand(parameter.shape, generator=generator) < share] = 0
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            if name.endswith("running_var"):
                buffer.uniform_(0.2, 4)
    return net


def conv_net() -> nn.Module:
    layers = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return sparse(nn.Sequential(*layers, nn.Linear(128, 10)))


def mlp() -> nn.Module:
    return sparse(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 4)))


def integers(file: Path) -> list[Tensor]:
    """Return the weights of 8 bits in a file, read by onnx alone."""
    found = [each for each in onnx.load(file).graph.initializer if each.data_type == onnx.TensorProto.INT8]
    arrays = [torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in found]
    return [array for array in arrays if array.dim() >= 2]


def reasons(result: Int8Export) -> dict[str, str | None]:
    return {weight.name: weight.reason for weight in result.weights}


@pytest.mark.parametrize(
    ("make", "shape"), [(conv_net, (4, 3, 8, 8)), pytest.param(mlp, (4, 16), marks=pytest.mark.slow)]
)
def test_G6_zeros_stay_in_place_and_outputs_near(
    tmp_path: Path, make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    net = make()
    before = copy.deepcopy(net.state_dict())
    batches = [torch.randn(shape), torch.randn(3, *shape[1:])]
    result = to_int8(net, tmp_path / "net.onnx", batches)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())

    weights = [parameter for parameter in net.parameters() if parameter.dim() >= 2]
    stored = integers(tmp_path / "net.onnx")
    assert len(stored) == len(weights) == len(result.quantized)
    for weight, eight in zip(weights, stored, strict=True):
        assert int((weight == 0).sum()) > 0.7 * weight.numel()
        assert not eight[weight == 0].any()
        assert torch.equal(eight.abs().flatten(1).amax(1), (weight.flatten(1).any(1)) * 127)  # a scale for each channel
    assert result.zeros == sum(int((weight == 0).sum()) for weight in weights)
    assert result.zeros_in_file == sum(int((eight == 0).sum()) for eight in stored)
    assert result.bytes == (tmp_path / "net.onnx").stat().st_size

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    net.eval()
    found, expected = [], []
    for batch in batches:
        found.append(torch.from_numpy(session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]))
        expected.append(net(batch).detach())
    off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
    assert 0 < result.difference < 0.05
    assert abs(off - result.difference) <= result.parity + 1e-6
    assert result.table().splitlines()[2].split()[-1] == "yes"


@pytest.mark.slow
def test_is_smaller_than_float(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    batch = torch.randn(8, 64)
    to_onnx(net, tmp_path / "float.onnx", batch)
    assert to_int8(net, tmp_path / "int8.onnx", [batch]).bytes < 0.4 * (tmp_path / "float.onnx").stat().st_size


class Net(nn.Module):
    """Layers that get 8 bits beside some that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.own = nn.Parameter(torch.randn(16, 16))
        self.middle = nn.Linear(16, 16)
        self.again = nn.Linear(16, 16, bias=False)
        self.again.weight = self.middle.weight
        self.unused = nn.Linear(16, 16)
        self.head = nn.Linear(16, 32, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        read = self.lstm(self.embedding(words))[0]
        read = read + self.attention(read, read, read, need_weights=False)[0] @ self.own
        return self.head(torch.relu(self.again(torch.relu(self.middle(read)))))


@pytest.mark.slow
def test_names_what_stays_float_and_why(tmp_path: Path) -> None:
    result = to_int8(sparse(Net()), tmp_path / "net.onnx", [torch.randint(0, 32, (3, 7))])
    other = "which is no linear layer or convolution with a weight of its own"
    assert reasons(result) == {
        "own": f"matmul reads it, {other}",
        "embedding.weight": "it is shared, and an embedding is looked up, not multiplied",
        "lstm.weight_ih_l0": "a recurrent layer stays float",
        "lstm.weight_hh_l0": "a recurrent layer stays float",
        "attention.in_proj_weight": None,
        "attention.out_proj.weight": None,
        "middle.weight": None,
        "unused.weight": "no operation of the program reads it",
    }
    assert result.quantized == ["attention.in_proj_weight", "attention.out_proj.weight", "middle.weight"]
    assert all((weight.zeros_in_file is None) == (weight.reason is not None) for weight in result.weights)
    assert result.difference < 0.05


@pytest.mark.slow
def test_onnxruntime_multiplies_integers(tmp_path: Path) -> None:
    """A convolution whose output a sum reads, too, would else be slower than in float."""
    to_int8(sparse(Shortcut(), 0.5), tmp_path / "net.onnx", [torch.randn(4, 3, 8, 8)])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3
    assert not {"Conv", "FusedConv"} & set(kinds)


class Shortcut(nn.Module):
    """A block of a ResNet behind a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(a, 8, 3, padding=1, bias=False) for a in (3, 8, 8))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem, first, second = zip(self.convolutions, self.norms, strict=True)
        read = torch.max_pool2d(torch.relu(stem[1](stem[0](images))), 2)
        inner = torch.relu(first[1](first[0](read)))
        return self.head(torch.relu(second[1](second[0](inner)) + read).mean((2, 3)))


class Skip(nn.Module):
    """A convolution that a norm and a sum read, and one with two norms behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        read = torch.relu(self.norms[0](first) + first)
        return self.norms[1](self.twice(read)) + torch.relu(self.norms[2](self.twice(read.flip(0))))


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "skip": (Skip, (4, 3, 8, 8)),
    "before a layer": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), (4, 3, 8, 8)),
    "without weights": (
        lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 4)),
        (5, 8),
    ),
    "along another dimension": (lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(5), nn.Linear(8, 4)), (4, 5, 8)),
    "in groups": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
        (4, 4, 6, 6),
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "skip" else pytest.mark.slow) for name in NORMS]
)
def test_a_norm_is_folded_only_where_that_changes_nothing(tmp_path: Path, name: str) -> None:
    make, shape = NORMS[name]
    result = to_int8(sparse(make(), 0.5), tmp_path / "net.onnx", [torch.randn(shape)])
    assert result.difference < 0.05
    assert result.zeros > 0


@pytest.mark.slow
def test_a_norm_by_the_batchs_own_statistics_stays(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4))
    assert to_int8(sparse(net, 0.5), tmp_path / "net.onnx", [torch.randn(6, 8)]).difference < 0.05


CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str]]] = {
    "1d": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3, padding="same"), nn.Conv1d(8, 4, 3)), (4, 3, 16), {"0", "1"}),
    "3d": (lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), nn.Conv3d(8, 4, 1)), (2, 3, 6, 6, 6), {"0", "2"}),
    "groups": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ReLU6(), nn.Conv2d(8, 4, 1)),
        (2, 4, 8, 8),
        {"0", "2"},
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        (2, 3, 8, 8),
        {"2"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_every_kind(tmp_path: Path, name: str) -> None:
    make, shape, quantized = CONVOLUTIONS[name]
    result = to_int8(sparse(make(), 0.5), tmp_path / "net.onnx", [torch.randn(shape)])
    assert set(result.quantized) == {f"{layer}.weight" for layer in quantized}
    assert result.difference < 0.05
    if name == "transposed":
        assert reasons(result)["0.weight"] == "a transposed convolution stays float"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_worked_out_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    net = mlp().to(dtype)
    result = to_int8(net, tmp_path / "net.onnx", [torch.randn(4, 16, dtype=dtype)])
    assert result.difference < 0.05
    assert next(net.parameters()).dtype == dtype
    assert onnxruntime.InferenceSession(tmp_path / "net.onnx").get_inputs()[0].type == "tensor(float)"


@pytest.mark.slow
def test_two_of_four_still_holds(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    pruner = Pruner(OneShot(0.5, 1), pattern=NofM(2, 4))
    pruner.attach(net)
    pruner.after_step(1)
    batch = torch.randn(4, 64)
    masked = to_int8(net, tmp_path / "masked.onnx", [batch])  # its zeros are in place already
    pruner.strip()
    stripped = to_int8(net, tmp_path / "stripped.onnx", [batch])
    assert stripped.zeros == masked.zeros == (64 * 32 + 32 * 8) // 2
    for file in ("masked.onnx", "stripped.onnx"):
        weights = integers(tmp_path / file)
        assert [tuple(weight.shape) for weight in weights] == [(32, 64), (8, 32)]
        assert all(holds_two_of_four(weight) for weight in weights)


@pytest.mark.slow
def test_a_dead_channel_keeps_its_bias(tmp_path: Path) -> None:
    """onnxruntime holds a bias in steps of the channel's scale, which must leave room for it."""
    first, last = nn.Linear(16, 16), nn.Linear(16, 4)
    with torch.no_grad():
        first.weight[:8] = 0
        first.weight[8] *= 1e-7
        first.bias[:9] = 3
        last.weight[1] = 0
    net = nn.Sequential(first, nn.ReLU(), last)
    result = to_int8(net, tmp_path / "net.onnx", [torch.randn(4, 16), torch.zeros(4, 16)])
    assert result.parity < 0.01
    assert result.difference < 0.05


@pytest.mark.slow
def test_equal_weights_and_one_that_is_all_zero(tmp_path: Path) -> None:
    layers = [nn.Linear(16, 16, bias=False) for _ in range(3)]
    with torch.no_grad():
        layers[1].weight.copy_(layers[0].weight)
        layers[2].weight[:8] = 0
    dead = nn.Linear(16, 16)
    nn.init.zeros_(dead.weight)
    net = nn.Sequential(*layers, dead)
    result = to_int8(net, tmp_path / "net.onnx", [torch.randn(4, 16)])
    assert [weight.zeros_in_file for weight in result.weights][3] == 256
    assert len(result.quantized) == 4


@pytest.mark.slow
def test_one_example_frees_the_batch_too(tmp_path: Path) -> None:
    to_int8(conv_net(), tmp_path / "net.onnx", [torch.randn(1, 3, 8, 8)])
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert session.run(None, {session.get_inputs()[0].name: torch.randn(5, 3, 8, 8).numpy()})[0].shape == (5, 10)


class ByName(nn.Module):
    """Takes two inputs, and gives one of them back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": self.layer(left) + right, "left": left}


@pytest.mark.slow
@pytest.mark.parametrize("by_name", [False, True])
def test_batches_by_place_and_by_name(tmp_path: Path, by_name: bool) -> None:
    left, right = torch.randn(4, 8), torch.randn(4, 8)
    batch: Any = {"left": left, "right": right} if by_name else (left, right)
    assert to_int8(ByName(), tmp_path / "net.onnx", [batch]).difference < 0.05


def test_a_file_that_differs_or_loses_a_zero_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "net.onnx"
    file.write_text("the one before", encoding="utf-8")
    net, batch = mlp(), torch.randn(4, 16)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "ask", lambda _, inputs: [torch.ones(len(inputs), 4)])
        with pytest.raises(ValueError, match="outputs of the ONNX file differ by"):
            to_int8(net, file, [batch])
    of_node = int8_zeros.of_node

    def one_more(program: Any, name: str) -> Held:
        """Return a weight after one of its zeros was made 1 in the program, as a bad rounding would."""
        held = of_node(program, name)
        held.values[tuple((held.values == 0).nonzero()[0])] = 1
        return held

    monkeypatch.setattr(int8_zeros, "of_node", one_more)
    with pytest.raises(ValueError, match=r"0\.weight: 1 weights that were zero are not in the file"):
        to_int8(net, file, [batch])
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert file.read_text(encoding="utf-8") == "the one before"


def test_a_model_for_batches_of_one_size_gives_a_file_for_that_size_and_a_warning(tmp_path: Path) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.layer(row) for row in x])

    with pytest.warns(UserWarning, match=r"net\.onnx: torch can trace the model for 4 examples at a time alone"):
        to_int8(Loop(), tmp_path / "net.onnx", [torch.randn(4, 16)])
    assert onnx_file.session(tmp_path / "net.onnx").get_inputs()[0].shape == [4, 16]
