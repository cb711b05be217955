"""What the tests of laws and units share: the ideas of a noun, small models, a training loop and a sorted oracle."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.criterion import ObservingCriterion, Site, SitedCriterion
from lightning_prune.pattern import CoupledPattern, SitedPattern
from lightning_prune.pruning import Pruner
from lightning_prune.schedule import OneShot

CONF = Path(__file__).parents[1] / "conf" / "pruner"
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def ideas(noun: str) -> list[Any]:
    """Return every idea of a noun, made from its YAML, as parameters of a test."""
    loaded = {path.stem: OmegaConf.load(path) for path in sorted((CONF / noun).glob("*.yaml"))}
    found = [
        pytest.param(instantiate(config, _convert_="all"), id=name)
        for name, config in loaded.items()
        if config and "_target_" in config
    ]
    assert found, f"no idea in {CONF / noun}"
    return found


@cache
def hooks() -> ModuleType:
    """Return docs/hooks.py, which is no module of a package."""
    place = Path(__file__).parents[1] / "docs" / "hooks.py"
    spec = spec_from_file_location("hooks", place)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def patterns() -> list[Any]:
    """Return the patterns whose units lie in one weight."""
    return [case for case in ideas("pattern") if not isinstance(case.values[0], CoupledPattern)]


def vary(idea: Any, **values: Any) -> Any:
    """Return the idea with those of the values that it has a field for."""
    names = {field.name for field in fields(idea)}
    return replace(idea, **{name: value for name, value in values.items() if name in names})


def criteria_without_norm() -> list[Any]:
    """Return those of `criteria_of_weights` that do not ask for the norm behind one, which channel patterns know."""
    return [case for case in criteria_of_weights() if "norm" not in vars(case.values[0])]


def criteria_of_weights() -> list[Any]:
    """Return the criteria that do not look at training: weights alone tell what they score."""
    return [case for case in ideas("criterion") if not isinstance(case.values[0], ObservingCriterion)]


def criteria_of_training() -> list[Any]:
    """Return the others, which see steps, or layers in them, before they are asked."""
    return [case for case in ideas("criterion") if isinstance(case.values[0], ObservingCriterion)]


def criterion_at(
    criterion: Any,
    name: str = "w",
    step: int = 0,
    memory: dict[str, Tensor] | None = None,
    norm: Tensor | None = None,
) -> Any:
    """Return the criterion to call for that weight at that step, where half is to go."""
    if isinstance(criterion, SitedCriterion):
        return criterion.at(Site(name, step, {} if memory is None else memory, 0.5, norm))
    return criterion


def pattern_at(pattern: Any, name: str = "w") -> Any:
    """Return the pattern to ask for that weight."""
    return pattern.at(name) if isinstance(pattern, SitedPattern) else pattern


def mlp(seed: int = 0) -> nn.Sequential:
    """Return a small net with a norm: 7 x 12 and 12 x 5 prunable weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 5))


def conv_net(seed: int = 0) -> nn.Sequential:
    """Return a net of odd sizes: a convolution, a transposed one, a linear layer."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(10, 7, 3, stride=2),
        nn.GroupNorm(7, 7),
        nn.Flatten(),
        nn.Linear(7 * 9 * 9, 5),
    )


def backward(model: nn.Module, step: int, features: int = 7) -> Tensor:
    """Put fresh gradients of a random batch on the model, and return its outputs."""
    generator = torch.Generator().manual_seed(1000 + step)
    batch = torch.randn(16, features, generator=generator)
    model.zero_grad()
    outputs = model(batch)
    outputs.square().mean().backward()
    return outputs


def train(
    model: nn.Module,
    pruner: Pruner,
    optimizer: Optimizer,
    steps: range,
    after: Callable[[int, bool], None] = lambda step, updated: None,
) -> None:
    """Take optimizer steps in the pure-PyTorch loop of the README; `after` sees every completed step."""
    if steps.start == 0:
        after(0, pruner.after_step(0, [optimizer]))
    for step in steps:
        backward(model, step)
        pruner.before_step()
        optimizer.step()
        after(step + 1, pruner.after_step(step + 1, [optimizer]))


def sgd(model: nn.Module) -> Optimizer:
    """Return an optimizer with momentum, which goes on moving weights that have no gradient."""
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def pruned_once(model: nn.Module, sparsity: float, **options: Any) -> Pruner:
    """Return a pruner that has pruned the model to that sparsity and is still on it."""
    pruner = Pruner(OneShot(sparsity, 0), **options)
    pruner.attach(model)
    pruner.after_step(0)
    return pruner


def masks_of(pruner: Pruner) -> dict[str, Tensor]:
    """Return the masks as they are now."""
    return {name: weight.mask.clone() for name, weight in pruner.masks.items()}


def grad_of(model: nn.Module, name: str) -> Tensor:
    """Return the gradient of a parameter, which must have one."""
    grad = model.get_parameter(name).grad
    assert grad is not None
    return grad


def zeros(tensors: Sequence[Tensor]) -> int:
    """Return how many entries are zero."""
    return sum(int((tensor == 0).sum()) for tensor in tensors)


def keep_by_sorting(scores: Sequence[Tensor], alive: Sequence[Tensor | None], drop: int) -> list[Tensor]:
    """Return who stays by a plain sort: the dead go first, then the lowest score, of equal ones the later."""
    flat = np.concatenate([score.detach().double().reshape(-1).numpy() for score in scores])
    lives = np.concatenate(
        [np.ones(s.numel(), bool) if a is None else a.reshape(-1).numpy() for s, a in zip(scores, alive, strict=True)]
    )
    order = np.lexsort((-np.arange(flat.size), flat, lives))
    keep = lives.copy()
    keep[order[:drop]] = False
    parts = torch.from_numpy(keep).split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors_of(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from tensors_of(inner)


def same(one: Any, other: Any) -> bool:
    """Return whether two nested values are equal, tensors to the bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape and _bits(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def _bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(*(t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))
