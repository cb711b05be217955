"""ONNX files give the same outputs, also of other batches; one that does not is not left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.export import onnx, onnx_file, to_onnx

onnxruntime: Any = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3)), torch.randn(2, 6)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), torch.randn(2, 3, 8, 8)),
    "one image": (lambda: nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)),
    "gru": (lambda: nn.GRU(4, 6, batch_first=True), torch.randn(3, 5, 4)),
}


@pytest.mark.parametrize("name", ["mlp", "conv", "one image", pytest.param("gru", marks=pytest.mark.slow)])
def test_outputs_agree_for_any_batch(tmp_path: Path, name: str) -> None:
    make, inputs = NETS[name]
    net = make()
    assert to_onnx(net, tmp_path / "net.onnx", inputs) < 1e-5
    assert net.training
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    batch = torch.cat([inputs] * 3)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    found = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
    expected = net.eval()(batch)
    torch.testing.assert_close(
        torch.from_numpy(found), expected[0] if isinstance(expected, tuple) else expected, atol=1e-5, rtol=1e-4
    )


def test_nothing_in_the_file_says_where_it_was_made(tmp_path: Path) -> None:
    make, inputs = NETS["conv"]
    to_onnx(make(), tmp_path / "net.onnx", inputs)
    content = (tmp_path / "net.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b"site-packages" not in content


class Sorting(nn.Module):
    """Does what torch has no ONNX for."""

    def forward(self, batch: Tensor) -> Tensor:
        return batch.sort(dim=1, stable=True).values


class Choosing(nn.Module):
    """Looks at values to choose its way."""

    def forward(self, batch: Tensor) -> Tensor:
        return batch + 1 if batch.sum() > 0 else batch


@pytest.mark.slow
@pytest.mark.parametrize(("net", "what"), [(Sorting(), r"aten\.sort"), (Choosing(), "data-dependent|guard")])
def test_what_has_no_onnx_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], net: nn.Module, what: str
) -> None:
    with pytest.raises(ValueError, match=f"torch cannot write it as ONNX: .*({what})") as raised:
        to_onnx(net, tmp_path / "net.onnx", torch.randn(2, 4))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


class Two(nn.Module):
    """Takes two inputs and gives two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": self.layer(left) + right, "difference": left - right}


class OfOneSize(nn.Module):
    """Says of batches what its example cannot show: `List` writes out a loop, `Branch` has another way from 6 on."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer, self.other = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "loop":
            return torch.stack([self.layer(row) for row in x])
        if self.kind == "branch":
            return self.layer(x) if x.shape[0] <= 5 else self.other(x)
        return self.layer(x.view(4, -1, 8))


@pytest.mark.parametrize("kind", ["loop", "branch", "view"])
def test_a_model_for_batches_of_one_size_gives_a_file_for_that_size_and_a_warning(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "net.onnx"
    with pytest.warns(UserWarning, match=r"net\.onnx: torch can trace the model for 4 examples at a time alone"):
        assert to_onnx(OfOneSize(kind), file, torch.randn(4, 8)) < 1e-5
    session = onnx_file.session(file)
    assert session.get_inputs()[0].shape == [4, 8]
    with pytest.raises(Exception, match="Got: 9 Expected: 4"):
        onnx_file.ask(session, torch.randn(9, 8))


@pytest.mark.parametrize("examples", [1, 4])
def test_any_other_takes_batches_of_any_size(tmp_path: Path, examples: int) -> None:
    file, net = tmp_path / "net.onnx", nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU()).eval()
    to_onnx(net, file, torch.randn(examples, 8))
    for size in (1, 2, 9):
        x = torch.randn(size, 8)
        torch.testing.assert_close(onnx_file.ask(onnx_file.session(file), x)[0], net(x).detach())


class OfADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.layer(batch["x"])


def test_an_argument_may_be_a_dict(tmp_path: Path) -> None:
    assert to_onnx(OfADict(), tmp_path / "net.onnx", ({"x": torch.randn(4, 8)},)) < 1e-5


def test_what_onnxruntime_has_no_kernel_for_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"onnxruntime cannot run it on the CPU: .*Gemm") as raised:
        to_onnx(nn.Linear(8, 4).bfloat16(), tmp_path / "net.onnx", torch.randn(4, 8, dtype=torch.bfloat16))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


class Keeping(nn.Module):
    """Keeps a result of its last forward, as for an auxiliary loss: torch copies no tensor with a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = {"features": [torch.relu(self.layer(x))]}
        return self.out(self.kept["features"][0])


def test_a_module_that_keeps_a_result_is_exported(tmp_path: Path) -> None:
    net = Keeping()
    net(torch.randn(4, 8))
    assert to_onnx(net, tmp_path / "net.onnx", torch.randn(4, 8)) < 1e-5
    assert net.kept["features"][0].grad_fn is not None


@pytest.mark.parametrize("by_name", [False, True])
def test_takes_inputs_by_place_and_by_name(tmp_path: Path, by_name: bool) -> None:
    left, right = torch.randn(2, 4), torch.randn(2, 4)
    inputs: Any = {"right": right, "left": left} if by_name else (left, right)
    assert to_onnx(Two(), tmp_path / "two.onnx", inputs) < 1e-5


def test_a_file_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.onnx"
    file.write_text("the one before", encoding="utf-8")

    def wrong(session: Any, inputs: Tensor) -> list[Tensor]:
        return [torch.ones(len(inputs), 3)]

    monkeypatch.setattr(onnx, "ask", wrong)
    with pytest.raises(ValueError, match="outputs of the ONNX file differ by"):
        to_onnx(nn.Linear(6, 3), file, torch.randn(2, 6))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert file.read_text(encoding="utf-8") == "the one before"
