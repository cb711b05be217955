"""The older system's one-string configuration: its fields, its validation, its update rule and its thresholds.

Source: TensorFlow contrib `model_pruning`; the fields of its later releases as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, cast

from lightning_prune import steps
from lightning_prune.criterion import Criterion, FirstOrderDelta, Magnitude, SecondOrderDelta
from lightning_prune.pattern import Block, Element, NofM, Pattern, SitedPattern
from lightning_prune.pruning import Pruner
from lightning_prune.scope import Uniform
from lightning_prune.selection import Exact, Histogram
from lightning_prune.targets import Targets


@dataclass(frozen=True)
class HParams:
    """The fields and their defaults. Steps are completed optimizer steps; -1 as an end means until training stops.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    name: str = "model_pruning"
    begin_pruning_step: int = 0
    end_pruning_step: int = -1
    do_not_prune: tuple[str, ...] = ()
    threshold_decay: float = 0.9
    pruning_frequency: int = 10
    nbins: int = 255
    initial_sparsity: float = 0.0
    target_sparsity: float = 0.5
    sparsity_function_begin_step: int = 0
    sparsity_function_end_step: int = 100
    sparsity_function_exponent: float = 3.0
    weight_sparsity_map: tuple[str, ...] = ()
    block_dims_map: tuple[str, ...] = ()
    block_height: int = 1
    block_width: int = 1
    block_pooling_function: str = "AVG"
    prune_option: str = "weight"
    gradient_decay_rate: float = 0.99
    intra_block_sparsity: str = ""

    def __post_init__(self) -> None:
        _require(self.begin_pruning_step >= 0, "begin_pruning_step", self.begin_pruning_step, "at least 0")
        _require(
            self.end_pruning_step == -1 or self.end_pruning_step > self.begin_pruning_step,
            "end_pruning_step",
            self.end_pruning_step,
            f"-1 or after begin_pruning_step={self.begin_pruning_step}",
        )
        begin, end = self.sparsity_function_begin_step, self.sparsity_function_end_step
        _require(begin >= 0, "sparsity_function_begin_step", begin, "at least 0")
        _require(end > begin, "sparsity_function_end_step", end, f"after sparsity_function_begin_step={begin}")
        _require(self.pruning_frequency >= 1, "pruning_frequency", self.pruning_frequency, "at least 1")
        _require(
            self.end_pruning_step == -1 or self.end_pruning_step >= self.pruning_frequency,
            "end_pruning_step",
            self.end_pruning_step,
            f"-1 or at least pruning_frequency={self.pruning_frequency}, or no update comes before it",
        )
        _require(self.nbins >= 2, "nbins", self.nbins, "at least 2")
        for key in ("threshold_decay", "initial_sparsity", "target_sparsity", "gradient_decay_rate"):
            _require(0.0 <= getattr(self, key) < 1.0, key, getattr(self, key), "in [0, 1)")
        _require(
            self.target_sparsity >= self.initial_sparsity,
            "target_sparsity",
            self.target_sparsity,
            f"at least initial_sparsity={self.initial_sparsity}",
        )
        exponent = self.sparsity_function_exponent
        _require(0 < exponent < float("inf"), "sparsity_function_exponent", exponent, "a number above 0")
        _require(self.prune_option in _CRITERIA, "prune_option", self.prune_option, f"one of {', '.join(_CRITERIA)}")
        pooling = self.block_pooling_function
        _require(pooling in ("AVG", "MAX"), "block_pooling_function", pooling, "AVG or MAX")


@dataclass(frozen=True)
class Contrib:
    """The older system's schedule: an update rule and, apart from it, a window for the sparsity.

    Updates come when t >= begin_pruning_step, t <= end_pruning_step (any t where it is -1), and the last one, taken
    as 0 at the start, is at least `pruning_frequency` steps back: (5, 50, 10) updates at 10, 20, 30, 40, 50. The
    sparsity follows a polynomial over [ramp_begin, ramp_end]. The last update need not reach `final_sparsity`.
    """

    final_sparsity: float
    begin_pruning_step: int
    end_pruning_step: int
    pruning_frequency: int
    ramp_begin: int
    ramp_end: int
    initial_sparsity: float = 0.0
    power: float = 3.0

    @property
    def begin_step(self) -> int:
        """The first update."""
        return max(self.begin_pruning_step, self.pruning_frequency)

    @property
    def end_step(self) -> int:
        """The update after which pruning is finished.

        It is the last one not after `end_pruning_step` or, where that is -1, the first at which the sparsity is final;
        those that follow it then hold that sparsity. The given end itself need not be an update.
        """
        if self.end_pruning_step != -1:
            return self._not_after(self.end_pruning_step)
        return self._not_after(max(self.begin_step, self.ramp_end) + self.pruning_frequency - 1)

    def resolve(self, total_steps: int | None) -> Contrib:
        """Return this schedule, which is in whole steps already."""
        return self

    def last_update(self, step: int) -> int | None:
        """Return the newest update step not after `step`, or None before the first."""
        until = step if self.end_pruning_step == -1 else min(step, self.end_pruning_step)
        return None if until < self.begin_step else self._not_after(until)

    def sparsity(self, step: int) -> float:
        """Return the sparsity on the curve at `step`."""
        rest = 1.0 - steps.progress(step, self.ramp_begin, self.ramp_end)
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * rest**self.power

    def _not_after(self, step: int) -> int:
        return step - (step - self.begin_step) % self.pruning_frequency


