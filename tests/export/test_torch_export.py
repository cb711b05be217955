"""Programs of torch.export answer as the model does, for any batch where it allows that, or are not left behind."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.export import exported_program, to_exported_program
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from lightning_prune.shrink import shrink
from lightning_prune.tasks.char_lstm import CharLSTM
from lightning_prune.tasks.gpt import GPT
from tests.dynamic.helpers import finished


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3))


def conv() -> nn.Module:
    net: Any = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    net.example_input_array = torch.randn(2, 3, 8, 8)
    return net


def pruned(net: nn.Module, **ideas: Any) -> nn.Module:
    pruner = Pruner(OneShot(0.5, 1), **ideas)
    pruner.attach(net)
    pruner.after_step(1)
    pruner.strip()
    return net.eval()


def shrunk() -> nn.Module:
    smaller = shrink(pruned(conv(), pattern=Channel()), torch.randn(2, 3, 8, 8)).model
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in conv().parameters())
    return smaller


CHARACTERS = torch.randint(12, (3, 7))
NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, torch.randn(2, 6)),
    "pruned": (lambda: pruned(mlp()), torch.randn(4, 6)),
    "one example": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(1, 3, 8, 8)),
    "shrunk": (shrunk, torch.randn(2, 3, 8, 8)),
    "lstm": (lambda: CharLSTM(12, 8, 10), CHARACTERS),
    "transformer": (lambda: GPT(12, 7, 16, 4, 2), CHARACTERS),
    "gates": (finished, torch.randn(4, 3, 8, 8)),
}
SLOW = {"shrunk", "lstm", "transformer", "gates"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETS])
def test_outputs_agree_for_any_batch(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    make, inputs = NETS[name]
    net = make().train(name == "mlp")
    found = to_exported_program(net, tmp_path / "net.pt2", inputs)
    assert (found.batch, found.difference < 1e-5) == (None, True)
    assert net.training == (name == "mlp")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    program = torch.export.load(tmp_path / "net.pt2")
    state = net.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in program.state_dict.items())
    zeros = sum(int((p == 0).sum()) for key, p in program.state_dict.items() if state[key].dim() >= 2)
    assert (zeros > 0) == (name == "pruned")
    for batch in (torch.cat([inputs] * 3), inputs[:1]):
        torch.testing.assert_close(program.module()(batch), net.eval()(batch), atol=1e-5, rtol=1e-4)


def test_nothing_in_the_file_says_where_it_was_made(tmp_path: Path) -> None:
    to_exported_program(conv(), tmp_path / "net.pt2", torch.randn(2, 3, 8, 8))
    with zipfile.ZipFile(tmp_path / "net.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"conv2d" in content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b"site-packages" not in content


class Blend(nn.Module):
    """Takes two inputs of different kinds, and gives a list and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, codes: Tensor, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        mixed = self.table(codes) + self.layer(x)
        return [mixed, x * 2], {"codes": codes + 1}


@pytest.mark.parametrize("by_name", [False, True])
def test_takes_inputs_by_place_and_by_name(tmp_path: Path, by_name: bool) -> None:
    net, codes, x = Blend(), torch.randint(9, (2,)), torch.randn(2, 4)
    inputs: Any = {"x": x, "codes": codes} if by_name else (codes, x)
    found = to_exported_program(net, tmp_path / "blend.pt2", inputs)
    assert (found.batch, found.difference < 1e-6) == (None, True)
    program: Any = torch.export.load(tmp_path / "blend.pt2").module()
    codes, x = torch.randint(9, (5,)), torch.randn(5, 4)
    (mixed, twice), others = program(codes=codes, x=x) if by_name else program(codes, x)
    torch.testing.assert_close(mixed, net(codes, x)[0][0])
    assert torch.equal(twice, 2 * x)
    assert torch.equal(others["codes"], codes + 1)


class OfOneSize(nn.Module):
    """Takes batches of four alone; or any, but torch cannot see that."""

    def __init__(self, refuses: bool) -> None:
        super().__init__()
        self.refuses = refuses
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.refuses and x.shape[0] != 4:
            raise ValueError("four at a time")
        return self.layer(x) * (1.0 if x.shape[0] == 4 else 2.0)


@pytest.mark.parametrize("refuses", [True, False])
def test_a_model_of_one_batch_size_is_exported_for_that_and_says_so(tmp_path: Path, refuses: bool) -> None:
    net = OfOneSize(refuses)
    found = to_exported_program(net, tmp_path / "net.pt2", torch.randn(4, 6))
    assert found.batch == 4
    program = torch.export.load(tmp_path / "net.pt2").module()
    x = torch.randn(4, 6)
    torch.testing.assert_close(program(x), net(x))
    with pytest.raises(AssertionError, match="Guard failed"):
        program(torch.randn(5, 6))


def test_a_program_that_differs_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.pt2"
    file.write_text("the one before", encoding="utf-8")
    run = exported_program._run
    sizes: list[int] = []

    def wrong_for_other_batches(program: nn.Module, inputs: Tensor) -> list[Tensor]:
        sizes.append(len(inputs))
        return [out + (0.1 if len(inputs) != 2 else 0.0) for out in run(program, inputs)]

    monkeypatch.setattr(exported_program, "_run", wrong_for_other_batches)
    with pytest.raises(ValueError, match="outputs of the exported program differ by"):
        to_exported_program(nn.Linear(6, 3), file, torch.randn(2, 6))
    assert sizes == [2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    assert file.read_text(encoding="utf-8") == "the one before"


def test_an_older_torch_is_told_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.export.Dim, "AUTO")
    with pytest.raises(RuntimeError, match=r"needs torch 2\.6 or later; this is "):
        to_exported_program(nn.Linear(6, 3), tmp_path / "net.pt2", torch.randn(2, 6))
    assert not list(tmp_path.iterdir())


class Asks(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if float(input.sum()) > 0 else input


@pytest.mark.parametrize(
    ("net", "inputs", "said"),
    [
        (Asks(6, 6), torch.randn(2, 6), "torch.export cannot export Asks: "),
        (nn.Linear(6, 3), torch.randn(2, 5), "torch.export cannot export Linear: "),
        (nn.Linear(6, 3), None, "Linear has no example inputs"),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_left(
    tmp_path: Path, net: nn.Module, inputs: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        to_exported_program(net, tmp_path / "net.pt2", inputs)
    assert not list(tmp_path.iterdir())
