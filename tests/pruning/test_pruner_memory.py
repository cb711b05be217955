"""G20: what pruning keeps, and what an update allocates at most."""

import gc
import tracemalloc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune import Pruner
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Uniform
from tests.helpers import criteria_without_norm, ideas, tensors_of

SIDE, LAYERS = 700, 4
PRUNABLE = LAYERS * SIDE * SIDE


def wide_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(SIDE, SIDE, bias=False) for _ in range(LAYERS)])


def bytes_of_tensors() -> int:
    gc.collect()
    storages = {}
    for found in gc.get_objects():
        if type(found) in (Tensor, nn.Parameter) and found.layout == torch.strided:
            storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
    return sum(storages.values())


class LargestOutput(TorchDispatchMode):
    """Notes the largest tensor that any operation gives back, and how many entries any `cat` or `stack` joins."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.joined = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [tensor.numel() for tensor in tensors_of([result])]
        self.largest = max([self.largest, *sizes])
        if func.overloadpacket in (torch.ops.aten.cat, torch.ops.aten.stack):
            self.joined = max([self.joined, *sizes])
        return result


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow] * (case.id != "uniform"))
        for case in ideas("scope")
    ],
)
def test_G20_one_byte_per_prunable_weight_is_kept(scope: Any) -> None:
    model = wide_net()
    before = bytes_of_tensors()
    pruner = Pruner(Polynomial(0.9, 0, 10, 5, initial_sparsity=0.3), scope=scope)
    pruner.attach(model)
    for step in (0, 5, 10):
        pruner.after_step(step)
        assert PRUNABLE <= bytes_of_tensors() - before <= PRUNABLE + 4096
    pruner.strip()
    assert bytes_of_tensors() - before <= 4096


def test_G20_reversible_keeps_the_dense_values_and_no_more() -> None:
    model = wide_net()
    before = bytes_of_tensors()
    pruner = Pruner(Polynomial(0.9, 0, 10, 5, initial_sparsity=0.3), reversible=True)
    pruner.attach(model)
    for step in (0, 5):
        pruner.after_step(step)
        assert bytes_of_tensors() - before <= 5 * PRUNABLE + 4096


@pytest.mark.slow
@pytest.mark.parametrize("criterion", criteria_without_norm())
def test_G20_a_global_update_joins_nothing(criterion: Any) -> None:
    model = wide_net()
    pruner = Pruner(Polynomial(0.9, 0, 10, 5, initial_sparsity=0.3), criterion=criterion)
    pruner.attach(model)
    with LargestOutput() as seen:
        for step in (0, 5):
            pruner.after_step(step)
    assert seen.largest == SIDE * SIDE
    assert seen.joined < SIDE * SIDE


@pytest.mark.parametrize("options", [{}, {"scope": Uniform()}], ids=["global", "uniform"])
def test_G20_numpy_makes_no_copy_of_the_weights(options: dict[str, Any]) -> None:
    pruner = Pruner(Polynomial(0.9, 0, 10, 5, initial_sparsity=0.3), **options)
    pruner.attach(wide_net())
    pruner.after_step(0)
    tracemalloc.start()
    pruner.after_step(5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < PRUNABLE * 4 / 2
