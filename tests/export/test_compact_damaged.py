"""G35: a compact file that is damaged or made up is a ValueError that names file and tensor, for little memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_prune.export import load_compact, load_safetensors, save_compact
from lightning_prune.export.compact import FORMAT
from lightning_prune.saved import sane

Parts = dict[str, Tensor]


def state() -> dict[str, Tensor]:
    """Return a tensor for each encoding, and one that is tied."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 50, generator=generator)
    few = torch.rand(40, 50, generator=generator)
    gaps = values.where(few < 0.03, 0.0)
    return {"half": values.where(few < 0.5, 0.0), "gaps": gaps, "dense": values[0].clone(), "again": gaps}


Change = Callable[[Parts, Any], Any]


def damaged(file: Path, change: Change) -> Path:
    """Write a sound file, and then what a change makes of its parts, and of its header; or returns for a header."""
    save_compact(state(), file)
    parts = load_file(file)
    with safe_open(file, "pt") as content:
        facts = json.loads(content.metadata()[FORMAT])
    other = change(parts, facts)
    save_file(parts, file, {FORMAT: other if isinstance(other, str) else json.dumps(facts)})
    return file


def says(name: str, key: str, value: Any) -> Change:
    return lambda _, facts: facts["tensors"][name].__setitem__(key, value)


def leaves_out(name: str, key: str) -> Change:
    return lambda _, facts: facts["tensors"][name].__delitem__(key)


def header(key: str, value: Any) -> Change:
    return lambda _, facts: facts.__setitem__(key, value)


def text(value: str) -> Change:
    return lambda *_: value


def part(name: str, change: Callable[[Tensor], Tensor]) -> Change:
    return lambda parts, _: parts.__setitem__(name, change(parts[name]).clone())


def without(name: str) -> Change:
    return lambda parts, _: parts.__delitem__(name)


