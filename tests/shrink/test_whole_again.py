"""Modules that FSDP2 and tensor parallelism have taken apart are plain ones again, and can be taken apart anew."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from lightning_prune.shrink import is_apart, whole_again


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    store = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


class Own(nn.Sequential):
    """Has a class, a buffer and tied weights of its own."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
        self[3].weight = self[2].weight
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long), persistent=False)


def sharded(model: nn.Sequential, mesh: DeviceMesh) -> None:
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)


def parallel(model: nn.Sequential, mesh: DeviceMesh) -> None:
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


WAYS: list[tuple[Callable[[], nn.Sequential], Callable[[nn.Sequential, DeviceMesh], None]]] = [
    (mlp, sharded),
    (mlp, parallel),
    (Own, sharded),
]


@pytest.mark.parametrize(("make", "apart"), WAYS)
def test_the_module_is_as_if_it_had_never_been_taken_apart(make: Any, apart: Any, mesh: DeviceMesh) -> None:
    model = make()
    plain, inputs = copy.deepcopy(model), torch.randn(5, 4)
    own: list[Tensor] = []
    handle = model[0].register_forward_hook(lambda *given: own.append(given[2]))
    modules = list(model.modules())
    apart(model, mesh)
    assert is_apart(model)
    model(inputs)  # FSDP2's root keeps whole parameters after this
    plain(inputs)
    whole_again(model)
    assert not is_apart(model)
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    own.clear()
    assert torch.equal(model(inputs), plain(inputs))
    assert len(own) == 1  # a hook of the user's stays
    handle.remove()
    assert not any(hooks for m in model.modules() for key, hooks in vars(m).items() if key.endswith("_hooks"))
    for (name, tensor), (other, expected) in zip(
        model.named_parameters(remove_duplicate=False), plain.named_parameters(remove_duplicate=False), strict=True
    ):
        assert name == other
        assert type(tensor) is nn.Parameter
        assert torch.equal(tensor, expected)
    assert len(list(model.parameters())) == len(list(plain.parameters()))  # what is tied stays tied
    assert copy.deepcopy(model).state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("make", "apart"), WAYS)
def test_it_trains_on_and_can_be_taken_apart_again(make: Any, apart: Any, mesh: DeviceMesh) -> None:
    model, inputs = make(), torch.randn(5, 4)
    for _ in range(2):
        apart(model, mesh)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(inputs).square().sum().backward()
        optimizer.step()
        assert not any(torch.equal(one, p) for one, p in zip(before, model.parameters(), strict=True) if p.dim() > 1)
        whole_again(model)
        model(inputs).sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_a_plain_module_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent for it: there may be no group of processes."""
    monkeypatch.setattr(dist, "broadcast", lambda *_: pytest.fail("a plain module was sent around"))
    model = Own()
    parameters = [id(p) for p in model.parameters()]
    whole_again(model)
    assert [id(p) for p in model.parameters()] == parameters
