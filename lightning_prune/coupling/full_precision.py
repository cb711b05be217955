"""Outputs that are to be compared are computed in full precision, whatever faster arithmetic a run has chosen.

cuDNN multiplies float32 by float32 in TF32 unless it is told otherwise, with 10 bits behind the point: two models that
are the same to 1e-7 then differ by 1e-4 and more. `torch.set_float32_matmul_precision` and autocast do the like on
other devices. Turning them off for a few forwards needs no copy and no other device, which a model with kernels of
its own may not have; doubles would need one, MPS has none, and forwards that say `.float()` fail on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

_INNER: Any = torch._C  # pyright: ignore[reportPrivateUsage]
_PLACES = (
    ("generic", "all"),
    *((backend, op) for backend in ("cuda", "mkldnn") for op in ("all", "matmul", "conv", "rnn")),
)
"""Where torch 2.9 and later keep a precision, outer ones first: an inner "none" stands for what is further out."""


@contextmanager
def full_precision(model: nn.Module) -> Generator[None, None, None]:
    """Have float32 computed as float32 for a while: no TF32, no bfloat16 inside products, no autocast.

    Settings of torch are put back as they were, whatever happens inside.
    """
    kinds = {"cpu", *(p.device.type for p in model.parameters())}
    on = [kind for kind in sorted(kinds) if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)]
    with ExitStack() as stack:
        stack.enter_context(_exact_products())
        for kind in on:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def _exact_products() -> Generator[None, None, None]:
    with warnings.catch_warnings():  # some versions of torch warn of the older settings
        warnings.simplefilter("ignore")
        old, new = _old_settings(), _new_settings()  # in this order: reading the new ones unmakes them
        _set_old(old, {"cudnn": False, "onednn": False, "matmul": "highest"})
        _set_new(dict.fromkeys(new, "ieee"))
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _set_old(old, old)
            _set_new(new)


def _old_settings() -> dict[str, Any]:
    """Return the settings that torch has had since before 2.9, without those that it refuses to tell.

    It does so where somebody has set the newer ones, which alone count then.
    """
    found: dict[str, Any] = {}
    for name, get, _ in _old():
        try:
            value = get()
        except (RuntimeError, AttributeError):
            continue
        if value is not None:  # oneDNN's without an XPU
            found[name] = value
    return found


def _set_old(known: dict[str, Any], values: dict[str, Any]) -> None:
    for name, _, put in _old():
        if name in known:
            put(values[name])


def _old() -> tuple[tuple[str, Any, Any], ...]:
    backends: Any = torch.backends
    return (
        ("cudnn", lambda: backends.cudnn.allow_tf32, lambda value: setattr(backends.cudnn, "allow_tf32", value)),
        ("onednn", lambda: backends.mkldnn.allow_tf32, lambda value: setattr(backends.mkldnn, "allow_tf32", value)),
        ("matmul", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    )


def _new_settings() -> dict[tuple[str, str], str]:
    """Return the settings of torch 2.9 and later as they were made, none of an older one. All are "none" after this.

    By torch's inner functions: its attributes give what is in force, and mkldnn's sets the generic one.
    """
    made: dict[tuple[str, str], str] = {}
    for place in _PLACES if hasattr(_INNER, "_get_fp32_precision_getter") else ():
        made[place] = _INNER._get_fp32_precision_getter(*place)
        _set_new({place: "none"})
    return made


def _set_new(values: dict[tuple[str, str], str]) -> None:
    for place, value in values.items():
        _INNER._set_fp32_precision_setter(*place, value)
