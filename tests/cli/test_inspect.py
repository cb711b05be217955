"""`lightning-prune inspect`: the sparsity of any checkpoint, and no code run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.golden.make_states import FOLDER, KINDS, STEPS, net

from .conftest import SHORT, Command


def sparse() -> dict[str, torch.Tensor]:
    weight = torch.ones(4, 5)
    weight[0] = 0
    return {"layer.weight": weight, "layer.bias": torch.zeros(4)}


LAYOUTS: dict[str, Any] = {
    "plain": sparse(),
    "state_dict": {"state_dict": sparse(), "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(9, 9)}}}},
    "model": {"model": sparse(), "optimizer_state": [torch.ones(9, 9)]},
    "wrapped twice": {"module": {"state_dict": sparse()}},
    "nested": {"layer": {"weight": sparse()["layer.weight"], "bias": torch.zeros(4)}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_finds_the_weights(command: Command, layout: str) -> None:
    torch.save(LAYOUTS[layout], "file.pt")
    said = command("inspect", "file.pt", "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert [tensor["name"] for tensor in found["tensors"]] == ["layer.weight", "layer.bias"]
    assert (found["zeros"], found["values"], found["sparsity"], found["all"]["zeros"]) == (5, 20, 0.25, 9)


def test_prints_a_table(command: Command) -> None:
    torch.save(sparse(), "file.pth")
    out = command("inspect", "file.pth").out.splitlines()
    assert out[2].split() == ["layer.weight", "4x5", "20", "5", "25.00", "%"]
    assert out[-2].split() == ["1", "of", "fewer", "dimensions", "4", "4", "100.00", "%"]
    assert out[-1].split() == ["all", "24", "9", "37.50", "%"]


def test_reads_safetensors(command: Command) -> None:
    save_file(sparse(), "file.safetensors")
    assert "25.00 %" in command("inspect", "file.safetensors").out


def test_counts_every_dtype(command: Command) -> None:
    tensors = {
        str(dtype): torch.tensor([[1.0, 0.0]]).to(dtype)
        for dtype in (torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64)
    }
    torch.save(tensors | {"sparse": torch.tensor([[1.0, 0.0]]).to_sparse()}, "file.pt")
    found = json.loads(command("inspect", "file.pt", "--json").out)
    assert [tensor["zeros"] for tensor in found["tensors"]] == [1] * 7


def test_shows_the_state_of_pruning_in_a_checkpoint(command: Command) -> None:
    run = ("train", "-cn", "digits_mlp", *SHORT, "callbacks=checkpoint", "hydra.run.dir=run")
    assert command(*run, "pruner.schedule.end_step=1.0").status == 0
    file = "run/checkpoints/last.ckpt"
    found = json.loads(command("inspect", file, "--json").out)
    (state,) = found["pruning"]
    # a point to go on from lies where an epoch begins; of which one, its share of the run's time decides
    assert state["last_update"] in (12, 24)
    assert (state["end_step"], state["masks"], state["masked"]) == (36, 3, found["zeros"])
    said = command("inspect", file)
    assert f"saved at step {state['last_update']}" in said.out
    assert f"3 masks with {found['zeros']:,} entries pruned" in said.out


STATE = {"version": 1, "total_steps": 9, "begin_step": 1, "end_step": 8, "last_update": 4, "sparsity": 0.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"last_update": "4\x1b[2J"}, "last_update is '4\\x1b[2J'; it must be an int"),
        ({"end_step": None}, "end_step is None"),
        ({"sparsity": float("nan")}, "sparsity is nan"),
        ({"masks": {"w": torch.ones(2)}}, "masks['w'] is a tensor of torch.float32"),
        ({"masks": 3}, "masks is 3"),
        ({"version": 2, "masks": {"w": {"pruned": -1}}}, "masks['w'].pruned is -1"),
        ({"version": 2, "masks": {"w": {"shape": [2]}}}, "masks['w'] has no 'pruned'"),
    ],
)
def test_a_damaged_state_of_pruning_is_named_and_the_rest_is_shown(
    command: Command, change: dict[str, Any], said: str
) -> None:
    states = {"PruningCallback": STATE | change, "PruningCallback\x1b[1m": STATE}
    torch.save({"state_dict": sparse(), "callbacks": states}, "file.ckpt")
    found = command("inspect", "file.ckpt")
    assert found.status == 1
    assert found.err.count("\n") == 1
    assert f"file.ckpt: PruningCallback: {said}" in found.err or said in found.err
    assert "25.00 %" in found.out
    assert "PruningCallback\\x1b[1m: last updated at step 4, scheduled from step 1 to 8" in found.out
    assert "\x1b" not in found.out + found.err


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_version_1_is_shown_as_one_of_version_2(command: Command, kind: str) -> None:
    saved = torch.load(FOLDER / f"{kind}.pt", weights_only=True)
    model, pruner = net(), KINDS[kind]()
    model.load_state_dict(saved["model"])
    pruner.load_state_dict(saved["pruner"])
    pruner.attach(model, STEPS)
    shown: list[str] = []
    for state in (saved["pruner"], pruner.state_dict()):
        torch.save({"state_dict": model.state_dict(), "callbacks": {"PruningCallback": state}}, "file.ckpt")
        shown.append(command("inspect", "file.ckpt").out)
    pruned = sum(int((~mask).sum()) for mask in saved["pruner"]["masks"].values())
    assert f"{len(pruner.masks)} masks with {pruned} entries pruned" in shown[0]
    assert shown[0] == shown[1]


def test_names_in_a_file_cannot_move_the_cursor(command: Command) -> None:
    torch.save({"a\x1b[2Jb\r": torch.ones(2, 2), "global_step": 1, "epoch": "\x1b]0;title\x07"}, "file.pt")
    said = command("inspect", "file.pt")
    assert said.status == 0
    assert "a\\x1b[2Jb\\r" in said.out
    assert not {"\x1b", "\r", "\x07"} & set(said.out)


class Anything(nn.Module):
    """A class that only its own code can load."""


def test_refuses_what_only_running_code_could_load(command: Command) -> None:
    torch.save({"state_dict": sparse(), "object": Anything()}, "file.ckpt")
    said = command("inspect", "file.ckpt")
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert "Anything" in said.err
    assert (
        "inspect it with --trust, or save the model's state_dict() alone: torch.save(torch.load('file.ckpt'" in said.err
    )
    assert "25.00 %" in command("inspect", "file.ckpt", "--trust").out
    exec(said.err.partition("alone: ")[2], {"torch": torch})  # the way out, as it is printed
    assert "25.00 %" in command("inspect", "weights.pt").out


def test_several_files_and_a_broken_one_among_them(command: Command) -> None:
    torch.save(sparse(), "a.pt")
    Path("b.txt").write_text("no checkpoint\n", encoding="utf-8")
    torch.save({"w": torch.zeros(2, 2)}, "c.pt")
    said = command("inspect", "a.pt", "b.txt", "c.pt")
    assert said.status == 1
    assert said.err.startswith("lightning-prune: b.txt is no checkpoint of torch, or damaged: ")
    assert said.err.count("\n") == 1
    assert said.out.index("a.pt\n") < said.out.index("25.00 %") < said.out.index("c.pt\n") < said.out.rindex("100.00 %")
    found = json.loads(command("inspect", "a.pt", "b.txt", "c.pt", "--json").out)
    assert [(one["file"], one["sparsity"]) for one in found] == [("a.pt", 0.25), ("c.pt", 1.0)]


def test_a_runs_folder_stands_for_its_weights(command: Command) -> None:
    command("train", "-cn", "digits_mlp", *SHORT, "hydra.run.dir=run")
    said = command("inspect", "run")
    assert (said.status, said.out.partition("\n")[0]) == (0, "run/model.pt")
    Path("run/model.pt").unlink()
    Path("run/checkpoints").mkdir(exist_ok=True)
    for file in Path("run/checkpoints").iterdir():
        file.unlink()
    torch.save({"state_dict": sparse()}, "run/checkpoints/last.ckpt")
    assert command("inspect", "run").out.startswith("run/checkpoints/last.ckpt\n")
    Path("empty").mkdir()
    assert command("inspect", "empty").err.startswith("lightning-prune: empty is a folder without model.pt, ")


@pytest.mark.parametrize(
    "content", [b"", b"name,value\n1,2\n", pickle.dumps({"a": 1})[:-3], b"PK\x03\x04 cut off", b"hello\n", b"0", b"."]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_refuses_what_is_no_checkpoint(command: Command, content: bytes, suffix: str) -> None:
    file = Path("file").with_suffix(suffix)
    file.write_bytes(content)
    said = command("inspect", str(file))
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert said.err.startswith(f"lightning-prune: {file} ")


def test_says_that_there_are_no_tensors(command: Command) -> None:
    torch.save({"epoch": 3}, "file.pt")
    assert command("inspect", "file.pt").err == "lightning-prune: file.pt: there is no tensor in it\n"


@pytest.mark.parametrize("names", [("net", "disc"), ("generator", "discriminator"), ("weights", "critic")])
def test_of_several_networks_all_are_counted(command: Command, names: tuple[str, str]) -> None:
    torch.save({name: {"w": torch.full((4, 4), float(i))} for i, name in enumerate(names)}, "gan.pt")
    found = json.loads(command("inspect", "gan.pt", "--json").out)
    assert [tensor["name"] for tensor in found["tensors"]] == [f"{name}.w" for name in names]
    assert (found["values"], found["zeros"]) == (32, 16)


def test_an_average_or_an_optimizer_beside_a_model_is_not_counted(command: Command) -> None:
    w = torch.ones(4, 4)
    torch.save({"model": {"w": w}, "model_ema": {"w": w}, "optimizer": {"state": {0: {"exp_avg": w}}}}, "run.pt")
    assert json.loads(command("inspect", "run.pt", "--json").out)["values"] == 16


def test_tied_tensors_are_counted_once_and_named(command: Command) -> None:
    w = torch.ones(4, 5)
    w[:2] = 0
    torch.save({"emb.weight": w, "part.weight": w[2:], "head.weight": w}, "tied.pt")
    found = json.loads(command("inspect", "tied.pt", "--json").out)
    assert (found["values"], found["zeros"]) == (30, 10), "a part of another is a tensor of its own"
    assert [tensor["tied_to"] for tensor in found["tensors"]] == ["", "", "emb.weight"]
    assert "head.weight (tied to emb.weight)" in command("inspect", "tied.pt").out
