"""A damaged state is refused by field, and leaves pruner, masks and weights as they were."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import LearnedMasks, Pruner, saved
from lightning_prune.criterion import FirstOrderDelta
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial

State = dict[str, Any]
Change = Callable[[State], Any]
PRUNED = 8
"""The position of an entry of the first weight that is pruned."""


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def pruner(**options: Any) -> Pruner:
    return Pruner(Polynomial(0.5, 2, 8, 2), **options)


def learned() -> LearnedMasks:
    return LearnedMasks(pattern=Channel(example_inputs=torch.randn(2, 6)))


def state_of(engine: Any, steps: int = 4, model: nn.Module | None = None) -> State:
    model = net() if model is None else model
    engine.attach(model, 20)
    for step in range(1, steps + 1):
        engine.after_step(step)
    return copy.deepcopy(engine.state_dict())


def restore(engine: Any, state: State, model: nn.Module) -> None:
    """Load a state, and attach where that is still to be done."""
    engine.load_state_dict(state)
    engine.attach(model, 20)


def put(*path: Any) -> Change:
    """Return the change that puts the last of these under the keys before it."""
    *keys, last, value = path

    def change(state: State) -> None:
        for key in keys:
            state = state[key]
        state[last] = value

    return change


def ints(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def drop(key: str) -> Change:
    return lambda state: state.pop(key)


HEADER: dict[str, tuple[Change, str]] = {
    "version newer": (put("version", 99), "version 99"),
    "version of another type": (put("version", "1"), "version '1'"),
    "version true": (put("version", True), "version True"),
    "version negative": (put("version", -1), "version -1"),
    "total_steps is text": (put("total_steps", "20"), "total_steps is '20'"),
    "total_steps NaN": (put("total_steps", math.nan), "total_steps is nan"),
    "begin_step negative": (put("begin_step", -1), "begin_step is -1"),
    "end_step true": (put("end_step", True), "end_step is True"),
    "last_update huge": (put("last_update", 10**9), "last_update is 1000000000"),
    "last_update beyond all": (put("last_update", 10**5000), "last_update is an int beyond all counts"),
    "last_update negative": (put("last_update", -3), "last_update is -3"),
    "last_update a float": (put("last_update", 4.0), r"last_update is 4\.0"),
    **{f"no {key}": (drop(key), f"no '{key}'") for key in ("total_steps", "begin_step", "end_step", "last_update")},
}
BODY: dict[str, tuple[Change, str]] = {
    "masks of bools": (
        put("masks", "0.weight", torch.ones(8, 6).bool()),
        r"masks\['0.weight'\] is a tensor of torch.bool",
    ),
    "masks no tensors": (put("masks", "0.weight", [True]), r"masks\['0.weight'\] is a list"),
    "masks of another shape": (
        put("masks", "0.weight", "shape", [6, 8]),
        r"saved mask of '0\.weight' has shape \(6, 8\)",
    ),
    "masks of another name": (
        lambda state: put("masks", "4.weight", state["masks"]["0.weight"])(state),
        "other weights",
    ),
    "a mask is missing": (lambda state: state["masks"].pop("2.weight"), "other weights"),
    "a shape no list": (put("masks", "0.weight", "shape", 48), r"masks\['0.weight'\].shape is 48"),
    "a length negative": (put("masks", "0.weight", "shape", [8, -6]), r"shape: a length is -6"),
    "no shape": (lambda state: state["masks"]["0.weight"].pop("shape"), r"masks\['0.weight'\] has no 'shape'"),
    "pruned negative": (put("masks", "0.weight", "pruned", -1), r"masks\['0.weight'\].pruned is -1"),
    "pruned beyond the weight": (put("masks", "0.weight", "pruned", 49), r"pruned is 49; .* at most 48"),
    "pruned a float": (put("masks", "2.weight", "pruned", 3.0), r"masks\['2.weight'\].pruned is 3\.0"),
    "pruned one less": (
        lambda state: put("masks", "0.weight", "pruned", state["masks"]["0.weight"]["pruned"] - 1)(state),
        "saved beside other weights: '0.weight'",
    ),
    "no checksum": (lambda state: state["masks"]["2.weight"].pop("checksum"), r"masks\['2.weight'\] has no 'checksum'"),
    "checksum text": (put("masks", "0.weight", "checksum", "a"), r"checksum is 'a'"),
    "checksum beyond int64": (put("masks", "0.weight", "checksum", 2**63), "checksum is an int beyond all counts"),
    "checksum another": (put("masks", "2.weight", "checksum", 5), "saved beside other weights: '2.weight'"),
    "positions of floats": (
        put("masks", "0.weight", "kept_zeros", torch.ones(2)),
        r"kept_zeros is a tensor of torch.float",
    ),
    "positions a list": (put("masks", "0.weight", "kept_zeros", [1]), r"masks\['0.weight'\].kept_zeros is a list"),
    "positions of two dimensions": (put("masks", "0.weight", "kept_zeros", ints([[1]])), "of one dimension"),
    "positions negative": (put("masks", "0.weight", "kept_zeros", ints([-1, 3])), r"outside \[0, 48\)"),
    "positions beyond the weight": (put("masks", "2.weight", "kept_zeros", ints([3, 24])), r"outside \[0, 24\)"),
    "positions twice": (put("masks", "0.weight", "kept_zeros", ints([3, 3])), "positions twice"),
    "positions not in order": (put("masks", "0.weight", "kept_zeros", ints([4, 3])), "not in order"),
    "positions beyond what is kept": (put("masks", "0.weight", "kept_zeros", torch.arange(48)), "48 positions, and"),
    "positions of pruned entries": (
        lambda state: put("masks", "0.weight", "kept_zeros", ints([PRUNED]))(state),
        "saved beside other weights: '0.weight'",
    ),
    "masks no mapping": (put("masks", [1]), "masks is a list"),
    "masks with a number for a name": (put("masks", 7, torch.ones(1).bool()), "key 7"),
    "no masks": (drop("masks"), "no 'masks'"),
    "no thresholds": (drop("thresholds"), "no 'thresholds'"),
    "a threshold is missing": (lambda state: state["thresholds"].pop("0.weight"), "none for"),
    "a threshold is NaN": (put("thresholds", "0.weight", math.nan), r"thresholds\['0.weight'\] is nan"),
    "a threshold is text": (put("thresholds", "0.weight", "\x1b[2J"), r"thresholds\['0.weight'\] is '\\x1b"),
    "stripped is text": (put("stripped", "yes"), "stripped is 'yes'"),
    "dense of another shape": (put("dense", {"0.weight": torch.ones(3)}), r"dense\['0.weight'\]"),
    "dense of ints": (put("dense", {"0.weight": torch.ones(8, 6, dtype=torch.long)}), r"dense\['0.weight'\]"),
    "going of floats": (put("going", {"0.weight": torch.ones(8, 6)}), r"going\['0.weight'\]"),
    "going of another weight": (put("going", {"7.weight": torch.ones(8, 6).bool()}), r"going has '7.weight'"),
    "memory no tensor": (put("memory", {"0.weight": {"gradient": 3}}), r"memory\['0.weight'\]\['gradient'\] is 3"),
}


@pytest.mark.parametrize("late", [False, True], ids=["before attach", "after attach"])
@pytest.mark.parametrize("case", [*HEADER, *BODY])
def test_G35_a_damaged_state_is_refused_by_field(case: str, late: bool) -> None:
    change, said = (HEADER | BODY)[case]
    model = net()
    state = state_of(pruner(criterion=FirstOrderDelta(), reversible=True), model=model)
    assert not model.get_parameter("0.weight").flatten()[PRUNED]
    change(state)
    fresh = pruner(criterion=FirstOrderDelta(), reversible=True)
    before = copy.deepcopy(model.state_dict())
    if late:
        fresh.attach(model, 20)
    masks = {name: weight.mask.clone() for name, weight in fresh.masks.items()} if late else {}
    with pytest.raises(ValueError, match=said) as refused:
        restore(fresh, state, model)
    assert len(str(refused.value)) < 400
    assert same(model.state_dict(), before)
    assert fresh.attached == late
    if late:
        assert fresh.last_update is None
        assert same({name: weight.mask for name, weight in fresh.masks.items()}, masks)
    assert not late or fresh.masks["0.weight"].pruned == 0


LEARNED: dict[str, tuple[Change, str]] = {
    "finished is a number": (put("finished", 0), "finished is 0"),
    "logits of another length": (put("logits", "0.weight", torch.ones(3)), "of other units"),
    "logits no tensor": (put("logits", "0.weight", None), r"logits\['0.weight'\] is None"),
    "no logits": (drop("logits"), "no 'logits'"),
    "step negative": (put("step", -1), "step is -1"),
    "progress NaN": (put("progress", math.nan), "progress is nan"),
    "keeps of floats": (put("keeps", [torch.ones(8)]), r"keeps\[0\] is a tensor of torch.float32"),
    "keeps of another length": (put("keeps", [torch.ones(5).bool()]), r"keeps\[0\]"),
    "keeps of more groups": (put("keeps", []), "keeps has 0 groups"),
    "keeps of other units": (put("keeps", [torch.arange(8) < 5]), "keeps are not those of its masks, of '0.weight'"),
    "no keeps": (drop("keeps"), "no 'keeps'"),
    "history no list": (put("history", 3), "history is 3"),
    "history without a step": (put("history", [{}]), r"history\[0\] has no 'step'"),
    "no dense": (drop("dense"), "no 'dense'"),
    "dense of another shape": (put("dense", "0.weight", torch.ones(1)), r"dense\['0.weight'\]"),
    "optimizer no mapping": (put("optimizer", 3), "optimizer is 3"),
    "optimizer without groups": (put("optimizer", "param_groups", []), "optimizer is one of other logits"),
    "optimizer without a rate": (lambda state: state["optimizer"]["param_groups"][0].pop("lr"), "no 'lr'"),
    "moments of another shape": (
        put("optimizer", "state", {0: {"exp_avg": torch.ones(99)}}),
        r"state\[0\]\['exp_avg'\] has shape",
    ),
    "moments of nobody": (put("optimizer", "state", {7: {}}), "state: key is 7"),
}


@pytest.mark.parametrize("case", [*LEARNED, *(name for name in HEADER if name != "last_update huge")])
def test_G35_a_damaged_state_of_learned_masks_is_refused_by_field(case: str) -> None:
    change, said = (HEADER | LEARNED)[case]
    state = state_of(learned())
    change(state)
    fresh, model = learned(), net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=said):
        restore(fresh, state, model)
    assert same(model.state_dict(), before)
    assert not fresh.attached
    assert not model[0]._forward_pre_hooks
    assert not model[2]._forward_pre_hooks


@pytest.mark.parametrize("pattern", [{}, {"pattern": Channel(example_inputs=torch.randn(2, 6))}])
@pytest.mark.parametrize("stripped", [False, True])
def test_G35_a_state_of_the_other_kind_is_refused_both_ways(pattern: dict[str, Any], stripped: bool) -> None:
    of_learned, of_pruner = state_of(learned()), state_of(pruner(**pattern))
    for state in (of_learned, of_pruner) if stripped else ():
        state |= {"stripped": True, "probabilities": {}}
    with pytest.raises(ValueError, match="one of LearnedMasks, and cannot be restored into a Pruner"):
        pruner(**pattern).load_state_dict(of_learned)
    with pytest.raises(ValueError, match="one of a Pruner, and cannot be restored into LearnedMasks"):
        learned().load_state_dict(of_pruner)


def test_what_is_not_known_is_left_alone_and_a_sound_state_is_taken() -> None:
    for make in (pruner, learned):
        model, other = net(), net()
        state = state_of(make(), model=model) | {"of a later version": torch.ones(3)}
        other.load_state_dict(model.state_dict())
        fresh = make()
        fresh.load_state_dict(state)
        fresh.attach(other, 20)
        assert fresh.last_update == state["last_update"]
        fresh.load_state_dict(state)


@pytest.mark.parametrize("state", [None, [], 3, "state"])
def test_a_state_that_is_no_mapping_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match=r"the pruning state is .* must be a mapping"):
        pruner().load_state_dict(state)


# Files


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("kind", ["pickle", "truncated", "empty", "text"])
def test_G35_a_file_of_anything_else_is_one_error(kind: str, tmp_path: Path) -> None:
    file, mark = tmp_path / "a.pt", tmp_path / "called"
    torch.save({"evil": Evil(mark)} if kind == "pickle" else {"w": torch.ones(1000)}, file)
    if kind != "pickle":
        file.write_bytes({"truncated": file.read_bytes()[:700], "empty": b"", "text": b"hello"}[kind])
    with pytest.raises(ValueError, match=r"a\.pt is no checkpoint of tensors and plain values, or damaged"):
        saved.load(file)
    assert not mark.exists()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
