"""Trains with strategies whose processes end with the fit; test_own_processes.py runs it as a script.

    python own_processes.py all FOLDER 2

The script itself trains nothing: what it finds in its own model, callback and Trainer it writes to FOLDER/own.0.pt.
"""

import sys
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy, Strategy

from lightning_prune import Pruner, PruningCallback
from lightning_prune.pattern import Channel
from lightning_prune.shrink import load_shrunk, shrink
from tests.distributed.regression import EPOCHS, SCHEDULE, TIMEOUT, Regression


def fit(model: Regression, callback: PruningCallback, strategy: Strategy | str, **options: Any) -> tuple[Trainer, str]:
    """Fit on two processes, or on one with "auto", and return the trainer and the text of the error, if any."""
    folder = options.pop("folder", None)
    trainer = Trainer(
        accelerator="cpu",
        devices=1 if strategy == "auto" else 2,
        strategy=strategy,
        max_epochs=options.pop("max_epochs", EPOCHS),
        use_distributed_sampler=False,
        logger=False,
        callbacks=[callback, *([ModelCheckpoint(folder)] if folder else [])],
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(model, **options)
    except Exception as error:
        return trainer, str(error)
    return trainer, ""


def own(start: Literal["spawn", "fork"]) -> Strategy:
    return DDPStrategy(start_method=start, timeout=TIMEOUT)


def example(model: Regression) -> Regression:
    model.example_input_array = torch.randn(2, 12, dtype=torch.float64)
    model.forward = model.net.forward  # pyright: ignore[reportAttributeAccessIssue]
    return model


def said(callback: PruningCallback) -> dict[str, Any]:
    """Return what the callback of this process knows of the zeros, as plain values."""
    assert callback.report is not None
    return {"sparsity": callback.report.sparsity, "zeros": {w.name: w.zeros for w in callback.report.weights}}


def trained(start: Literal["spawn", "fork"], tag: str) -> dict[str, Any]:
    """Prune weights."""
    model, callback = Regression(), PruningCallback(Pruner(SCHEDULE), tag=tag)
    trainer, error = fit(model, callback, own(start))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"error": error, "weights": model.state_dict(), "metrics": metrics, "report": said(callback)}


def made_smaller(start: Literal["spawn", "fork"]) -> dict[str, Any]:
    """Ask for a smaller model at the end, and then make it smaller afterwards."""
    model, pruner = example(Regression()), Pruner(SCHEDULE, pattern=Channel())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _, refused = fit(model, PruningCallback(pruner, shrink=True), own(start))
    after = {name: value.clone() for name, value in model.state_dict().items()}
    _, error = fit(model, PruningCallback(Pruner(SCHEDULE, pattern=Channel())), own(start))
    inputs = torch.randn(5, 12, dtype=torch.float64)
    smaller: Any = shrink(model).model
    return {
        "refused": refused,
        "before": before,
        "after": after,
        "error": error,
        "shapes": {name: list(value.shape) for name, value in smaller.state_dict().items()},
        "off": float((smaller.net(inputs) - model.net(inputs)).abs().max()),
    }


def fine_tuned(start: Literal["spawn", "fork"], folder: Path) -> dict[str, Any]:
    """Go on from the file of a shrunk model, with a model in full size and with one of its shapes."""
    callback = PruningCallback(Pruner(SCHEDULE, pattern=Channel()), shrink=True)
    fit(example(Regression()), callback, "auto", folder=folder)
    file = str(folder / "shrunk.ckpt")
    plain = PruningCallback(Pruner(SCHEDULE, pattern=Channel()))
    _, refused = fit(example(Regression()), plain, own(start), ckpt_path=file, max_epochs=EPOCHS + 1)
    small: Any = load_shrunk(example(Regression()), file)
    before = small.net[0].weight.detach().clone()
    _, error = fit(small, plain, own(start), ckpt_path=file, max_epochs=EPOCHS + 1)
    return {"refused": refused, "error": error, "before": before, "after": small.net[0].weight.detach()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {
        "spawn": trained("spawn", ""),
        "fork": trained("fork", "mine"),
        "smaller": made_smaller("fork"),
        "fine-tuned": fine_tuned("fork", folder),
    }
    torch.save(found, folder / "own.0.pt")


if __name__ == "__main__":
    main(Path(sys.argv[2]))
