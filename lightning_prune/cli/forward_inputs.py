"""What a task's forward is given of the run's training data, found by letting its step for a test make the calls."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from lightning_prune.cli import build
from lightning_prune.cli.errors import UserError, message
from lightning_prune.coupling.example import examples_in


def forward_inputs(config: Any, data: Any, task: Any, stage: Literal["test", "validation"], examples: int) -> list[Any]:
    """Return what one forward takes, for each batch of training until there are so many examples.

    Args:
        config: of the run.
        data: the run's.
        task: with its weights.
        stage: whose step turns a batch into a forward.
        examples: how many at least, of as many as there are.

    Raises:
        UserError: there is no data for training, the step fails on it, or does not call forward, or parts of the model
            beside it.
    """
    from omegaconf import OmegaConf, open_dict

    whole: Any = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    with open_dict(whole):
        whole.trainer.limit_test_batches = whole.trainer.limit_val_batches = 1.0
        whole.trainer.inference_mode = False  # tensors of that mode cannot be exported
    taken: list[Any] = []

    def enough() -> bool:
        return sum(map(examples_in, taken)) >= examples

    with forward_alone(task, stage), _watched(task, taken, enough):
        try:
            data.prepare_data()
            data.setup("fit")
            batches = _Until(data.train_dataloader(), enough)
            trainer = build.plain_trainer(whole, task)
            (trainer.test if stage == "test" else trainer.validate)(task, dataloaders=batches, verbose=False)
        except UserError:
            raise
        except Exception as error:  # whatever a module of the user's own raises
            raise UserError(
                f"the {stage} step fails on the run's training data: {message(error)}{_OTHERWISE}"
            ) from error
    if not taken:
        raise UserError(f"the {stage} step does not call the model's forward, which is what is exported{_OTHERWISE}")
    return taken


_OTHERWISE = "; lightning_prune.export.to_int8 takes batches of your own"


@contextmanager
def forward_alone(task: nn.Module, stage: str) -> Generator[None, None, None]:
    """Raise a UserError where a part with weights is called beside forward: an exported forward has no such part."""
    inside: list[None] = []

    def refuse(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if not inside:
                raise UserError(f"the {stage} step calls {name} itself, not the forward that is exported{_OTHERWISE}")

        return hook

    handles = [
        module.register_forward_pre_hook(refuse(name))
        for name, module in task.named_modules()
        if name and next(module.parameters(), None) is not None
    ]
    handles.append(task.register_forward_pre_hook(lambda *_: inside.append(None)))
    handles.append(task.register_forward_hook(lambda *_: inside.clear(), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watched(task: nn.Module, taken: list[Any], enough: Callable[[], bool]) -> Generator[None, None, None]:
    signature = inspect.signature(task.forward)

    def keep(_: nn.Module, args: tuple[Any, ...], by_name: dict[str, Any]) -> None:
        if enough():  # a trainer may ask for a batch ahead
            return
        given = dict(signature.bind(*args, **by_name).arguments) if by_name else args
        taken.append(copy.deepcopy(given))

    handle = task.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class _Until:
    """Batches of a loader, until there are enough."""

    loader: Iterable[Any]
    enough: Callable[[], bool]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if self.enough():
                return
            yield batch
