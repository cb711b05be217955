"""The IDX reader: every type and shape comes back, every malformed file is refused."""

import gzip
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_prune.tasks.data.idx import parse_idx, read_idx

WriteIdx = Callable[[int, tuple[int, ...], bytes], bytes]
TYPES = {0x08: np.uint8, 0x09: np.int8, 0x0B: np.int16, 0x0C: np.int32, 0x0D: np.float32, 0x0E: np.float64}
WHOLE = b"\0\0\x08\x02" + b"\0\0\0\x02" + b"\0\0\0\x03" + bytes(range(6))


@given(code=st.sampled_from(list(TYPES)), shape=st.lists(st.integers(0, 4), min_size=1, max_size=4), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_come_back_as_they_were(idx_bytes: WriteIdx, code: int, shape: list[int], data: st.DataObject) -> None:
    dtype = np.dtype(TYPES[code])
    raw = data.draw(st.binary(min_size=prod(shape) * dtype.itemsize, max_size=prod(shape) * dtype.itemsize))
    numbers = np.frombuffer(raw, dtype.newbyteorder("=")).reshape(shape)
    file = idx_bytes(code, tuple(shape), numbers.astype(dtype.newbyteorder(">")).tobytes())
    found = parse_idx(file, "here").numpy()
    assert (found.dtype, found.shape) == (dtype, tuple(shape))
    assert found.tobytes() == numbers.tobytes() or np.array_equal(found, numbers, equal_nan=True)


def test_a_file_by_hand_plain_or_compressed(tmp_path: Path) -> None:
    for name, content in (("plain", WHOLE), ("compressed.gz", gzip.compress(WHOLE))):
        (tmp_path / name).write_bytes(content)
        assert torch.equal(read_idx(tmp_path / name), torch.arange(6, dtype=torch.uint8).view(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", r"starts with bytes \(none\)", id="empty"),
        pytest.param(b"\0\0\x08", "starts with bytes 00 00 08,", id="no header"),
        pytest.param(b"\x89PNG" + WHOLE, "starts with bytes 89 50 4e 47", id="another format"),
        pytest.param(b"\0\0\x07" + WHOLE[3:], "starts with bytes 00 00 07 02", id="unknown type"),
        pytest.param(b"\0\0\x08\0", "1 dimension or more", id="no dimensions"),
        pytest.param(WHOLE[:9], "9 bytes, but a header of 2 dimensions takes 12", id="half a header"),
        pytest.param(WHOLE[:-1], r"17 bytes, but shape \(2, 3\) of uint8 takes 18", id="too short"),
        pytest.param(WHOLE + b"\0", r"19 bytes, but shape \(2, 3\) of uint8 takes 18", id="too long"),
        pytest.param(gzip.compress(WHOLE)[:-9], "broken gzip file", id="half a gzip file"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(ValueError, match=f"images: .*{message}"):
        read_idx(tmp_path / "images")


@given(st.binary(max_size=40) | st.binary(max_size=9).map(lambda rest: WHOLE[:4] + rest))
def test_any_bytes_are_read_or_refused_with_a_value_error(content: bytes) -> None:
    try:
        found = parse_idx(content, "here")
    except ValueError:
        return
    assert content[:2] == b"\0\0"
    assert found.dim() == content[3]
