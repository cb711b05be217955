"""`lightning-prune export --format csr`."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_prune.cli.exporting import Asked, Format, Option


def write(asked: Asked) -> None:
    """Convert the linear layers that are faster so, and write weights and the list of layers, if the model gains."""
    from lightning_prune.cli import build, checkpoints
    from lightning_prune.export import save_csr, to_csr
    from lightning_prune.shrink import SHRUNK

    model = asked.load()
    result = to_csr(model, batch=asked.own.get("batch"), threads=asked.own.get("threads"))
    if not result.gains:
        why = "the whole model gains nothing by its layers" if result.converted else "no layer is faster in CSR here"
        asked.say(f"{result.table()}\n{why}: nothing is written", {"file": None} | result.to_dict())
        return
    recipes = build.recipes_of(checkpoints.load(asked.weights), asked.weights)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    written = save_csr(model, result, asked.out, {SHRUNK: recipes} if recipes else None)
    said = f"{len(result.converted)} of {len(result.layers)} layers converted; {asked.out}, {written.bytes:,} bytes"
    asked.say(
        f"{result.table()}\n{said}, holds the weights and their names:\n"
        f"  from lightning_prune.export import load_csr; load_csr(model, {str(asked.out)!r})",
        {"file": str(asked.out), "bytes": written.bytes} | result.to_dict(),
    )


def _out(_: Path, weights: Path) -> Path:
    return weights.with_name(f"{weights.stem.removesuffix('.compact')}.csr.safetensors")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of 1 or more")
    return int(text)


CSR = Format(
    "sparse linear layers in torch's CSR format where that is measured to be faster on this CPU",
    _out,
    write,
    (
        Option("--batch", "how many examples a forward has; as many as the model's example inputs", kind=_count),
        Option("--threads", "how many threads of the CPU to use; as many as torch does", kind=_count),
    ),
)
