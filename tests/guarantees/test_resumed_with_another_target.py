"""A checkpoint resumed with another sparsity or window: what was saved is said, what cannot happen is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune import LearnedMasks, Pruner, PruningCallback
from lightning_prune.pattern import Element, Row
from lightning_prune.schedule import OneShot, Polynomial, Schedule
from lightning_prune.selection import Histogram
from tests.guarantees.helpers import Net, assert_plain, bits, differences, fit, zeros

SAVED = Polynomial(0.5, 2, 10, 2)
SIZE = 256


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of one run: in the midst of its window, after it, and after the fit."""
    folder = tmp_path_factory.mktemp("saved")
    files = {name: folder / f"{name}.ckpt" for name in ("midst", "over", "stripped")}
    model = Net()
    at = {6: files["midst"], 11: files["over"]}
    model.after_batch.append(lambda run: run.save_checkpoint(at[run.global_step]) if run.global_step in at else None)
    run = fit(model, PruningCallback(SAVED), max_steps=12)
    run.save_checkpoint(files["stripped"])
    return files


REFUSED: dict[str, tuple[str, Any]] = {
    "a sparsity": ("stripped", 0.9),
    "a sparsity, with masks": ("over", 0.9),
    "a window before": ("stripped", Polynomial(0.9, 1, 8, 2)),
    "one shot at a step behind": ("over", OneShot(0.7, 10)),
    "a shorter window in the midst": ("midst", Polynomial(0.9, 1, 5, 2)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_G13_more_than_a_window_that_is_over_can_give_is_refused(files: dict[str, Path], case: str) -> None:
    name, given = REFUSED[case]
    model, callback = Net(), PruningCallback(given)
    steps: list[int] = []
    model.in_step.append(lambda run: steps.append(run.global_step))
    with pytest.raises(
        ValueError, match=r"would not be reached: the saved window is begin_step=2, end_step=10"
    ) as error:
        fit(model, callback, max_steps=40, ckpt=files[name])
    last = 6 if name == "midst" else 10
    assert f"saved after the update at step {last}" in str(error.value)
    assert f"begin_step={last + 1}, end_step=..." in str(error.value)
    assert steps == []
    assert_plain(model, callback=callback)
    saved = torch.load(files[name], weights_only=True)["state_dict"]
    assert differences(dict(saved), bits(model)) == []


@pytest.mark.parametrize("name", ["stripped", "over"])
@pytest.mark.parametrize("given", [Polynomial(0.9, 14, 30, 4, initial_sparsity=0.5), OneShot(0.75, 13)])
def test_a_window_after_the_saved_one_goes_on_from_its_masks(
    files: dict[str, Path], name: str, given: Schedule, caplog: pytest.LogCaptureFixture
) -> None:
    saved = torch.load(files[name], weights_only=True)["state_dict"]
    dead = {key: value == 0 for key, value in saved.items() if value.dim() > 1}
    assert sum(int(mask.sum()) for mask in dead.values()) == SIZE // 2
    model, callback = Net(), PruningCallback(given)
    counts: dict[int, int] = {}
    model.after_batch.append(lambda run: counts.update({run.global_step: sum(zeros(model).values())}))
    with caplog.at_level(logging.INFO):
        fit(model, callback, max_steps=40, ckpt=files[name])  # warnings are errors here
    updates = [step for step in counts if given.last_update(step) == step]
    assert [counts[step] for step in updates] == [round(given.sparsity(step) * SIZE) for step in updates]
    assert counts.get(int(given.begin_step) - 1, SIZE // 2) == SIZE // 2
    assert sum(zeros(model).values()) == round(given.final_sparsity * SIZE)
    for key, mask in dead.items():
        assert not model.state_dict()[key][mask].any()
    said = [r.getMessage() for r in caplog.records if "resumed" in r.getMessage()]
    assert said == [
        "pruning: resumed; the saved window is begin_step=2, end_step=10 to 50.00 %; "
        "saved after the update at step 10, at a sparsity of 50.00 %"
    ]


def test_a_state_without_the_final_sparsity_is_read(files: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = torch.load(files["stripped"], weights_only=True)
    for state in checkpoint["callbacks"].values():
        assert state.pop("final_sparsity") == 0.5
    torch.save(checkpoint, tmp_path / "old.ckpt")
    model = Net()
    fit(model, PruningCallback(SAVED), max_steps=14, ckpt=tmp_path / "old.ckpt")
    assert sum(zeros(model).values()) == SIZE // 2
    with pytest.raises(ValueError, match="the saved window is begin_step=2, end_step=10; saved after the update"):
        fit(Net(), PruningCallback(0.9), max_steps=40, ckpt=tmp_path / "old.ckpt")


def test_an_attached_pruner_refuses_such_a_state_and_stays_as_it_was(files: dict[str, Path]) -> None:
    (state,) = torch.load(files["over"], weights_only=True)["callbacks"].values()
    model, pruner = Net(), Pruner(Polynomial(0.9, 1, 8, 2))
    pruner.attach(model)
    before, resolved = bits(model), pruner.resolved_schedule
    with pytest.raises(ValueError, match="would not be reached"):
        pruner.load_state_dict(state)
    assert differences(before, bits(model)) == []
    assert pruner.resolved_schedule == resolved
    assert pruner.masks.pruned == 0


LOWER = {"a sparsity": ("stripped", 0.2), "a schedule, with masks": ("over", Polynomial(0.3, 2, 10, 2))}


@pytest.mark.parametrize("case", LOWER)
def test_G13_less_than_is_pruned_already_is_warned_of(files: dict[str, Path], case: str) -> None:
    name, given = LOWER[case]
    model = Net()
    with pytest.warns(
        UserWarning, match=r"is less than is pruned already: the saved window .* at a sparsity of 50.00 %"
    ):
        fit(model, PruningCallback(given), max_steps=14, ckpt=files[name])
    assert sum(zeros(model).values()) == SIZE // 2


def test_G13_reversible_masks_may_come_to_less_without_a_word(tmp_path: Path) -> None:
    model, file = Net(), tmp_path / "file.ckpt"
    model.after_batch.append(lambda run: run.save_checkpoint(file) if run.global_step == 6 else None)
    fit(model, PruningCallback(Pruner(SAVED, reversible=True)), max_steps=12)
    model = Net()
    fit(model, PruningCallback(Pruner(Polynomial(0.25, 2, 10, 2), reversible=True)), max_steps=12, ckpt=file)
    assert sum(zeros(model).values()) == SIZE // 4


@pytest.mark.parametrize("saved_at", [11, 12])
def test_G13_final_learned_masks_are_asked_for_no_more(tmp_path: Path, saved_at: int) -> None:
    def learned(final: float) -> PruningCallback:
        return PruningCallback(LearnedMasks(Polynomial(final, 2, 10, 2), pattern=Element()))

    model, file = Net(), tmp_path / "file.ckpt"
    model.after_batch.append(lambda run: run.save_checkpoint(file) if run.global_step == 11 else None)
    run = fit(model, learned(0.25), max_steps=12)
    if saved_at == 12:
        run.save_checkpoint(file)  # after the strip
    again = Net()
    with pytest.raises(ValueError, match=r"would not be reached: .* masks that are final are learned no further"):
        fit(again, learned(0.75), max_steps=40, ckpt=file)
    assert_plain(again)
    fit(Net(), learned(0.25), max_steps=14, ckpt=file)


LESS: dict[str, tuple[Any, str]] = {
    "a selection that is not exact": (
        lambda: Pruner(OneShot(0.9, 3), selection=Histogram(nbins=2)),
        r"Histogram\(nbins=2, .*\) does not keep to the exact number",
    ),
    "a pattern that spares": (lambda: Pruner(OneShot(1.0, 3), pattern=Row()), r"Row\(\) keeps the best unit"),
    "a run that ends before": (lambda: Pruner(Polynomial(0.9, 2, 11, 3)), "the run ended before end_step=11"),
}


@pytest.mark.filterwarnings("ignore:.*end_step=11 is past the end of the run:UserWarning")
@pytest.mark.parametrize("case", LESS)
def test_G13_the_reason_for_less_is_the_true_one(case: str) -> None:
    make, reason = LESS[case]
    with pytest.warns(UserWarning, match=f"less than the .* asked for; {reason}"):
        fit(Net(), PruningCallback(make()), max_steps=10)
