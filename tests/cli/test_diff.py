"""`lightning-prune diff`: two files or runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from .conftest import Command


def write(name: str, **tensors: Any) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def test_counts_worked_out_by_hand(command: Command) -> None:
    write("a.pt", w=[[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], v=[[0.0, 4.0]], b=[1.0, 2.0])
    write("b.pt", w=[[1.0, 5.0, 0.0], [0.0, 3.5, 0.0]], v=[[0.0, 4.0]], b=[1.0, 2.0])
    said = command("diff", "a.pt", "b.pt", "--json")
    assert (said.status, said.err) == (0, "")
    facts = json.loads(said.out)
    w, v, b = facts["tensors"]
    assert w == {
        "name": "w",
        "size": 6,
        "zeros": [3, 3],
        "sparsity": [0.5, 0.5],
        "jaccard": 2 / 4,
        "gone": 1,
        "returned": 1,
        "moved": pytest.approx(0.5 / 10**0.5),
    }
    assert (v["jaccard"], v["moved"], v["zeros"]) == (1.0, 0.0, [1, 1])
    assert (b["name"], b["jaccard"]) == ("b", 1.0)
    assert (facts["all"]["size"], facts["all"]["zeros"], facts["all"]["jaccard"]) == (8, [4, 4], 3 / 5)
    assert facts["all"]["moved"] == pytest.approx(0.5 / 26**0.5)
    text = command("diff", "a.pt", "b.pt").out
    assert [line.split() for line in text.splitlines() if line.startswith("w ")] == [
        ["w", "50.00", "%", "50.00", "%", "0.5000", "1", "1", "0.1581"]
    ]
    assert "1 of fewer dimensions" in text


@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 3, 2)])
def test_a_file_and_itself_and_the_other_way_round(command: Command, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    one, other = (torch.randn(shape) * (torch.rand(shape) > share) for share in (0.3, 0.6))
    write("a.pt", w=one)
    write("b.pt", w=other)
    (same,) = json.loads(command("diff", "a.pt", "a.pt", "--json").out)["tensors"]
    assert (same["jaccard"], same["gone"], same["returned"], same["moved"]) == (1.0, 0, 0, 0.0)
    (there,) = json.loads(command("diff", "a.pt", "b.pt", "--json").out)["tensors"]
    (back,) = json.loads(command("diff", "b.pt", "a.pt", "--json").out)["tensors"]
    assert (there["gone"], there["returned"]) == (back["returned"], back["gone"])
    assert there["jaccard"] == back["jaccard"]
    union = ((one != 0) | (other != 0)).sum()
    assert there["jaccard"] == pytest.approx(float(((one != 0) & (other != 0)).sum() / union))
    kept = (one != 0) & (other != 0)
    assert there["moved"] == pytest.approx(float((other - one)[kept].norm() / one[kept].norm()), rel=1e-5)


def test_layers_that_are_empty_or_all_zero_have_numbers(command: Command) -> None:
    write("a.pt", w=torch.zeros(2, 3), e=torch.zeros(0, 3))
    write("b.pt", w=torch.zeros(2, 3), e=torch.zeros(0, 3))
    w, e = json.loads(command("diff", "a.pt", "b.pt", "--json").out)["tensors"]
    assert (w["jaccard"], w["moved"], w["sparsity"]) == (1.0, 0.0, [1.0, 1.0])
    assert e["sparsity"] == [0.0, 0.0]


def test_runs_show_what_they_have_recorded(command: Command) -> None:
    net = nn.Linear(3, 2)
    for run, accuracy in (("one", 0.5), ("two", 0.75)):
        Path(run, "checkpoints").mkdir(parents=True)
        torch.save(net.state_dict(), f"{run}/model.pt")
        torch.save({"state_dict": net.state_dict(), "global_step": 3}, f"{run}/checkpoints/last.ckpt")
        Path(run, "report.json").write_text(json.dumps({"test": {"test/accuracy": accuracy}}), encoding="utf-8")
    said = command("diff", "one", "two")
    assert (said.status, said.err) == (0, "")
    assert "test/accuracy  0.5000  0.7500  +0.2500" in said.out
    assert json.loads(command("diff", "one", "two/model.pt", "--json").out)["metrics"] == [
        {"test/accuracy": 0.5},
        {"test/accuracy": 0.75},
    ]
    assert json.loads(command("diff", "one", "two/checkpoints/last.ckpt", "--json").out)["metrics"][1] == {}


def test_what_cannot_be_compared_is_named(command: Command) -> None:
    write("a.pt", w=torch.ones(2, 2), x=torch.ones(1), s=torch.ones(3, 1))
    write("b.pt", w=torch.ones(2, 2), y=torch.ones(1), s=torch.ones(1, 3))
    write("c.pt", z=torch.ones(1))
    said = command("diff", "a.pt", "b.pt")
    for line in ("only in the first: x", "only in the second: y", "of another shape: s"):
        assert line in said.out
    said = command("diff", "a.pt", "c.pt")
    assert (said.status, said.out) == (1, "")
    assert "have no tensor of the same name and shape" in said.err
    assert said.err.count("\n") == 1
    assert "nowhere.pt: there is no such file" in command("diff", "a.pt", "nowhere.pt").err
    torch.save({"epoch": 3}, "empty.pt")
    assert "empty.pt: there is no tensor in it" in command("diff", "a.pt", "empty.pt").err


def test_complex_numbers_are_compared_as_a_whole(command: Command) -> None:
    zero, one = torch.zeros(2, 2), torch.ones(2, 2)
    write("a.pt", c=torch.complex(one, zero), j=torch.complex(zero, one))
    write("b.pt", c=torch.complex(one, 5 * one), j=torch.complex(zero, one))
    said = command("diff", "a.pt", "b.pt", "--json")
    assert said.err == ""
    c, j = json.loads(said.out)["tensors"]
    assert (c["moved"], j["moved"]) == (5.0, 0.0)
    assert c["sparsity"] == j["sparsity"] == [0.0, 0.0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_json_has_null_where_a_number_is_not_finite(command: Command, value: float) -> None:
    write("a.pt", w=torch.full((2, 2), value))
    write("b.pt", w=torch.ones(2, 2))

    def no_constant(name: str) -> object:
        raise AssertionError(name)

    found = json.loads(command("diff", "a.pt", "b.pt", "--json").out, parse_constant=no_constant)
    assert found["tensors"][0]["moved"] is None
