"""`lightning-prune diff`: two checkpoints or runs beside each other, layer by layer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import UserError, printable

if TYPE_CHECKING:
    from torch import Tensor


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(argv)

    from lightning_prune.cli import checkpoints
    from lightning_prune.cli.differences import Differences
    from lightning_prune.report import columns
    from lightning_prune.shown import by_reason

    files = [checkpoints.file_of(path) for path in (options.a, options.b)]
    found = Differences.between(_weights(files[0]), _weights(files[1]))
    if not found.large and not found.small:
        reasons = "; ".join(by_reason("not compared", found.alone))
        raise UserError(f"{files[0]} and {files[1]} have no tensor of the same name and shape: {printable(reasons)}")
    metrics = _metrics(options.a, files[0]), _metrics(options.b, files[1])
    if options.json:
        facts = {"files": [str(file) for file in files], "metrics": [dict(each) for each in metrics]}
        print(as_json(facts | found.facts()))
        return 0
    print(f"{printable(str(files[0]))}, then {printable(str(files[1]))}\n\n{found.table()}")
    shared = [name for name in metrics[0] if name in metrics[1]]
    if shared:
        numbers = [(name, metrics[0][name], metrics[1][name]) for name in shared]
        rows = [("recorded", "", "then", "change")]
        rows += [(printable(n), f"{x:.4f}", f"{y:.4f}", f"{y - x:+.4f}") for n, x, y in numbers]
        print(f"\n{columns(rows, rules={1})}")
    for line in by_reason("not compared", found.alone):
        print(printable(line))
    return 0


def _weights(file: Path) -> dict[str, Tensor]:
    """Return the weights in a file by name. Raises UserError if there are none."""
    from lightning_prune.cli import checkpoints
    from lightning_prune.cli.differences import values_of

    found = {name: values_of(tensor) for name, tensor in checkpoints.tensors(checkpoints.load(file))}
    if not found:
        raise UserError(f"{file}: there is no tensor in it")
    return found


def _metrics(path: Path, file: Path) -> Mapping[str, float]:
    """Return the test's metrics that a run has recorded of the model it ended with; none for other files."""
    run = path if path.is_dir() else path.absolute().parent
    if file.name != "model.pt" or not (run / "report.json").is_file():
        return {}
    try:
        tested: Any = json.loads((run / "report.json").read_text(encoding="utf-8")).get("test")
    except (ValueError, AttributeError):
        raise UserError(f"{run / 'report.json'} is no report of a run") from None
    pairs = tested.items() if isinstance(tested, dict) else ()
    return {str(name): float(value) for name, value in pairs if isinstance(value, (int, float))}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-prune diff",
        description="Put two checkpoints, or the models of two runs, beside each other, tensor by tensor: the sparsity "
        "of both; how alike their masks are (Jaccard: entries that both keep, of those that one keeps); how many "
        "entries were pruned from the first to the second (gone) and how many came back (returned); and how far the "
        "entries that both keep have moved: the norm of their change over their norm in the first. A mask is where "
        "values are not zero. Of two runs the recorded metrics of the test as well. Files are read as plain values "
        "and tensors; nothing in them is run.",
        epilog="exit status: 0 when something could be compared, alike or not; 1 for an error",
    )
    parser.add_argument(
        "a", type=Path, metavar="A", help="a checkpoint, this library's or any other, or a run's folder"
    )
    parser.add_argument("b", type=Path, metavar="B", help="another one, with tensors of the same names")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    return parser
