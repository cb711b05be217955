"""Times are read on lines between those that were measured, never fall with the width, and survive a file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.cost.latency_table import LatencyTable, LayerTimes, never_slower

LINEAR = LayerTimes("a.weight", (0, 1), ((1, 5, 9), (2, 4)), (1.0, 2.0, 3.0, 6.0, 5.0, 14.0))
NORM = LayerTimes("b.weight", (0,), ((1, 9),), (0.5, 4.5))
TABLE = LatencyTable("cpu", 4, 2, 20.0, (LINEAR, NORM))


@pytest.mark.parametrize(
    ("left", "ms"), [((9, 4), 14.0), ((5, 2), 3.0), ((7, 4), 10.0), ((9, 3), 9.5), ((3, 3), 3.0), ((1, 1), 1.0)]
)
def test_times_lie_on_lines_between_those_measured(left: tuple[int, int], ms: float) -> None:
    assert LINEAR(left) == pytest.approx(ms)


def test_a_dimension_that_was_not_measured_does_not_count() -> None:
    conv = LayerTimes("c.weight", (1,), ((1, 3),), (2.0, 4.0))
    assert conv((100, 2, 3, 3)) == pytest.approx(3.0)
    assert conv.steepest(0) == 0.0
    assert conv.steepest(1) == pytest.approx(1.0)


@st.composite
def layers(draw: st.DrawFn) -> LayerTimes:
    lengths = tuple(
        tuple(sorted(draw(st.sets(st.integers(1, 30), min_size=2, max_size=4)))) for _ in range(draw(st.integers(1, 2)))
    )
    sizes = [len(some) for some in lengths]
    number = math.prod(sizes)
    ms = draw(st.lists(st.floats(0, 100), min_size=number, max_size=number))
    return LayerTimes("w", tuple(range(len(sizes))), lengths, tuple(never_slower(sizes, ms)))


@given(layers(), st.data())
def test_the_steepest_place_bounds_what_one_place_saves_anywhere(layer: LayerTimes, data: st.DataObject) -> None:
    left = [data.draw(st.integers(some[0] + 1, some[-1])) for some in layer.lengths]
    for dim in layer.dims:
        less = [length - (other == dim) for other, length in enumerate(left)]
        assert -1e-9 <= layer(left) - layer(less) <= layer.steepest(dim) + 1e-9


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_a_wider_layer_is_never_faster(rows: int, columns: int, data: st.DataObject) -> None:
    ms = data.draw(st.lists(st.floats(0, 10), min_size=rows * columns, max_size=rows * columns))
    found = never_slower([rows, columns], ms)
    assert never_slower([rows, columns], found) == found
    for row in range(rows):
        for column in range(columns):
            wider = [ms[r * columns + c] for r in range(row, rows) for c in range(column, columns)]
            assert found[row * columns + column] == min(wider)


def test_a_table_goes_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "there" / "table.json"
    TABLE.save(file)
    assert LatencyTable.load(file) == TABLE
    assert [path.name for path in file.parent.iterdir()] == ["table.json"]
    assert str(TABLE) == "batch of 4, 2 threads, cpu"


def with_layer(**values: Any) -> dict[str, Any]:
    found = TABLE.to_dict()
    found["layers"][0] |= values
    return found


DAMAGED: dict[str, tuple[Any, str]] = {
    "newer": (TABLE.to_dict() | {"version": 2}, "has version 2, this lightning_prune reads 1"),
    "no batch": ({key: value for key, value in TABLE.to_dict().items() if key != "batch"}, "has no 'batch'"),
    "no threads": (TABLE.to_dict() | {"threads": 0}, "threads is 0"),
    "not a time": (TABLE.to_dict() | {"ms": "fast"}, "ms is 'fast'"),
    "negative": (with_layer(ms=[-1.0, 2.0, 3.0, 6.0, 5.0, 14.0]), r"layers\[0\]: ms is -1"),
    "too few": (with_layer(ms=[1.0, 2.0]), "'a.weight' has 2 times"),
    "falling lengths": (with_layer(lengths=[[9, 5, 1], [2, 4]]), "it is damaged"),
    "two of one": (with_layer(dims=[0, 0]), "it is damaged"),
    "faster where wider": (with_layer(ms=[1.0, 2.0, 3.0, 6.0, 5.0, 4.0]), "takes longer where it is narrower"),
    "no list": (TABLE.to_dict() | {"layers": {}}, "layers is a dict; it must be a list"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_table_is_refused(case: str, tmp_path: Path) -> None:
    values, why = DAMAGED[case]
    file = tmp_path / "table.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match=why) as raised:
        LatencyTable.load(file)
    assert str(file) in str(raised.value)
