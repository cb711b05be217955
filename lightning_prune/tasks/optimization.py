"""The optimizer and the learning rate's course, one place for all tasks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, cos, isfinite, pi
from typing import Protocol

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_prune.families import OptimizerLRScheduler, Trainer


class OptimizerFactory(Protocol):
    """Makes an optimizer: a class of ``torch.optim``, or a partial call of one."""

    def __call__(self, params: Iterable[nn.Parameter], /, *, lr: float, weight_decay: float) -> Optimizer: ...


def adamw(params: Iterable[nn.Parameter], /, *, lr: float, weight_decay: float) -> Optimizer:
    """AdamW, in one fused kernel where all parameters are on the CPU.

    There the unfused one slows down on pruned weights, whose moments are zero. Elsewhere torch chooses: under 16-bit
    precision Lightning leaves the gradients of fused optimizers scaled, which rules out clipping and adding to them.
    """
    parameters = list(params)
    fused = all(parameter.device.type == "cpu" for parameter in parameters)
    return AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused or None)


@dataclass(frozen=True)
class LearningRate:
    """Factor on the learning rate: linear warmup, full rate, then half a cosine down to 0 at the end of the run.

    Attributes:
        warmup: Share of the run over which the rate rises linearly to its full value.
        hold: Share of the run at which the cosine starts; 1.0 never lowers the rate.

    Raises:
        ValueError: If a share is not in [0, 1].
    """

    warmup: float = 0.0
    hold: float = 0.0

    def __post_init__(self) -> None:
        for name, share in (("warmup", self.warmup), ("hold", self.hold)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share}: give a share of the run in [0, 1]")

    @property
    def constant(self) -> bool:
        """Whether the factor is 1 throughout, so that the run's length does not matter."""
        return self.warmup == 0 and self.hold == 1

    def factor(self, step: int, steps: int) -> float:
        """Factor in [0, 1] for the optimizer step that follows ``step`` completed ones, in a run of ``steps``."""
        rising = ceil(self.warmup * steps)
        if step < rising:
            return (step + 1) / rising
        falls_from = max(self.hold, self.warmup) * steps
        if step <= falls_from or self.hold == 1:
            return 1.0
        progress = min((step - falls_from) / (steps - falls_from), 1.0) if steps > falls_from else 1.0
        return 0.5 * (1 + cos(pi * progress))


def configure(
    parameters: Iterable[nn.Parameter],
    trainer: Trainer,
    optimizer: OptimizerFactory,
    lr: float,
    weight_decay: float,
    course: LearningRate,
) -> OptimizerLRScheduler:
    """What ``configure_optimizers`` returns: the optimizer, and a schedule that moves once per optimizer step.

    Raises:
        ValueError: If the rate changes over the run and the trainer does not know how long the run is.
    """
    made = optimizer(parameters, lr=lr, weight_decay=weight_decay)
    if course.constant or trainer.max_steps == 0:
        return made
    steps = trainer.estimated_stepping_batches
    if not isfinite(steps) or steps < 1:
        raise ValueError(
            f"warmup={course.warmup}, hold={course.hold}: the learning rate follows the run's length, which is unknown "
            f"(max_epochs={trainer.max_epochs}, max_steps={trainer.max_steps}); set max_epochs or max_steps on the "
            "Trainer, or hold=1.0 and warmup=0.0 for a constant rate"
        )
    # A function, not an object: LambdaLR would save an object's fields, and a resumed run could not be made longer.
    return {
        "optimizer": made,
        "lr_scheduler": {"scheduler": LambdaLR(made, _of_step(course, int(steps))), "interval": "step"},
    }


def check_rates(lr: float, weight_decay: float) -> None:
    """Raise ValueError unless ``lr`` is above 0 and ``weight_decay`` at least 0."""
    if not lr > 0:
        raise ValueError(f"lr={lr}: give a learning rate above 0")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay={weight_decay}: give 0 or more")


def _of_step(course: LearningRate, steps: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        return course.factor(step, steps)

    return factor
