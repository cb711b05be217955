"""The nets whose channels are pruned on pieces: two convolutions with BatchNorm around which their input is added."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from lightning_prune.shards import shard_of
from tests.distributed.fits import Sharded


class Residual(nn.Module):
    """Two convolutions with BatchNorm around which their input is added, of images of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 7, 3, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.inner = nn.Conv2d(7, 5, 3, padding=1, bias=False)
        self.between = nn.BatchNorm2d(5)
        self.outer = nn.Conv2d(5, 7, 1)
        self.head = nn.Linear(7 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.view(-1, 3, 2, 2))).relu()
        x = x + self.outer(self.between(self.inner(x)).relu())
        return self.head(x.flatten(1))


def residual(dtype: torch.dtype = torch.float64) -> Residual:
    """Return the net, the same on every rank and in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Residual().to(dtype)
        for norm in (model.norm, model.between):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        return model


def residual_apart(model: Residual, mesh: DeviceMesh, data: str) -> None:
    from torch.distributed.fsdp import fully_shard

    if data == "hsdp":
        fully_shard(model, mesh=mesh)
        return
    fully_shard(model.inner, mesh=mesh[data])
    fully_shard(model, mesh=mesh[data])


class Image(Sharded):
    """The residual net; the norms keep their statistics, which ranks would take of their own shares of a batch."""

    def __init__(self, layout: str = "1x1", dtype: torch.dtype = torch.float64, policy: bool = False) -> None:
        super().__init__(layout, dtype, policy)
        self.net: Any = residual(dtype)
        self.example_input_array = torch.ones(2, 12, dtype=dtype)

    def configure_model(self) -> None:
        if self.layout != "1x1" and not any(shard_of(parameter) for parameter in self.parameters()):
            residual_apart(self.net, cast(DeviceMesh, self.device_mesh), "data_parallel")

    def training_step(self, batch: list[Tensor]) -> Tensor:
        self.net.norm.eval()
        self.net.between.eval()
        return nn.functional.mse_loss(self(batch[0])[:, :3], batch[1])


class Dense(Sharded):
    """The MLP, with what its units are found by."""

    def __init__(self, layout: str = "1x1", dtype: torch.dtype = torch.float64, policy: bool = False) -> None:
        super().__init__(layout, dtype, policy)
        self.example_input_array = torch.ones(2, 12, dtype=dtype)


class Late(Image):
    """Makes its layers where they are taken apart."""

    def __init__(self, layout: str) -> None:
        super().__init__(layout)
        del self.net

    def configure_model(self) -> None:
        self.net = residual()
        super().configure_model()


class Empty(Image):
    """Has its layers on the meta device until the strategy gives them memory."""

    def __init__(self, layout: str) -> None:
        super().__init__(layout)
        self.net.to("meta")
