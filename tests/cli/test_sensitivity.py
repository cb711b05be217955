"""`lightning-prune sensitivity`: each layer pruned alone, and a plan that `train` takes."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import MLP, digits_cnn

from .conftest import SHORT, Command

QUICK = ("--levels", "0.5,0.8,0.95", "--batches", "1")
MLP_WORDS = ("RUN.pt", "-cn", "digits_mlp", "task.net.sizes=[64,32,16,10]")


def weights(name: str = "RUN.pt", sizes: tuple[int, ...] = (64, 32, 16, 10)) -> Path:
    torch.manual_seed(1)
    torch.save(Classifier(MLP(sizes)).state_dict(), name)
    return Path(name)


def facts() -> dict[str, Any]:
    return json.loads(Path("sensitivity/sensitivity.json").read_text(encoding="utf-8"))


def zeros(file: str) -> dict[str, int]:
    state = torch.load(file, weights_only=True)
    return {name: int((value == 0).sum()) for name, value in state.items() if value.dim() > 1}


def hashes(folder: str) -> dict[str, str]:
    files = [file for file in Path(folder).rglob("*") if file.is_file() and "sensitivity" not in file.parts]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_checkpoint_with_a_recipe(command: Command) -> None:
    weights()
    said = command("sensitivity", *MLP_WORDS, "--sparsity", "0.7", *QUICK)
    assert (said.status, said.err) == (0, "")
    found = facts()
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert {name: layer["size"] for name, layer in layers.items()} == {
        "net.layers.0.weight": 2048,
        "net.layers.2.weight": 512,
        "net.layers.4.weight": 160,
    }
    assert [point["gone"] for point in layers["net.layers.2.weight"]["points"]] == [256, 410, 486]
    assert sum(layer["planned"]["gone"] for layer in layers.values()) == round(0.7 * 2720)
    assert found["reached"] == round(0.7 * 2720) / 2720
    assert said.out.splitlines()[-1] == f"lightning-prune train -cn plan --config-dir {Path('sensitivity').absolute()}"
    with Path("sensitivity/sensitivity.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 4
    assert float(rows[0]["val/loss"]) == found["dense"]["val/loss"]
    assert Path("sensitivity/sensitivity.png").read_bytes()[1:4] == b"PNG"
    table = [line.split() for line in said.out.split("\n\n")[0].splitlines()]
    assert table[0] == ["val/loss", "weights", "0", "%", "50", "%", "80", "%", "95", "%"]
    assert table[2] == [
        *("net.layers.0.weight", "2,048", f"{found['dense']['val/loss']:.4f}"),
        *(f"{point['val/loss']:.4f}" for point in layers["net.layers.0.weight"]["points"]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "pattern"), [("digits_mlp", "element"), ("digits_mlp", "channel"), ("digits_cnn", "channel")]
)
def test_train_takes_the_plan_of_a_run_to_its_sparsities(command: Command, recipe: str, pattern: str) -> None:
    words = ("hydra.run.dir=run", f"pruner/pattern={pattern}", "pruner.schedule.final_sparsity=0", *SHORT)
    assert command("train", "-cn", recipe, *words).status == 0
    before = hashes("run")
    said = command("sensitivity", "run", "--sparsity", "0.6", "--levels", "0.3,0.5,0.8,0.95", "--json")
    assert (said.status, said.err) == (0, "")
    assert hashes("run") == before
    found = json.loads(said.out)
    assert found["reached"] == pytest.approx(0.6, abs=1e-4 if pattern == "element" else 0.02)
    assert found["planned"]["val/loss"] != found["dense"]["val/loss"]

    said = command(*shlex.split(found["command"])[1:], "hydra.run.dir=planned")
    assert said.status == 0, said.err
    gone = {layer["name"]: layer["planned"]["gone"] for layer in found["layers"]}
    state = torch.load("planned/model.pt", weights_only=True)
    for name, count in gone.items():
        if pattern == "element":
            assert int((state[name] == 0).sum()) == count, name
        else:
            dead = int((state[name].flatten(1) == 0).all(1).sum())
            assert dead == count, name
    report = json.loads(Path("planned/report.json").read_text(encoding="utf-8"))
    assert report["sparsity"] == pytest.approx(found["reached"], abs=1e-9)


@pytest.mark.slow
def test_whole_units_of_one_group_go_at_a_time(command: Command) -> None:
    torch.save(Classifier(digits_cnn()).state_dict(), "cnn.pt")
    channels = ("pruner/pattern=channel", "pruner.pattern.multiple=4", "pruner/budget=macs")
    words = ("cnn.pt", "-cn", "digits_cnn", *channels, "--sparsity", "0.5")
    said = command("sensitivity", *words, *QUICK)
    assert (said.status, said.err) == (0, "")
    found = facts()
    assert found["unit"] == "units"
    assert [layer["size"] for layer in found["layers"]] == [32, 64, 64]
    assert all(layer["planned"]["gone"] % 4 == 0 for layer in found["layers"])
    plan = Path("sensitivity/plan.yaml").read_text(encoding="utf-8")
    assert "lightning_prune.budget.weights.Weights" in plan, "shares are of weights, whatever the run's were of"
    assert "MACs" not in plan


@pytest.mark.slow
def test_the_run_s_own_sparsity_and_another_criterion_are_taken(command: Command) -> None:
    words = ("hydra.run.dir=run", "pruner/criterion=taylor", "pruner.schedule.final_sparsity=0.8", *SHORT)
    assert command("train", "-cn", "digits_mlp", *words).status == 0
    said = command("sensitivity", "run", *QUICK)
    assert said.status == 1
    assert "criterion=Taylor(" in said.err
    assert "--criterion magnitude" in said.err
    assert not Path("run/sensitivity").exists()
    said = command("sensitivity", "run", "--criterion", "magnitude", *QUICK)
    assert (said.status, said.err) == (0, "")
    found = json.loads(Path("run/sensitivity/sensitivity.json").read_text(encoding="utf-8"))
    assert found["asked"] == 0.8
    there = zeros("run/model.pt")
    free = [
        (layer["name"], p) for layer in found["layers"] for p in layer["points"] if p["gone"] <= there[layer["name"]]
    ]
    assert free
    for name, point in free:
        assert point["val/loss"] == pytest.approx(found["dense"]["val/loss"]), f"{name}: its zeros go first"
    assert "lightning_prune.criterion.taylor.Taylor" in Path("run/sensitivity/plan.yaml").read_text(encoding="utf-8")


WRONG: dict[tuple[str, ...], str] = {
    ("RUN.pt",): "is a file: name the recipe of its model, -cn RECIPE",
    ("nowhere",): "is no run's folder",
    ("nowhere", "-cn", "digits_mlp"): "nowhere: there are no such weights",
    (*MLP_WORDS, "--sparsity", "1.5"): "--sparsity=1.5 must lie between 0 and 1",
    (*MLP_WORDS, "--sparsity", "0.97", "--levels", "0.5,0.9"): "past what the highest level, 0.9, comes to",
    (*MLP_WORDS, "--batches", "0"): "--batches=0 must be 1 at least",
    (*MLP_WORDS, "--criterion", "magnitud"): "--criterion=magnitud: there are activation_taylor",
    (*MLP_WORDS, "--criterion", "wanda"): "criterion=Wanda.* looks at training",
    (*MLP_WORDS, "--loss", "val/los"): "no metric val/los: there are val/loss, val/accuracy; give --loss NAME",
    (*MLP_WORDS, "pruner/pattern=n_of_m", "pruner.schedule.final_sparsity=0.5"): "pattern=NofM.* no layer a choice",
    (*MLP_WORDS, "--weights", "RUN.pt"): "with -cn, RUN names the weights",
    ("RUN.pt", "task.lr=1"): "task.lr=1 goes with a recipe: -cn RECIPE",
    ("RUN.pt", "-cn", "digits_cnn_iterative"): "rounds is set: it prunes in rounds",
    ("RUN.pt", "-cn", "digits_mlp", "pruner=learned"): "its masks are learned",
    ("RUN.pt", "-cn", "digits_cnn_dynamic"): "its gates leave out channels of each example",
    ("RUN.pt", "-cn", "digits_mlp", "pruner/schedule=hold"): "has no final_sparsity",
    ("RUN.pt", "-cn", "digits_mlp", "pruner/schedule=accuracy_budget"): "has no final_sparsity",
    (*MLP_WORDS, "pruner/pattern=channel", "pruner/budget=macs"): "a share of .*MACs: give that of .* by --sparsity",
    ("RUN.pt", "-cn", "digits_mlp", "pruning_hparams=name=a,target_sparsity=0.5"): "pruning_hparams is set",
    ("RUN.pt", "-cn", "digits_cnn"): "weights=.*RUN.pt: none of its",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_amiss_is_said_with_a_remedy_and_nothing_is_written(command: Command, words: tuple[str, ...]) -> None:
    weights()
    said = command("sensitivity", *words)
    assert (said.status, said.out) == (1, "")
    assert re.search(WRONG[words], said.err), said.err
    assert len(said.err.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["RUN.pt"]


def test_levels_that_are_none(command: Command) -> None:
    with pytest.raises(SystemExit, match="2"):
        command("sensitivity", "RUN.pt", "--levels", "0.5,1")


def test_a_loss_that_is_not_finite_is_refused(command: Command) -> None:
    state = torch.load(weights(), weights_only=True)
    state["net.layers.4.bias"][0] = float("nan")
    torch.save(state, "RUN.pt")
    said = command("sensitivity", *MLP_WORDS, *QUICK)
    assert said.status == 1
    assert "val/loss is nan before anything is pruned" in said.err
