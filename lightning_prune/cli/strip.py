"""`lightning-prune strip`: a checkpoint of the midst of a run as plain weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import UserError


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(argv)
    file: Path = options.file
    out: Path = options.out or file.with_name(f"{file.stem}.stripped.pt")
    if out.exists() and not options.force:
        raise UserError(f"{out} is there already: choose another --out, or replace it with --force")
    if out.is_dir():
        raise UserError(f"--out={out} is a folder: name a file in it")
    if file.is_dir():
        raise UserError(f"{file} is a folder: name one of its files, such as {file / 'checkpoints' / 'last.ckpt'}")

    import torch

    from lightning_prune.cli import checkpoints
    from lightning_prune.cli.stripped import KEPT, stripped
    from lightning_prune.export.whole_file import unfinished
    from lightning_prune.report import percent

    content = checkpoints.load(file)
    try:
        found = stripped(content)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    plain: dict[str, Any] = dict(found.weights)
    if options.checkpoint:
        if not isinstance(content, dict) or "pytorch-lightning_version" not in content:
            raise UserError(f"{file}: --checkpoint needs a checkpoint of Lightning's, and this is none")
        plain = {key: content[key] for key in KEPT if key in content} | {"state_dict": plain}
    before = file.stat().st_size  # it may be the file that is replaced
    out.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(out) as place:
        torch.save(plain, place)
    zeros, values = sum(found.zeros.values()), sum(found.weights[name].numel() for name in found.zeros)
    sparsity = zeros / values if values else 0.0
    after = out.stat().st_size
    if options.json:
        facts = {"file": str(out), "masks": found.masks, "zeros": zeros, "values": values, "sparsity": sparsity}
        print(as_json(facts | {"weights": dict(found.zeros), "bytes": [before, after]}))
    else:
        print(
            f"{out}: {len(found.zeros)} masks of {found.masks} folded in, {zeros:,} of {values:,} entries are zero "
            f"({percent(sparsity)}); {after:,} bytes, where {file} has {before:,}"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-prune strip",
        description="Write the weights of a checkpoint from the midst of a run as a plain state_dict: masks folded in, "
        "and states of optimizers and callbacks left out. It loads strictly into the plain model. Masks are those of "
        "a PruningCallback, or of torch.nn.utils.prune (NAME_orig beside NAME_mask). Masks that are not those of the "
        "weights, and learned ones that are not final, are refused. The file is read as plain values and tensors.",
        epilog="exit status: 0 when the file was written; 1 for an error, and nothing is written then",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a checkpoint, such as RUN/checkpoints/last.ckpt")
    parser.add_argument("--out", type=Path, help="where to write; NAME.stripped.pt beside FILE")
    parser.add_argument(
        "--checkpoint",
        action="store_true",
        help="write a checkpoint, for load_from_checkpoint: the weights under state_dict, with epoch, step and "
        "hyper-parameters",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there already")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    return parser
