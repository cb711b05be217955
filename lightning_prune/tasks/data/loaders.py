"""Loaders over tensors in memory: a training loader that resumes mid-epoch, and one for evaluation."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, final

from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_prune.families import Trainer
from lightning_prune.tasks.data.order import EpochOrder
from lightning_prune.tasks.data.tensors import Tensors

Batch = tuple[Tensor, Tensor]


@final
class TrainingLoader(DataLoader[Batch]):
    """A loader that asks the trainer for epoch and progress when it draws a first batch, and so resumes mid-epoch.

    Lightning continues a mid-epoch checkpoint at batch k, yet takes the loader's first batch there. It offers
    ``state_dict`` to loaders, but never loads it when ``configure_optimizers`` asks for the run's length: that makes
    the loader before the checkpoint's progress is read. So progress is asked for at the last moment, nothing is saved.

    Args:
        dataset: The samples.
        batch_size: Samples per batch and process.
        sampler: The samples' order.
        begin: Called when an epoch's first batch is drawn, before ``sampler`` is; the number of batches to leave out.
        shuffle: Always False; Lightning passes it when it makes the loader anew with a sampler for several processes.
        batch_sampler: Always None; as above.
    """

    def __init__(
        self,
        dataset: Tensors,
        *,  # Lightning passes another sampler by name
        batch_size: int,
        sampler: Sampler[int] | Iterable[int],
        begin: Callable[[], int],
        shuffle: bool = False,
        batch_sampler: None = None,
    ) -> None:
        super().__init__(dataset, batch_size, shuffle, sampler, batch_sampler, collate_fn=_whole)
        self.begin = begin

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A generator, so that all of this waits for the first draw.
        taken = self.begin()
        yield from islice(super().__iter__(), taken, None)

    def state_dict(self) -> dict[str, Any]:
        """Empty, see above; that it is there tells Lightning not to warn of a loader that cannot resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def training_loader(dataset: Tensors, batch_size: int, seed: int, trainer: Trainer | None) -> TrainingLoader:
    """Batches in an order given by ``seed`` and epoch; continues mid-epoch when ``trainer`` resumes there."""
    order = EpochOrder(len(dataset), seed)
    return TrainingLoader(dataset, batch_size=batch_size, sampler=order, begin=partial(_begin, order, dataset, trainer))


def evaluation_loader(dataset: Tensors, batch_size: int) -> DataLoader[Batch]:
    """Batches in the data set's own order."""
    return DataLoader(dataset, batch_size, collate_fn=_whole)  # pyright: ignore[reportArgumentType]


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError unless ``batch_size`` is at least 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give 1 or more")


def _begin(order: EpochOrder, dataset: Tensors, trainer: Trainer | None) -> int:
    if trainer is None:
        return 0
    # Lightning wraps the order on several processes, and before 2.6.1 the wrapper kept set_epoch to itself.
    order.set_epoch(trainer.current_epoch)
    dataset.set_epoch(trainer.current_epoch)
    loop = trainer.fit_loop.epoch_loop
    # `restarting` is True from the loading of a checkpoint to the end of the first batch after it.
    return loop.batch_progress.current.ready if loop.restarting else 0


def _whole(batch: Any) -> Any:
    # Tensors.__getitems__ has made the batch already.
    return batch
