"""A 2:4 model as files: the dense weights and the list of its layers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_prune import saved
from lightning_prune.coupling.example import copy_of
from lightning_prune.export.semi_structured import SemiStructured, check_gpu, convert_layers

_WEIGHTS, _LAYERS = "model.pt", "semi_structured.json"


def save_semi_structured(dense: nn.Module, result: SemiStructured, folder: Path) -> None:
    """Write the dense model's state_dict with its zeros, `model.pt`, and the list of layers, `semi_structured.json`.

    Both are plain: any model of the same classes loads `model.pt`, with `weights_only=True`. torch's compressed format
    itself depends on its version and on the GPU, and so is made anew by `load_semi_structured`.

    Args:
        dense: the model that was given to `to_semi_structured`.
        result: what came back.
        folder: where to; made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = dense.state_dict(keep_vars=True)
    moved = {v: v.detach().cpu() for v in state.values() if isinstance(v, Tensor)}  # a tied weight is written once
    torch.save({name: moved[v] if isinstance(v, Tensor) else v for name, v in state.items()}, folder / _WEIGHTS)
    facts = {"format": "2:4", "layers": result.converted}
    (folder / _LAYERS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load_semi_structured(
    model: nn.Module, folder: Path, device: str = "cuda", tolerance: float = 1e-2
) -> SemiStructured:
    """Return a copy of a plain model with the weights and the 2:4 layers that `save_semi_structured` wrote.

    Args:
        model: a model of the same classes and sizes; its own weights and their dtype do not matter.
        folder: what was written.
        device: a CUDA GPU of compute capability 8.0 or later.
        tolerance: as for `to_semi_structured`.

    Raises:
        RuntimeError: there is no such GPU, or the weights do not fit the model.
        ValueError: a layer of the list cannot be converted here; with the reason. Or a file is damaged.
    """
    check_gpu()
    facts = saved.load_json(folder / _LAYERS)
    layers = saved.sequence(f"{folder / _LAYERS}: layers", saved.at(str(folder / _LAYERS), facts, "layers"))
    state = saved.load(folder / _WEIGHTS)
    made = copy_of(model)
    made.load_state_dict(state, assign=True)  # with the dtypes of the file
    made.to(device)
    check_gpu(made)
    return convert_layers(made, tolerance, layers)
