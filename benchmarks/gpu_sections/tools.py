"""Where a section runs, what it gives back, and what all of them need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timing import Contender, in_turn
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class NotHere(Exception):  # noqa: N818
    """A section makes no sense on this device; the message says why."""


@dataclass(frozen=True)
class Table:
    """One table of results.

    Attributes:
        head: the columns.
        rows: as many cells each.
        note: a sentence below it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Where:
    """The device, and whether sizes are to be small."""

    device: torch.device
    small: bool

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cpu":
            return
        accelerator: Any = getattr(torch, "accelerator", None)  # torch 2.6
        (accelerator or getattr(torch, self.device.type)).synchronize()

    def randn(self, *shape: int, seed: int = 0) -> Tensor:
        """Return numbers that are the same on every device."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def least_ms(self, contenders: Mapping[str, Contender], repeats: int, warm_up: int = 3) -> dict[str, float]:
        """Return the least milliseconds of each, timed in turn."""
        repeats = 3 if self.small else repeats
        times = in_turn(contenders, repeats, 1 if self.small else warm_up, wait=self.wait)
        return {name: 1e3 * time.wall for name, time in times.items()}


def needs_cuda(where: Where) -> None:
    if not where.cuda:
        raise NotHere("needs CUDA")


def one_line(error: BaseException) -> str:
    """Return an error as one line that fits a table."""
    said = " ".join(str(error).split()).replace("|", "/")
    return f"{type(error).__name__}: {said[:200]}{'...' if len(said) > 200 else ''}"


def rows_of(names: Mapping[str, Any], make: Callable[[Any], Sequence[str]], columns: int) -> list[list[str]]:
    """Return a row for each name; an error is the first cell of its row, and the rows after it are made."""
    rows: list[list[str]] = []
    for name, value in names.items():
        try:
            cells = list(make(value))
        except NotHere as reason:
            cells = [str(reason)]
        except Exception as error:
            cells = [f"FAILED: {one_line(error)}"]
        rows.append([name, *cells, *["-"] * (columns - 1 - len(cells))])
    return rows


def on_cpu(values: Any) -> Any:
    """Return nested values with copies of their tensors on the CPU."""
    return tree_map(lambda value: value.detach().cpu().clone() if isinstance(value, Tensor) else value, values)


def yes(holds: bool) -> str:
    return "yes" if holds else "NO"


def apart(a: Tensor, b: Tensor) -> str:
    """Return the largest difference of two tensors, as a share of the largest of the first."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return f"{float((a - b).abs().max() / a.abs().max()):.1e}"


def mlp(where: Where) -> nn.Sequential:
    """Return a net of linear layers with a norm, the same on every device."""
    width = 32 if where.small else 512
    torch.manual_seed(0)
    layers = [nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)).to(where.device)
