"""The verbs that a pruner and learned masks share: on a model and off it, one step, the state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.masks import Masks, alive
from lightning_prune.pruning.header import check_version
from lightning_prune.pruning.saved_window import describe
from lightning_prune.pruning.state_schema import check_header
from lightning_prune.pruning.waiting import Trained
from lightning_prune.report import Report
from lightning_prune.schedule import Schedule


class OnModel(Protocol):
    """What is known while masks are on a model."""

    masks: Masks
    schedule: Schedule
    length: int | None
    step: int | None
    changed: float

    def follow(self) -> None: ...

    def resolve(self, length: int) -> None: ...

    def update(self, step: int, optimizers: Iterable[Optimizer]) -> bool: ...

    def report(self) -> Report: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


OnModelT = TypeVar("OnModelT", bound=OnModel)


class Engine(ABC, Generic[OnModelT]):
    """What prunes a model step by step, on any training loop.

    Attributes:
        name: what the report and the log call it.
    """

    _of_learned = False  # what kind of state it has
    _of_gates = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._model: OnModelT | None = None
        self._resolved: Schedule | None = None
        self._penalties: dict[int, Tensor] = {}
        self._pending: dict[str, Any] | None = None
        self._left: dict[str, Any] = {}
        self._later: Callable[[], dict[str, Any]] | None = None  # what to ask for the state once nothing is attached
        self._final_report: Report | None = None

    @abstractmethod
    def _put(
        self, model: nn.Module, length: int | None, total_steps: int | None, trial: bool, trained: Trained
    ) -> OnModelT:
        """Put masks on a model for a run of a length, or leave it as it is and raise."""

    @abstractmethod
    def mask_weights(self, optimizer: Optimizer | None = None) -> None:
        """Set pruned weights to zero: those of one optimizer, or all."""

    def stepped(self, optimizer: Optimizer) -> None:
        """Set pruned weights of an optimizer to zero, if the step that it has just made may have written to them."""
        self.mask_weights(optimizer)

    @abstractmethod
    def _take_off(self, on_model: OnModelT) -> None:
        """Leave the model as it is, without masks."""

    # The model

    @property
    def attached(self) -> bool:
        """Whether masks are on a model now."""
        return self._model is not None

    @property
    def masks(self) -> Masks:
        """The masked tensors by name, those that the model computes with now.

        Raises RuntimeError when not attached, ValueError if one was replaced by what its mask does not fit.
        """
        return self._now.masks

    @property
    def resolved_schedule(self) -> Schedule:
        """The schedule in whole steps. Raises RuntimeError before the first attach."""
        if self._resolved is None:
            raise RuntimeError("the schedule is resolved by attach(model, total_steps)")
        return self._resolved

    @property
    def saved_length(self) -> int | None:
        """The run's length in a state that was loaded and waits for attach; None if there is none."""
        return (self._pending or {}).get("total_steps")

    @property
    def saved_window(self) -> str | None:
        """What a state that was loaded and waits for attach says of its window, in one line; None if there is none."""
        return None if self._pending is None else describe(self._pending)

    def attach(
        self, model: nn.Module, total_steps: int | None = None, trial: bool = False, trained: Trained = None
    ) -> None:
        """Put masks and thresholds beside the targets of a model, and restore a state that was loaded before.

        Args:
            model: the model, on the device where it will train.
            total_steps: how many optimizer steps the run will take, if known; needed by schedules given in shares.
            trial: `total_steps` is not the whole run's length; a window past it is then no error.
            trained: the parameters that optimizers step. Others are left whole, as frozen ones are, unless
                `Targets(include=...)` names them. None: all that are not frozen are stepped.

        Raises:
            ValueError: nothing to prune, a rule that matches nothing, a window that cannot be met or that a state to
                go on from has behind it, or weights that are not those saved with that state.
            RuntimeError: already attached.
        """
        if self.attached:
            raise RuntimeError(f"{self.name}: already attached; strip() first")
        # Shares of the run keep their meaning when a run is resumed with another length.
        on_model = self._put(model, self.saved_length or total_steps, total_steps, trial, trained)
        try:
            if self._pending is not None:
                on_model.load_state_dict(self._pending)
        except BaseException:
            self._take_off(on_model)
            raise
        self._model, self._resolved = on_model, on_model.schedule
        self._pending, self._left, self._later, self._penalties, self._final_report = None, {}, None, {}, None

    @property
    def length(self) -> int | None:
        """The run's length that shares refer to, None if it is not known. Raises RuntimeError when not attached."""
        return self._on_model.length

    def resolve(self, total_steps: int) -> None:
        """Have shares of the run refer to another length from here on. The masks stay what they are.

        Raises:
            ValueError: the schedule does not fit into it; nothing is changed then.
        """
        self._on_model.resolve(total_steps)
        self._resolved = self._on_model.schedule

    def report(self) -> Report:
        """Return the numbers of now; after strip, those of the stripped model. Raises RuntimeError before attach."""
        if self._model is None and self._final_report is not None:
            return self._final_report
        return self._now.report()

    # One step

    def update(self, step: int, optimizers: Iterable[Optimizer] = ()) -> bool:
        """Update the masks if the schedule has an update due, as `after_step` does; but mask nothing otherwise."""
        return self._now.update(step, optimizers)

    def after_step(self, step: int, optimizers: Iterable[Optimizer] = ()) -> bool:
        """Mask the weights, and update the masks if the schedule has an update due.

        Args:
            step: how many optimizer steps are completed. It may jump, and may be given more than once.
            optimizers: whose moments of newly pruned weights are to be cleared.

        Returns:
            Whether the masks were updated.

        Raises:
            ValueError: a score or a weight is not finite; the message names it. No weight and no mask is changed then.
        """
        optimizers = tuple(optimizers)
        if optimizers and self._all_stepped_by(optimizers):
            for optimizer in optimizers:
                self.stepped(optimizer)
            self.masks.apply_to_followers()
        else:
            self.mask_weights()
        return self.update(step, optimizers)

    def _all_stepped_by(self, optimizers: Iterable[Optimizer]) -> bool:
        """Return whether optimizers step all masked weights."""
        return False

    def digest(self) -> bytes:
        """Return 8 bytes that differ where what was decided differs: masks and thresholds."""
        return self.masks.digest()

    def withdraw(self) -> None:
        """Come off a model on which nothing has happened yet, and leave it as it was."""
        self.strip()

    @abstractmethod
    def strip(self, resumable: bool = False) -> Report:
        """Leave a plain model, and return the report of what is left."""

    def alive(self, closely: bool = True) -> list[str]:
        """Return the names of weights whose pruned entries are not all zero now; nothing is written or followed.

        Args:
            closely: look at the values of all, else only of those with a write that torch counts.
        """
        weights = self._on_model.masks.values()
        return [weight.target.name for weight in alive(w for w in weights if closely or w.written_to)]

    @property
    def moves_between_updates(self) -> bool:
        """Whether the masks are decided anew at steps without an update, too: those that follow the weights."""
        return False

    @property
    def waits_for_metric(self) -> str | None:
        """The name of the metric that validations are to tell the schedule; None where it asks for none."""
        return None

    @property
    def penalty(self) -> float:
        """The regularizer's value at the latest step, 0 without one or before the first."""
        return sum(float(value) for value in self._penalties.values())

    @property
    def changed(self) -> float:
        """The share of all mask entries that the latest update changed."""
        return self._on_model.changed

    @property
    def last_update(self) -> int | None:
        """The step of the latest update, None before the first."""
        return self._left.get("last_update") if self._model is None else self._model.step

    @property
    def _unfinished(self) -> bool:
        return self.last_update is None or self.last_update < self.resolved_schedule.end_step

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: plain values and tensors that load with `weights_only=True`.

        The masks are not in it but in the weights, whose zeros are the pruned entries: save them with it, and load them
        before it. Pruned entries that something has just written to are set to zero.

        After `strip` it is a few numbers: the masks can then be read off the zeros of the weights. Only where the
        schedule was not at its end, or the run broke off, is it the same as before `strip`, so that both can go on.
        """
        if self._model is None and self._later is not None:
            return self._later()
        if self._model is None:
            return dict(self._left or self._pending or {})
        return self._last_look(broke_off=True).state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state: at once when attached, else at the next attach. Load the model's weights before that.

        Raises:
            ValueError: the state is of a newer version, of the other kind of masks, of other weights, damaged, or the
                model's zeros are not its masks; nothing is changed then.
        """
        check_version(state)
        check_header(state, self._of_learned, self._of_gates)
        if self._model is None:
            self._pending = dict(state)
            return
        self._model.load_state_dict(state)
        self._resolved = self._model.schedule

    def forget(self) -> None:
        """Drop a state that was loaded and waits for the next attach."""
        self._pending = None

    @property
    def _now(self) -> OnModelT:
        """What is on the model, after a look at whether the model's weights are still those."""
        on_model = self._on_model
        on_model.follow()
        return on_model

    def _last_look(self, broke_off: bool) -> OnModelT:
        """Return what is on the model. Where it cannot follow the weights it comes off, unless the run broke off."""
        on_model = self._on_model
        try:
            on_model.follow()
        except ValueError:
            if not broke_off:
                self._take_off(on_model)
                self._model = None
                raise
        return on_model

    @property
    def _on_model(self) -> OnModelT:
        if self._model is None:
            raise RuntimeError(f"{self.name}: not attached to a model; call attach(model) first")
        return self._model
