"""A smaller model is compared in full precision: TF32 and its like move outputs by more than the tolerance."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune import Pruner
from lightning_prune.coupling.example import answer, distance
from lightning_prune.coupling.full_precision import full_precision
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import shrink

backends: Any = torch.backends
INNER: Any = getattr(torch._C, "_get_fp32_precision_getter", None)  # of torch 2.9 and later


@pytest.fixture(autouse=True)
def settings() -> Generator[None, None, None]:
    """Leave torch's settings as the next test expects them."""
    before = backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    newer = {place: INNER(*place) for place in places()}
    yield
    backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])
    for place, value in newer.items():
        torch._C._set_fp32_precision_setter(*place, value)  # pyright: ignore


def places() -> list[tuple[str, str]]:
    ops = [(backend, op) for backend in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn")]
    return [("generic", "all"), *ops] if INNER is not None else []


def seen() -> list[Any]:
    """Return all settings, and where torch does not tell one, that."""

    def told(get: Callable[[], Any]) -> Any:
        try:
            return get()
        except RuntimeError as error:
            return type(error).__name__

    old = [told(lambda: backends.cudnn.allow_tf32), told(lambda: backends.cuda.matmul.allow_tf32)]
    return [*(INNER(*place) for place in places()), *old, told(torch.get_float32_matmul_precision)]


def rounded(value: Tensor) -> Tensor:
    """Return a float32 tensor with 10 bits behind the point, as tensor cores read it."""
    bits = value.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class TF32(TorchDispatchMode):
    """Multiply as a GPU does that goes by torch's settings: rounded operands, sums of halves."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name == "aten::convolution" and backends.cudnn.allow_tf32:
            args = (rounded(args[0]), rounded(args[1]), *args[2:])
        if name in ("aten::mm", "aten::addmm") and torch.get_float32_matmul_precision() != "highest":
            one, other = args[-2:]
            halves = zip(one.tensor_split(2, 1), other.tensor_split(2, 0), strict=True)
            product = sum(torch.mm(rounded(a), rounded(b)) for a, b in halves)
            return product + args[0] if name == "aten::addmm" else product
        return func(*args, **(kwargs or {}))


def linear() -> tuple[nn.Module, Tensor]:
    hidden = [layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.Tanh())]
    return nn.Sequential(nn.Linear(40, 256), nn.Tanh(), *hidden, nn.Linear(256, 5)), torch.randn(256, 40)


def convolutions() -> tuple[nn.Module, Tensor]:
    def conv(inputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, 64, 3, padding=1), nn.ReLU()]

    layers = [layer for _ in range(4) for layer in conv(64)]
    return nn.Sequential(*conv(3), *layers, nn.Flatten(), nn.Linear(64 * 36, 5)), torch.randn(12, 3, 6, 6)


def dead(build: Callable[[], tuple[nn.Module, Tensor]]) -> tuple[nn.Module, Tensor]:
    """Return a model with dead units, and example inputs for it."""
    model, example = build()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)
    pruner = Pruner(OneShot(0.4, 0), pattern=Channel(example_inputs=example))
    pruner.attach(model, 1)
    pruner.update(0)
    pruner.strip()
    return model, example


@pytest.mark.parametrize("build", [linear, convolutions])
def test_G9_a_right_model_is_not_refused_for_the_precision_of_its_device(build: Any) -> None:
    model, example = dead(build)
    torch.set_float32_matmul_precision("high")
    backends.cudnn.allow_tf32 = True
    before = seen()
    with torch.no_grad(), TF32():
        shrunk = shrink(model, example)
        moved = distance([model.eval()(example)], [shrunk.model.eval()(example)])[1]
    assert shrunk.report.relative < 1e-5
    assert moved > 1e-4  # in the device's own precision, the same two models would be refused
    assert seen() == before


def test_G9_nor_for_an_autocast_around_it() -> None:
    model, example = dead(linear)
    with torch.autocast("cpu", torch.bfloat16):
        assert shrink(model, example).report.relative < 1e-5
        assert [t.dtype for t in answer(model, example)] == [torch.float32]
        assert model(example).dtype == torch.bfloat16


@pytest.mark.parametrize("way", ["default", "medium", "cudnn off", "failing"])
def test_settings_come_back(way: str) -> None:
    if way == "medium":
        torch.set_float32_matmul_precision("medium")
    if way == "cudnn off":
        backends.cudnn.allow_tf32 = False
    before = seen()
    failing = pytest.raises(RuntimeError, match="on purpose") if way == "failing" else nullcontext()
    with failing, full_precision(nn.Linear(2, 2)):
        assert (backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (False, "highest")
        assert not backends.cuda.matmul.allow_tf32
        if way == "failing":
            raise RuntimeError("on purpose")
    assert seen() == before


@pytest.mark.skipif(INNER is None, reason="torch before 2.9 has the older settings alone")
@pytest.mark.parametrize("place", [("generic", "all"), ("cuda", "conv"), ("cuda", "matmul"), ("mkldnn", "matmul")])
def test_newer_settings_win_and_come_back(place: tuple[str, str]) -> None:
    torch._C._set_fp32_precision_setter(*place, "tf32")  # pyright: ignore
    before = seen()
    with full_precision(nn.Linear(2, 2)):
        assert {INNER(*each) for each in places()} == {"ieee"}
    assert seen() == before
    torch._C._set_fp32_precision_setter("generic", "all", "ieee")  # pyright: ignore
    assert INNER("cuda", "all") == "ieee"  # what had no setting of its own has none now
