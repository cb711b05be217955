"""Units of models that are taken apart: they are those that were found in the same model while it was whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from lightning_prune import Pruner
from lightning_prune.budget import Budget, Latency, MACs, Weights
from lightning_prune.cost import layer_times, measure_latency
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from tests.cost.counted import counted_ms


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten())


EXAMPLES = {mlp: torch.ones(2, 6), conv: torch.ones(2, 6, 2, 2)}
NETS = list(EXAMPLES)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    store = tmp_path_factory.mktemp("store") / "file"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def pruner_of(make: object, budget: Budget = Weights()) -> Pruner:
    return Pruner(OneShot(0.5, 1), pattern=Channel(example_inputs=EXAMPLES[make]), budget=budget)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("budget", [Weights(), MACs(), MACs(by_cost=True)])
def test_units_that_were_found_before_are_pruned(make: type[nn.Module], budget: Budget, mesh: DeviceMesh) -> None:
    model, alone = make(), make()
    alone.load_state_dict(model.state_dict())
    pruner, other = pruner_of(make, budget), pruner_of(make, budget)
    pruner.find_units(model)
    fully_shard(model, mesh=mesh)
    for each, on in ((pruner, model), (other, alone)):
        each.attach(on)
        each.after_step(1)
    assert pruner.masks.digest() == other.masks.digest()
    assert pruner.masks.pruned > 0


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("found", ["nothing", "another model's", "a copy's", "a pickle's"])
def test_G13_without_them_it_is_refused_with_the_remedy(make: type[nn.Module], found: str, mesh: DeviceMesh) -> None:
    """A model of the same shapes may be wired otherwise; a copy of a pruner is of no model."""
    model, pruner = make(), pruner_of(make)
    if found != "nothing":
        pruner.find_units(make() if found == "another model's" else model)
    pruner = {"a copy's": copy.deepcopy, "a pickle's": lambda p: pickle.loads(pickle.dumps(p))}.get(found, lambda p: p)(
        pruner
    )
    fully_shard(model, mesh=mesh)
    with pytest.raises(ValueError, match=r"'0.weight' is taken apart over ranks, .* call Pruner.find_units\(model\)"):
        pruner.attach(model)
    assert not pruner.attached


@pytest.mark.parametrize("make", NETS)
def test_milliseconds_of_pieces_need_a_table_that_was_measured_before(
    make: type[nn.Module], mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, alone = make(), make()
    alone.load_state_dict(model.state_dict())
    for budget in (Latency(), Latency(speedup=2)):
        with pytest.raises(ValueError, match="measures a whole model, and this one is about to be taken apart"):
            pruner_of(make, budget).find_units(model)
    monkeypatch.setattr(layer_times, "least_ms", lambda run, device: 1.0 + counted_ms(run))
    table = measure_latency(model, EXAMPLES[make])  # pyright: ignore[reportArgumentType]
    pruner, other = pruner_of(make, Latency(table)), pruner_of(make, Latency(table))
    pruner.find_units(model)
    fully_shard(model, mesh=mesh)
    for each, on in ((pruner, model), (other, alone)):
        each.attach(on)
        each.after_step(1)
    assert pruner.masks.digest() == other.masks.digest()
    assert pruner.masks.pruned > 0


def test_other_patterns_have_none_to_find() -> None:
    pruner = Pruner(OneShot(0.5, 1))
    pruner.find_units(mlp())
    assert pruner.units_found is None
