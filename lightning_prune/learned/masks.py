"""`LearnedMasks`: a probability for every unit or weight, trained with the network while the network trains."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune import given
from lightning_prune.gate import Gate, Sigmoid, ThresholdGate
from lightning_prune.learned.learning import Learning
from lightning_prune.mask_regularizer import Binarizer, MaskRegularizer
from lightning_prune.masks import apply_all, zero_gradients
from lightning_prune.parsed import parsed
from lightning_prune.pattern import Channel, CoupledPattern, Pattern
from lightning_prune.pruning import checks
from lightning_prune.pruning.engine import Engine
from lightning_prune.pruning.waiting import Trained
from lightning_prune.report import Report
from lightning_prune.schedule import Schedule
from lightning_prune.shards import check_whole
from lightning_prune.targets import Targets


@parsed
class LearnedMasks(Engine[Learning]):
    """Learn which units a network needs, by masks with probabilities that train beside its weights.

    It goes where a `Pruner` goes and has the same verbs. The outputs of units are multiplied by random masks where
    other layers read them, so after norm and activation; one draw an example and unit. In evaluation a unit is in or
    out. The model's own parameters, buffers and keys stay what they are: logits live here, with an Adam of their own,
    and their gradients are averaged over ranks.

    Without a schedule a unit stays if p > threshold. With one, its window is that of the learning, the hard masks hold
    as many units as it asks for, those of the largest p, and at `end_step` they are final: from there on the weights
    train alone. Source: MaskPruning ("TurboMaskPruning"), after LOUPE (Bahadir et al., IEEE TCI 2020).

    Args:
        schedule: when to learn, and how sparse to be by then; None for the whole run, as sparse as it turns out.
        gate: how a logit becomes a mask.
        mask_regularizer: what is added to the loss for the probabilities; None for nothing.
        pattern: `Channel` for masks on units; `Element` for masks on single weights, with one draw a forward.
        targets: which weights.
        task_share: the loss is task_share * task + (1 - task_share) * regularizer; None for their plain sum. The
            share is on the gradients of the model's parameters as well.
        lr: learning rate of the logits.
        threshold: T, in [0, 1).
        train: "both"; "masks" leaves the weights as they are, "weights" the probabilities.
        seed: decides the first logits and all draws, together with step, rank and layer.
        name: what the report and the log call it.

    Attributes:
        history: after `strip`, of each update the step, the share of units `undecided` with .05 < p < .95, and the
            `counts` of each group's probabilities in 20 bins from 0 to 1.
        unstripped: after `strip`, the state and the model's tensors as they were before, so that other thresholds can
            be tried; empty where the schedule's end came first.

    Raises:
        ValueError: an argument is out of range, or the regularizer needs a schedule and there is none.
    """

    selection = "the threshold on learned probabilities"
    _of_learned = True
    regularizer = True  # the callback logs the penalty

    def __init__(
        self,
        schedule: Schedule | None = None,
        gate: Gate | ThresholdGate = Sigmoid(),
        mask_regularizer: MaskRegularizer | None = Binarizer(),
        pattern: CoupledPattern | Pattern = Channel(),
        targets: Targets = Targets(),
        task_share: float | None = None,
        lr: float = 0.01,
        threshold: float = 0.5,
        train: Literal["both", "masks", "weights"] = "both",
        seed: int = 0,
        name: str = "learned masks",
    ) -> None:
        checks.check_learned(schedule, gate, mask_regularizer, pattern, targets)
        if task_share is not None:
            given.number("task_share", task_share, least=0, most=1)
        given.number("lr", lr, above=0)
        given.whole("seed", seed)
        given.number("threshold", threshold, least=0, below=1)
        if train not in ("both", "masks", "weights"):
            raise ValueError(f"train={train!r} must be 'both', 'masks' or 'weights'")
        self.schedule = schedule
        self.gate = gate
        self.mask_regularizer = mask_regularizer
        self.pattern = pattern
        self.targets = targets
        self.task_share = task_share
        self.lr = lr
        self.threshold = threshold
        self.train = train
        self.seed = seed
        super().__init__(name)
        self._learned: dict[str, Tensor] = {}
        self._module = nn.Module()
        self.history: list[dict[str, Any]] = []
        self.unstripped: dict[str, Any] = {}

    # The model

    def attach(
        self, model: nn.Module, total_steps: int | None = None, trial: bool = False, trained: Trained = None
    ) -> None:
        """Find the units, put masks where they are read, and restore a state; see `Engine.attach`."""
        super().attach(model, total_steps, trial, trained)
        self._module, self.unstripped = model, {}

    def _put(
        self, model: nn.Module, length: int | None, total_steps: int | None, trial: bool, trained: Trained
    ) -> Learning:
        check_whole(model, "learned masks are on", "learn them under DDP, or use a Pruner")
        return Learning(self, model, length, total_steps, trial, trained)

    def _take_off(self, on_model: Learning) -> None:
        on_model.unhook()
        on_model.masks.hide()

    def strip(self, resumable: bool = False) -> Report:
        """Put the hard masks into the weights and leave a plain model, which `shrink` makes smaller.

        Args:
            resumable: the run broke off; `state_dict` goes on answering with what it had learned.

        Returns:
            The report of what is left. Calling it again when nothing is attached returns the same report.

        Raises:
            ValueError: a weight is not finite, unless the run broke off; the message names it. The masks are off then.
        """
        if self._model is not None:
            learning, diverged = self._last_look(resumable), None
            try:
                learning.settle()
            except ValueError as error:  # nothing can be ranked: the masks before hold
                diverged = error
            self._left, self._learned = self._model.state_dict(), self._model.probabilities()
            self.unstripped = {} if self._model.finished else {"state": self._left, "model": _copy(self._module)}
            self.history = self._model.history
            self._model.finish()
            self._final_report = self._model.report()
            if not (resumable or self._unfinished):
                kept = {"thresholds": self._left["thresholds"], "probabilities": self._learned}
                self._left = self._model.header() | kept | {"stripped": True}
            self._model.masks.hide()
            self._model, self._module = None, nn.Module()
            if not resumable:
                learning.check_finite()
                if diverged is not None:
                    raise diverged
        return self.report()

    def scalars(self, report: Report | None = None) -> dict[str, float]:
        """Return the numbers of now for a logger; those of a report where it is made already."""
        numbers = {"changed": self.changed, "regularizer": self.penalty, "undecided": self._on_model.undecided()}
        return (report or self.report()).scalars() | numbers

    def probabilities(self) -> dict[str, Tensor]:
        """Return the probability of each unit to be kept, by the first weight that computes them; also after strip."""
        return dict(self._learned) if self._model is None else self._model.probabilities()

    def picture(self, title: str = "") -> Any:
        """Return a matplotlib figure of what was learned so far: probabilities over time, undecided ones, masks."""
        from lightning_prune.learned.picture import figure

        history = self.history if self._model is None else self._model.history
        return figure(history, self.probabilities(), title)

    @property
    def progress(self) -> float:
        """The share of the window that is over. Raises RuntimeError when not attached."""
        return self._on_model.logits.progress

    @property
    def moves_between_updates(self) -> bool:
        """Whether the masks are decided anew at steps without an update, too: those of learned thresholds."""
        return self._on_model.follows_weights

    # One step

    def before_step(self, optimizer: Optimizer | None = None, grad_scale: float = 1.0) -> None:
        """Step the logits, and see to the gradients of the weights. Call it between backward and the step.

        Args:
            optimizer: the one about to step, where there are several; None for all weights.
            grad_scale: the factor by which a loss scaler has multiplied the logits' gradients: no scaler knows them.
        """
        learning = self._now
        if learning.finished:
            zero_gradients(learning.masks.of(optimizer))
        else:
            numbers = learning.numbers(optimizer)
            if self.train == "weights":
                learning.logits.drop_gradients(numbers)
            elif numbers and learning.logits.step >= learning.schedule.begin_step:
                value = learning.learn(numbers, grad_scale)
                if value is not None:
                    self._penalties[id(optimizer)] = value
            if self.task_share is not None:
                for parameter in self._stepped(optimizer):
                    if parameter.grad is not None:
                        parameter.grad.mul_(self.task_share)
        for parameter in self._stepped(optimizer) if self.train == "masks" else ():
            parameter.grad = None

    def _stepped(self, optimizer: Optimizer | None) -> list[nn.Parameter]:
        if optimizer is None:
            return list(self._module.parameters())
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def mask_weights(self, optimizer: Optimizer | None = None) -> None:
        """Set pruned weights to zero, those of one optimizer or all, once the masks are final."""
        if self._now.finished:
            apply_all(self.masks.of(optimizer))

    def mask_copies(self, saved: Any) -> dict[str, Any]:
        """Put the hard masks into copies of the model's tensors, wherever nested dicts hold them by name.

        Returns:
            Dicts nested in the same way, with what was replaced where its values are not the model's own.
        """
        return self._now.finish_copies(saved)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
