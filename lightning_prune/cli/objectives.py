"""What a run of a sweep is worth: numbers that it left in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from lightning_prune.cli import outputs
from lightning_prune.cli.errors import UserError, near


def values(names: Sequence[str], folder: Path) -> tuple[float, ...]:
    """Return the numbers of these names: metrics of the test, keys of report.json, or the last ones in metrics.csv.

    Raises:
        UserError: there is no such number, or it is not finite.
    """
    if not names:
        return ()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    found = {name: points[-1][1] for name, points in outputs.read_metrics(folder).items()}
    found |= report["test"] | dict(_numbers({key: value for key, value in report.items() if key != "test"}))
    for name in names:
        if name not in found:
            meant = near(name, found)
            hint = f"did you mean {' or '.join(meant)}?" if meant else f"it has {', '.join(sorted(found))}"
            raise UserError(f"objectives: the run has no number {name!r}; {hint}")
        if not math.isfinite(found[name]):
            raise UserError(f"objectives: {name} is {found[name]}")
    return tuple(float(found[name]) for name in names)


def directions(config: DictConfig) -> dict[str, str]:
    """Return objective -> minimize or maximize, of a sweep's config; none where its sweeper optimizes nothing.

    Raises:
        UserError: the sweeper optimizes, and the objectives are not as many as its directions.
    """
    given = OmegaConf.select(config, "hydra.sweeper.direction")
    names = list(config.get("objectives") or ())
    if given is None:
        return {}
    each = list(given) if isinstance(given, ListConfig) else [given]
    if len(each) != len(names) or len(set(names)) != len(names):
        raise UserError(
            f"objectives={names or 'null'} must name one number for each of hydra.sweeper.direction, which has "
            f"{len(each)}: objectives=[test/accuracy,sparsity] hydra.sweeper.direction=[maximize,maximize], say"
        )
    return {name: str(getattr(direction, "name", direction)) for name, direction in zip(names, each, strict=True)}


def _numbers(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
