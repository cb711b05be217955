"""Strategies that train in processes of their own, and of all that hand only the model's values back to the script.

They are ddp_spawn, ddp_fork, ddp_notebook and xla: the script's module gets the trained state_dict, its Trainer the
metrics; handed_back.py brings the report. Modules of other shapes end with the processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_prune import families

if TYPE_CHECKING:
    from pytorch_lightning.strategies import Strategy


def own_processes(strategy: Strategy) -> str | None:
    """Return what to call a strategy that trains in processes of its own; None for one that does not."""
    launcher: Any = strategy.launcher
    if not isinstance(launcher, families.every("strategies.launchers._MultiProcessingLauncher")):
        return None
    return f"{type(strategy).__name__} with start_method={launcher._start_method!r}"


def check_shapes_come_back(strategy: Strategy, what: str, way_out: str) -> None:
    """Raise ValueError if a model that becomes smaller in this process would be lost with it.

    Args:
        strategy: of the Trainer.
        what: what makes it smaller.
        way_out: what to do other than to take another strategy.
    """
    name = own_processes(strategy)
    if name is not None:
        raise ValueError(
            f"{what}, which does not go with {name} (ddp_spawn, ddp_fork, ddp_notebook): it trains in processes of its "
            "own, whose values are put into the script's model, and that keeps its larger shapes. Use strategy='ddp'; "
            f"or {way_out}"
        )
