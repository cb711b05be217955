"""What a checkpoint holds, this library's or any other: read as plain values, and no code in it run."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prune import saved
from lightning_prune.cli.errors import UserError, message, printable

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "params", "weights")
"""Keys under which checkpoints keep their weights, the likeliest first."""
_CERTAIN = ("state_dict", "model_state_dict")
_OF_RUN = ("model.pt", "shrunk/model.safetensors", "checkpoints/last.ckpt")
"""Where a run's folder has its weights, the latest first."""


def file_of(path: Path) -> Path:
    """Return the file of weights that a path names: itself, or that of a run's folder.

    Raises:
        UserError: a folder has none.
    """
    if not path.is_dir():
        return path
    for name in _OF_RUN:
        if (path / name).is_file():
            return path / name
    others = sorted(path.glob("checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime)
    if not others:
        raise UserError(f"{path} is a folder without {', '.join(_OF_RUN)}: name a file, or a run's folder")
    return others[-1]


def load(file: Path, trusted: bool = False, way_out: str = "") -> Any:
    """Return what a checkpoint holds, on the CPU.

    Args:
        file: .ckpt, .pt, .pth or .safetensors, plain or compact.
        trusted: run the code in it, if there is any.
        way_out: what else can be done with a file that one trusts.

    Raises:
        UserError: it is no checkpoint, or cannot be loaded without running code.
    """
    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    if file.suffix == ".safetensors":
        from lightning_prune.shrink import from_safetensors

        try:
            return from_safetensors(file)
        except ValueError as error:
            raise UserError(message(error)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and the like, of files that may be no checkpoints
            content = torch.load(file, map_location="cpu", weights_only=not trusted)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise UserError(f"{file} is no checkpoint of torch, or damaged: {_first_sentence(error)}") from error
        raise UserError(
            f"{file} holds more than tensors and plain values ({found.group(1)}); loading that could run code, so it "
            f"is not loaded. If you trust who made it, {way_out}save the model's state_dict() alone: "
            f"torch.save(torch.load({str(file)!r}, weights_only=False)['state_dict'], 'weights.pt')"
        ) from error
    except Exception as error:  # a file of another kind breaks the loader in whatever way
        raise UserError(f"{file} is no checkpoint of torch, or damaged: {_first_sentence(error)}") from error
    try:
        saved.check_tensors(file, content)
    except ValueError as error:
        raise UserError(printable(str(error))) from error
    return content


def tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a checkpoint by dotted name, leaving out optimizers and the like."""
    while isinstance(content, Mapping):
        name = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if name is None or not any(True for _ in _flat(content[name])) or _one_of_several(name, content):
            break
        content = content[name]
    yield from _flat(content)


def tied(named: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Return the names of tensors that are others over again, each with that of the first of them."""
    first: dict[Any, str] = {}
    found: dict[str, str] = {}
    for name, tensor in named:
        if tensor.layout == torch.strided and tensor.numel() and tensor.device.type != "meta":
            place = tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride()
            known = first.setdefault(place, name)
            if known != name:
                found[name] = known
    return found


def _one_of_several(name: str, content: Mapping[Any, Any]) -> bool:
    """Return whether a mapping of weights is one network of several, as those of a GAN, and not all there is."""
    if name in _CERTAIN:
        return False
    beside = {key: value for key, value in content.items() if key != name and isinstance(value, Mapping)}
    return any("ema" not in str(key).lower() for key, value in beside.items() if any(True for _ in _flat({key: value})))


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield prefix.rstrip("."), node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if prefix or not str(key).startswith(("optim", "callbacks", "loops", "lr_sched", "scheduler")):
                yield from _flat(value, f"{prefix}{key}.")


def _first_sentence(error: BaseException) -> str:
    return message(error).partition(". ")[0][:200]