@dataclass(frozen=True)
class BlockMap:
    """Blocks whose size depends on the weight: the first regular expression found in its name decides.

    Args:
        blocks: (regular expression, pattern) pairs.
        default: the pattern of all other weights.
    """

    blocks: tuple[tuple[str, Pattern], ...]
    default: Pattern

    def at(self, name: str) -> Pattern:
        """Return the pattern for that weight."""
        return next((block for regex, block in self.blocks if re.search(regex, name)), self.default)


def parse(text: str) -> Pruner:
    """Return the pruner that the older system's string describes, such as `name=cifar10_pruning,target_sparsity=0.9`.

    Every layer is ranked on its own; the threshold comes from a histogram and is smoothed; masked weights can come
    back. With `intra_block_sparsity=2:4` the pattern is kept exactly instead, and `target_sparsity` is 1 - n/m unless
    given. Lists are written `[a,b]`. `do_not_prune` holds parts of names.

    Raises:
        ValueError: a field is unknown, malformed or out of range; the message names it.
    """
    given = _read(text)
    n_of_m = _n_of_m(given["intra_block_sparsity"]) if given.get("intra_block_sparsity") else None
    if n_of_m is not None:
        given.setdefault("target_sparsity", n_of_m.least_sparsity)
    hparams = HParams(**given)
    schedule = Contrib(
        final_sparsity=hparams.target_sparsity,
        begin_pruning_step=hparams.begin_pruning_step,
        end_pruning_step=hparams.end_pruning_step,
        pruning_frequency=hparams.pruning_frequency,
        ramp_begin=hparams.sparsity_function_begin_step,
        ramp_end=hparams.sparsity_function_end_step,
        initial_sparsity=hparams.initial_sparsity,
        power=hparams.sparsity_function_exponent,
    )
    return Pruner(
        schedule,
        criterion=_CRITERIA[hparams.prune_option](hparams.gradient_decay_rate),
        pattern=n_of_m or _blocks(hparams),
        scope=Uniform(),
        selection=Exact() if n_of_m else Histogram(hparams.nbins, hparams.threshold_decay),
        targets=Targets(
            exclude=tuple(re.escape(part) for part in hparams.do_not_prune),
            sparsity=dict(_pair("weight_sparsity_map", entry, float) for entry in hparams.weight_sparsity_map),
        ),
        reversible=True,
        name=hparams.name,
    )


_CRITERIA: dict[str, Callable[[float], Criterion]] = {
    "weight": lambda _: Magnitude(),
    "first_order_gradient": FirstOrderDelta,
    "second_order_gradient": SecondOrderDelta,
}


def _read(text: str) -> dict[str, Any]:
    """Return the fields given in the string, each in its type."""
    types = {field.name: type(field.default) for field in fields(HParams)}
    given: dict[str, Any] = {}
    for part in filter(str.strip, re.findall(r"[^,\[\]]+(?:\[[^\]]*\])?", text)):
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals:
            raise ValueError(f"pruning hparams: {part.strip()!r} is not of the form field=value")
        if key not in types:
            raise ValueError(f"pruning hparams have no field {key!r}; the fields are {', '.join(types)}")
        if key in given:
            raise ValueError(f"pruning hparams: {key} is given twice")
        given[key] = _convert(key, value, types[key])
    return given


def _convert(key: str, value: str, kind: type) -> Any:
    if kind is tuple:
        items = value.removeprefix("[").removesuffix("]").split(",")
        return tuple(item.strip().strip("'\"") for item in items if item.strip())
    value = value.strip("'\"")
    try:
        return kind(value)
    except ValueError:
        expected = "an int" if kind is int else "a number"
        raise ValueError(f"pruning hparams: {key}={value} must be {expected}") from None


def _blocks(hparams: HParams) -> Pattern | SitedPattern:
    pool = cast(Any, hparams.block_pooling_function.lower())

    def block(height: int, width: int) -> Pattern:
        return Element() if (height, width) == (1, 1) else Block(height, width, pool)

    default = block(hparams.block_height, hparams.block_width)
    if not hparams.block_dims_map:
        return default
    pairs = [_pair("block_dims_map", entry, _dimensions) for entry in hparams.block_dims_map]
    return BlockMap(tuple((regex, block(*dimensions)) for regex, dimensions in pairs), default)


def _dimensions(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


def _pair(key: str, entry: str, convert: Callable[[str], Any]) -> tuple[str, Any]:
    regex, _, value = entry.rpartition(":")
    try:
        if not regex:
            raise ValueError
        return regex, convert(value)
    except ValueError:
        form = "regex:HxW" if key == "block_dims_map" else "regex:sparsity"
        raise ValueError(f"pruning hparams: {key} has {entry!r}, which is not of the form {form}") from None


def _n_of_m(text: str) -> NofM:
    n, colon, m = text.partition(":")
    if not (colon and n.isdigit() and m.isdigit()):
        raise ValueError(f"pruning hparams: intra_block_sparsity={text} must be of the form N:M, such as 2:4")
    return NofM(int(n), int(m))


def _require(holds: bool, key: str, value: object, must: str) -> None:
    if not holds:
        raise ValueError(f"pruning hparams: {key}={value} must be {must}")
