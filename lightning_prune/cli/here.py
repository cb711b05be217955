"""The current folder, where the user's own modules lie, and what to say of a name that is not found."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning_prune.cli.errors import near, printable

_BUILD = ("train", "plan", "compress")
"""Commands that import whatever they are told to."""


@contextmanager
def searched(argv: Sequence[str]) -> Generator[None, None, None]:
    """Have Python look for modules in the current folder while a command runs, as `python -m` would.

    A command that reads runs of other people does so with `--trust` alone, and looks there last: no file of that folder
    stands in for an installed package. With PYTHONSAFEPATH nothing is changed.

    Args:
        argv: the command and its arguments.
    """
    folder, before = str(Path.cwd()), list(sys.path)
    if not getattr(sys.flags, "safe_path", False) and not _is_searched(Path(folder)):
        if argv[0] in _BUILD:
            sys.path.insert(0, folder)
        elif any(word.partition("=")[0] in ("--trust", "--trusted") for word in argv):
            sys.path.append(folder)
    try:
        yield
    finally:
        sys.path[:] = before


def located(target: str) -> Any:
    """Return what a dotted name stands for, the way Hydra finds it; no module of another name is imported.

    Raises:
        ImportError: there is no such thing.
    """
    first, *rest = target.split(".")
    found: Any = import_module(first)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            if not isinstance(found, ModuleType):
                raise ImportError(f"there is no {path}") from None
            found = import_module(path)
    return found


def why_not_found(target: str) -> str | None:
    """Return which part of a dotted name is missing, where it was looked for and what to do; None if none is.

    Imports what there is of it.
    """
    first, *rest = target.split(".")
    if not first.isidentifier():
        return f"{printable(target)!r} is no dotted name of a class, such as my_module.Net"
    if first not in sys.modules and find_spec(first) is None:
        return _no_module(first, rest)
    path, found = first, None
    for part in (None, *rest):
        name = path if part is None else f"{path}.{part}"
        try:
            found = getattr(found, part) if part is not None and hasattr(found, part) else import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if part is not None and (missing == name or not isinstance(found, ModuleType)):
                return _no_part(path, found, part)
            return f"{name} imports {missing}, which is not installed" if missing != name else None
        except Exception:  # the module's own: what it raises says more
            return None
        path = name
    return None


def _is_searched(folder: Path) -> bool:
    return any(Path(entry or os.curdir).absolute() == folder for entry in sys.path)


def _no_module(name: str, rest: Sequence[str]) -> str:
    """Say that there is no such module, where it was looked for, and where one of that name lies."""
    here = Path.cwd()
    given = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    places = [f"{here} (the current folder)"] if _is_searched(here) else []
    others = [entry for entry in given if entry != str(here)]
    places += [f"{', '.join(others)} (PYTHONPATH)"] if others else []
    said = f"there is no module {name}: looked for in {', '.join(places)}{' and ' if places else ''}"
    said += "the installed packages; "
    below = sorted(path for path in here.glob(f"*/{name}.py")) + sorted(here.glob(f"*/{name}/__init__.py"))
    if below:
        folder = below[0].relative_to(here).parts[0]
        dotted = ".".join((folder, name, *rest))
        return f"{said}{below[0].relative_to(here)} is there: name it {dotted}, or set PYTHONPATH={folder}"
    own = [path.stem for path in here.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    if name in own:
        return f"{said}{name} lies in {here}, which is not searched: set PYTHONPATH to it"
    meant = near(name, own, number=1)
    if meant:
        return f"{said}did you mean {'.'.join((meant[0], *rest))}?"
    return f"{said}run the command in the folder where {name}.py lies, or set PYTHONPATH to that folder"


def _no_part(path: str, found: object, part: str) -> str:
    """Say that a module or class has no such part, where it lies, and what it has that is alike."""
    file = getattr(found, "__file__", None)
    where = f"{path} ({file})" if file else path
    meant = near(part, [name for name in dir(found) if not name.startswith("_")], number=1)
    return f"{where} has no {part}" + (f": did you mean {path}.{meant[0]}?" if meant else "")
