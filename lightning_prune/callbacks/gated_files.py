"""Dynamic gates in a Trainer: what does not go with them, the scale of their penalty, and files that hold them."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_prune import families
from lightning_prune.callbacks import averages
from lightning_prune.callbacks.loss_scale import loss_scale
from lightning_prune.callbacks.own_processes import check_shapes_come_back
from lightning_prune.dynamic import DynamicGates, put_gates
from lightning_prune.dynamic.links import CHILD, gates_in, hold

if TYPE_CHECKING:
    import pytorch_lightning as pl


def check_static(rewind: Any, shrink: bool) -> None:
    """Raise ValueError if something is asked of gates that only zeros of weights can give."""
    if shrink:
        raise ValueError(
            "shrink=True does not go with dynamic gates: which channels go depends on the example, so none can be "
            "taken out. Leave it out, or use Pruner(pattern=Channel())"
        )
    if rewind is not None:
        raise ValueError(f"rewind={rewind!r} does not go with dynamic gates: they put no weight to zero")


def check_apart(trainer: pl.Trainer, pruner: Any) -> None:
    """Raise ValueError if a trainer's strategy, callbacks or length do not go with dynamic gates."""
    if not isinstance(pruner, DynamicGates):
        return
    shrinking = [c for c in trainer.callbacks if getattr(c, "shrink", False)]  # pyright: ignore
    if shrinking:
        raise ValueError(
            f"{type(shrinking[0]).__name__}(shrink=True) takes channels out of a model whose gates know them by "
            "number: shrink it first, and gate it in another fit"
        )
    if averaging := averages.names(trainer):
        raise ValueError(f"{averaging} averages weights and not the gates that go with them: leave it out")
    if isinstance(trainer.strategy, families.every("strategies.ModelParallelStrategy")):
        raise ValueError(
            f"{type(trainer.strategy).__name__} takes weights apart over ranks, and gates are on whole weights: train "
            "them under DDP (strategy='ddp'), or use a Pruner"
        )
    if trainer.max_steps == 0:
        raise ValueError("max_steps=0 trains nothing, and gates that were not trained leave out any channel")
    way = "train in a process of its own kind and load the gates there: lightning_prune.dynamic.put_gates"
    check_shapes_come_back(trainer.strategy, "a model that gets gates has more in it at the end", way)


def forward_scale(trainer: pl.Trainer) -> float:
    """Return what Lightning multiplies the loss by: a loss scale, and one over the number of accumulated batches."""
    automatic = trainer.lightning_module.automatic_optimization
    accumulated = trainer.accumulate_grad_batches if automatic else 1  # pyright: ignore[reportAttributeAccessIssue]
    return loss_scale(trainer) / accumulated


class GatedFiles:
    """While a Trainer loads: a file with gates fits a plain model.

    For a fit the gates come from the callback's state, and the file's are left aside; for validation, test and
    prediction the model gets gates.
    """

    def __init__(self) -> None:
        self._hook: RemovableHandle | None = None

    def begin(self, model: nn.Module, example_inputs: Any, stage: str) -> None:
        """Watch what is loaded into the model until `end`; gates that it has are no parameters of it in a fit."""
        self.end()
        if stage == "fit":
            hold(model, shared=True)

        def fit(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
            if self._hook is None or module is not model:
                return
            has = {name for name, part in model.named_modules() if CHILD in part._modules}  # pyright: ignore
            new = [layer for layer in gates_in(state) if layer not in has]
            if new and stage == "fit":
                for layer in new:
                    for key in ("weight", "bias", "kept"):
                        state.pop(f"{layer}.{CHILD}.{key}", None)
            elif new:
                put_gates(model, state, example_inputs)

        self._hook = model._register_load_state_dict_pre_hook(fit, with_module=True)  # pyright: ignore

    def end(self) -> None:
        """Leave loading as it is without us."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
