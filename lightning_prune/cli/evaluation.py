"""The metrics of a task on its data: of its test, or of its validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lightning_prune import families

if TYPE_CHECKING:
    from lightning_prune.cli.build import Parts

_LOADERS = {"test": "test_dataloader", "validation": "val_dataloader"}


def has(parts: Parts, stage: Literal["test", "validation"]) -> bool:
    """Whether both the task and the data have that stage."""
    is_overridden = families.part(families.of(parts.task), "utilities.model_helpers.is_overridden")
    return is_overridden(f"{stage}_step", parts.task) and is_overridden(_LOADERS[stage], parts.data)


def metrics(trainer: Any, parts: Parts, stage: Literal["test", "validation"]) -> dict[str, float]:
    """Return the metrics that a trainer finds in a stage, of all its loaders."""
    run = trainer.test if stage == "test" else trainer.validate
    results = run(parts.task, datamodule=parts.data, verbose=False)
    return {name: float(value) for result in results for name, value in result.items()}
