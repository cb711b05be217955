"""The two packages of PyTorch Lightning, `pytorch_lightning` and `lightning.pytorch`: the same classes twice.

Either may be there alone, and a process may use both. This is the one place that names them: what needs Lightning asks
for the family of the trainer or module at hand, or for a class of every family that the process has imported. A family
that nobody has imported is not imported here as long as another one is there.

`Callback`, `ModelCheckpoint`, `EarlyStopping` and `LightningDataModule` are joined: subclasses of that class of each
imported family, so that either Trainer takes what is made of them. `LightningModule` is of one family, the default.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule as LightningDataModule
    from pytorch_lightning import LightningModule as LightningModule
    from pytorch_lightning import Trainer as Trainer
    from pytorch_lightning.callbacks import Callback as Callback
    from pytorch_lightning.callbacks import EarlyStopping as EarlyStopping
    from pytorch_lightning.callbacks import ModelCheckpoint as ModelCheckpoint
    from pytorch_lightning.utilities.types import OptimizerLRScheduler as OptimizerLRScheduler

NAMES = ("pytorch_lightning", "lightning.pytorch")
LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning", "lightning.pytorch", "lightning.fabric")
"""Whose handlers print what Lightning says."""
_JOINED = {
    "Callback": "callbacks.Callback",
    "EarlyStopping": "callbacks.EarlyStopping",
    "LightningDataModule": "LightningDataModule",
    "ModelCheckpoint": "callbacks.ModelCheckpoint",
}
_OF_THE_DEFAULT = {
    "LightningModule": "LightningModule",
    "OptimizerLRScheduler": "utilities.types.OptimizerLRScheduler",
    "Trainer": "Trainer",
}


def loaded() -> list[ModuleType]:
    """Return the families that the process has imported, in that order."""
    return [module for name, module in list(sys.modules.items()) if name in NAMES and hasattr(module, "Trainer")]


def default() -> ModuleType:
    """Return the family that the process has imported first, or else import one. ModuleNotFoundError without any."""
    for family in loaded():
        return family
    for name in NAMES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ModuleNotFoundError(f"No module named {NAMES[0]!r}", name=NAMES[0])


def of(thing: object) -> ModuleType:
    """Return the family of a trainer, a module or whatever else: that of the nearest of its classes that has one.

    Raises:
        TypeError: it is none of Lightning's.
    """
    for kind in type(thing).__mro__:
        for family in loaded():
            if kind.__module__.startswith(f"{family.__name__}."):
                return family
    raise TypeError(f"{type(thing).__name__} is of no class of Lightning's")


def part(family: ModuleType, path: str) -> Any:
    """Return what a family has under a dotted path, such as `callbacks.Timer`. Raises AttributeError if it has not."""
    above, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"{family.__name__}.{above}") if above else family, name)


def every(*paths: str) -> tuple[type[Any], ...]:
    """Return classes of all imported families, for isinstance; what a version does not have is left out."""
    return tuple(kind for family in loaded() for path in paths for kind in _found(family, path))


def _found(family: ModuleType, path: str) -> list[Any]:
    try:
        return [part(family, path)]
    except (ImportError, AttributeError):
        return []


def __getattr__(name: str) -> Any:
    """Make a joined class, or find the default family's, on its first use: importing this module imports no Lightning.

    Raises:
        ModuleNotFoundError: there is no Lightning.
    """
    if name not in _JOINED | _OF_THE_DEFAULT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    family = default()
    found = _joined(name, _JOINED[name]) if name in _JOINED else part(family, _OF_THE_DEFAULT[name])
    globals()[name] = found
    return found


class _Apart:
    """Ends one family's chain of `super().__init__()` before the next family's classes."""

    def __init__(self) -> None:
        pass


def _joined(name: str, path: str) -> type:
    """Return a class whose bases are that class of each imported family; a family imported later is added then.

    What it inherits is the first family's; the other is there for isinstance. Their code is the same.
    """
    made = type(name, _bases(path), {"__doc__": f"A {name} of each imported family.", "__module__": __name__})

    def join() -> None:
        made.__bases__ = _bases(path)

    there = {family.__name__ for family in loaded()}
    sys.meta_path[:0] = [_Later(family, join) for family in NAMES if family not in there]
    return made


def _bases(path: str) -> tuple[type, ...]:
    first, *others = every(path)
    return (first, *(base for other in others for base in (_Apart, other)))


class _Later:
    """Does something once a module has been imported, should that ever be: a finder that lets the others find it."""

    def __init__(self, name: str, act: Any) -> None:
        self._name = name
        self._act = act

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name != self._name or self not in sys.meta_path:
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]  # those before it know no such module
        spec = next((spec for finder in behind if (spec := finder.find_spec(name, path, target))), None)
        loader: Any = spec.loader if spec is not None else None
        if loader is not None:
            run = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                loader.exec_module = run
                run(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                self._act()

            loader.exec_module = exec_module
        return spec
