"""`lightning-prune export --format compact`."""

from __future__ import annotations

from pathlib import Path

from lightning_prune.cli.exporting import Asked, Format


def write(asked: Asked) -> None:
    """Write the weights in as few bytes as they take; with the recipe of a smaller model, where it is one."""
    from lightning_prune.cli import build, checkpoints
    from lightning_prune.export import save_compact
    from lightning_prune.shrink import SHRUNK

    model = asked.load()
    recipes = build.recipes_of(checkpoints.load(asked.weights), asked.weights)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found = save_compact(model, asked.out, {SHRUNK: recipes} if recipes else None)
    size = f"{found.bytes:,} bytes, {found.times_smaller:.1f} times smaller than {found.dense_bytes:,} of dense weights"
    if all(tensor.bytes == tensor.dense_bytes for tensor in found.tensors):
        size = f"{found.bytes:,} bytes; no tensor has zeros enough: all are written dense"
    asked.say(f"{found.table()}\n\n{found.file}: {size}; --weights reads it", found.to_dict())


def _out(_: Path, weights: Path) -> Path:
    return weights.with_name(f"{weights.stem.removesuffix('.compact')}.compact.safetensors")


COMPACT = Format("sparse weights in a small .safetensors file, exact to the bit", _out, write)
