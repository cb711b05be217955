"""`lightning-prune export`: a run's model in the format of what will run it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.cli import trusted
from lightning_prune.cli.errors import UserError

if TYPE_CHECKING:
    from torch import nn

_DTYPES = ("float16", "bfloat16", "float32")


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune export",
        description="Write the model of a run as ONNX, or with its linear layers of pattern 2:4 for sparse tensor "
        "cores, and see that its outputs stay the same. 2:4 needs a CUDA GPU of compute capability 8.0 or later. The "
        "task that RUN/config.yaml names is built if its classes are ours, PyTorch's or trusted; no other code is run.",
    )
    parser.add_argument(
        "run", type=Path, help="a run's folder: config.yaml names the model, model.pt holds the weights"
    )
    parser.add_argument("--format", required=True, choices=("2:4", "onnx"))
    parser.add_argument(
        "--out", type=Path, help="a file for onnx, RUN/model.onnx; a folder for 2:4, RUN/semi_structured"
    )
    parser.add_argument("--weights", type=Path, help="other weights of this model, .pt, .ckpt or .safetensors")
    parser.add_argument("--dtype", choices=_DTYPES, help="for 2:4, float16 unless given; not every GPU takes float32")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    trusted.add_option(parser)
    options = parser.parse_args(argv)
    trust = trusted.given(options)
    if options.format == "onnx":
        if options.dtype is not None:
            raise UserError(f"--dtype={options.dtype} belongs to --format 2:4")
        _onnx(options.run, options.weights, options.out or options.run / "model.onnx", trust, options.json)
    else:
        out = options.out or options.run / "semi_structured"
        _semi_structured(options.run, options.weights, out, options.dtype, trust, options.json)
    return 0


def _onnx(run: Path, weights: Path | None, out: Path, trust: trusted.Trust, as_json: bool) -> None:
    from lightning_prune.export import to_onnx

    model = trained(run, weights, trust)
    out.parent.mkdir(parents=True, exist_ok=True)
    difference = to_onnx(model, out)
    if as_json:
        print(json.dumps({"file": str(out), "bytes": out.stat().st_size, "difference": difference}, indent=2))
        return
    print(f"{out}: {out.stat().st_size:,} bytes; outputs differ by {difference:.1e} of the largest")


def _semi_structured(
    run: Path, weights: Path | None, out: Path, dtype: str | None, trust: trusted.Trust, as_json: bool
) -> None:
    import torch

    from lightning_prune.export import check_gpu, save_semi_structured, to_semi_structured

    check_gpu()
    model = trained(run, weights, trust).to("cuda", getattr(torch, dtype or _DTYPES[0]))
    result = to_semi_structured(model)
    save_semi_structured(model, result, out)
    if as_json:
        print(
            json.dumps(
                {"folder": str(out), "layers": len(result.layers), "converted": list(result.converted)}, indent=2
            )
        )
        return
    print(f"{result.table()}\n{len(result.converted)} of {len(result.layers)} layers converted; {out} holds them:")
    print(f"  from lightning_prune.export import load_semi_structured; load_semi_structured(model, Path({str(out)!r}))")


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
