"""`lightning-prune completion SHELL`: what the Tab key offers, in bash, zsh and fish."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from lightning_prune.cli import COMMANDS

_OF_RECIPE = ("train", "compress", "plan")
_OPTIONS = {
    "train": ("-cn", "--config-dir", "--multirun", "--help"),
    "compress": ("-cn", "--config-dir", "--help"),
    "plan": ("-cn", "--config-dir", "--json", "--help"),
    "eval": ("--run-once", "--eval-interval-secs", "--stage", "--run", "--json", "--trust", "--help"),
    "inspect": ("--json", "--trust", "--help"),
    "report": ("--out", "--title", "--json", "--help"),
    "completion": ("bash", "zsh", "fish"),
}
_BASH = """\
_lightning_prune() {
    local IFS=$'\\n' line="${COMP_LINE:0:$COMP_POINT}" word
    word="${line##* }"
    COMPREPLY=($(lightning-prune completion words -- "$line" 2>/dev/null))
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")  # bash takes what is behind = for a word of its own
    fi
    if [[ "${COMPREPLY[*]}" == *[=./] ]]; then compopt -o nospace; fi
}
complete -o default -F _lightning_prune lightning-prune
"""
_SCRIPTS = {
    "bash": _BASH,
    "zsh": "autoload -U +X bashcompinit && bashcompinit\n" + _BASH,
    "fish": "complete -c lightning-prune -a '(lightning-prune completion words -- (commandline -cp))'\n",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune completion",
        description="Print what a shell needs to complete commands, recipes, groups and keys on Tab.",
        epilog='bash, zsh: eval "$(lightning-prune completion bash)" in the start-up file; '
        "fish: lightning-prune completion fish | source",
    )
    parser.add_argument("shell", choices=(*_SCRIPTS, "words"), help="words: what may come at the end of LINE")
    parser.add_argument("line", nargs="?", default="", metavar="LINE", help="a command line begun")
    options = parser.parse_args(argv)
    if options.shell in _SCRIPTS:
        print(_SCRIPTS[options.shell], end="")
        return 0
    for word in words(options.line):
        print(word)
    return 0


def words(line: str) -> list[str]:
    """Return what the last word of a command line that was begun may become, that word being empty after a blank."""
    *before, word = line.split(" ")
    given = [each for each in before if each][1:]
    if not given:
        return _begun(word, (*COMMANDS, "--help", "--version"))
    command = given[0]
    if command not in _OF_RECIPE:
        return _begun(word, _options(command))
    from lightning_prune.cli.arguments import folder, recipes

    own = [Path(given[i + 1]) for i, each in enumerate(given[:-1]) if each in ("-cd", "--config-dir")]
    known = recipes([*own, folder("recipes"), folder("conf")])
    if given[-1] in ("-cn", "--config-name"):
        return _begun(word, known)
    if word.startswith("-"):
        return _begun(word, _OPTIONS[command])
    recipe = next((given[i + 1] for i, each in enumerate(given[:-1]) if each in ("-cn", "--config-name")), None)
    if recipe not in known:
        return _begun(word, ("-cn",)) if recipe is None else []
    return _overrides(recipe, [*own, folder("recipes"), folder("conf")], word)


def _options(command: str) -> Sequence[str]:
    """Return what a command takes: as listed above, or else read off its help. Nothing for one that is not there."""
    if command in _OPTIONS or command not in COMMANDS:
        return _OPTIONS.get(command, ())
    from lightning_prune.cli import main as run

    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        run([command, "--help"])
    return list(dict.fromkeys(re.findall(r"(?<![\w-])--?[a-z][a-z-]+", said.getvalue())))


def _begun(word: str, options: Iterable[str]) -> list[str]:
    return [option for option in options if option.startswith(word)]


def _overrides(recipe: str, folders: Sequence[Path], word: str) -> list[str]:
    """Return groups, their options and keys, a level at a time."""
    key, equals, begun = word.partition("=")
    if equals:
        options = sorted({file.stem for where in folders for file in (where / key).glob("*.yaml")})
        return [f"{key}={option}" for option in _begun(begun, options)]
    return sorted({*_groups(word, folders), *_keys(recipe, folders, word)})


def _groups(word: str, folders: Sequence[Path]) -> list[str]:
    above, slash, _ = word.rpartition("/")
    found = {path.name for where in folders for path in (where / above).glob("*/") if any(path.glob("*.yaml"))}
    named = [f"{above}{slash}{name}" for name in found]
    inner = [f"{name}/" for name in named for where in folders if any((where / name).glob("*/*.yaml"))]
    return _begun(word, [*(f"{name}=" for name in named), *inner])


def _keys(recipe: str, folders: Sequence[Path], word: str) -> list[str]:
    """Return the keys of a composed recipe below the last dot of a word."""
    from omegaconf import OmegaConf

    from lightning_prune.cli import compose
    from lightning_prune.cli.arguments import Arguments

    with compose.composed(Arguments(recipe, tuple(folders), ())) as config:
        node: Any = OmegaConf.to_container(config, resolve=False)
    above, dot, _ = word.rpartition(".")
    for part in above.split(".") if above else ():
        node = node.get(part) if isinstance(node, dict) else None
    names: dict[str, Any] = node if isinstance(node, dict) else {}
    return _begun(word, [f"{above}{dot}{name}{'.' if isinstance(names[name], dict) else '='}" for name in names])
