"""What cannot have 8 bits is refused with the reason, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import LearnedMasks
from lightning_prune.export import onnx_file, to_int8
from lightning_prune.pattern import Element

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
with onnx_file.quiet():
    pytest.importorskip("torchao")


class Choosing(nn.Module):
    """Looks at values to choose its way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, batch: Tensor) -> Tensor:
        return self.layer(batch) if batch.sum() > 0 else batch


def learned() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    LearnedMasks(pattern=Element()).attach(net, 10)
    return net


def not_finite() -> nn.Module:
    net = nn.Linear(4, 4)
    net.weight.data[1, 2] = torch.nan
    return net


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "no batches": (lambda: nn.Linear(4, 4), [], "calibration holds no batches: give some like those"),
    "labels": (
        lambda: nn.Linear(4, 4),
        [(torch.ones(2, 4), torch.ones(2))],
        "the model cannot be called with batch 0: .*; a batch is what one forward takes, without labels",
    ),
    "outputs": (lambda: nn.Linear(4, 4), [torch.full((2, 4), torch.inf)], "outputs for batch 0 are not finite"),
    "weights": (not_finite, [torch.ones(2, 4)], "weight holds values that are not finite"),
    "values": (Choosing, [torch.ones(2, 4)], "torch.export cannot take Choosing apart: .*must not depend on values"),
    "gru": (
        lambda: nn.GRU(4, 4),
        [torch.ones(2, 3, 4)],
        "no weight can have 8 bits: weight_ih_l0: a recurrent layer stays float; .* to_onnx writes the model in float",
    ),
    "learned": (learned, [torch.ones(2, 8)], r"learned masks are not in the weights yet: call strip\(\) before"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, batches, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        to_int8(make(), tmp_path / "net.onnx", batches)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_batches_of_another_shape_are_named(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.AdaptiveAvgPool1d(2))
    with pytest.raises(ValueError, match=r"batch 1 of 2 examples does not fit .* with 3: .*Give batches of one shape"):
        to_int8(net, tmp_path / "net.onnx", [torch.ones(3, 5, 4), torch.ones(2, 6, 4)])
    assert not list(tmp_path.iterdir())
