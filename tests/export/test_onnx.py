"""ONNX files give the same outputs, also of other batches; one that does not is not left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.export import onnx, to_onnx

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


@pytest.mark.parametrize("by_name", [False, True])
def test_takes_inputs_by_place_and_by_name(tmp_path: Path, by_name: bool) -> None:
    left, right = torch.randn(2, 4), torch.randn(2, 4)
    inputs: Any = {"right": right, "left": left} if by_name else (left, right)
    assert to_onnx(Two(), tmp_path / "two.onnx", inputs) < 1e-5


def test_a_file_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.onnx"
    file.write_text("the one before", encoding="utf-8")

    def wrong(*_: Any) -> list[Tensor]:
        return [torch.ones(2, 3)]

    monkeypatch.setattr(onnx, "run", wrong)
    with pytest.raises(ValueError, match="outputs of the ONNX file differ by"):
        to_onnx(nn.Linear(6, 3), file, torch.randn(2, 6))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert file.read_text(encoding="utf-8") == "the one before"
