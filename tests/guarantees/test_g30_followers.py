"""G30: a teacher or an average in the model gets its student's masks, and counts for nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_prune import LearnedMasks, Pruner, Targets
from lightning_prune.pattern import Channel
from lightning_prune.schedule import OneShot
from tests.guarantees.helpers import RAMP, Net, fit, ramp
from tests.helpers import mlp


class Momentum(Net):
    """A frozen copy of the network that trails it, as BYOL has one; or torch's own average."""

    def __init__(self, averaged: bool, norm: bool = True) -> None:
        super().__init__(norm=norm)
        self.averaged = averaged
        self.average: Any = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(0.5)) if averaged else None
        self.teacher = None if averaged else copy.deepcopy(self.net).requires_grad_(False)
        self.counts: dict[int, tuple[int, int]] = {}
        self.after_batch.append(self.trail)

    @property
    def trailing(self) -> Any:
        return self.average.module if self.averaged else self.teacher

    def trail(self, run: Any) -> None:
        if self.averaged:
            self.average.update_parameters(self.net)
        else:
            with torch.no_grad():
                for own, leader in zip(self.trailing.parameters(), self.net.parameters(), strict=True):
                    own.lerp_(leader, 0.1)
        self.counts[run.global_step] = zeros_of(self.net), zeros_of(self.trailing)

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.net.parameters())


def zeros_of(net: nn.Module) -> int:
    return sum(int((p == 0).sum()) for p in net.parameters() if p.dim() > 1)


@pytest.mark.parametrize("averaged", [False, True])
def test_G30_a_follower_has_its_leaders_zeros_at_every_boundary(averaged: bool, tmp_path: Any) -> None:
    prefix = "average.module" if averaged else "teacher"
    callback, model = ramp(targets=Targets(follow={prefix: "net"})), Momentum(averaged)
    run = fit(model, callback, max_steps=20, enable_checkpointing=True, default_root_dir=tmp_path)
    for step, counted in model.counts.items():
        due = RAMP.last_update(step)
        assert counted == ((0 if due is None else round(RAMP.sparsity(due) * 256)),) * 2
    assert zeros_of(model.trailing) == zeros_of(model.net) == 205
    assert torch.equal(model.trailing[0].weight == 0, model.net[0].weight == 0)
    assert callback.report is not None
    assert callback.report.size == 256
    assert callback.report.skipped[f"{prefix}.0.weight"] == "follows net.0.weight"
    run.save_checkpoint(tmp_path / "end.ckpt")
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]
    assert int((saved[f"{prefix}.0.weight"] == 0).sum()) == int((model.net[0].weight == 0).sum())


def test_G30_files_written_in_the_run_have_the_followers_zeros() -> None:
    model: Any = nn.ModuleDict({"student": mlp(), "teacher": mlp(seed=1)})
    pruner = Pruner(OneShot(0.5, 0), targets=Targets(follow={"teacher": "student"}))
    pruner.attach(model)
    pruner.after_step(0)
    copies = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    pruner.mask_copies(copies)
    for n in (0, 3):
        assert torch.equal(copies[f"teacher.{n}.weight"] == 0, model["student"][n].weight == 0)
    with torch.no_grad():
        model["teacher"][0].weight.fill_(1.0)
    pruner.mask_weights()
    assert torch.equal(model["teacher"][0].weight == 0, model["student"][0].weight == 0)
    state = pruner.state_dict()
    fresh: Any = nn.ModuleDict({"student": mlp(), "teacher": mlp(seed=1)})
    resumed = Pruner(OneShot(0.5, 0), targets=Targets(follow={"teacher": "student"}))
    fresh["student"].load_state_dict(model["student"].state_dict())
    resumed.load_state_dict(state)
    resumed.attach(fresh)
    assert torch.equal(fresh["teacher"][0].weight == 0, model["student"][0].weight == 0)


def test_G30_units_of_a_follower_go_with_the_leaders() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.student(x)

    model = Pair()
    rules = Targets(follow={"teacher": "student"})
    pruner = Pruner(OneShot(0.5, 0), pattern=Channel(example_inputs=torch.zeros(2, 6)), targets=rules)
    pruner.attach(model)
    pruner.after_step(0)
    for own, leader in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
        assert torch.equal(own == 0, leader == 0) or own.dim() == 1
    assert int((model.teacher[1].weight == 0).sum()) > 0  # pyright: ignore


@pytest.mark.parametrize(
    ("follow", "message"),
    [
        ({"average": "net"}, r"'average\.0\.weight' is to follow 'net\.0\.weight' of shape \(16, 12\).*no module"),
        ({"average.module.0": "net.3"}, r"'average\.module\.0\.weight' is to follow.*\(4, 16\).*\(16, 12\)"),
        ({"teachr": "net"}, "follow has 'teachr', which matches no weight; near matches: net"),
        ({"average": "nett"}, "follow has 'nett', which matches no weight; near matches: net"),
    ],
)
def test_G30_names_and_shapes_must_match(follow: dict[str, str], message: str) -> None:
    model = Momentum(True)
    with pytest.raises(ValueError, match=message):
        fit(model, ramp(targets=Targets(follow=follow)), max_steps=20)
    assert not hasattr(model.net[0], "weight_mask")


def test_G30_an_excluded_follower_stays_whole() -> None:
    model: Any = nn.ModuleDict({"student": mlp(), "teacher": mlp(seed=1)})
    rules = Targets(follow={"teacher": "student"}, exclude=(r"teacher\.0\.",))
    pruner = Pruner(OneShot(0.5, 0), targets=rules)
    pruner.attach(model)
    pruner.after_step(0)
    assert bool((model["teacher"][0].weight != 0).all())
    assert int((model["teacher"][3].weight == 0).sum()) == int((model["student"][3].weight == 0).sum()) > 0


def test_G30_learned_masks_refuse_followers() -> None:
    with pytest.raises(ValueError, match=r"Targets\(follow=\.\.\.\) does not go with learned masks"):
        LearnedMasks(targets=Targets(follow={"teacher": "student"}))


@pytest.mark.parametrize(("averaged", "prefix"), [(False, "teacher"), (True, "average.module")])
def test_G30_the_plan_suggests_it(averaged: bool, prefix: str) -> None:
    model = Momentum(averaged)
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model, trained=list(model.net.parameters()))
    lines = [line for line in pruner.report().plan().splitlines() if "Targets(follow=" in line]
    assert len(lines) == 1
    assert f"{{{prefix!r}: 'net'}}" in lines[0]


def test_G30_frozen_layers_of_one_list_are_no_followers() -> None:
    model: Any = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
    model[:2].requires_grad_(False)
    pruner = Pruner(OneShot(0.5, 0))
    pruner.attach(model)
    assert "follow=" not in pruner.report().plan()
