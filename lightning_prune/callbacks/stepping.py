"""What a trainer's optimizers step, and a hook after each of their steps, whatever they are made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from lightning_prune import families
from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner
from lightning_prune.pruning.waiting import FROZEN, some

if TYPE_CHECKING:
    import pytorch_lightning as pl


def trained(trainer: pl.Trainer, model: nn.Module) -> list[nn.Parameter] | None:
    """Return the parameters that a run's optimizers step, None where they cannot be told.

    That is where there is no optimizer, where nothing is trained, and where optimizers step copies of the parameters.
    """
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    stepped = [parameter for group in groups for parameter in group["params"]]
    own = {id(parameter) for parameter in model.parameters()}
    known = trainer.max_steps != 0 and any(id(parameter) in own for parameter in stepped)
    return stepped if known else None


def say_plan(trainer: pl.Trainer, pruner: Pruner | LearnedMasks, title: str) -> float:
    """Print what will be pruned, and return the sparsity of now.

    Learned masks take no more weights in once fitting has begun: what a finetuning callback is to unfreeze is named.
    """
    plan = pruner.report()
    rank_zero_info(f"{title}: {pruner.resolved_schedule}\n{plan.plan()}")
    late = [name for name, why in plan.skipped.items() if why == FROZEN] if isinstance(pruner, LearnedMasks) else []
    finetuning = families.every("callbacks.BaseFinetuning")
    if late and any(isinstance(callback, finetuning) for callback in trainer.callbacks):  # pyright: ignore
        warnings.warn(
            f"{title}: {some(late)} are frozen now and stay whole when the finetuning callback unfreezes them: learned "
            "masks are made when fitting starts. Begin with them unfrozen, or use a Pruner",
            stacklevel=3,
        )
    return plan.sparsity


class AfterStep:
    """Calls something after each step of an optimizer, when all is written that the step writes.

    torch's own hook does it where `step` is the one that torch has put it into. An optimizer that was made without
    `Optimizer.__init__`, or that stands around another one and lends its attributes, has no such hook of its own, or
    one that comes before it copies slow weights back: its `step` is wrapped then, for this object alone.

    Args:
        optimizer: of a trainer.
        act: called with the optimizer.
    """

    def __init__(self, optimizer: Any, act: Callable[[Any], None]) -> None:
        self._optimizer = optimizer
        self._before: Any = None
        if _has_own_hook(optimizer):
            self._handle = optimizer.register_step_post_hook(lambda *_: act(optimizer))
            return
        self._handle = None
        self._before = vars(optimizer).get("step")
        step = optimizer.step

        def stepped(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            act(optimizer)
            return result

        self._step = optimizer.step = stepped

    def remove(self) -> None:
        """Leave the optimizer as it was."""
        if self._handle is not None:
            self._handle.remove()
        elif vars(self._optimizer).get("step") is self._step:
            if self._before is None:
                del self._optimizer.step
            else:
                self._optimizer.step = self._before


def _has_own_hook(optimizer: Any) -> bool:
    hooks = vars(optimizer).get("_optimizer_step_post_hooks")
    lent = any(getattr(other, "_optimizer_step_post_hooks", None) is hooks for other in _inside(optimizer))
    return (
        isinstance(optimizer, Optimizer)
        and hooks is not None
        and not lent
        and getattr(type(optimizer).step, "hooked", False)
    )


def _inside(optimizer: Any) -> list[Optimizer]:
    return [value for value in vars(optimizer).values() if isinstance(value, Optimizer) and value is not optimizer]
