"""Masks are read off the weights that were saved beside the state: the right ones, or an error, and at no size."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune import Pruner
from lightning_prune.pattern import Block, Channel
from lightning_prune.schedule import Hold, OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.device.simulated import simulated
from tests.golden.make_states import FOLDER, KINDS, SO_FAR, STEPS, net, train

RUN = Polynomial(0.75, 2, 10, 2)
IDEAS: dict[str, dict[str, Any]] = {
    "default": {},
    "units": {"pattern": Channel(example_inputs=torch.zeros(2, 6))},
    "blocks": {"pattern": Block(2, 2)},
    "reversible": {"reversible": True},
}


def masks(pruner: Any) -> dict[str, Tensor]:
    return {name: weight.mask.cpu() for name, weight in pruner.masks.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run(steps: int = SO_FAR, **ideas: Any) -> tuple[nn.Module, Any]:
    model, pruner = net(), Pruner(RUN, **ideas)
    pruner.attach(model, STEPS)
    train(model, pruner, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), range(steps))
    return model, pruner


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", IDEAS)
@pytest.mark.parametrize("steps", [1, 3, 7, 11])
def test_G2_kept_entries_that_are_zero_stay_kept(name: str, steps: int) -> None:
    model, pruner = run(steps, **IDEAS[name])
    kept = pruner.masks["0.weight"].mask.reshape(-1).nonzero().flatten()[[1, 4]]
    with torch.no_grad():
        model[0].weight.view(-1)[kept] = torch.tensor([0.0, -0.0])  # pyright: ignore
    saved = through_a_file({"model": model.state_dict(), "pruner": pruner.state_dict()})
    pruned = pruner.masks["0.weight"].pruned
    assert saved["pruner"]["masks"]["0.weight"].get("kept_zeros", torch.tensor([])).tolist() == (
        kept.tolist() if pruned else []
    )
    other, again = net(), Pruner(RUN, **IDEAS[name])
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["pruner"])
    again.attach(other, STEPS)
    assert same(masks(again), masks(pruner))
    for each, of in ((model, pruner), (other, again)):
        train(each, of, torch.optim.SGD(each.parameters(), lr=0.01), range(steps, STEPS))
    assert same(masks(again), masks(pruner))


def test_G2_positions_are_those_of_the_flattened_weight_whatever_its_strides() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(6, 4, 3)).to(memory_format=torch.channels_last)  # pyright: ignore
    pruner = Pruner(OneShot(0.5, 1))
    pruner.attach(model)
    pruner.after_step(1)
    places: dict[str, list[int]] = {}
    with torch.no_grad():
        for name, weight in pruner.masks.items():
            places[name] = weight.mask.reshape(-1).nonzero().flatten()[[0, 5, 9]].tolist()
            for place in places[name]:
                weight.parameter[tuple(int(i) for i in torch.unravel_index(torch.tensor(place), weight.mask.shape))] = (
                    0.0
                )
    state = through_a_file(pruner.state_dict())
    assert {name: entry["kept_zeros"].tolist() for name, entry in state["masks"].items()} == places
    other = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(6, 4, 3))
    other.load_state_dict(model.state_dict())
    again = Pruner(OneShot(0.5, 1))
    again.load_state_dict(state)
    again.attach(other)
    assert same(masks(again), masks(pruner))


@pytest.mark.parametrize("name", IDEAS)
@pytest.mark.parametrize("attached", [False, True], ids=["before attach", "after attach"])
def test_G28_a_state_without_its_weights_is_refused_and_goes_once_they_are_loaded(name: str, attached: bool) -> None:
    model, pruner = run(**IDEAS[name])
    saved = through_a_file({"model": model.state_dict(), "pruner": pruner.state_dict()})
    other, again = net(), Pruner(RUN, **IDEAS[name])
    if attached:
        again.attach(other, STEPS)
    before = copy.deepcopy(other.state_dict())

    def restore() -> None:
        again.load_state_dict(saved["pruner"])
        if not attached:
            again.attach(other, STEPS)

    with pytest.raises(ValueError, match=r"saved beside other weights: '.*load the weights that were saved with"):
        restore()
    assert same(dict(other.state_dict()), before)
    assert again.attached == attached
    other.load_state_dict(saved["model"])
    restore()
    assert same(masks(again), masks(pruner))


def test_G28_weights_of_another_run_as_sparse_are_refused() -> None:
    _, pruner = run()
    other = net()
    for name, weight in pruner.masks.items():
        with torch.no_grad():
            other.get_parameter(name).view(-1)[weight.mask.numel() - weight.pruned :] = 0.0
    again = Pruner(RUN)
    again.load_state_dict(pruner.state_dict())
    with pytest.raises(ValueError, match="or they lie elsewhere and 1 more weights"):
        again.attach(other, STEPS)


def test_G6_a_state_taken_between_step_and_masking_goes_with_its_weights() -> None:
    """A momentum that an optimizer had before masks came brings pruned entries back for a moment."""
    model, pruner = run()
    weight = pruner.masks["0.weight"]
    with torch.no_grad():
        weight.parameter[~weight.mask] = 0.5
    weights = model.state_dict()  # before the state: they are the model's own tensors
    saved = through_a_file({"pruner": pruner.state_dict(), "model": weights})
    assert not saved["model"]["0.weight"][~weight.mask].any()
    other, again = net(), Pruner(RUN)
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["pruner"])
    again.attach(other, STEPS)
    assert same(masks(again), masks(pruner))


def test_a_state_is_taken_between_forward_and_backward() -> None:
    model, pruner = run()
    loss = model(torch.ones(2, 6)).sum()
    pruner.state_dict()
    loss.backward()


@pytest.mark.parametrize("pattern", [None, Block(2, 2)])
def test_G20_a_state_takes_as_many_bytes_for_any_number_of_weights(pattern: Any, tmp_path: Path) -> None:
    sizes: list[int] = []
    for width in (16, 64, 512):
        model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
        pruner = Pruner(OneShot(0.9, 1), **({} if pattern is None else {"pattern": pattern}))
        pruner.attach(model)
        pruner.after_step(1)
        torch.save(pruner.state_dict(), tmp_path / "state.pt")
        sizes.append((tmp_path / "state.pt").stat().st_size)
    assert max(sizes) - min(sizes) < 300, sizes
    assert max(sizes) < 4000


def test_G28_the_state_is_the_same_on_a_device_which_is_waited_for_as_often_for_any_number_of_weights() -> None:
    found: dict[int, Any] = {}
    for layers in (2, 20):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(12, 12) for _ in range(layers)))
        pruner = Pruner(OneShot(0.5, 1))
        pruner.attach(copy.deepcopy(model))
        pruner.after_step(1)
        with simulated() as device:
            there = Pruner(OneShot(0.5, 1))
            there.attach(model.to(device.device))
            there.after_step(1)
            with device.counted() as counts:
                state = there.state_dict()
            found[layers] = counts.synchronizations
            assert state == pruner.state_dict()
            again = Pruner(OneShot(0.5, 1))
            again.load_state_dict(state)
            again.attach(model)
            assert same(masks(again), masks(pruner))
    assert found[2] == found[20] <= 3


def test_G5_held_zeros_and_followers_are_there_again() -> None:
    def student() -> Any:
        torch.manual_seed(0)
        return nn.ModuleDict({"net": nn.Linear(8, 8), "teacher": nn.Linear(8, 8).requires_grad_(False)})

    model, targets = student(), Targets(follow={"teacher": "net"})
    with torch.no_grad():
        model["net"].weight[::2] = 0.0
    pruner = Pruner(Hold(), targets=targets)
    pruner.attach(model)
    pruner.after_step(1)
    with torch.no_grad():
        model["net"].weight[1, 3] = 0.0  # a kept one
    saved = through_a_file({"model": model.state_dict(), "pruner": pruner.state_dict()})
    other, again = student(), Pruner(Hold(), targets=targets)
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["pruner"])
    again.attach(other)
    assert same(masks(again), masks(pruner))
    assert not other["teacher"].weight[::2].any()
    assert other["teacher"].weight[1].all()


# Version 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attached", [False, True], ids=["before attach", "after attach"])
@pytest.mark.parametrize("loaded", [False, True], ids=["without the weights", "with the weights"])
def test_G28_a_file_of_version_1_is_read(kind: str, attached: bool, loaded: bool) -> None:
    saved = torch.load(FOLDER / f"{kind}.pt", weights_only=True)
    state = saved["pruner"]
    assert state["version"] == 1
    assert all(mask.dtype == torch.bool and int(mask.sum()) > 0 for mask in state["masks"].values())
    assert any(not bool(mask.all()) for mask in state["masks"].values())
    model, pruner = net(), KINDS[kind]()
    if loaded:
        model.load_state_dict(saved["model"])
    if attached:
        pruner.attach(model, STEPS)
    pruner.load_state_dict(state)
    if not attached:
        pruner.attach(model, STEPS)
    assert same(masks(pruner), state["masks"])
    assert {name: float(w.threshold) for name, w in pruner.masks.items()} == state["thresholds"]
    assert pruner.last_update == state["last_update"]
    for name, memory in state.get("memory", {}).items():
        assert same(pruner.masks[name].memory, memory)
    for name, dense in state.get("dense", {}).items():
        assert torch.equal(pruner.masks[name].ranked(), dense)
    for name, value in state.get("logits", {}).items():
        assert torch.equal(pruner.state_dict()["logits"][name], value)
    if loaded:
        assert same(dict(model.state_dict()), saved["model"])
    again = through_a_file({"pruner": pruner.state_dict(), "model": model.state_dict()})
    assert again["pruner"]["version"] == 2
    train(model, pruner, torch.optim.SGD(model.parameters(), lr=0.01), range(SO_FAR, STEPS))
    twin, its = net(), KINDS[kind]()
    twin.load_state_dict(again["model"])
    its.load_state_dict(again["pruner"])
    its.attach(twin, STEPS)
    train(twin, its, torch.optim.SGD(twin.parameters(), lr=0.01), range(SO_FAR, STEPS))
    assert same(masks(its), masks(pruner))
    assert its.strip().zeros == pruner.strip().zeros > 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (torch.ones(8, 6), r"masks\['0.weight'\] is a tensor of torch.float32"),
        (torch.ones(8, 6, dtype=torch.uint8), r"masks\['0.weight'\] is a tensor of torch.uint8"),
        (torch.ones(6, 8, dtype=torch.bool), "saved mask of '0.weight' has shape"),
        ({"shape": [8, 6], "pruned": 0, "checksum": 0}, r"masks\['0.weight'\] is a dict"),
    ],
)
def test_G35_a_damaged_file_of_version_1_is_refused_by_field(damage: Any, said: str) -> None:
    state = torch.load(FOLDER / "plain.pt", weights_only=True)["pruner"]
    state["masks"]["0.weight"] = damage
    pruner = Pruner(RUN)
    pruner.load_state_dict(state)
    with pytest.raises(ValueError, match=said):
        pruner.attach(net(), STEPS)
