"""`lightning-prune strip`: checkpoints of the midst of a run as plain weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader

from lightning_prune import LearnedMasks, Pruner, PruningCallback
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.targets import Targets

from .conftest import Command

SCHEDULE = Polynomial(0.75, 2, 8, 1)


class Net(LightningModule):
    def __init__(self, convolutional: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        first = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.Flatten()) if convolutional else nn.Linear(8, 32)
        self.net = nn.Sequential(first, nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
        self.convolutional = convolutional
        self.example_input_array = torch.ones(2, 8)

    def forward(self, batch: Tensor) -> Tensor:
        return self.net(batch[:, None] if self.convolutional else batch)

    def training_step(self, batch: Tensor) -> Tensor:
        return self(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def trained(*callbacks: Callback, convolutional: bool = False) -> Net:
    """Fit for 12 steps; mid.ckpt is of step 6, in the midst of pruning."""
    torch.manual_seed(0)
    model = Net(convolutional)
    keep = ModelCheckpoint(".", "{step}", every_n_train_steps=6, save_top_k=-1)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[*callbacks, keep],
    )  # fmt: skip
    trainer.fit(model, DataLoader(torch.randn(12, 5, 8), batch_size=None))  # pyright: ignore[reportArgumentType]
    os.rename("step=6.ckpt", "mid.ckpt")
    return model


def loads(state: dict[str, Tensor], convolutional: bool = False) -> None:
    Net(convolutional).load_state_dict(state, strict=True)


PRUNERS: dict[str, Callable[[], list[Callback]]] = {
    "plain": lambda: [PruningCallback(Pruner(SCHEDULE, scope=Uniform()))],
    "reversible": lambda: [PruningCallback(Pruner(SCHEDULE, scope=Uniform(), reversible=True))],
    "averaged": lambda: [
        PruningCallback(Pruner(SCHEDULE, scope=Uniform(), reversible=True)),
        EMAWeightAveraging(decay=0.9),
    ],
    "two": lambda: [
        PruningCallback(
            Pruner(SCHEDULE, scope=Uniform(), targets=Targets(include=(rf"net\.{layer}.*weight",))), tag=f"of {layer}"
        )
        for layer in (0, 3)
    ],
}


@pytest.mark.parametrize("convolutional", [False, True])
@pytest.mark.parametrize("name", PRUNERS)
def test_the_plain_weights_are_those_of_the_file_masked(command: Command, name: str, convolutional: bool) -> None:
    trained(*PRUNERS[name](), convolutional=convolutional)
    content = torch.load("mid.ckpt", weights_only=True)
    said = command("strip", "mid.ckpt", "--json")
    assert (said.status, said.err) == (0, "")
    state = torch.load("mid.stripped.pt", weights_only=True)
    loads(state, convolutional)
    assert list(state) == list(content["state_dict"])
    facts = json.loads(said.out)
    for key, value in state.items():
        zero = content.get("current_model_state", content["state_dict"])[key] == 0
        masked = key in facts["weights"]
        assert torch.equal(value, content["state_dict"][key].masked_fill(zero & masked, 0)), key
    large = {key: int((value == 0).sum()) for key, value in state.items() if value.dim() > 1}
    assert facts["weights"] == large
    pruned = {
        key: mask["pruned"]
        for each, callback in content["callbacks"].items()
        if each.startswith("PruningCallback")
        for key, mask in callback["masks"].items()
    }
    assert facts["weights"] == pruned
    assert 0.3 < facts["sparsity"] < 0.75
    assert facts["bytes"] == [os.stat("mid.ckpt").st_size, os.stat("mid.stripped.pt").st_size]
    assert facts["bytes"][1] < facts["bytes"][0] / 2, "moments and states are gone"


def test_as_a_checkpoint_it_loads_with_its_hyper_parameters(command: Command) -> None:
    trained(PruningCallback(Pruner(SCHEDULE, scope=Uniform())), convolutional=True)
    said = command("strip", "mid.ckpt", "--checkpoint", "--out", "folder/plain.ckpt")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("folder/plain.ckpt: 2 masks of PruningCallback")
    content = torch.load("folder/plain.ckpt", weights_only=True)
    assert set(content) <= {"epoch", "global_step", "pytorch-lightning_version", "hparams_name", "hyper_parameters",
                            "state_dict"}  # fmt: skip
    assert content["global_step"] == 6
    model = Net.load_from_checkpoint("folder/plain.ckpt", weights_only=True)
    assert model.convolutional
    assert torch.equal(model.state_dict()["net.3.weight"], content["state_dict"]["net.3.weight"])


def test_masks_of_torch_are_folded(command: Command) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 5))
    prune.l1_unstructured(net[0], "weight", 0.5)
    prune.random_structured(net[1], "weight", 2, dim=0)
    prune.l1_unstructured(net[1], "bias", 1)
    torch.save({"state_dict": net.state_dict(), "optimizer_states": [1]}, "torch.ckpt")
    with torch.no_grad():
        wanted: dict[str, Any] = {
            "0.weight": net[0].weight,
            "1.weight": net[1].weight,
            "1.bias": net[1].bias,
            "0.bias": net[0].bias,
        }
    assert command("strip", "torch.ckpt").status == 0
    state = torch.load("torch.stripped.pt", weights_only=True)
    assert set(state) == set(wanted)
    assert all(torch.equal(state[name], value.detach()) for name, value in wanted.items())
    nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 5)).load_state_dict(state)


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[], None]:
    def write() -> None:
        trained(PruningCallback(Pruner(SCHEDULE, scope=Uniform())))
        content = torch.load("mid.ckpt", weights_only=True)
        change(content)
        torch.save(content, "mid.ckpt")

    return write


def state_of(content: dict[str, Any]) -> dict[str, Any]:
    return next(state for key, state in content["callbacks"].items() if key.startswith("PruningCallback"))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no masks": (lambda: torch.save(nn.Linear(2, 2).state_dict(), "mid.ckpt"), "there are no masks in it"),
    "no state_dict": (lambda: torch.save([torch.ones(2)], "mid.ckpt"), "it holds no state_dict"),
    "learned": (lambda: trained(PruningCallback(LearnedMasks())), "still learns its masks"),
    "stripped": (changed(lambda c: state_of(c).update(stripped=True)), "is stripped already"),
    "other weights": (
        changed(lambda c: c["state_dict"]["net.3.weight"].fill_(1)),
        "was saved beside other weights: 'net.3.weight' has 0 zeros",
    ),
    "fewer weights": (
        changed(lambda c: c["state_dict"].pop("net.0.weight")),
        "has a mask of net.0.weight, and the file no such weight",
    ),
    "another shape": (
        changed(lambda c: c["state_dict"].update({"net.0.weight": torch.zeros(2, 2)})),
        "for net.0.weight, which is [2, 2]",
    ),
    "damaged": (changed(lambda c: state_of(c)["masks"]["net.0.weight"].pop("checksum")), "checksum"),
    "not tensors": (
        changed(lambda c: c["state_dict"].update({"net.0._extra_state": 3})),
        "net.0._extra_state is a int: a plain state_dict has tensors alone",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stripped_is_refused_and_nothing_written(command: Command, name: str) -> None:
    make, message = REFUSED[name]
    make()
    before = sorted(Path().iterdir())
    said = command("strip", "mid.ckpt")
    assert (said.status, said.out) == (1, "")
    assert message in said.err, said.err
    assert said.err.startswith("lightning-prune: mid.ckpt: ")
    assert said.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_files_that_are_there_are_not_replaced_unless_told(command: Command) -> None:
    trained(PruningCallback(Pruner(SCHEDULE, scope=Uniform())))
    Path("mid.stripped.pt").write_text("mine", encoding="utf-8")
    assert "mid.stripped.pt is there already" in command("strip", "mid.ckpt").err
    assert Path("mid.stripped.pt").read_text(encoding="utf-8") == "mine"
    assert command("strip", "mid.ckpt", "--force").status == 0
    loads(torch.load("mid.stripped.pt", weights_only=True))
    assert "is a folder: name one of its files" in command("strip", ".", "--out", "x.pt").err
    torch.save({"state_dict": {"a_orig": torch.ones(2), "a_mask": torch.ones(2)}}, "torch.ckpt")
    assert "--checkpoint needs a checkpoint of Lightning's" in command("strip", "torch.ckpt", "--checkpoint").err


def test_a_file_may_be_replaced_by_itself_and_its_size_before_is_told(command: Command) -> None:
    trained(PruningCallback(Pruner(SCHEDULE, scope=Uniform())))
    before = Path("mid.ckpt").stat().st_size
    said = command("strip", "mid.ckpt", "--out", "mid.ckpt", "--force", "--json")
    assert json.loads(said.out)["bytes"] == [before, Path("mid.ckpt").stat().st_size]
    assert Path("mid.ckpt").stat().st_size < before


def test_a_folder_is_not_replaced(command: Command) -> None:
    trained(PruningCallback(Pruner(SCHEDULE, scope=Uniform())))
    Path("there").mkdir()
    before = set(Path().iterdir())
    said = command("strip", "mid.ckpt", "--out", "there", "--force")
    assert (said.status, said.err) == (1, "lightning-prune: --out=there is a folder: name a file in it\n")
    assert set(Path().iterdir()) == before
