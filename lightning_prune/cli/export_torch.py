"""`lightning-prune export --format torch-export`."""

from __future__ import annotations

from lightning_prune.cli.exporting import Asked, Format, in_run


def write(asked: Asked) -> None:
    """Write the model as a program of torch.export."""
    from lightning_prune.export import to_exported_program

    model = asked.load()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found = to_exported_program(model, asked.out)
    size = asked.out.stat().st_size
    batch = "any batch" if found.batch is None else f"batches of {found.batch} alone: it could be exported for no other"
    asked.say(
        f"{asked.out}: {size:,} bytes; outputs differ by {found.difference:.1e} of the largest; it takes {batch}",
        {"file": str(asked.out), "bytes": size, "difference": found.difference, "batch": found.batch},
    )


TORCH_EXPORT = Format("a program of torch.export", in_run("model.pt2"), write)
