"""What loggers are told of the pruner, from plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning.loggers import CSVLogger

from lightning_prune import Pruner, PruningCallback
from lightning_prune.learned import LearnedMasks
from lightning_prune.mask_regularizer import Binarizer
from lightning_prune.pattern import Element, NofM
from lightning_prune.schedule import Geometric, OneShot
from lightning_prune.targets import Targets
from tests.callbacks.logging.conftest import Classifier, MakeTrainer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Mine(Classifier):
    def __init__(self, width: int = 3, pruning: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()


def told(make_trainer: MakeTrainer, folder: Path, model: Classifier, *callbacks: PruningCallback) -> dict[str, Any]:
    make_trainer(callbacks, logger=CSVLogger(folder, name="", version="")).fit(model)
    return yaml.safe_load((folder / "hparams.yaml").read_text(encoding="utf-8"))


def test_the_pruner_is_there_with_its_schedule_in_steps(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    pruner = Pruner(Geometric(0.5, 0.1, 0.5, 0.1), pattern=NofM(2, 4))
    found = told(make_trainer, tmp_path, Classifier(), PruningCallback(pruner))["pruning"]
    assert (found["kind"], found["pattern"], found["reversible"]) == ("Pruner", "NofM(n=2, m=4)", False)
    assert (found["final_sparsity"], found["begin_step"], found["end_step"]) == (0.5, 4, 20)
    assert "begin_step=4, end_step=20" in found["schedule"]


def test_learned_masks_too(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    masks = LearnedMasks(pattern=Element(), mask_regularizer=Binarizer(0.5), lr=0.1)
    found = told(make_trainer, tmp_path, Classifier(), PruningCallback(masks))["pruning"]
    assert (found["kind"], found["lr"]) == ("LearnedMasks", 0.1)
    assert found["mask_regularizer"].startswith("Binarizer(tau=0.5")


def test_two_callbacks_by_their_tags(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """G27"""
    first = PruningCallback(Pruner(OneShot(0.5, 3), targets=Targets(include=("net.0",))), tag="in")
    second = PruningCallback(Pruner(OneShot(0.8, 5), targets=Targets(include=("net.2",))), tag="out")
    found = told(make_trainer, tmp_path, Classifier(), first, second)["pruning"]
    assert {tag: found[tag]["final_sparsity"] for tag in found} == {"in": 0.5, "out": 0.8}


@pytest.mark.parametrize("mine", [None, "a word of the user's", {"by": "hand"}], ids=str)
def test_the_users_own_stays(make_trainer: MakeTrainer, tmp_path: Path, mine: Any) -> None:
    found = told(make_trainer, tmp_path, Mine(7, mine), PruningCallback(OneShot(0.5, 3)))
    assert found["width"] == 7
    assert found["pruning"] == mine
