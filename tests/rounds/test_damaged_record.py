"""A damaged `rounds.json` is refused by file and field."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lightning_prune.rounds.record import FILE, finished, load

ROUND: dict[str, Any] = {
    "number": 0,
    "factor": None,
    "units": {"a": [8, 8]},
    "parameters": 10,
    "macs": 100,
    "metrics": {"loss": 0.5, "val/loss": math.nan},
}
SOUND: dict[str, Any] = {"version": 1, "settings": {}, "rounds": [ROUND], "stopped": ""}


def write(folder: Path, found: Any) -> None:
    (folder / FILE).write_text(json.dumps(found), encoding="utf-8")


def test_a_sound_record_is_read(tmp_path: Path) -> None:
    write(tmp_path, SOUND)
    (first,) = load(tmp_path, {}).rounds
    assert (first.units, first.factor, first.macs) == ({"a": (8, 8)}, None, 100)
    assert finished(tmp_path) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version 2"),
        ({"settings": None}, "settings is None; it must be a mapping"),
        ({"rounds": {}}, "rounds is a dict; it must be a list"),
        ({"rounds": [3]}, r"rounds\[0\] is 3"),
        *(({"rounds": [ROUND | {key: value}]}, rf"rounds\[0\].*{said}") for key, value, said in (
            ("number", 5, "number is 5"),
            ("number", True, "number is True"),
            ("factor", "half", "factor is 'half'"),
            ("factor", -0.5, "factor is -0.5"),
            ("factor", math.nan, "factor is nan"),
            ("units", [8], "units is a list"),
            ("units", {"a": [8]}, "has 1 numbers"),
            ("units", {"a": [8, 9]}, "after is 9"),
            ("units", {"a": [8, 0]}, "after is 0"),
            ("units", {"a": [8.0, 8]}, "before is 8.0"),
            ("parameters", -1, "parameters is -1"),
            ("macs", 1e9, "macs is 1000000000.0"),
            ("macs", 10**400, "macs is an int beyond all counts"),
            ("metrics", {"a": "b"}, "is 'b'; it must be a number"),
            ("metrics", 3, "metrics is 3"),
        )),
        *(({"rounds": [{k: v for k, v in ROUND.items() if k != key}]}, f"has no '{key}'") for key in ROUND),
    ],
)  # fmt: skip
def test_G35_a_damaged_field_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    write(tmp_path, SOUND | change)
    with pytest.raises(ValueError, match=said) as refused:
        load(tmp_path, {})
    assert str(tmp_path / FILE) in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"version": 1}'])
def test_G35_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    for read in (lambda: load(tmp_path, {}), lambda: finished(tmp_path)):
        with pytest.raises(ValueError, match=FILE):
            read()
