"""Every architecture, pruned to half its weights and shrunk, gives what it gave before, and trains on."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.coupling import trial
from lightning_prune.coupling.couple import couple
from lightning_prune.coupling.example import answer, distance, tensors
from lightning_prune.shrink import Shrunk, load_shrunk, rebuild, save_shrunk, shrink
from lightning_prune.tasks.resnet import resnet56
from lightning_prune.tasks.vgg import vgg16
from tests.coupling.architecture import Architecture
from tests.coupling.architectures import ARCHITECTURES
from tests.coupling.helpers import TOLERANCE, assert_trains, pruned


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


def test_what_hangs_together_is_found_and_what_does_not_is_named(architecture: Architecture):
    coupling = couple(architecture.model(), architecture.example())
    groups = {group.name: {part.name for part in group.parts} for group in coupling.groups}
    assert set(architecture.found) <= set(groups)
    for name, others in architecture.found.items():
        assert set(others) <= groups[name]


def test_a_shrunk_model_gives_the_same_outputs_and_trains_on(architecture: Architecture):
    model, example = architecture.model(), architecture.example()
    assert_alive(model, example)
    pruner = pruned(model, example)
    assert_alive(model, example)
    shrunk = shrink(model, example, TOLERANCE)
    assert_smaller(shrunk, architecture)
    for inputs in (example, *(make() for make in architecture.others)):
        assert distance(answer(model, inputs), answer(shrunk.model, inputs))[1] <= TOLERANCE
    skipped = dict(pruner.report().skipped) | dict(shrunk.report.skipped)
    for name, reason in architecture.refused.items():
        assert reason in skipped[name]
        assert shrunk.model.get_parameter(name).shape[0] == model.get_parameter(name).shape[0]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, shrunk.model.get_parameter(name))
    assert_rebuilds(shrunk, architecture, example)
    assert_trains(shrunk.model, example)


def test_the_trial_of_each_group_would_show_a_mistake(architecture: Architecture):
    model, example = architecture.model(), architecture.example()
    draws = [copy.deepcopy(model) for _ in range(1 + trial._DRAWS)]
    for seed, drawn in enumerate(draws):
        trial.scramble(drawn, seed)
    for group in couple(model, example).groups:
        assert any(trial.shows(drawn, example, group, (False, True)) for drawn in draws), group.name


@pytest.mark.slow
def test_the_trial_is_no_formality_in_deep_networks():
    for model in (resnet56().eval(), vgg16().eval()):
        groups = couple(model, torch.randn(2, 3, 32, 32)).groups
        trial.scramble(model)
        assert all(trial.shows(model, torch.randn(2, 3, 32, 32), group) for group in groups)


def test_units_of_which_no_trial_shows_anything_stay():
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second((self.first(x) - 1e4).relu())

    coupling = couple(Off(), torch.zeros(2, 4))
    assert not coupling.groups
    assert coupling.refused["first.weight"] == "no trial shows whether anything depends on its units"


def assert_alive(model: nn.Module, example: Any) -> None:
    """Its answers depend on what comes in: else parity would say nothing."""
    torch.manual_seed(7)
    others = [_other(t) for t in tensors(example)]
    assert distance(answer(model, example), answer(model, _filled(example, iter(others))))[1] > 1e-3


def _other(t: Tensor) -> Tensor:
    return torch.randn_like(t) if t.is_floating_point() else (t + 1) % 11


def _filled(value: Any, others: Iterator[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return next(others)
    if isinstance(value, dict):
        return {key: _filled(part, others) for key, part in value.items()}
    return type(value)(_filled(part, others) for part in value)


def assert_smaller(shrunk: Shrunk, architecture: Architecture) -> None:
    units = {group.name: (group.before, group.after) for group in shrunk.report.groups}
    assert all(units[name][1] < units[name][0] for name in architecture.found), units
    before, after = shrunk.report.parameters
    assert after < before
    assert after == sum(p.numel() for p in shrunk.model.parameters())


def assert_rebuilds(shrunk: Shrunk, architecture: Architecture, example: Any) -> None:
    """A plain model becomes it again, to the bit."""
    plain = rebuild(architecture.model(), shrunk.recipe)
    plain.load_state_dict(copy.deepcopy(shrunk.model.state_dict()))
    assert all(map(torch.equal, answer(shrunk.model, example), answer(plain, example)))


NEW_PROCESS = """
import sys, torch
from lightning_prune.shrink import load_shrunk
from tests.coupling.architectures import ARCHITECTURES
for name in sys.argv[2:]:
    model = load_shrunk(ARCHITECTURES[name].model(), f"{sys.argv[1]}/{name}").eval()
    with torch.no_grad():
        torch.save(model(torch.load(f"{sys.argv[1]}/{name}/inputs.pt")), f"{sys.argv[1]}/{name}/outputs.pt")
"""


def test_shrunk_models_come_back_in_a_new_process_to_the_bit(tmp_path: Path):
    names = ["resnet_basic", "resnext", "unet", "lstm", "transformer_encoder", "gpt_tied", "vit", "tied"]
    expected: dict[str, Tensor] = {}
    for name in names:
        model, example = ARCHITECTURES[name].model(), ARCHITECTURES[name].example()
        pruned(model, example)
        shrunk = shrink(model, example)
        save_shrunk(shrunk, tmp_path / name)
        torch.save(example, tmp_path / name / "inputs.pt")
        expected[name] = answer(shrunk.model, example)[0]
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", NEW_PROCESS, str(tmp_path), *names], check=True, cwd=root)
    for name in names:
        assert torch.equal(torch.load(tmp_path / name / "outputs.pt"), expected[name])


def test_a_shrunk_model_is_shrunk_again():
    architecture = ARCHITECTURES["transformer_encoder"]
    model, example = architecture.model(), architecture.example()
    pruned(model, example)
    once = shrink(model, example).model
    pruned(once, example)
    twice = shrink(once, example)
    assert twice.report.parameters[1] < twice.report.parameters[0]
    assert distance(answer(once, example), answer(twice.model, example))[1] <= TOLERANCE


def test_a_shrunk_model_is_not_loaded_into_another(tmp_path: Path):
    model, example = ARCHITECTURES["vit"].model(), ARCHITECTURES["vit"].example()
    pruned(model, example)
    save_shrunk(shrink(model, example), tmp_path)
    with pytest.raises(ValueError, match="another model"):
        load_shrunk(ARCHITECTURES["gpt"].model(), tmp_path)
