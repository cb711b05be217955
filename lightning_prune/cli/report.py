"""`lightning-prune report`: one HTML page about a run, or about several side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import UserError, printable
from lightning_prune.cli.runs import below
from lightning_prune.cli.sweep import from_here
from lightning_prune.page import report_page
from lightning_prune.page.render import IN_FULL
from lightning_prune.page.run import Run, read_run
from lightning_prune.page.story import facts, sentence


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune report",
        description="Write one HTML page about a run: what was pruned in one sentence, the sparsity asked for and "
        "reached, accuracy over steps, sparsity and threshold by layer, weights before and after, masks, units left, "
        "what the model costs, its config, and the command that repeats it. The page needs no network and no other "
        f"file. Several runs stand side by side, up to {IN_FULL} of them in full. Runs that are unfinished, "
        "interrupted or damaged get a page that says what is missing. Files are read as plain values; nothing in "
        "them is run. train writes the page of each run by itself.",
    )
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="a run's folder, or one with runs below it")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page; by default report.html in the folder of the run or runs"
    )
    parser.add_argument("--title", default="", help="stands above; by default the recipe's name")
    parser.add_argument("--json", action="store_true", help="print the page's path, sentences and figures as JSON")
    options = parser.parse_args(argv)
    folders = below(options.run)
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out={options.out} is a folder: name the file, such as {options.out / 'report.html'}")
    file = report_page(*folders, out=options.out, title=options.title)
    runs = [read_run(folder) for folder in folders]
    if options.json:
        print(as_json({"page": str(file), "runs": [_said(run) for run in runs]}))
        return 0
    for run in runs:
        print(printable("".join(text for text, _ in sentence(run))))
        for each in run.missing:
            print(f"not shown: {printable(each)}")
    print(f"{'page':<8} {from_here(file)}")
    return 0


def _said(run: Run) -> dict[str, object]:
    return {
        "folder": str(run.folder),
        "state": run.state,
        "sentence": "".join(text for text, _ in sentence(run)),
        "facts": {fact.name: {"value": fact.value, "note": fact.note} for fact in facts(run)},
        "missing": list(run.missing),
    }
