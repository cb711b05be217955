"""`DynamicGates`: which channels an example goes without is decided for each, by predictors that are trained."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from lightning_prune import given
from lightning_prune.dynamic.gate_report import GateReport
from lightning_prune.dynamic.gating import Gating
from lightning_prune.dynamic.sites import Site
from lightning_prune.parsed import parsed
from lightning_prune.pruning.engine import Engine
from lightning_prune.pruning.waiting import Trained
from lightning_prune.report import Report
from lightning_prune.schedule import HoldingSchedule, Schedule, ToldSchedule
from lightning_prune.shards import check_whole
from lightning_prune.targets import Targets


@parsed
class DynamicGates(Engine[Gating]):
    """Boost the channels that matter to an example and leave out the others: feature boosting and suppression.

    It goes where a `Pruner` goes and has the same verbs. Beside each convolution with a norm right behind a small
    predictor g(x) = relu(W s(x) + b) tells from s(x), the mean magnitude of each channel that the layer reads, how
    salient each channel it computes is. The most salient ones of each example win, as many as the schedule says; the
    norm's output is multiplied by their saliency, which takes the place of the norm's scale, and by 0 elsewhere.

    Predictors have an Adam of their own, and their gradients are averaged over ranks. They begin at b = |γ|, the size
    of the norm's scale, which is 1 in a new network; γ keeps its sign and trains no more. While they train they are no
    parameters of the model, but in its state_dict under the keys that they have in the end.

    At the end the model keeps its gates, as modules of its layers: no weight is zero, and none can be taken out. It can
    be pickled, copied, exported, and trained on without this; `put_gates` puts gates from a file on a plain model.

    Source: Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression", ICLR 2019, arXiv 1810.05331.

    Args:
        schedule: how large a share of its channels each example goes without, and when. Every layer loses the same
            share, round(s n) of its n channels, and keeps one at least.
        targets: which layers, by the names of their weights; `sparsity` for other shares.
        strength: by what the sum over layers of the mean of g, over examples and channels, is multiplied in the loss.
        lr: learning rate of the predictors.
        seed: decides the first W.
        example_inputs: what one forward takes: a tensor, a tuple of arguments or a dict of keywords; None for the
            module's `example_input_array`.
        name: what the report and the log call it.

    Raises:
        ValueError: an argument is out of range, or the schedule is one that gates cannot follow.
    """

    selection = "the most salient channels of each example"
    pattern = None
    regularizer = True  # the callback logs the penalty
    _of_gates = True

    def __init__(
        self,
        schedule: Schedule,
        targets: Targets = Targets(),
        strength: float = 1e-4,
        lr: float = 0.001,
        seed: int = 0,
        example_inputs: Any = None,
        name: str = "dynamic gates",
    ) -> None:
        if isinstance(schedule, type) or not hasattr(schedule, "last_update"):
            raise ValueError(f"schedule={schedule!r} is no schedule; see lightning_prune.schedule")
        if isinstance(schedule, (HoldingSchedule, ToldSchedule)):
            raise ValueError(
                f"schedule={schedule} is about zeros of weights, and gates make none: use one of steps, such as "
                "Polynomial(...)"
            )
        if not hasattr(targets, "find"):
            raise ValueError(f"targets={targets!r} must be a Targets(include=..., exclude=...)")
        if getattr(targets, "follow", None):
            raise ValueError("Targets(follow=...) does not go with gates, which make no masks to follow")
        given.number("strength", strength, least=0)
        given.number("lr", lr, above=0)
        given.whole("seed", seed)
        self.schedule = schedule
        self.targets = targets
        self.strength = strength
        self.lr = lr
        self.seed = seed
        self.example_inputs = example_inputs
        super().__init__(name)

    # The model

    def attach(
        self, model: nn.Module, total_steps: int | None = None, trial: bool = False, trained: Trained = None
    ) -> None:
        """Put gates on the layers of a model, or go on with those it has; see `Engine.attach`."""
        fresh = self._pending is None
        super().attach(model, total_steps, trial, trained)
        if fresh:
            self._on_model.take_over_scales()

    def _put(
        self, model: nn.Module, length: int | None, total_steps: int | None, trial: bool, trained: Trained
    ) -> Gating:
        check_whole(model, "gates are on", "train them under DDP, or use a Pruner")
        return Gating(self, model, length, total_steps, trial, trained)

    def _take_off(self, on_model: Gating) -> None:
        on_model.withdraw()

    def withdraw(self) -> None:
        """Come off a model on which nothing has happened yet, and leave it as it was."""
        if self._model is not None:
            self._model.withdraw()
            self._model = None

    def strip(self, resumable: bool = False) -> Report:
        """Leave a plain model that has its gates as modules; return the report. It may be called again.

        Args:
            resumable: the run broke off, and `state_dict` is to go on from.
        """
        if self._model is not None:
            gating = self._model
            self._left = gating.state_dict()
            if not (resumable or self._unfinished):
                self._left |= {"stripped": True}
            self._final_report = gating.report()
            if resumable and not gating.begun:  # refused before it began: the model is left as it was
                gating.withdraw()
            else:
                gating.finish()
            self._model = None
        return self.report()

    def scalars(self, report: Report | None = None) -> dict[str, float]:
        """Return the numbers of now for a logger; those of a report where it is made already."""
        return (report or self.report()).scalars() | {"changed": self.changed, "regularizer": self.penalty}

    @property
    def sites(self) -> list[Site]:
        """The gated layers; none when not attached."""
        return [] if self._model is None else self._model.sites

    @property
    def penalty(self) -> float:
        """The penalty of the latest forward of training, 0 before the first."""
        return 0.0 if self._model is None else self._model.penalty

    @property
    def kept(self) -> dict[str, int]:
        """How many channels of each layer win now. Raises RuntimeError when not attached."""
        return self._on_model.kept()

    def digest(self) -> bytes:
        """Return 8 bytes that differ where predictors differ."""
        return self._now.digest()

    # One step

    def before_forward(self, loss_scale: float = 1.0) -> None:
        """Take note of what the loss of the forwards to come is multiplied by, such as 1 / accumulated batches."""
        self._on_model.scaled(loss_scale)

    def before_step(self, optimizer: Optimizer | None = None, grad_scale: float = 1.0) -> None:
        """Step the predictors. Call it between backward and the optimizer's step.

        Args:
            optimizer: the one about to step, where there are several; None for all layers.
            grad_scale: the factor by which a loss scaler has multiplied gradients: no scaler knows the predictors.
        """
        self._now.learn(optimizer, grad_scale)

    def mask_weights(self, optimizer: Optimizer | None = None) -> None:
        """Do nothing: no weight is masked."""

    def mask_copies(self, saved: Any) -> dict[str, Any]:
        """Return nothing replaced: no weight is masked, and gates are in the state_dict."""
        return {}


def is_of_gates(report: object) -> bool:
    """Return whether a report is one of gates."""
    return isinstance(report, GateReport)
