"""`lightning-prune export --format onnx`."""

from __future__ import annotations

from lightning_prune.cli.exporting import Asked, Format, in_run


def write(asked: Asked) -> None:
    """Write the model as ONNX."""
    from lightning_prune.export import to_onnx

    model = asked.load()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    difference = to_onnx(model, asked.out)
    size = asked.out.stat().st_size
    asked.say(
        f"{asked.out}: {size:,} bytes; outputs differ by {difference:.1e} of the largest",
        {"file": str(asked.out), "bytes": size, "difference": difference},
    )


ONNX = Format("a file for onnxruntime and others", in_run("model.onnx"), write)
