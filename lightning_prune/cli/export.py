"""`lightning-prune export`: a run's model in the format of what will run it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.cli.arguments import read
from lightning_prune.cli.errors import UserError

if TYPE_CHECKING:
    from torch import nn

_DTYPES = ("float16", "bfloat16", "float32")


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune export",
        description="Write the model of a run as ONNX, or with its linear layers of pattern 2:4 for sparse tensor "
        "cores, and see that its outputs stay the same. 2:4 needs a CUDA GPU of compute capability 8.0 or later.",
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
    options = parser.parse_args(argv)
    if options.format == "onnx":
        if options.dtype is not None:
            raise UserError(f"--dtype={options.dtype} belongs to --format 2:4")
        _onnx(options.run, options.weights, options.out or options.run / "model.onnx")
    else:
        _semi_structured(options.run, options.weights, options.out or options.run / "semi_structured", options.dtype)
    return 0


def _onnx(run: Path, weights: Path | None, out: Path) -> None:
    from lightning_prune.export import to_onnx

    model = trained(run, weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    difference = to_onnx(model, None, out)
    print(f"{out}: {out.stat().st_size:,} bytes; outputs differ by {difference:.1e} of the largest")


def _semi_structured(run: Path, weights: Path | None, out: Path, dtype: str | None) -> None:
    import torch

    from lightning_prune.export import check_gpu, save_semi_structured, to_semi_structured

    check_gpu()
    model = trained(run, weights).to("cuda", getattr(torch, dtype or _DTYPES[0]))
    result = to_semi_structured(model)
    save_semi_structured(model, result, out)
    print(f"{result.table()}\n{len(result.converted)} of {len(result.layers)} layers converted; {out} holds them:")
    print(f"  from lightning_prune.export import load_semi_structured; load_semi_structured(model, Path({str(out)!r}))")


def trained(run: Path, weights: Path | None = None) -> nn.Module:
    """Return the model of a run's folder with its weights, or with others, on the CPU.

    Raises:
        UserError: there is no config or no weights, or they do not fit each other.
    """
    from omegaconf import open_dict

    from lightning_prune.cli import build, compose

    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run's folder: there is no config.yaml in it")
    with compose.composed(read(["-cd", str(run), "-cn", "config"])) as config, open_dict(config):
        config.ckpt_path, config.weights = None, str(weights or run / "model.pt")
        model = build.parts(config).task
        build.load_weights(config, model)
    return model.eval()
