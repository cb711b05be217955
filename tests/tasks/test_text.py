"""Windows of a text: nothing lost, nothing twice, each target the next character."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_prune.tasks.data.files import DataCorrupt, DataNotFound
from lightning_prune.tasks.data.text import Shakespeare, encode, windows

PUBLISHED = "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_comes_back_from_its_places(text: str) -> None:
    vocabulary, places = encode(text)
    assert vocabulary == "".join(sorted(set(text)))
    assert "".join(vocabulary[place] for place in places.tolist()) == text


@given(count=st.integers(2, 200), length=st.integers(1, 50))
def test_windows_cover_the_text_once_with_targets_one_ahead(count: int, length: int) -> None:
    places = torch.arange(count)
    if count <= length:
        with pytest.raises(ValueError, match=f"length={length}: .* {count} characters"):
            windows(places, length)
        return
    found = windows(places, length)
    covered = found.inputs.flatten()
    assert torch.equal(covered, places[: len(covered)])
    assert torch.equal(found.targets, found.inputs + 1)
    assert 0 < count - len(covered) <= length


def write(root: Path, content: bytes) -> Path:
    (root / "shakespeare").mkdir()
    (root / "shakespeare" / "shakespeare.txt").write_bytes(content)
    return root


def test_the_parts_follow_each_other_in_the_text(tmp_path: Path) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(1000)) + "\r\n"
    data = Shakespeare(write(tmp_path, text.encode()), length=10)
    data.prepare_data()
    data.setup("fit")
    vocabulary = data.vocabulary
    assert vocabulary == "\n\rabcdefghijklmnopqrstuvwxyz"

    def characters(part: torch.Tensor) -> str:
        return "".join(vocabulary[place] for place in part.flatten().tolist())

    assert characters(data.train_set.inputs) == text[:900]
    assert characters(data.validation_set.inputs) == text[901:941]
    assert characters(data.test_set.inputs) == text[951:1001]


def test_a_missing_text_says_what_serves(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"shakespeare: shakespeare\.txt; put it there.*any plain text works"):
        Shakespeare(tmp_path, download=True).prepare_data()


def test_another_text_is_refused_only_where_one_is_asked_for(tmp_path: Path) -> None:
    root = write(tmp_path, b"to be or not to be")
    Shakespeare(root).prepare_data()
    with pytest.raises(DataCorrupt, match=PUBLISHED):
        Shakespeare(root, sha256=PUBLISHED).prepare_data()


def test_a_text_too_short_for_the_windows_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"length=10: a part of the text has 5 characters"):
        Shakespeare(write(tmp_path, b"x" * 100), length=10).setup("fit")


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("length", 0)])
def test_numbers_out_of_range_are_named(name: str, value: int) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Shakespeare(**options)


def test_the_real_text_is_the_one_of_the_recipes(data_root: Path) -> None:
    data = Shakespeare(data_root, sha256=PUBLISHED)
    data.prepare_data()
    data.setup("fit")
    assert data.vocabulary is not None
    assert data.vocabulary.isascii()
    assert len(data.train_set) == (5057198 * 90 // 100 - 1) // 128
