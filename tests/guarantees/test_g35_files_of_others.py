"""G35: `inspect`, `diff` and `strip` of a hostile file run nothing, take no memory it only claims, and say one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import saved
from lightning_prune.cli import main

HUGE = 1 << 40


class Evil:
    """Leaves a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("called"),)


def in_itself() -> dict[str, Any]:
    state: dict[str, Any] = {"weight": torch.ones(2)}
    state["again"] = state
    return state


def again_and_again() -> dict[str, Any]:
    """Return 2^60 places of one tensor."""
    state: dict[str, Any] = {"weight": torch.ones(2)}
    for _ in range(60):
        state = {"left": state, "right": state}
    return state


def far_too_large() -> torch.Tensor:
    return torch.zeros(1).expand(HUGE)


def sparse() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([[0, 9]]), torch.ones(2), (HUGE,), check_invariants=False)


CONTENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "code": (lambda: {"state_dict": {"weight": torch.ones(2)}, "extra": Evil()}, "could run code"),
    "code alone": (Evil, "could run code"),
    "a view of one value": (
        lambda: {"state_dict": {"weight": far_too_large()}},
        "'state_dict.weight' claims 1,099,511",
    ),
    "a mask of one value": (
        lambda: {"layer.weight_orig": torch.ones(2), "layer.weight_mask": far_too_large()},
        "'layer.weight_mask' claims",
    ),
    "sparse": (lambda: [{"weight": sparse()}], "'0.weight' claims"),
    "meta": (lambda: {"weight": torch.ones(4, device="meta")}, "'weight' holds no values"),
    "in itself": (in_itself, "nested too deep, or in itself"),
    "again and again": (again_and_again, "nested too deep, or in itself"),
    "escapes": (lambda: {"\x1b[2Jweight": torch.ones(4, device="meta")}, r"\x1b[2Jweight"),
    "no state": (lambda: 5, ""),
}
BYTES = {"empty": b"", "text": b"no checkpoint\n", "zip": b"PK\x03\x04" + bytes(64)}
COMMANDS = [
    ("inspect", "evil.pt"),
    ("diff", "evil.pt", "good.pt"),
    ("diff", "good.pt", "evil.pt"),
    ("strip", "evil.pt"),
]


@pytest.fixture(autouse=True)
def _beside_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(2)}, "good.pt")


def refused(command: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().iterdir())
    assert main([*command]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "evil.pt" in err
    assert said in err
    assert "\x1b" not in err
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", CONTENTS)
def test_G35_what_cannot_be_looked_at_is_one_line(
    name: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = CONTENTS[name]
    torch.save(make(), "evil.pt")
    refused(command, said, capsys)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", [*BYTES, "cut off"])
def test_G35_what_is_no_checkpoint_is_one_line(
    name: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    good = Path("good.pt").read_bytes()
    Path("evil.pt").write_bytes(BYTES.get(name, good[: len(good) // 2]))
    refused(command, "", capsys)


def test_G35_what_a_library_reads_is_looked_at_too(tmp_path: Path) -> None:
    torch.save({"masks": {"weight": far_too_large()}}, "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt: 'masks\.weight' claims"):
        saved.load(Path("evil.pt"))


def test_views_and_deep_states_that_are_honest_are_read() -> None:
    """A view of one value over thousands, and dicts in dicts, are saved like that by whole programs."""
    deep: dict[str, Any] = {"weight": torch.ones(1).expand(100_000)}
    for _ in range(50):
        deep = {"in": deep}
    torch.save(deep, "evil.pt")
    assert main(["inspect", "evil.pt"]) == 0
