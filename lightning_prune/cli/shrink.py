"""`lightning-prune shrink`: a stripped model without its dead units, smaller and dense."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_prune.cli import trusted
from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import UserError


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune shrink",
        description="Take the dead units out of the model of a run, see that its outputs stay the same, and measure "
        "how much smaller and faster it is. The task that RUN/config.yaml names is built, if its classes are ours, "
        "PyTorch's or trusted; no other code is run.",
        epilog="from lightning_prune.shrink import load_shrunk; load_shrunk(model, FOLDER) gives it back",
    )
    parser.add_argument(
        "run", type=Path, help="a run's folder: config.yaml names the model, model.pt holds the weights"
    )
    parser.add_argument("--weights", type=Path, help="other weights of this model, .pt, .ckpt or .safetensors")
    parser.add_argument("--out", type=Path, help="where model.safetensors and shrunk.json go; RUN/shrunk")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="how far outputs may move, of the largest; 1e-4")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    trusted.add_option(parser)
    options = parser.parse_args(argv)
    trust = trusted.given(options)

    from lightning_prune import cost
    from lightning_prune.cli.export import trained
    from lightning_prune.shrink import save_shrunk, shrink

    out = options.out or options.run / "shrunk"
    if (out / "config.yaml").is_file():
        raise UserError(f"--out={out} is the folder of a run, whose model.pt would no longer fit: choose another")
    model = trained(options.run, options.weights, trust)
    shrunk = shrink(model, tolerance=options.tolerance)
    if all(group.before == group.after for group in shrunk.report.groups):
        if (options.run / "shrunk.json").is_file() and options.weights is None:
            raise UserError(
                f"{options.run} made its model smaller at its end: model.pt is that model already, and "
                f"load_shrunk(model, {str(options.run)!r}) gives it back"
            )
        raise UserError(
            f"{options.run}: no unit is dead, so there is nothing to take out; train with pruner/pattern=channel"
        )
    save_shrunk(shrunk, out)
    compared = cost.compare(model, shrunk.model)
    if options.json:
        print(as_json({"folder": str(out), "shrink": shrunk.report.to_dict(), "cost": compared.to_dict()}))
    else:
        print(f"{shrunk.report.table()}\n\n{compared.table()}\n\n{out} holds the smaller model")
    return 0
