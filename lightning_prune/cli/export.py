"""`lightning-prune export`: a run's model in the format of what will run it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.cli import trusted
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.export_compact import COMPACT
from lightning_prune.cli.export_csr import CSR
from lightning_prune.cli.export_int8 import INT8
from lightning_prune.cli.export_onnx import ONNX
from lightning_prune.cli.export_semi_structured import SEMI_STRUCTURED
from lightning_prune.cli.export_torch import TORCH_EXPORT
from lightning_prune.cli.exporting import Asked, Format, Option

if TYPE_CHECKING:
    from torch import nn

FORMATS: dict[str, Format] = {
    "compact": COMPACT,
    "onnx": ONNX,
    "int8": INT8,
    "torch-export": TORCH_EXPORT,
    "2:4": SEMI_STRUCTURED,
    "csr": CSR,
}
"""Each has a file of its own."""


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(argv)
    trust = trusted.given(options)
    chosen = FORMATS[options.format]
    given = {option: getattr(options, option.name) for option in _owners()}
    given = {option: value for option, value in given.items() if value is not None}
    for option, value in given.items():
        if option not in chosen.own:
            raise UserError(f"{option.flag}={value} belongs to --format {' or '.join(_owners()[option])}")
    weights = options.weights or options.run / "model.pt"
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out={options.out} is a folder: name a file in it")
    asked = Asked(
        options.run,
        weights,
        options.out or chosen.out(options.run, weights),
        options.json,
        {option.name: value for option, value in given.items()},
        lambda: trained(options.run, options.weights, trust),
        trust,
    )
    chosen.write(asked)
    return 0


def _owners() -> dict[Option, list[str]]:
    """Return the options that belong to formats, each with their names."""
    owners: dict[Option, list[str]] = {}
    for name, each in FORMATS.items():
        for option in each.own:
            owners.setdefault(option, []).append(name)
    return owners


def _title(names: list[str]) -> str:
    return f"for --format {' or '.join(names)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-prune export",
        description="Write the model of a run in another format, and see that its outputs stay the same. The task that "
        "RUN/config.yaml names is built if its classes are ours, PyTorch's or trusted; no other code is run.",
        epilog="formats: " + "; ".join(f"{name}, {each.about}" for name, each in FORMATS.items()),
    )
    parser.add_argument(
        "run", type=Path, help="a run's folder: config.yaml names the model, model.pt holds the weights"
    )
    parser.add_argument("--format", required=True, choices=tuple(FORMATS))
    places = "; ".join(f"{name}, {each.out(Path('RUN'), Path('RUN/model.pt'))}" for name, each in FORMATS.items())
    parser.add_argument("--out", type=Path, help=f"where to. Unless given: {places}")
    parser.add_argument("--weights", type=Path, help="other weights of this model, .pt, .ckpt or .safetensors")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    trusted.add_option(parser)
    groups = {title: parser.add_argument_group(title) for title in map(_title, _owners().values())}
    for option, names in _owners().items():
        groups[_title(names)].add_argument(option.flag, type=option.kind, choices=option.choices, help=option.help)
    return parser


def trained(run: Path, weights: Path | None = None, trust: trusted.Trust = trusted.Trust()) -> nn.Module:
    """Return the model of a run's folder with its weights, or with others, on the CPU.

    Raises:
        UserError: there is no config or no weights, they do not fit each other, or the config names a class that is
            neither ours nor trusted.
    """
    config = trusted.config_of(run, ("task",), trust)

    from lightning_prune.cli import build

    config.weights = str(weights or run / "model.pt")
    model = build.task(config)
    build.load_weights(config, model)
    return model.eval()
