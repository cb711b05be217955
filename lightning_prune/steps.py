"""A window of steps: given in optimizer steps or as shares of the run, resolved once, with updates on a grid."""

from __future__ import annotations

from lightning_prune import given


def check_sparsity(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a share in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value!r} must be a share of the weights between 0 and 1 (0.9 prunes 90 %)")


def check_position(name: str, value: int | float) -> None:
    """Raise ValueError unless `value` is an int >= 0 (steps) or a float in [0, 1] (share of the run)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}={value!r} must be an int (optimizer steps) or a float (share of the run)")
    if isinstance(value, int) and value < 0:
        raise ValueError(f"{name}={value} must not be negative")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{name}={value} is a float and so a share of the run, which lies between 0 and 1; "
            "give an int for optimizer steps"
        )


def check_window(begin_step: int | float, end_step: int | float) -> None:
    """Raise ValueError unless both are valid positions and, where they can be compared, begin comes first."""
    check_position("begin_step", begin_step)
    check_position("end_step", end_step)
    if type(begin_step) is type(end_step) and end_step < begin_step:
        raise ValueError(f"end_step={end_step} must not come before begin_step={begin_step}")


def check_frequency(pruning_frequency: int | float) -> None:
    """Raise ValueError unless the frequency is a positive number of steps or share of the run."""
    check_position("pruning_frequency", pruning_frequency)
    if pruning_frequency == 0:
        raise ValueError("pruning_frequency=0 must be at least 1 step, or a share of the run above 0")


def in_steps(name: str, value: int | float, total_steps: int | None) -> int:
    """Return a position in optimizer steps. Raises ValueError for a share of a run of unknown length."""
    if isinstance(value, int):
        return value
    if total_steps is None:
        raise ValueError(
            f"{name}={value} is a share of the run, but how many optimizer steps the run takes is not known beforehand "
            "(no bound in steps or epochs, a max_time, a loader without a length, or limit_train_batches=0): "
            f"give {name} and the other positions as ints, in optimizer steps"
        )
    return round(value * total_steps)


def resolved(name: str, value: int | float) -> int:
    """Return a position that must already be in steps. Raises ValueError if it is still a share."""
    if isinstance(value, float):
        raise ValueError(f"{name}={value} is a share of the run: call resolve(total_steps) first")
    return value


def progress(step: int, begin_step: int | float, end_step: int | float) -> float:
    """Return the share of the window that lies behind `step`, in [0, 1]; the window must be in steps."""
    begin, end = resolved("begin_step", begin_step), resolved("end_step", end_step)
    if step >= end:
        return 1.0
    return 0.0 if step <= begin else (step - begin) / (end - begin)


def last_on_grid(
    step: int, begin_step: int | float, end_step: int | float, pruning_frequency: int | float
) -> int | None:
    """Return the newest of begin, begin + frequency, ... < end, and end itself, that is not after `step`."""
    begin, end = resolved("begin_step", begin_step), resolved("end_step", end_step)
    frequency = resolved("pruning_frequency", pruning_frequency)
    if step < begin:
        return None
    return end if step >= end else step - (step - begin) % frequency


def check_sparsities(initial: float, final: float) -> None:
    """Raise ValueError unless both are shares and the initial one is not above the final one."""
    check_sparsity("initial_sparsity", initial)
    check_sparsity("final_sparsity", final)
    if initial > final:
        raise ValueError(f"initial_sparsity={initial} must not be above final_sparsity={final}")


def check_power(power: float) -> None:
    """Raise ValueError unless the exponent is positive."""
    given.number("power", power, above=0)


def resolve_grid(
    begin_step: int | float, end_step: int | float, pruning_frequency: int | float, total_steps: int | None
) -> dict[str, int]:
    """Return the three in whole steps; the window is never empty and the frequency at least 1."""
    begin = in_steps("begin_step", begin_step, total_steps)
    end = in_steps("end_step", end_step, total_steps)
    if end < begin:
        raise ValueError(f"end_step={end_step} is step {end}, before begin_step={begin_step}, which is step {begin}")
    frequency = max(1, in_steps("pruning_frequency", pruning_frequency, total_steps))
    return {"begin_step": begin, "end_step": end, "pruning_frequency": frequency}
