"""Lightning's events, translated into the pruner's verbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import Optimizer

from lightning_prune.callbacks import averages, wandb_media
from lightning_prune.callbacks.agreement import update_on_ranks
from lightning_prune.callbacks.denser_files import warn_of_denser_files
from lightning_prune.callbacks.ending import make_smaller, say_end
from lightning_prune.callbacks.gated_files import GatedFiles, check_apart, check_static, forward_scale
from lightning_prune.callbacks.guard import Guard
from lightning_prune.callbacks.handed_back import ReportBox
from lightning_prune.callbacks.hyperparameters import described, log_hyperparameters
from lightning_prune.callbacks.in_notebooks import InNotebooks
from lightning_prune.callbacks.left_zeros import zeros_are_left
from lightning_prune.callbacks.loss_scale import grad_scale, loss_scale, plain_optimizer
from lightning_prune.callbacks.own_processes import own_processes
from lightning_prune.callbacks.resumed_data import ResumedData
from lightning_prune.callbacks.rewind import Rewind, Rewinder
from lightning_prune.callbacks.run_pace import RunPace
from lightning_prune.callbacks.short_forms import pruner_of
from lightning_prune.callbacks.shrunk_checkpoints import Loading, save_small
from lightning_prune.callbacks.starting import put_on, restores_late
from lightning_prune.callbacks.stepping import AfterStep, say_plan
from lightning_prune.callbacks.taken_apart import before_apart
from lightning_prune.callbacks.telling import check_metric, check_validates, settle, tell
from lightning_prune.cost import CostReport
from lightning_prune.dynamic import DynamicGates
from lightning_prune.dynamic.links import hold
from lightning_prune.families import Callback
from lightning_prune.given import flag
from lightning_prune.learned import LearnedMasks
from lightning_prune.parsed import parsed
from lightning_prune.pruning import Pruner
from lightning_prune.report import Report
from lightning_prune.schedule import Schedule
from lightning_prune.shrink import ShrinkReport

if TYPE_CHECKING:
    import pytorch_lightning as pl


@parsed
class PruningCallback(Callback, InNotebooks):
    """Prune the model while the Trainer fits it, and leave it plain and sparse at the end.

    `PruningCallback(0.9)` takes 90 % of the weights, smallest magnitude first over all layers, on a cubic schedule
    from 5 % to 40 % of the run with an update every .4 % of it.

    Args:
        pruner: a `Pruner`, `LearnedMasks` or `DynamicGates`; or a schedule, or a final sparsity in [0, 1], for a pruner
            with all else at its default.
        shrink: take dead units out of the model at the end, which leaves it smaller and dense: with
            `pattern=Channel()`, or whatever else leaves whole units without weights. The module needs an
            `example_input_array`.
        rewind: what becomes of kept weights after an update: None leaves them, an int is the step to go back to, "init"
            draws them anew; a `Rewind` says more.
        tag: tells two callbacks in one Trainer apart, in logs and in checkpoints.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        pruner: Pruner | LearnedMasks | DynamicGates | Schedule | float,
        shrink: bool = False,
        rewind: Rewind | int | Literal["init"] | None = None,
        tag: str = "",
    ) -> None:
        flag("shrink", shrink)
        self.pruner = pruner_of(pruner)
        self.rewind = rewind if rewind is None or isinstance(rewind, Rewind) else Rewind(rewind)
        if rewind is not None and isinstance(self.pruner, LearnedMasks):
            raise ValueError(f"rewind={rewind!r} does not go with learned masks: they put no weight to zero on the way")
        if isinstance(self.pruner, DynamicGates):
            check_static(rewind, shrink)
        self.shrink = shrink
        self.tag = tag
        self._logged = f"sparsity/{tag}" if tag else "sparsity"
        self._box = ReportBox()
        self.hyperparameters: dict[str, Any] = {}  # what else loggers are told of the run, such as its config
        self.folder: str | None = None  # where a model goes that cannot be made smaller; None for that of checkpoints
        self.before_shrinking: Callable[[pl.LightningModule], object] = bool  # looks at a model in its full size
        self.shrink_report: ShrinkReport | None = None
        self.cost_report: CostReport | None = None
        self.recipe: dict[str, Any] = {}  # how a plain model gets the shapes that the latest fit left; empty if its own
        self._loading = Loading()
        self._gated_files = GatedFiles()
        self._sparsity = 0.0
        self._stage = "fit"
        self._idle = False
        self._left = True  # whether all is done that comes after the strip
        self._shown = False  # whether the progress bar of this fit has the sparsity
        self._fitted = 0  # the id of the model of the latest fit
        self._step = 0  # optimizer steps completed at the end of the batch before
        self._rewinder: Rewinder | None = None
        self._rewinder_state: dict[str, Any] = {}
        self._own_pattern: Any = None  # the pruner's, as it was given
        self._pace: RunPace | None = None
        self._pace_state: dict[str, int] = {}
        self._resumed_data = ResumedData()
        self._hooks: list[AfterStep] = []
        self._media: wandb_media.Media | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint."""
        return self._generate_state_key(tag=self.tag)

    @property
    def report(self) -> Report | None:
        """What the latest fit pruned, None before one; also where it ran in processes of its own."""
        return self._box.report

    # Fit begins

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin anew, or go on from what a fit before left; stand behind averages; let files of any size load."""
        self._stage = stage
        if stage == "fit":
            trainer.callbacks = averages.behind(trainer.callbacks, PruningCallback)  # pyright: ignore
            self._release()  # what a fit before this one left, where it broke off and no hook was called
            if self.pruner.attached:
                self.pruner.strip()
            same = trainer.global_step > 0 and self._fitted == id(pl_module)
            self._idle = same and bool(self.recipe)  # pruned and shrunk: what follows is fine-tuning
            if not self._idle:
                self.recipe, self.shrink_report, self.cost_report = {}, None, None
            goes_on = same and (self.report is None or zeros_are_left(self.report, pl_module))
            left = self.state_dict() if goes_on else {}
            self._fitted, self._rewinder, self._rewinder_state = id(pl_module), None, {}
            self._pace, self._pace_state = None, {}
            if self._own_pattern is not None:  # one with examples of other data may stand in its place
                self.pruner.pattern = self._own_pattern  # pyright: ignore
            if left:  # the same trainer fits the same model further
                self.load_state_dict(left)
            if not self._idle:
                before_apart(trainer, pl_module, self.pruner)
        self._loading.begin(trainer, pl_module, self.recipe, stage)  # until the checkpoint is read
        if isinstance(self.pruner, DynamicGates):
            self._gated_files.begin(pl_module, self.pruner.example_inputs, stage)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the module as it is without the callback."""
        self._loading.end()
        self._gated_files.end()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach the pruner: the model is on its device, and a checkpoint's weights and state are loaded."""
        self._loading.end()
        self._gated_files.end()
        if not self._idle:
            check_validates(trainer, self.pruner)
        if not self._idle and not restores_late(trainer):
            self._attach(trainer)

    def _attach(self, trainer: pl.Trainer) -> None:
        others = {c.tag: c.pruner for c in trainer.callbacks if isinstance(c, PruningCallback) and c is not self}  # pyright: ignore
        check_apart(trainer, self.pruner)
        self._own_pattern = getattr(self.pruner, "pattern", None)
        given = (self.pruner, self._pace_state, others, self.tag, self.rewind, self._rewinder_state, self.shrink)
        self._pace, self._rewinder = put_on(trainer, self._title, *given)
        self._rewinder_state = {}
        self._media = wandb_media.Media.of(trainer, self._prefix)
        if all(pruner.attached for pruner in others.values()):  # this is the last of all
            others |= {self.tag: self.pruner}
            log_hyperparameters(trainer, {tag: described(each) for tag, each in others.items()}, self.hyperparameters)
        self._sparsity = say_plan(trainer, self.pruner, self._title)
        if trainer.max_steps == 0:  # nothing is trained, and no hook of a step called: prune the model as it is
            self._advance(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Guard every optimizer's step, and catch up with updates that are due before the first one."""
        if self is next(c for c in trainer.callbacks if isinstance(c, PruningCallback)):  # pyright: ignore
            self._resumed_data.go_on(trainer)
        if self._idle:
            return
        if not self.pruner.attached:  # the strategy has restored the checkpoint only now
            self._attach(trainer)
        for optimizer in trainer.optimizers:
            self._hooks.append(AfterStep(optimizer, self._after_optimizer_step))
        self._shown, self._step, self._guard = False, trainer.global_step, Guard(self._title)
        self._advance(trainer)

    # A training step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Mask what a hook behind this callback has written to pruned weights; do what a validation has decided."""
        if self.pruner.attached:
            self._guard.look(self.pruner)
            if isinstance(self.pruner, DynamicGates):
                self.pruner.before_forward(forward_scale(trainer))
            if isinstance(self.pruner, Pruner) and self.pruner.pruning_waits:
                self._advance(trainer)
                self._mask_all(trainer)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Any) -> None:
        """Name what was written to pruned weights between the batch's start and its forward."""
        if self.pruner.attached:
            self._guard.look_behind(self.pruner)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Put the regularizer's gradient in and take pruned gradients out, before clipping."""
        if not self._idle:
            own = isinstance(self.pruner, (LearnedMasks, DynamicGates))  # no optimizer unscales their gradients
            scale = loss_scale(trainer) if own else grad_scale(trainer, optimizer)
            self.pruner.before_step(plain_optimizer(optimizer), grad_scale=scale)

    def _after_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.pruner.attached:
            self.pruner.stepped(plain_optimizer(optimizer))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the masks if an update is due, and log."""
        if self._idle:
            return
        updated = self._advance(trainer)
        if updated or batch_idx == 0 or not self._shown:
            pl_module.log(self._logged, self._sparsity, prog_bar=True, logger=False)
            self._shown = True
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        due = stepped and not updated and trainer.global_step % max(1, trainer.log_every_n_steps) == 0  # pyright: ignore
        if due and self.pruner.regularizer is not None:
            self._write(trainer, {"regularizer": self.pruner.penalty})

    def _advance(self, trainer: pl.Trainer) -> bool:
        if self._pace is not None:
            self._pace.follow(trainer, self.pruner, self._title)
        if not update_on_ranks(trainer, self.pruner, self._title, lambda: self._update(trainer)):
            return False
        report = self.pruner.report()
        self._sparsity = report.sparsity
        self._write(trainer, self.pruner.scalars(report))
        if self._media is not None:
            self._media.update(self.pruner, report, trainer.global_step)
        return True

    def _update(self, trainer: pl.Trainer) -> bool:
        if self._rewinder is not None:
            self._rewinder.watch(trainer.global_step)
        if not self.pruner.update(trainer.global_step, trainer.optimizers):
            return False
        if self._rewinder is not None and self._rewinder.after_update(trainer.optimizers):
            self._mask_all(trainer)
        return True

    # Averages and checkpoints

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask the average that SWA has put into the model for an epoch that renews BatchNorm's statistics."""
        self._mask()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask what a weight average has put into the model for validation."""
        self._mask()

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for the metric that the schedule follows. Raises ValueError, which names those that are there."""
        check_metric(trainer, self.pruner)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the schedule the metric, if it follows one; what comes of it is done before the next batch."""
        if self.pruner.attached:
            tell(trainer, self.pruner, self._title)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mask what a weight average has put into the model for good; end with the best that a metric has allowed."""
        self._resumed_data.keep(trainer)
        settle(trainer, self.pruner, self._title)
        self._mask_all(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Mask every copy of a pruned weight in the checkpoint, averages included, and after the strip as well."""
        self._resumed_data.write(trainer, checkpoint)
        ours = {c.state_key for c in trainer.callbacks if isinstance(c, PruningCallback)}  # pyright: ignore
        averages.mask_file(checkpoint, ours, self.state_key, self.pruner, self.report, pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Give averages beside learned masks the values back that the file has hard ones of."""
        self._resumed_data.read(checkpoint)
        soft = checkpoint.get("callbacks", {}).get(self.state_key, {}).pop("soft", None)
        if soft and self._stage == "fit":
            averages.put_back(trainer, pl_module, checkpoint, soft)

    def state_dict(self) -> dict[str, Any]:
        """Return masks, thresholds and schedule position, and values kept for a rewind."""
        state = self.pruner.state_dict()
        rewinding = self._rewinder.state_dict() if self._rewinder is not None else self._rewinder_state
        state = state | {"rewind": rewinding} if state and rewinding else state
        state = state | {"pace": self._pace.state_dict()} if state and self._pace is not None else state
        return state | {"shrunk": self.recipe} if self.recipe else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a checkpoint's state, for the attach to come or, with strategies that restore late, at once."""
        if self._stage != "fit":  # validate and test restore callbacks too; the next fit must not start from that
            return
        self._rewinder_state, self._pace_state = state_dict.pop("rewind", {}), state_dict.pop("pace", {})
        if "shrunk" in state_dict:  # a file of the shrunk model: what follows is fine-tuning
            self.recipe, self._idle = state_dict["shrunk"], True
        self.pruner.load_state_dict(state_dict)
        if self._rewinder is not None:
            self._rewinder.load_state_dict(self._rewinder_state)

    # Fit ends

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Strip the masks and say what was reached; once all callbacks have, make the model smaller."""
        self._release()
        if self.pruner.attached:
            self._strip(trainer)
        every = [c for c in trainer.callbacks if isinstance(c, PruningCallback)]  # pyright: ignore
        if not any(callback.pruner.attached for callback in every):  # masks fit the model in its full size
            for callback in every:
                callback._leave(trainer, pl_module)

    def _strip(self, trainer: pl.Trainer) -> None:
        self._box.report, self._left = self.pruner.strip(), False
        if "stripped" in self.pruner.state_dict():  # else the run stopped early, and can be resumed
            self._rewinder = None
        if own_processes(trainer.strategy):
            self._box.send(trainer)
        say_end(self._title, self.pruner, self._box.report)
        warn_of_denser_files(trainer, self._title, self._box.report)

    def _leave(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._left or self.report is None:
            return
        self._left = True
        if self.shrink and "stripped" in self.pruner.state_dict():
            self.before_shrinking(pl_module)
            done = make_smaller(trainer, pl_module, self.pruner, self._title, self.folder)
            self.shrink_report, self.recipe, self.cost_report = done.report, done.recipe, done.cost
            self._write(trainer, done.cost.scalars() if done.cost else {})
            save_small(trainer, self)
        if self._media is not None and trainer.is_global_zero:
            self._media.finish(self.report, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Strip the masks; a checkpoint written after this still holds them, so that the run can be resumed."""
        self._resumed_data.keep(trainer)
        self._release()
        if self.pruner.attached:
            self._box.report = self.pruner.strip(resumable=True)  # a rewinder stays, to be asked for its state
        else:
            hold(pl_module, shared=False)  # gates of a fit before
            self.pruner.forget()  # a fit that never began must leave nothing for the next one

    # Helpers

    @property
    def _prefix(self) -> str:
        return f"pruning/{self.tag}/" if self.tag else "pruning/"

    @property
    def _title(self) -> str:
        return f"{self.pruner.name} [{self.tag}]" if self.tag else self.pruner.name

    def _mask_all(self, trainer: pl.Trainer) -> None:
        """Mask what others prune as well: weights that have gone back are theirs, too."""
        for callback in trainer.callbacks:  # pyright: ignore
            if isinstance(callback, PruningCallback):
                callback._mask()

    def _mask(self) -> None:
        if self.pruner.attached:
            self.pruner.mask_weights()

    def _release(self) -> None:
        self._loading.end()
        while self._hooks:
            self._hooks.pop().remove()

    def _write(self, trainer: pl.Trainer, numbers: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({self._prefix + k: v for k, v in numbers.items()}, step=trainer.global_step)
