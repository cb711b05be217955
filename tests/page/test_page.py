"""The page as text: what it says of finished and other runs, and what it never does."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_prune.page import read_metrics, report_page
from lightning_prune.page.figure import canvas, drawing
from lightning_prune.page.run import read_run
from lightning_prune.page.story import sentence
from tests.page.runs import write


def text_of(page: Path) -> str:
    """Return what a reader sees, as one line."""
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_a_finished_run_is_told_in_one_sentence_with_its_figures(tmp_path: Path) -> None:
    page = report_page(write(tmp_path / "run"))
    assert page == tmp_path / "run" / "report.html"
    text = text_of(page)
    assert "made_up lost 180 of its 340 prunable weights, 52.94 % where 50 % was asked for" in text
    assert "between steps 0 and 100 of 110; test accuracy is 93.75 %" in text
    assert "Not shown" not in text
    for part in ("net.0.weight", "10 of 20 rows", "1.97 ×", "Left whole, bias: net.0.bias, net.2.bias"):
        assert part in text
    assert f"lightning-prune train --config-dir {tmp_path}/run -cn config" in text


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a"), write(tmp_path / "b", test={"test/accuracy": 0.5})
    other.joinpath("config.yaml").write_text(
        one.joinpath("config.yaml").read_text(encoding="utf-8").replace("0.5", "0.75"), encoding="utf-8"
    )
    page = report_page(one, other)
    assert page == tmp_path / "report.html"
    text = text_of(page)
    assert "2 runs side by side" in text
    assert "pruner.final_sparsity 0.5 0.75" in text
    assert "93.75 %" in text
    assert "50.00 %" in text


def test_of_many_runs_none_is_shown_in_full(tmp_path: Path) -> None:
    page = report_page(*(write(tmp_path / str(i)) for i in range(5)), out=tmp_path / "there" / "page.html")
    assert page == tmp_path / "there" / "page.html"
    text = text_of(page)
    assert "Of more than 4 runs no more is shown here" in text
    assert "Weights and masks" not in text


def damaged(name: str, text: str) -> Callable[[Path], object]:
    return lambda run: run.joinpath(name).write_text(text, encoding="utf-8")


def without(*names: str) -> Callable[[Path], object]:
    return lambda run: [run.joinpath(name).unlink() for name in names]


MISSING: dict[str, tuple[Callable[[Path], object], str]] = {
    "no report": (without("report.json"), "Not shown: report.json: the run has not come to an end, or failed"),
    "no metrics": (without("metrics.csv"), "Not shown: metrics.csv: the run had no CSV logger"),
    "no details": (without("details.json"), "Not shown: details.json: the run is of an earlier version"),
    "nothing but a config": (without("report.json", "metrics.csv", "details.json"), "Not shown: report.json"),
    "half a report": (damaged("report.json", '{"sparsity":'), "Not shown: report.json: it cannot be read"),
    "a report of another kind": (damaged("report.json", '{"sparsity": "x"}'), "Not shown: report.json: it cannot be"),
    "half a row": (damaged("metrics.csv", "step,a\nx,1\n"), "Not shown: metrics.csv: it cannot be read"),
    "details of a later version": (damaged("details.json", '{"version": 99}'), "details.json has version 99"),
    "damaged details": (damaged("details.json", '{"version": 1, "weights": {"a": 3}}'), "Not shown: details.json"),
    "a config that is none": (damaged("config.yaml", "a: [\n"), "Not shown: config.yaml: it cannot be read"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_said_and_the_rest_is_there(tmp_path: Path, name: str) -> None:
    run = write(tmp_path / "run")
    harm, said = MISSING[name]
    harm(run)
    text = text_of(report_page(run))
    assert said in text
    assert "The command that repeats it" in text


@pytest.mark.parametrize("interrupted", [True, False])
def test_an_interrupted_run_says_so(tmp_path: Path, interrupted: bool) -> None:
    text = text_of(report_page(write(tmp_path / "run", interrupted=interrupted, test={})))
    assert ("It was interrupted after 110 steps" in text) == interrupted
    assert "val accuracy is 95.00 %" in text  # of validation, where there was no test


def test_nothing_that_a_run_has_brought_becomes_part_of_the_page(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    layers = {"net.0.weight": f"{evil}.weight", "net.2.weight": "$a_b$ & <b>.weight"}
    run = write(
        tmp_path / "run", layers=layers, skipped={evil: evil}, versions={evil: evil}, test={f"{evil}/accuracy": 0.5}
    )
    run.joinpath("config.yaml").write_text(f"recipe: '{evil}'\nseed: 0\n", encoding="utf-8")
    text = report_page(run).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("<script>") == 1
    assert text.count("</script>") == 1 + text.count('<script type="application/json">')


@pytest.mark.parametrize("number", [1, 2])
def test_the_page_is_whole_by_itself_and_small(tmp_path: Path, number: int) -> None:
    text = report_page(*(write(tmp_path / str(i)) for i in range(number))).read_text(encoding="utf-8")
    links = re.findall(r"""(?:\ssrc=|href=|url\()["']?([^"')\s>]+)""", text)
    assert all(link.startswith(("#", "data:")) for link in links), links
    assert len(text) < 200_000 * number
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    assert report_page(run).read_bytes() == report_page(run).read_bytes()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.yaml in it"):
        report_page(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        report_page(tmp_path / "none")
    with pytest.raises(ValueError, match="needs the folder of a run"):
        report_page()


def test_rounds_and_budgets_have_sentences_of_their_own(tmp_path: Path) -> None:
    rounds = [
        {"units": {"a": [8, 8]}, "parameters": 100, "macs": 1000, "metrics": {"val/accuracy": 0.9}},
        {"units": {"a": [8, 4]}, "parameters": 40, "macs": 500, "metrics": {"val/accuracy": 0.8}},
    ]
    in_rounds = write(
        tmp_path / "r",
        rounds=rounds,
        weights=None,
        parameters=[100, 40],
        macs=[1000, 500],
        stopped="stopped after round 1",
    )
    said = "".join(text for text, _ in sentence(read_run(in_rounds)))
    assert said.startswith("made_up was pruned in 1 round and keeps 4 of 8 units; it has 2.50 times fewer parameters")
    assert "stopped after round 1" in text_of(report_page(in_rounds))
    spent = {"unit": "MACs", "total": 10, "left": 4, "asked": 0.5, "gone": 0.6, "grain": 0.1, "reachable": 1.0}
    said = "".join(text for text, _ in sentence(read_run(write(tmp_path / "m", spent=spent))))
    assert "52.94 %, and 60 % of its MACs" in said
    told = write(tmp_path / "t")
    config = told / "config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8") + "  schedule:\n    _target_: a.AccuracyBudget\n", encoding="utf-8"
    )
    assert "asked for" not in "".join(text for text, _ in sentence(read_run(told)))


def test_more_layers_than_lines_can_show_become_a_map_and_more_than_fit_are_counted(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    layers = [f"net.{i}.weight" for i in range(50)]
    weights = [
        {"name": name, "shape": [4, 4], "size": 16 + i, "zeros": 8, "threshold": 0.5} for i, name in enumerate(layers)
    ]
    report = json.loads(run.joinpath("report.json").read_text(encoding="utf-8"))
    run.joinpath("report.json").write_text(json.dumps(report | {"weights": weights}), encoding="utf-8")
    head = ["step", "pruning/sparsity", *(f"pruning/sparsity/{name}" for name in layers)]
    rows = [[str(10 * step), "0.1", *("0.1" for _ in layers)] for step in range(3)]
    run.joinpath("metrics.csv").write_text("\n".join(",".join(row) for row in [head, *rows]) + "\n", encoding="utf-8")
    page = report_page(run)
    text = text_of(page)
    assert "Pictures show the 40 largest layers; 10 smaller ones are in the table alone." in text
    assert "pale is 0, full is 10.00 %" in text
    assert "<image" in page.read_text(encoding="utf-8")
    assert len(page.read_bytes()) < 500_000


def test_names_that_no_font_here_has_stay_text_for_the_readers_fonts() -> None:
    with drawing():
        on = canvas(200, 100, (40, 10, 20, 20))
        on.axis.set_title("層.重み")
        assert "層.重み" in on.svg()


@pytest.mark.parametrize("cut", ["1", "12", "12,", "12,0.", "12,0.7"])
def test_a_last_line_that_was_cut_is_left_out(tmp_path: Path, cut: str) -> None:
    (tmp_path / "metrics.csv").write_bytes(f"step,val/accuracy\r\n5,0.5\r\n10,0.6\r\n{cut}".encode())
    assert read_metrics(tmp_path) == {"val/accuracy": [(5, 0.5), (10, 0.6)]}


def test_another_damaged_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("val/accuracy,step\n0.5\n0.6,10\n", encoding="utf-8")
    with pytest.raises(ValueError, match="a line is shorter than its header"):
        read_metrics(tmp_path)
