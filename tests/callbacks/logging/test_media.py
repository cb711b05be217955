"""Which pictures are drawn, what is on them, and what happens where wandb or matplotlib is missing."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from torch import nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks.wandb_media import Media, histograms
from lightning_prune.criterion import Random
from lightning_prune.pattern import Block
from lightning_prune.schedule import OneShot, Polynomial
from lightning_prune.targets import Targets
from tests.callbacks.logging.conftest import Classifier, MakeTrainer

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[3]


class Collector(WandbLogger):
    """A WandbLogger that needs no wandb and keeps what it is given."""

    def __init__(self) -> None:
        self.steps: list[int | None] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.steps.append(step)


def drawn(pictures: int, schedule: Any, steps: int = 200) -> list[int | None]:
    """Return the steps at which a run of updates draws a picture."""
    pytest.importorskip("wandb")
    pruner = Pruner(schedule)
    pruner.attach(nn.Linear(30, 30))
    logger = Collector()
    media = Media([logger], "pruning/", pictures)
    for step in range(steps + 1):
        if pruner.after_step(step):
            media.update(pruner, pruner.report(), step)
    return logger.steps


@pytest.mark.parametrize("pictures", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "schedule",
    [Polynomial(0.9, 10, 110, 1), Polynomial(0.9, 10, 110, 1, initial_sparsity=0.3), Polynomial(0.0, 10, 110, 1)],
    ids=["cubic", "from 30 %", "dense"],
)
def test_no_more_pictures_than_asked_for(pictures: int, schedule: Polynomial) -> None:
    """However many updates there are; and the last one is of the final sparsity."""
    steps = drawn(pictures, schedule)
    assert len(steps) <= pictures
    if pictures and schedule.final_sparsity:
        assert steps[-1] == 110
    if pictures == 5 and schedule.initial_sparsity == 0 and schedule.final_sparsity:
        assert len(steps) == 5
        assert steps[0] == 10


def test_one_update_makes_one_picture() -> None:
    assert drawn(10, OneShot(0.5, 3)) == [3]


def pruned(pruner: Pruner, model: nn.Module) -> Pruner:
    pruner.attach(model)
    pruner.after_step(0)
    return pruner


def lines(figure: Any) -> list[int]:
    """Return how many lines every axis has."""
    return [len(axis.lines) for axis in figure.axes if axis.axison]


def test_the_threshold_is_marked_where_it_is_a_magnitude() -> None:
    """At the threshold's place; every live weight is to the right of it."""
    from matplotlib.patches import StepPatch

    torch.manual_seed(0)
    pruner = pruned(Pruner(OneShot(0.4, 0)), nn.Sequential(nn.Linear(9, 30), nn.Linear(30, 4)))
    figure = histograms(pruner)
    assert lines(figure) == [1, 1]
    for axis, weight in zip(figure.axes, pruner.masks.values(), strict=True):
        assert list(axis.lines[0].get_xdata()) == [float(weight.threshold)] * 2
        (bars,) = axis.findobj(StepPatch)
        assert bars.get_data().values.sum() == weight.mask.sum()
        assert bars.get_data().edges[0] >= float(weight.threshold)


@pytest.mark.parametrize("ideas", [{"criterion": Random()}, {"pattern": Block(2, 2)}], ids=["random", "block"])
def test_it_is_not_marked_where_it_is_something_else(ideas: dict[str, Any]) -> None:
    """A random score, or the mean of a block, is no point on the axis of |w|."""
    figure = histograms(pruned(Pruner(OneShot(0.5, 0), **ideas), nn.Linear(8, 8)))
    assert lines(figure) == [0]
    assert "threshold" not in figure.get_supxlabel()


def test_many_weights() -> None:
    """A large model: the largest weights are shown, and how many were left out is said."""
    model = nn.ModuleList([nn.Linear(4, 4) for _ in range(20)] + [nn.Linear(9, 9) for _ in range(20)])
    figure = histograms(pruned(Pruner(OneShot(0.5, 0)), model))
    titles = [axis.get_title() for axis in figure.axes if axis.axison]
    assert len(titles) == 24
    assert {f"{i}.weight" for i in range(20, 40)} <= {title.split("\n")[0] for title in titles}
    assert "the 24 largest of 40 weights" in figure.get_supxlabel()


def test_odd_weights() -> None:
    """Nothing left, everything the same, not finite: a picture all the same."""
    layers = [nn.Linear(4, 4) for _ in range(3)]
    model = nn.ModuleList(layers)
    with torch.no_grad():
        layers[1].weight.fill_(0.5)
    pruner = Pruner(OneShot(0.0, 0), targets=Targets(sparsity={"0": 1.0}))
    pruner.attach(model)
    pruner.after_step(0)
    with torch.no_grad():
        layers[2].weight[0, 0] = torch.nan
    figure = histograms(pruner)
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [["nothing is left"], [], []]


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning that says what to install, and no pictures."""
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    pruner = pruned(Pruner(OneShot(0.5, 0)), nn.Linear(8, 8))
    logger = Collector()
    media = Media([logger], "pruning/")
    with pytest.warns(UserWarning, match="matplotlib is not installed, .*pip install 'lightning-prune"):
        media.update(pruner, pruner.report(), 0)
    media.update(pruner, pruner.report(), 1)
    assert logger.steps == []


def test_without_a_wandb_logger_nothing_is_drawn(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Other loggers get numbers alone."""
    callback = PruningCallback(OneShot(0.5, 3))
    make_trainer([callback], logger=CSVLogger(tmp_path)).fit(Classifier())
    assert callback._media is None


WITHOUT_WANDB = """
import sys
sys.modules["wandb"] = None  # import wandb fails
from pytorch_lightning.loggers import CSVLogger
from lightning_prune import PruningCallback
from tests.callbacks.logging.conftest import Classifier, Trainer
callback = PruningCallback(0.5)
Trainer(
    accelerator="cpu", max_epochs=1, logger=CSVLogger(sys.argv[1]), callbacks=[callback], enable_checkpointing=False
).fit(Classifier())
assert callback.report.sparsity == 0.5, callback.report
assert "matplotlib.backends.backend_agg" not in sys.modules
"""


@pytest.mark.slow
def test_without_wandb(tmp_path: Path) -> None:
    """In a new process: wandb is not asked for before there is a WandbLogger."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_WANDB, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
