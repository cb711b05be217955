"""A CSR model as a file: its weights in few bytes, and the names of its CSR layers."""

from __future__ import annotations

import os

from torch import nn

from lightning_prune import saved
from lightning_prune.coupling.example import copy_of
from lightning_prune.export.compact import save_compact
from lightning_prune.export.compact_reading import load_safetensors
from lightning_prune.export.compact_report import Compact
from lightning_prune.export.csr import convert_named
from lightning_prune.export.csr_report import Csr

_KEY = "csr"


def save_csr(
    dense: nn.Module, result: Csr, file: str | os.PathLike[str], extra: dict[str, object] | None = None
) -> Compact:
    """Write the dense model's weights as a compact file, which names the CSR layers as well.

    The file is one of `save_compact` and read as such wherever weights are. CSR tensors are made anew by `load_csr`.

    Args:
        dense: the model that was given to `to_csr`.
        result: what came back.
        file: where to.
        extra: other plain values to keep in the file.

    Raises:
        ModuleNotFoundError: safetensors is not installed.
        OSError: the file cannot be written.
        ValueError: as `save_compact` does.
    """
    facts = {"layers": result.converted, "batch": result.batch, "threads": result.threads}
    return save_compact(dense, file, {**(extra or {}), _KEY: facts})


def load_csr(model: nn.Module, file: str | os.PathLike[str]) -> nn.Module:
    """Return a copy of a plain model with the weights and the CSR layers that `save_csr` wrote, for inference.

    Nothing is timed: on another machine the layers may be slower in CSR than dense.

    Args:
        model: a model of the same classes and sizes; its own weights do not matter.
        file: what was written.

    Raises:
        RuntimeError: the weights do not fit the model.
        ValueError: the file is none of `save_csr`, of another model, or damaged.
    """
    content = load_safetensors(file)
    facts = saved.mapping(f"{file}: {_KEY}", saved.at(f"{file}", content.extra, _KEY))
    where = f"{file}: {_KEY}.layers"
    names = saved.sequence(where, saved.at(f"{file}: {_KEY}", facts, "layers"))
    made = copy_of(model).cpu()
    made.load_state_dict(content.tensors)
    return convert_named(made, [saved.text(f"{where}: a name", name) for name in names])
