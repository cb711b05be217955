"""What must agree between callbacks of one Trainer, and between its ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_prune.learned import LearnedMasks
from lightning_prune.pruning import Pruner

if TYPE_CHECKING:
    import pytorch_lightning as pl

T = TypeVar("T")

_TEXT = 2048
"""How many bytes of an error's text reach the other ranks."""


def check_overlap(pruner: Pruner | LearnedMasks, tag: str, others: Mapping[str, Pruner | LearnedMasks]) -> None:
    """Raise ValueError if a pruner prunes a weight that another one, by its callback's tag, prunes as well."""
    gated = {gate.layer for gate in getattr(pruner, "sites", ())}
    for other, theirs in others.items():
        both = sorted(gated & {gate.layer for gate in getattr(theirs, "sites", ())}) if theirs.attached else []
        if both:
            raise ValueError(
                f"two PruningCallbacks (tags {other!r} and {tag!r}) both gate {', '.join(both)}: "
                "tell them apart with Targets(include=..., exclude=...)"
            )
    mine = {id(w.parameter): name for name, w in pruner.masks.items()}
    for other, theirs in others.items():
        if not theirs.attached:
            continue
        both = [mine[id(w.parameter)] for w in theirs.masks.values() if id(w.parameter) in mine]
        if both:
            raise ValueError(
                f"two PruningCallbacks (tags {other!r} and {tag!r}) both prune {', '.join(both)}: "
                "tell them apart with Targets(include=..., exclude=...)"
            )


def update_on_ranks(trainer: pl.Trainer, pruner: Pruner | LearnedMasks, title: str, update: Callable[[], bool]) -> bool:
    """Update masks, and return whether an update was due; on several ranks see that it left all with the same masks.

    Raises:
        ValueError: `update` raised one on some rank; or RuntimeError, where it raised anything else. See `on_ranks`.
        RuntimeError: the masks differ between ranks.
    """

    def digest(due: bool) -> bytes | None:
        return pruner.digest() if due or pruner.moves_between_updates else None

    different = f"the masks differ between ranks after the update at step {trainer.global_step}; "
    different += "the weights or gradients that the criterion reads are not the same on all ranks"
    return on_ranks(trainer, title, update, digest, different)


def on_ranks(
    trainer: pl.Trainer,
    title: str,
    act: Callable[[], T],
    digest: Callable[[T], bytes | None] = lambda _: bytes(8),
    different: str = "",
) -> T:
    """Do something on every rank and return what came of it on this one, or raise on all if it failed on one.

    A rank that fails alone would leave the others waiting for it in their next collective until the group's timeout.

    Args:
        trainer: whose ranks.
        title: what an error begins with.
        act: what to do; it holds no collective.
        digest: of what came of it, 8 bytes that must be the same on all ranks; None, on all, where they need not meet.
        different: what is said where they are not.

    Raises:
        ValueError: `act` raised one on some rank: every rank raises the text of the first that failed, with its number.
        RuntimeError: `act` raised another error, or the digests differ.
    """
    if trainer.world_size == 1:
        return act()
    failure: Exception | None = None
    mine: bytes | None = bytes(8)
    results: list[T] = []
    try:
        results.append(act())
        mine = digest(results[0])
    except Exception as error:
        failure = error
    if failure is None and mine is None:
        return results[0]
    kind = 0 if failure is None else 1 if isinstance(failure, ValueError) else 2
    every = _gathered(trainer, torch.tensor([*(mine or bytes(8)), kind], dtype=torch.uint8))
    kinds = [int(each[-1]) for each in every]
    if any(kinds):
        _raise(trainer, title, kinds, failure)
    if any(not torch.equal(each, every[0]) for each in every):
        raise RuntimeError(f"{title}: {different}")
    return results[0]


def _raise(trainer: pl.Trainer, title: str, kinds: list[int], failure: Exception | None) -> None:
    text = "" if failure is None else str(failure) if isinstance(failure, ValueError) else repr(failure)
    said = text.encode()[:_TEXT].ljust(_TEXT, b"\0")
    every = _gathered(trainer, torch.frombuffer(bytearray(said), dtype=torch.uint8))
    first = next(rank for rank, kind in enumerate(kinds) if kind)
    text = bytes(every[first].tolist()).rstrip(b"\0").decode(errors="ignore")
    others = [str(rank) for rank, kind in enumerate(kinds) if kind and rank != first]
    also = f" (and on rank {', '.join(others)})" if others else ""
    raised = ValueError if kinds[first] == 1 else RuntimeError
    raise raised(f"{title}: rank {first}{also}: {text}") from failure


def _gathered(trainer: pl.Trainer, mine: Tensor) -> list[Tensor]:
    """Return every rank's tensor, on the CPU. The group's backend may know none there: it travels over the device."""
    mine = mine.to(trainer.strategy.root_device)
    every = [torch.empty_like(mine) for _ in range(trainer.world_size)]
    dist.all_gather(every, mine)
    return [each.cpu() for each in every]
