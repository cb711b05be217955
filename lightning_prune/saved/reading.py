"""Files read as plain values and tensors, never unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from lightning_prune.saved.fields import mapping
from lightning_prune.saved.sane import check_tensors


def load(file: Path) -> Any:
    """Return what a file of `torch.save` holds, on the CPU. Raises ValueError if it holds code, or is damaged."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split()).partition(". ")[0][:200]
        raise ValueError(f"{file} is no checkpoint of tensors and plain values, or damaged: {words}") from error
    check_tensors(file, content)
    return content


def load_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ValueError if it holds none or is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON, or damaged: {error}") from error
    return mapping(str(file), found)