DAMAGE: dict[str, tuple[Change, str]] = {
    "newer": (header("version", 2), "of version 2, this lightning_prune reads 1: update"),
    "older": (header("version", 0), "of version 0, this lightning_prune reads 1"),
    "version a text": (header("version", "1"), "its header: version is '1'"),
    "version true": (header("version", True), "its header: version is True"),
    "no version": (lambda _, facts: facts.__delitem__("version"), "its header has no 'version'"),
    "no tensors": (lambda _, facts: facts.__delitem__("tensors"), "its header has no 'tensors'"),
    "no JSON": (text("{"), "its header is no JSON"),
    "nothing": (text(""), "its header is no JSON"),
    "deep JSON": (text("[" * 100_000), "its header is no JSON"),
    "a long number": (text('{"version": ' + "9" * 10_000 + "}"), "its header is no JSON"),
    "no mapping": (text("3"), "its header is 3; it must be a mapping"),
    "a list": (header("tensors", []), "its header: tensors is a list"),
    "no entry": (lambda _, facts: facts["tensors"].__setitem__("half", 3), "'half' is 3; it must be a mapping"),
    "no shape": (leaves_out("half", "shape"), "'half' has no 'shape'"),
    "no dtype": (leaves_out("gaps", "dtype"), "'gaps' has no 'dtype'"),
    "no encoding": (leaves_out("gaps", "encoding"), "'gaps' has no 'encoding'"),
    "shape is text": (says("half", "shape", "4050"), "'half'.shape is '4050'"),
    "a size is true": (says("half", "shape", [True, 2000]), "'half'.shape: a size is True"),
    "a size is a float": (says("gaps", "shape", [40.0, 50]), "'gaps'.shape: a size is 40.0"),
    "a size is negative": (says("gaps", "shape", [-40, -50]), "'gaps'.shape: a size is -40"),
    "a size is huge": (says("gaps", "shape", [10**30]), "'gaps'.shape: a size is an int beyond all counts"),
    "many dimensions": (says("gaps", "shape", [1] * 65), "'gaps'.shape has 65 dimensions"),
    "more than memory": (says("gaps", "shape", [2**52, 2]), "'gaps' claims 36,028,797,018,963,968 bytes, all"),
    "more than counts": (says("gaps", "shape", [2**53] * 64), "'gaps'.shape is .*: more entries than any tensor has"),
    "gaps of more": (says("gaps", "shape", [2**27]), "'gaps': its gaps are of .* entries, and its shape says"),
    "bits of more": (says("half", "shape", [2**27]), "'half': its bitmask has 250 bytes; 134217728 entries take"),
    "bits of fewer": (says("half", "shape", [1992]), "'half': its bitmask has 250 bytes; 1992 entries take 249"),
    "bits behind": (says("half", "shape", [1993]), "'half': its bitmask has a bit set behind its 1993 entries"),
    "gaps of fewer": (says("gaps", "shape", [100]), "'gaps': its gaps run to entry .*, past the end at 100"),
    "gaps of none": (says("gaps", "shape", [0, 50]), "'gaps': its gaps run to entry .*, past the end at 0"),
    "another shape": (says("dense", "shape", [5, 10]), r"'dense' has shape \(50,\), and its header says \(5, 10\)"),
    "another dtype": (
        says("gaps", "dtype", "float16"),
        "'gaps' has values of torch.float32, and its header says float",
    ),
    "no such dtype": (says("gaps", "dtype", "load"), "'gaps'.dtype is 'load'; it must be one of float64"),
    "dtype a list": (says("gaps", "dtype", ["float32"]), "'gaps'.dtype is a list"),
    "no such encoding": (says("gaps", "encoding", "zip"), "'gaps'.encoding is 'zip'"),
    "the other encoding": (says("gaps", "encoding", "bitmask"), "'gaps' has no part 'gaps:bitmask'"),
    "dense after all": (says("gaps", "encoding", "dense"), "'gaps' has no part 'gaps'"),
    "a part missing": (without("half:values"), "'half' has no part 'half:values'"),
    "a tensor missing": (without("dense"), "'dense' has no part 'dense'"),
    "a part too many": (
        lambda parts, _: parts.__setitem__("x", torch.ones(1)),
        "'x' is of no tensor that the head",
    ),
    "an entry missing": (
        lambda _, facts: facts["tensors"].__delitem__("half"),
        "'half:bitmask' is of no tensor that the header names",
    ),
    "one with nothing": (says("again", "same_as", "gone"), "'again'.same_as is 'gone'"),
    "one with itself": (says("again", "same_as", "again"), "'again'.same_as is 'again'"),
    "one with a number": (says("again", "same_as", 3), "'again'.same_as is 3"),
    "fewer values": (part("half:values", lambda t: t[:-1]), "'half': its bitmask is of .* values, and there are"),
    "more values": (
        part("gaps:values", lambda t: torch.cat([t, t])),
        "'gaps': its gaps is of .* values, and there are",
    ),
    "no values": (part("gaps:values", lambda t: t[:0]), "'gaps': its gaps is of .* values, and there are 0"),
    "values of another kind": (part("gaps:values", lambda t: t.double()), "'gaps' has values of torch.float64"),
    "values in rows": (part("gaps:values", lambda t: t.unsqueeze(0)), "'gaps' has a gaps of torch.uint8; it must be"),
    "one value": (part("gaps:values", lambda t: t.sum()), "'gaps' has a gaps of torch.uint8; it must be"),
    "a signed mask": (part("half:bitmask", lambda t: t.view(torch.int8)), "'half' has a bitmask of torch.int8"),
    "a mask in rows": (
        part("half:bitmask", lambda t: t.view(2, -1)),
        "'half' has a bitmask of torch.uint8; it must be",
    ),
    "a mask of one": (part("half:bitmask", lambda t: t[0]), "'half' has a bitmask of torch.uint8; it must be"),
    "an empty mask": (part("half:bitmask", lambda t: t[:0]), "'half': its bitmask has 0 bytes"),
    "other bits": (part("half:bitmask", lambda t: ~t), "'half': its bitmask is of .* values, and there are"),
    "long gaps": (part("gaps:gaps", lambda t: t.fill_(254)), "'gaps': its gaps run to entry .*, past the end at 2000"),
    "empty gaps": (part("gaps:gaps", lambda t: t[:0]), "'gaps': its gaps are of 0 entries, and its shape says 2000"),
    "gaps of nothing": (
        part("gaps:gaps", lambda t: t[:7].fill_(255)),
        "'gaps': its gaps is of 0 values, and there are",
    ),
    "extra a list": (header("extra", []), "its header: extra is a list"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_G35_a_damaged_compact_file_is_refused_by_tensor(tmp_path: Path, case: str) -> None:
    change, said = DAMAGE[case]
    file = damaged(tmp_path / "net.safetensors", change)
    for load in (load_compact, load_safetensors):
        with pytest.raises(ValueError, match=said) as refused:
            load(file)
        assert str(refused.value).startswith(str(file))


def test_the_file_that_was_not_damaged_is_sound(tmp_path: Path) -> None:
    file = damaged(tmp_path / "net.safetensors", lambda *_: None)
    assert {name: torch.equal(load_compact(file)[name], tensor) for name, tensor in state().items()} == dict.fromkeys(
        state(), True
    )


@pytest.mark.parametrize(
    "content", [b"", b"no such thing", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{}", b"PK\x03\x04" * 9]
)
def test_G35_a_file_of_anything_else_is_one_error_of_compact(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.safetensors is no (safetensors|compact) file"):
        load_compact(file)


class Watched(TorchDispatchMode):
    """Notes the most bytes that any tensor had that torch made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.most = max([self.most, *(each.nbytes for each in tree_leaves(found) if isinstance(each, Tensor))])
        return found


def test_G35_a_tensor_that_torch_cannot_hold_is_named(tmp_path: Path) -> None:
    table = json.dumps({"w": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    file = tmp_path / "net.safetensors"
    file.write_bytes(len(table).to_bytes(8, "little") + table + bytes(3))
    with pytest.raises(ValueError, match=r"net\.safetensors(: 'w': 'w' cannot be read| is no safetensors file)"):
        load_safetensors(file)  # older versions of safetensors do not know the dtype


@pytest.mark.parametrize("name", ["half", "gaps"])
def test_G35_what_a_header_claims_is_not_allocated_before_the_data_say_it(tmp_path: Path, name: str) -> None:
    for entries, said in ((2**33, "claims 34,359,738,368 bytes"), (2**27, "its (bitmask|gaps)")):
        file = damaged(tmp_path / "net.safetensors", says(name, "shape", [entries]))
        with Watched() as made, pytest.raises(ValueError, match=f"'{name}':? {said}"):
            load_compact(file)
        assert made.most < 10 * file.stat().st_size
    file = tmp_path / "net.safetensors"
    damaged(file, lambda *_: None)
    with Watched() as made:
        load_compact(file)
    assert made.most >= 4 * 2000


def test_G35_all_tensors_take_no_more_than_a_hundred_times_their_file_beyond_a_gibibyte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = {"large": torch.zeros(300, 1000), "small": torch.eye(2)}
    save_compact(zeros, tmp_path / "few.safetensors")
    assert load_compact(tmp_path / "few.safetensors")["large"].shape == (300, 1000)
    monkeypatch.setattr(sane, "_ALWAYS", 1000)
    with pytest.raises(ValueError, match="'large' claims 1,200,000 bytes, all tensors 1,200,016, in a file of"):
        load_compact(tmp_path / "few.safetensors")
    found = save_compact(zeros, tmp_path / "more.safetensors")  # what is written is always read
    assert [each.encoding for each in found.tensors] == ["bitmask", "dense"]
    back = load_compact(tmp_path / "more.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in zeros.items())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("sound") / "net.safetensors"
    save_compact(state(), file)
    return file.read_bytes()


FUZZED = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZED
@given(data=st.data())
def test_G35_no_bytes_break_the_reader(tmp_path: Path, sound: bytes, data: st.DataObject) -> None:
    content = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1)) if len(content) else 0
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
        if kind == "flip" and content:
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del content[at : at + data.draw(st.integers(1, 9))]
    assert reads_or_refuses(tmp_path / "net.safetensors", bytes(content))


SOME = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3000), st.integers(), st.floats(), st.text(max_size=5)),
    st.sampled_from(["dense", "bitmask", "gaps", "float32", "uint8", "half", "again"]),
    st.lists(st.integers(-2, 2100), max_size=4),
)
ENTRY = st.one_of(SOME, st.dictionaries(st.sampled_from(["shape", "dtype", "encoding", "same_as"]), SOME))
NAMES = st.sampled_from(["half", "gaps", "dense", "again", "half:values", "new"])


@FUZZED
@given(changes=st.dictionaries(NAMES, ENTRY, min_size=1, max_size=3), whole=st.booleans())
def test_G35_no_header_breaks_the_reader(tmp_path: Path, changes: dict[str, Any], whole: bool) -> None:
    def change(_: Parts, facts: Any) -> None:
        about = facts["tensors"]
        for name, entry in changes.items():
            about[name] = entry if whole or not isinstance(entry, dict) else about.get(name, {}) | entry

    file = damaged(tmp_path / "net.safetensors", change)
    assert reads_or_refuses(file, file.read_bytes())


def reads_or_refuses(file: Path, content: bytes) -> bool:
    """Return whether a file is read into no more than its bytes can stand for, or refused with its name."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    said = str(file)
    with Watched() as made:
        for load in (load_compact, load_safetensors):
            try:
                load(file)
            except ValueError as error:
                said = str(error)
    return str(file) in said and made.most <= 255 * 8 * len(content) + 64
