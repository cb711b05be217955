"""What a compact file holds, checked before a tensor is made of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_prune import saved
from lightning_prune.export.compact import DTYPES, FORMAT, MOST_DIMENSIONS, VERSION, importable, name_of
from lightning_prune.export.encoding import BITMASK, DENSE, GAPS, VALUES, decoded


@dataclass(frozen=True)
class Content:
    """What a .safetensors file holds.

    Attributes:
        tensors: dense, by name; tied ones are one tensor.
        extra: the plain values that were kept beside them; none in a file that is not compact.
    """

    tensors: dict[str, Tensor]
    extra: Mapping[str, Any]


def load_compact(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors that `save_compact` wrote, by name, on the CPU: a state_dict.

    Nothing in the file is run. Nothing is made of the size that its header claims before the file was seen to hold as
    much: a byte of it stands for at most 255 entries, and all tensors take 1 GiB or 100 times the file at most.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: safetensors is not installed.
        ValueError: it is no compact file, of a newer version, or damaged; the message names file and tensor.
    """
    with _opened(Path(file)) as (content, said):
        if said is None:
            raise ValueError(f"{file} is no compact file: its header does not say {FORMAT!r}")
        return _compact(str(file), content, said).tensors


def load_safetensors(file: str | os.PathLike[str]) -> Content:
    """Return what a .safetensors file holds, compact or plain. Raises as `load_compact` does."""
    with _opened(Path(file)) as (content, said):
        if said is not None:
            return _compact(str(file), content, said)
        return Content({name: _part(str(file), content, name, name) for name in content.keys()}, {})  # noqa: SIM118


@contextmanager
def _opened(file: Path) -> Generator[tuple[Any, str | None], None, None]:
    """Give a file as safetensors opens it, and what its header says of a compact one; None for a plain one."""
    importable()
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(file, "pt")
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file, or damaged: {error}") from error
    with opened as content:
        yield content, (content.metadata() or {}).get(FORMAT)


def _compact(file: str, content: Any, said: str) -> Content:
    where = f"{file}: its header"
    facts = _json(where, said)
    version = saved.integer(f"{where}: version", saved.at(where, facts, "version"))
    if version != VERSION:
        raise ValueError(f"{file} is a compact file of version {version}, this lightning_prune reads {VERSION}: update")
    about = saved.mapping(f"{where}: tensors", saved.at(where, facts, "tensors"))
    extra = saved.mapping(f"{where}: extra", facts.get("extra", {}))
    entries = {name: saved.mapping(f"{file}: {name!r}", entry) for name, entry in about.items()}
    tied = {name: _owner(file, name, entries) for name, entry in entries.items() if "same_as" in entry}
    described = {name: _Described.of(file, name, entries[name]) for name in entries if name not in tied}
    there, needed = set(content.keys()), {part: name for name, each in described.items() for part in each.parts(name)}
    for part, name in needed.items():
        if part not in there:
            raise ValueError(f"{file}: {name!r} has no part {part!r}: the file is damaged")
    if there - set(needed):
        raise ValueError(f"{file}: {min(there - set(needed))!r} is of no tensor that the header names")
    size, claimed = Path(file).stat().st_size, {name: each.bytes for name, each in described.items()}
    if saved.claims_too_much(sum(claimed.values()), size):
        largest = max(claimed, key=lambda name: claimed[name])
        said = f"{file}: {largest!r} claims {claimed[largest]:,} bytes, all tensors {sum(claimed.values()):,}"
        raise ValueError(f"{said}, in a file of {size:,}: it is damaged, or made up")
    tensors = {name: each.read(file, content, name) for name, each in described.items()}
    return Content({name: tensors[tied.get(name, name)] for name in entries}, extra)


def _owner(file: str, name: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tensor that another one is one with."""
    where = f"{file}: {name!r}.same_as"
    owner = saved.text(where, entries[name]["same_as"])
    if owner not in entries or "same_as" in entries[owner]:
        raise ValueError(f"{where} is {owner!r}, which is no tensor that is written")
    return owner


@dataclass(frozen=True)
class _Described:
    """What the header says of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    encoding: str

    @staticmethod
    def of(file: str, name: str, entry: Mapping[str, Any]) -> _Described:
        """Return it. Raises ValueError where it cannot be."""
        where = f"{file}: {name!r}"
        sizes = saved.sequence(f"{where}.shape", saved.at(where, entry, "shape"))
        if len(sizes) > MOST_DIMENSIONS:
            raise ValueError(f"{where}.shape has {len(sizes)} dimensions, more than {MOST_DIMENSIONS}")
        shape = tuple(saved.integer(f"{where}.shape: a size", size) for size in sizes)
        if math.prod(shape) > saved.MOST:
            raise ValueError(f"{where}.shape is {shape}: more entries than any tensor has")
        dtype = saved.text(f"{where}.dtype", saved.at(where, entry, "dtype"))
        if dtype not in DTYPES:
            raise ValueError(f"{where}.dtype is {dtype[:60]!r}; it must be one of {', '.join(DTYPES)}")
        encoding = saved.text(f"{where}.encoding", saved.at(where, entry, "encoding"))
        if encoding not in (DENSE, BITMASK, GAPS):
            raise ValueError(f"{where}.encoding is {encoding[:60]!r}; it must be {DENSE}, {BITMASK} or {GAPS}")
        return _Described(shape, dtype, encoding)

    @property
    def bytes(self) -> int:
        """What the tensor takes when it is dense."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def parts(self, name: str) -> tuple[str, ...]:
        """Return the tensors of the file that it is made of."""
        return (name,) if self.encoding == DENSE else (f"{name}:{self.encoding}", f"{name}:{VALUES}")

    def read(self, file: str, content: Any, name: str) -> Tensor:
        """Return the dense tensor. Raises ValueError if its parts are not those that the header says."""
        where = f"{file}: {name!r}"
        *masks, values = (_part(file, content, name, part) for part in self.parts(name))
        if name_of(values.dtype) != self.dtype:
            raise ValueError(f"{where} has values of {values.dtype}, and its header says {self.dtype}")
        if self.encoding == DENSE:
            if tuple(values.shape) != self.shape:
                raise ValueError(f"{where} has shape {tuple(values.shape)}, and its header says {self.shape}")
            return values
        (mask,) = masks
        if name_of(mask.dtype) != "uint8" or mask.dim() != 1 or values.dim() != 1:
            raise ValueError(f"{where} has a {self.encoding} of {mask.dtype}; it must be uint8, all in one dimension")
        try:
            return decoded(self.encoding, mask, values, self.shape)
        except ValueError as error:
            raise ValueError(f"{where}: {error}: the file is damaged") from error


def _part(file: str, content: Any, name: str, part: str) -> Tensor:
    """Return a tensor of the file."""
    try:
        return content.get_tensor(part)
    except Exception as error:  # a header that is made up breaks the loader in whatever way
        raise ValueError(f"{file}: {name!r}: {part!r} cannot be read: {error}") from error


def _json(where: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON, or damaged: {error}") from error
    return saved.mapping(where, found)
