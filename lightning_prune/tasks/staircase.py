"""Classification by plain SGD, its rate lowered in steps, with weight decay on chosen layers alone."""

import re
from dataclasses import dataclass
from math import isfinite
from typing import final

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from lightning_prune.families import OptimizerLRScheduler
from lightning_prune.tasks.classifier import Classifier


@dataclass(frozen=True)
class Staircase:
    """Factor on the learning rate that is multiplied by ``factor`` after every so many optimizer steps.

    Attributes:
        every: Optimizer steps if an int, a share of the run if a float.
        factor: In (0, 1].

    Raises:
        ValueError: If a number is out of its range.
    """

    every: int | float
    factor: float

    def __post_init__(self) -> None:
        least = 1 if isinstance(self.every, int) else 0.0
        if not (self.every >= least and self.every > 0 and isfinite(self.every)):
            raise ValueError(
                f"every={self.every}: give optimizer steps as an int from 1, or a share of the run above 0"
            )
        if isinstance(self.every, float) and self.every > 1:
            raise ValueError(f"every={self.every}: a share of the run is at most 1.0; give optimizer steps as an int")
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor={self.factor}: give a factor above 0 and at most 1")

    def at(self, step: int, steps: int) -> float:
        """Factor for the optimizer step that follows ``step`` completed ones, in a run of ``steps``."""
        every = self.every if isinstance(self.every, int) else max(1, round(self.every * steps))
        return self.factor ** (step // every)


@final
class StaircaseClassifier(Classifier):
    """A ``Classifier`` that trains as TensorFlow's CIFAR-10 tutorial does: SGD without momentum, a rate in steps.

    Args:
        net: The network. Its ``example_input``, if it has one, becomes the module's ``example_input_array``.
        lr: Learning rate of the first step of the staircase.
        weight_decay: Its product with a weight is added to the weight's gradient.
        decayed: Regular expression found in the names, within ``net``, of the parameters that are decayed.
        every: How long a step of the staircase is: an int in optimizer steps, a float as a share of the run.
        factor: What the rate is multiplied by from one step to the next.

    Raises:
        ValueError: If a number is out of its range, ``decayed`` is no regular expression or is found in no name, or, at
            the start of training, if the run's length is not known where ``every`` is a share of it.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float = 0.1,
        weight_decay: float = 0.004,
        decayed: str = r"dense\d\.weight",
        every: int | float = 136718,
        factor: float = 0.1,
    ) -> None:
        super().__init__(net, lr, weight_decay)
        self.save_hyperparameters("lr", "weight_decay", "decayed", "every", "factor")
        self.staircase = Staircase(every, factor)
        names = [name for name, _ in net.named_parameters()]
        try:
            self.decayed = [name for name in names if re.search(decayed, name)]
        except re.error as error:
            raise ValueError(f"decayed={decayed!r} is no regular expression: {error}") from error
        if weight_decay > 0 and not self.decayed:
            raise ValueError(f"decayed={decayed!r} is found in no name of a parameter; there are {', '.join(names)}")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """SGD over two groups of parameters, and the staircase, which moves once per optimizer step."""
        named = dict(self.net.named_parameters())
        groups = [
            {"params": [named[name] for name in self.decayed], "weight_decay": self.weight_decay},
            {"params": [parameter for name, parameter in named.items() if name not in self.decayed]},
        ]
        made = SGD([group for group in groups if group["params"]], lr=self.lr)
        steps = 0 if isinstance(self.staircase.every, int) else self._steps()
        schedule = LambdaLR(made, lambda step: self.staircase.at(step, steps))
        return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if not isfinite(steps):
            raise ValueError(
                f"every={self.staircase.every} is a share of the run, whose length is not known (max_epochs="
                f"{self.trainer.max_epochs}, max_steps={self.trainer.max_steps}): set max_epochs or max_steps on the "
                "Trainer, or give every as an int of optimizer steps"
            )
        return int(steps)
