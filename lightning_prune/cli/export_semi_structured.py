"""`lightning-prune export --format 2:4`."""

from __future__ import annotations

from lightning_prune.cli.exporting import Asked, Format, Option, in_run

_DTYPES = ("float16", "bfloat16", "float32")


def write(asked: Asked) -> None:
    """Convert linear layers of pattern 2:4, and write the weights and the list of layers."""
    import torch

    from lightning_prune.export import check_gpu, save_semi_structured, to_semi_structured

    check_gpu()
    model = asked.load().to("cuda", getattr(torch, asked.own.get("dtype", _DTYPES[0])))
    result = to_semi_structured(model)
    save_semi_structured(model, result, asked.out)
    asked.say(
        f"{result.table()}\n{len(result.converted)} of {len(result.layers)} layers converted; {asked.out} holds them:\n"
        f"  from lightning_prune.export import load_semi_structured; "
        f"load_semi_structured(model, Path({str(asked.out)!r}))",
        {"folder": str(asked.out), "layers": len(result.layers), "converted": list(result.converted)},
    )


SEMI_STRUCTURED = Format(
    "a folder: linear layers of pattern 2:4 for sparse tensor cores of a CUDA GPU of compute capability 8.0 or later",
    in_run("semi_structured"),
    write,
    (Option("--dtype", "float16 unless given; not every GPU takes float32", _DTYPES),),
)
