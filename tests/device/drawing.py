"""Random numbers of the device: its generators, and the stream that `torch.manual_seed` sets beside the CPU's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

import torch

_PLAIN = torch.Generator
_OTHER = 0x5DEECE66D
"""By this the seeds of the device's generators differ: CUDA draws other numbers from the same seed than the CPU."""


def generator_of(args: Any, kwargs: dict[str, Any]) -> torch.Generator | None:
    """Return the generator that an operation was given."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, _PLAIN)), None)


def _address(generator: Any) -> int:
    return generator._cdata


class Draws:
    """Whatever is drawn on the device."""

    def __init__(self, same: bool) -> None:
        self.other = 0 if same else _OTHER
        self._own = _PLAIN().manual_seed(_OTHER)
        self._made: dict[int, torch.Generator] = {}

    def seed(self, seed: int) -> None:
        """Set the seed of what is drawn without a generator."""
        self._own.manual_seed(seed ^ self.other)

    def keep(self, generator: torch.Generator) -> None:
        """Remember a generator as one of the device."""
        self._made[_address(generator)] = generator

    def made(self, generator: torch.Generator) -> bool:
        """Return whether a generator is one of the device."""
        return _address(generator) in self._made

    @contextmanager
    def own(self) -> Generator[None, None, None]:
        """Draw from the device's stream, and leave the CPU's where it is."""
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(self._own.get_state())
        try:
            yield
        finally:
            self._own.set_state(torch.default_generator.get_state())
            torch.default_generator.set_state(before)


class Generators(AbstractContextManager[None]):
    """Has `torch.Generator` make generators of the device as well."""

    def __init__(self, draws: Draws, device: torch.device) -> None:
        self._draws, self._device = draws, device

    def __enter__(self) -> None:
        draws, of = self._draws, self._device

        class Kind(type(_PLAIN)):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, _PLAIN)

        class Made(_PLAIN, metaclass=Kind):
            def __new__(cls, device: Any = "cpu") -> Any:
                if torch.device(device).type != of.type:
                    return _PLAIN(device)
                made = super().__new__(cls)
                draws.keep(made)
                return made

            @property
            def device(self) -> torch.device:  # pyright: ignore
                return of

            def manual_seed(self, seed: int) -> torch.Generator:
                super().manual_seed(seed ^ draws.other)
                return self

            def initial_seed(self) -> int:
                return super().initial_seed() ^ draws.other

        torch.Generator = Made  # pyright: ignore

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.Generator = _PLAIN  # pyright: ignore
