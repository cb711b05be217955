"""G2: N steps are k steps, a checkpoint, a new process, and N - k steps: to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.guarantees.helpers import differences
from tests.guarantees.resume_worker import ACCUMULATE, CASES, STEPS, run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ROOT = Path(__file__).parents[2]

# before the first update, at it, after it (inside an epoch), at an epoch's end that is an update, at the last update
CUTS: dict[str, tuple[int, ...]] = {name: (2, 3, 7, 12, 13) if name == "adamw" else (5, 7, 12) for name in CASES}
# in batches: an update due on the next; at step 3; 1, 2 and 3 batches into a step; the end of step 13; inside the next
CUTS["accumulated"] = (11, 12, 13, 14, 27, 52, 54)
STRIPPED = (
    ("adamw", 15),
    ("near_threshold", 13),
    ("first_order", 7),
    ("reversible", 10),
    ("rewind_2", 7),
    ("histogram", 10),
    ("momentum", 4),
    ("hold", 15),
    ("channels", 15),
    ("channels_first_order", 7),
)
WORKERS = {"first_order": (4, 8, 12), "learned_ema": (9,)}
"""The same with two workers that fetch ahead: inside the first and the second epoch, at an epoch's end."""
FAST = ("hold", "adamw", "first_order", "reversible", "rewind_2", "accumulated", "channels", "learned_schedule")
"""The cases of the fast tests; the slow ones take all."""
EARLY = ("adamw", "first_order", "accumulated", "learned_schedule")
"""Those of them whose files written before an update are resumed."""
PARTS = ("adamw", "first_order", "reversible", "rewind_2", "learned_schedule", "learned_thresholds")
FAST_PARTS = ("first_order", "learned_schedule")


