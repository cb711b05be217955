"""Example inputs taken from the training data, for a module that has none: what its graph is traced with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import IterableDataset

from lightning_prune import families
from lightning_prune.coupling.example import own_randomness, tensors
from lightning_prune.pattern import CoupledPattern
from lightning_prune.pruning import Pruner

if TYPE_CHECKING:
    import pytorch_lightning as pl

_EXAMPLES = 2
"""Norms over a batch need more than one."""
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def needed(pruner: Any, module: pl.LightningModule) -> bool:
    """Return whether a pruner traces a module's graph, and nobody has said what a forward takes."""
    pattern: Any = pruner.pattern if isinstance(pruner, Pruner) else None
    if not isinstance(pattern, CoupledPattern) or pattern.example_inputs is not None:
        return False
    return is_dataclass(pattern) and getattr(module, "example_input_array", None) is None


def first_examples(trainer: pl.Trainer, module: pl.LightningModule) -> Any:
    """Return what the module's forward takes, made of the first two examples of the data that the trainer trains on.

    The data set is asked for them by index, and the loader's own function makes a batch of them: no sampler moves on,
    no worker is started, and random generators are left as they were. Of a batch that is a tensor, it is that; of a
    mapping, the entries that the forward has names for; of a sequence, as many of its first as the forward needs.

    Raises:
        ValueError: that cannot be done; the message says why, and what to do instead.
    """
    none = f"{type(module).__name__} has no example inputs to trace its graph with"
    remedy = "set self.example_input_array in the module, or pass Channel(example_inputs=...)"
    defined_in = str(getattr(type(module).forward, "__module__", ""))
    if any(defined_in.startswith(f"{package}.") for package in ("torch", *families.NAMES)):
        raise ValueError(f"{none}, and no forward: define one, and {remedy}")
    try:
        with own_randomness():
            return _inputs(module, _batch(_loader(trainer)))
    except Exception as error:  # whatever a data set or collate function of the user's own raises
        why = str(error) or type(error).__name__
        raise ValueError(f"{none}, and the training data gives none ({why}): {remedy}") from error


def described(inputs: Any) -> str:
    """Return shapes and types of inputs in a few words."""
    return ", ".join(f"{tuple(t.shape)} of {str(t.dtype).removeprefix('torch.')}" for t in tensors(inputs))


def _loader(trainer: pl.Trainer) -> Any:
    loaded = trainer.train_dataloader
    return trainer.fit_loop._data_source.dataloader() if loaded is None else loaded  # pyright: ignore


def _batch(loader: Any) -> Any:
    data, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    if data is None or collate is None:
        raise ValueError(f"the training loader is a {type(loader).__name__}, not a DataLoader")
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
        raise ValueError(f"{type(data).__name__} gives its examples in order alone, and the first would be lost")
    count = min(_EXAMPLES, len(data))
    if getattr(loader, "batch_sampler", None) is None and getattr(loader, "batch_size", None) is None:
        return collate(data[0])  # it gives whole batches
    return collate([data[index] for index in range(count)])


def _inputs(module: pl.LightningModule, batch: Any) -> Any:
    parameters = inspect.signature(module.forward).parameters.values()
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        known = {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
        named = {name: value for name, value in batch.items() if name in known}
        lacking = [p.name for p in parameters if p.kind in _POSITIONAL and _required(p) and p.name not in named]
        if not named or lacking:
            raise ValueError(f"a batch has {', '.join(map(str, batch))}, and forward takes {_names(parameters)}")
        return named
    if not isinstance(batch, (tuple, list)):
        raise ValueError(f"a batch is a {type(batch).__name__}")
    many = max(1, sum(p.kind in _POSITIONAL and _required(p) for p in parameters))
    if len(batch) < many or not all(any(True for _ in tensors(value)) for value in batch[:many]):
        kinds = ", ".join(type(value).__name__ for value in batch)
        raise ValueError(f"a batch is ({kinds}), and forward takes {_names(parameters)}")
    return tuple(batch[:many])


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def _names(parameters: Any) -> str:
    return ", ".join(str(p) for p in parameters) or "nothing"
