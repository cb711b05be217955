"""What stands on a command line before Hydra reads it: the recipe, the user's folder, a string in need of quotes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lightning_prune.cli.errors import UserError, near

_OPTIONS = (
    *("-m", "--multirun", "-r", "--run", "-c", "--cfg", "-p", "--package", "--resolve", "-i", "--info"),
    *("-sc", "--shell-completion", "--hydra-help"),
)
"""Hydra's, as far as they make sense here."""


@dataclass(frozen=True)
class Arguments:
    """A command line read.

    Attributes:
        recipe: the primary config.
        folders: where configs are looked for, the first first: the user's, recipes/, conf/.
        rest: overrides, and options that are Hydra's.
    """

    recipe: str
    folders: tuple[Path, ...]
    rest: tuple[str, ...]


def read(argv: Sequence[str]) -> Arguments:
    """Return the command line read. Raises UserError for a recipe or a folder that is not there."""
    name, rest = _take(argv, "-cn", "--config-name")
    given, rest = _take(rest, "-cd", "--config-dir")
    folders = (*_own(given), folder("recipes"), folder("conf"))
    known = recipes(folders)
    if not name:
        meant = next((word for word in rest if word.removesuffix(".yaml") in known), None)
        if meant is not None:
            raise UserError(f"which recipe? {meant!r} is one: -cn {meant.removesuffix('.yaml')}")
        raise UserError(f"which recipe? Give -cn RECIPE, one of: {', '.join(known)}")
    name = name.removesuffix(".yaml")
    if not any((f / f"{name}.yaml").is_file() for f in folders):
        meant = near(name, known)
        hint = f"did you mean {' or '.join(meant)}? " if meant else ""
        raise UserError(f"no recipe {name!r}: {hint}The recipes are: {', '.join(known)}")
    _check_options(rest)
    _check_hparams(rest)
    _check_groups(rest, folders)
    return Arguments(name, folders, tuple(quoted(argument) for argument in rest))


def recipes(folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return recipe -> its first comment, of all folders but conf/; without folders, those of recipes/."""
    found = [file for where in folders or (folder("recipes"),) for file in sorted(where.glob("*.yaml"))]
    return {f.stem: _comment(f) for f in found if f.parent != folder("conf")}


def listing(argv: Sequence[str] = ()) -> str:
    """Return the recipes for a help text, a line each; those of the command line's `--config-dir` come first.

    Raises:
        UserError: it is not there.
    """
    own = _own(_take(argv, "-cd", "--config-dir")[0])
    listed = recipes((*own, folder("recipes")))
    width = max(map(len, listed))
    return "\n".join(f"  {name:<{width}}  {what}" for name, what in listed.items())


def _own(given: str | None) -> tuple[Path, ...]:
    """Return the user's folder, if one is given. Raises UserError if it is not there."""
    if given is None:
        return ()
    own = Path(given).absolute()
    if not given or not own.is_dir():
        raise UserError(f"--config-dir={given}: there is no such folder")
    return (own,)


def folder(name: str) -> Path:
    """Return where `conf` or `recipes` lies: inside the package once installed, beside it in a checkout."""
    try:
        inside = Path(str(resources.files(f"lightning_prune.{name}") / "__init__.py")).parent
    except ModuleNotFoundError:
        inside = Path(__file__).parents[2] / name
    if not inside.is_dir():
        raise UserError(f"the folder {name}/ is missing at {inside}: install lightning-prune anew")
    return inside


def quoted(argument: str) -> str:
    """Return `pruning_hparams=name=...,...` with the quotes that Hydra wants around commas; all else as it is."""
    key, equals, value = argument.partition("=")
    if key.lstrip("+") != "pruning_hparams" or not equals or value in ("", "null") or value[0] in "'\"":
        return argument
    escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"{key}='{escaped}'"


def in_quotes(value: object) -> str:
    """Return any text, a path say, as the quoted value of an override; Hydra reads backslashes before quotes alone."""
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", str(value))
    return "'" + doubled.replace("'", "\\'") + "'"


def _check_options(rest: Sequence[str]) -> None:
    for word in rest:
        option = word.partition("=")[0]
        if option.startswith("-") and option not in _OPTIONS:
            meant = near(option, [*_OPTIONS, "--config-name", "--config-dir"], number=1)
            raise UserError(f"unknown option {option!r}" + (f": did you mean {meant[0]}?" if meant else "; see --help"))


def _check_hparams(rest: Sequence[str]) -> None:
    keys = [argument.partition("=")[0].lstrip("+~") for argument in rest]
    both = [key for key in keys if key.replace("/", ".").partition(".")[0] == "pruner" or key == "prune.pruner"]
    if "pruning_hparams" in keys and "pruning_hparams=null" not in rest and both:
        raise UserError(f"pruning_hparams stands in place of the pruner, so {both[0]} would have no effect: drop one")


def _check_groups(rest: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise UserError where an option of a group is set like the value of a key."""
    for word in rest:
        key, _, value = word.partition("=")
        group = key.lstrip("+").removeprefix("prune.").replace(".", "/")
        options = sorted({file.stem for where in folders for file in (where / group).glob("*.yaml") if group})
        if options and "/" not in key and "." in key and re.fullmatch(r"\w+", value) and value != "null":
            near_by = value if value in options else next(iter(near(value, options, number=1)), "OPTION")
            raise UserError(
                f"{word}: options of a group are chosen by {group}={near_by}; there are {', '.join(options)}"
            )


def _take(argv: Sequence[str], *flags: str) -> tuple[str | None, list[str]]:
    """Return the value given to one of the flags ("" if it has none, None without the flag), and all the rest."""
    value: str | None = None
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, equals, behind = word.partition("=")
        if flag not in flags:
            rest.append(word)
        elif equals:
            value = behind
        else:
            given = words and not words[0].startswith("-")
            has_value = given and (flag == "-cd" or "=" not in words[0] or Path(words[0]).is_dir())
            value = words.pop(0) if has_value else ""
    return value, rest


def _comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