def _of(cases: Iterable[str], fast: Collection[str], cuts: Mapping[str, Sequence[int]] | None = None) -> list[Any]:
    """Return a parameter set for each case, or for each of its cuts; slow where it is not among the fast ones."""
    values = [(case, *at) for case in cases for at in ([()] if cuts is None else [(cut,) for cut in cuts[case]])]
    return [pytest.param(*value, marks=[] if value[0] in fast else pytest.mark.slow) for value in values]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As many threads as the worker has: sums of floats depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def runs(
    one_thread: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Name -> (the end of an uninterrupted run, the end of the one resumed in another process)."""
    folder = tmp_path_factory.mktemp("resume")
    every = any(item.path == request.path and item.get_closest_marker("slow") for item in request.session.items)
    killed = _process([{"case": "first_order", "folder": str(folder), "save_every": 4, "kill_at": 14}], folder, "kill")
    chosen = {case: cuts for case, cuts in CUTS.items() if every or case in FAST}
    parts = PARTS if every else FAST_PARTS
    whole = {(case, "stateful"): run(case, str(folder), save_at=cuts) for case, cuts in chosen.items()}
    # The place of a `StatefulDataLoader` is after a batch in hand when the checkpoint is written: that batch is lost.
    whole |= {(case, "recipes"): run(case, str(folder), data="recipes") for case in parts}
    jobs: list[dict[str, Any]] = []
    names: dict[str, tuple[str, str]] = {}

    def resume(name: str, case: str, ckpt: Path, **options: Any) -> None:
        out = folder / f"{name}.pt"
        jobs.append({"case": case, "folder": str(folder), "ckpt": str(ckpt), "out": str(out), **options})
        names[name] = case, options.get("data", "stateful")

    for case, cuts in chosen.items():
        for cut in cuts:
            resume(f"{case}-{cut}", case, folder / f"{case}-{cut}.ckpt")
            if every or case in EARLY:
                resume(f"{case}-early-{cut}", case, folder / f"{case}-early-{cut}.ckpt")
    for case, cuts in WORKERS.items() if every else [("first_order", WORKERS["first_order"])]:
        whole[case, "workers"] = run(case, str(folder / "workers"), save_at=cuts, data="workers")
        for cut in cuts:
            resume(f"{case}-workers-{cut}", case, folder / "workers" / f"{case}-{cut}.ckpt", data="workers")
    for case in parts:
        part = folder / f"{case}-part"
        run(case, str(part), steps=7, save_every=7)
        resume(f"{case}-part", case, next(part.glob("*.ckpt")))
        with pytest.raises(RuntimeError, match="on purpose"):
            run(case, str(folder), fail_at=8, data="recipes")
        resume(f"{case}-exception", case, folder / f"{case}-exception.ckpt", data="recipes")
        resume(f"{case}-saved", case, next((folder / f"{case}-saved").glob("*step=8.ckpt")), data="recipes")
    for case, steps in STRIPPED:
        if case not in chosen:
            continue
        stripped = folder / f"{case}-stripped.ckpt"
        run(case, str(folder), steps=steps, save_after_fit=str(stripped))
        resume(f"{case}-stripped", case, stripped)
    assert killed.wait(timeout=120) == -9
    last = max(folder.glob("first_order-every*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    assert last.stem.endswith("=12")
    resume("first_order-killed", "first_order", last)

    resumed = _process(jobs, folder, "resume")
    assert resumed.wait(timeout=300) == 0, (folder / "resume.log").read_text(encoding="utf-8")[-3000:]
    ends = {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in names}
    return {name: (whole[made], ends[name]) for name, made in names.items()}


def _process(jobs: list[dict[str, Any]], folder: Path, name: str) -> subprocess.Popen[bytes]:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(jobs), encoding="utf-8")
    command = [sys.executable, "-m", "tests.guarantees.resume_worker", str(file)]
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)


def _assert_equal(ends: tuple[dict[str, Any], dict[str, Any]], in_parts: bool = False) -> None:
    whole, resumed = ends
    assert whole["global_step"] == STEPS
    assert all(0 < int(m.sum()) < m.numel() for masks in whole["masks"] for m in masks.values())
    if in_parts:  # the first part was told another length
        whole, resumed = ({**end, "pruning": [_without_length(s) for s in end["pruning"]]} for end in ends)
    assert differences(whole, resumed) == []


def _without_length(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in state.items() if k != "total_steps"}


@pytest.mark.parametrize(("case", "cut"), _of(CUTS, FAST, CUTS))
def test_G2_a_resumed_run_ends_like_an_uninterrupted_one(runs: Any, case: str, cut: int) -> None:
    _assert_equal(runs[f"{case}-{cut}"])


@pytest.mark.parametrize(("case", "cut"), _of(CUTS, EARLY, CUTS))
def test_G2_a_file_written_before_an_update_is_made_goes_on_with_it(runs: Any, case: str, cut: int) -> None:
    _assert_equal(runs[f"{case}-early-{cut}"])


@pytest.mark.parametrize(("case", "cut"), _of(WORKERS, ("first_order",), WORKERS))
def test_G2_a_run_whose_workers_fetch_ahead_resumes(runs: Any, case: str, cut: int) -> None:
    _assert_equal(runs[f"{case}-workers-{cut}"])


def test_G2_the_cuts_inside_an_accumulated_step_are_inside() -> None:
    inside = [cut for cut in CUTS["accumulated"] if cut % ACCUMULATE]
    assert {cut % ACCUMULATE for cut in inside} == {1, 2, 3}


@pytest.mark.parametrize("case", _of(PARTS, FAST_PARTS))
def test_G2_a_run_that_ended_before_the_window_did_goes_on(runs: Any, case: str) -> None:
    _assert_equal(runs[f"{case}-part"], in_parts=True)


@pytest.mark.parametrize("writer", ["exception", "saved"], ids=["OnExceptionCheckpoint", "save_on_exception"])
@pytest.mark.parametrize("case", _of(PARTS, FAST_PARTS))
def test_G2_a_checkpoint_written_on_an_exception_resumes(runs: Any, case: str, writer: str) -> None:
    _assert_equal(runs[f"{case}-{writer}"])


@pytest.mark.parametrize("case", _of([case for case, _ in STRIPPED], FAST))
def test_G2_a_checkpoint_saved_after_fit_resumes(runs: Any, case: str) -> None:
    _assert_equal(runs[f"{case}-stripped"], in_parts=True)


def test_G2_a_run_killed_with_signal_9_resumes(runs: Any) -> None:
    _assert_equal(runs["first_order-killed"])


def test_G2_the_comparison_fails_where_the_callbacks_state_is_lost(tmp_path: Path) -> None:
    whole = run("random", str(tmp_path), save_at=(10,))
    file = tmp_path / "random-10.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["callbacks"] = {}
    torch.save(checkpoint, file)
    resumed = run("random", str(tmp_path), ckpt=str(file))
    assert any("masks" in d for d in differences(whole, resumed))


def test_G2_the_comparison_fails_where_the_loader_starts_again(tmp_path: Path) -> None:
    def resumed(data: str) -> list[str]:
        whole = run("adamw", str(tmp_path / data), save_at=(8,), data="stateful" if data == "lost" else data)
        file = tmp_path / data / "adamw-8.ckpt"
        if data == "lost":
            checkpoint = torch.load(file, weights_only=True)
            del checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
            torch.save(checkpoint, file)
        return differences(
            whole, run("adamw", str(tmp_path), ckpt=str(file), data="stateful" if data == "lost" else data)
        )

    assert resumed("stateful") == []
    assert resumed("recipes") == []
    assert any("masks" in d for d in resumed("plain"))
    assert any("masks" in d for d in resumed("lost"))
