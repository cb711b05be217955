"""The IDX format of MNIST: two zero bytes, a type, the number of dimensions, their sizes, the numbers; big-endian."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"


def read_idx(path: Path) -> Tensor:
    """The array in the file ``path``, which may be compressed with gzip.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a whole, well-formed IDX file.
    """
    data = path.read_bytes()
    if data[:2] == GZIP:
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: broken gzip file ({error}); fetch it again") from error
    return parse_idx(data, str(path))


def parse_idx(data: bytes, source: str) -> Tensor:
    """The array in ``data``, of the shape and type its header gives.

    Args:
        data: A whole IDX file, not compressed.
        source: Where it comes from, for error messages.

    Raises:
        ValueError: If the header is malformed, or more or fewer numbers follow than it announces.
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES or data[3] == 0:
        raise ValueError(
            f"{source}: starts with bytes {data[:4].hex(' ') or '(none)'}, not with an IDX header: 00 00, a type among "
            f"{bytes(TYPES).hex(' ')}, and 1 dimension or more"
        )
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(
            f"{source}: {len(data)} bytes, but a header of {data[3]} dimensions takes {start}; fetch it again"
        )
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    dtype = np.dtype(TYPES[data[2]])
    expected = start + prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(
            f"{source}: {len(data)} bytes, but shape {shape} of {dtype.name} takes {expected}; fetch it again"
        )
    # astype copies: torch needs native byte order and memory it may write to.
    return torch.from_numpy(np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("=")))
