"""Hydra, run so that the user's folder comes first, errors reach us as they are, and nothing is left behind."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, open_dict, read_write

from lightning_prune.cli.arguments import Arguments
from lightning_prune.cli.constructor_keys import adding_missing, as_added, one_of_each
from lightning_prune.cli.errors import UserError

_FULL_ERROR = "HYDRA_FULL_ERROR"


class _Aside(BaseException):
    """Carries an exception past Hydra, which would print its own lines about it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


Launched = Callable[[Launcher], Launcher]
"""What to put in place of a sweep's launcher."""


def run(arguments: Arguments, job: Callable[[DictConfig], Any], launched: Launched) -> None:
    """Let Hydra compose the config and call `job` with it, in a new run folder; once for each job of a sweep.

    Args:
        arguments: the command line.
        job: what to do; for a sweep it goes to other processes, if the launcher has some.
        launched: what to put in place of a sweep's launcher.
    """
    words = arguments.rest
    if not {"-m", "--multirun"} & set(words):
        adding_missing(words, lambda each: _run(replace(arguments, rest=each), job, launched))
        return
    with suppress(Exception):  # a sweep's folder is made before its jobs are composed; it will say itself what is wrong
        words = as_added(words, adding_missing(one_of_each(words), lambda each: _kept(arguments, each)))
    _run(replace(arguments, rest=words), job, launched)


def _kept(arguments: Arguments, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return overrides if a config can be composed with them."""
    _compose(arguments, words)
    return words


def _compose(arguments: Arguments, words: Sequence[str]) -> DictConfig:
    first, *others = arguments.folders
    with _searched(others), hydra.initialize_config_dir(str(first), version_base="1.3"):
        return hydra.compose(arguments.recipe, overrides=list(words), return_hydra_config=True)


def _run(arguments: Arguments, job: Callable[[DictConfig], Any], launched: Launched) -> None:
    argv, full_error = sys.argv, os.environ.get(_FULL_ERROR)

    def task(config: DictConfig) -> Any:
        with _argv(argv), environment(_FULL_ERROR, full_error):
            try:
                return job(config)
            except Exception as error:
                raise _Aside(error) from None

    first, *others = arguments.folders
    app = hydra.main(version_base="1.3", config_path=str(first), config_name=arguments.recipe)(task)
    with ExitStack() as stack:
        stack.enter_context(_searched(others))
        stack.enter_context(_launched(launched))
        stack.enter_context(_argv([argv[0], *arguments.rest]))
        stack.enter_context(environment(_FULL_ERROR, "1"))  # raise, do not print and exit
        try:
            app()
        except _Aside as aside:
            error = aside.error
        else:
            return
    raise error


@contextmanager
def composed(arguments: Arguments) -> Generator[DictConfig, None, None]:
    """Give the config that `run` would hand to its job, without a run folder. Raises UserError for Hydra's options."""
    options = [word for word in arguments.rest if word.startswith("-")]
    if options:
        raise UserError(f"{options[0]}: this command takes -cn, --config-dir and key=value")
    config = adding_missing(arguments.rest, lambda words: _compose(arguments, words))
    with known(None):
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        yield config


@contextmanager
def _searched(folders: Sequence[Path]) -> Generator[None, None, None]:
    """Have Hydra search these folders after the primary one."""

    class Folders(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in folders:
                search_path.append("lightning-prune", f"file://{folder}")

    plugins = Plugins.instance()
    plugins.register(Folders)
    try:
        yield
    finally:
        for classes in plugins.plugin_type_to_subclass_list.values():
            if Folders in classes:
                classes.remove(Folders)
        plugins.class_name_to_class.pop(f"{Folders.__module__}.{Folders.__name__}", None)


@contextmanager
def _launched(by: Callable[[Launcher], Launcher]) -> Generator[None, None, None]:
    """Have Hydra's sweepers hand their runs to what this makes of their launcher, which looks at them itself."""
    plugins = Plugins.instance()
    launcher, sweeper = plugins.instantiate_launcher, plugins.instantiate_sweeper

    def made(**given: Any) -> Launcher:
        return by(launcher(**given))

    def swept(**given: Any) -> Sweeper:
        found = sweeper(**given)
        if isinstance(found, basic_sweeper.BasicSweeper):  # by the module: Hydra runs it anew to find its plugins
            found.validate_batch_is_legal = lambda batch: None
        return found

    vars(plugins).update(instantiate_launcher=made, instantiate_sweeper=swept)
    try:
        yield
    finally:
        for name in ("instantiate_launcher", "instantiate_sweeper"):
            vars(plugins).pop(name, None)


@contextmanager
def _argv(argv: Sequence[str]) -> Generator[None, None, None]:
    before, sys.argv = sys.argv, list(argv)
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def known(config: DictConfig | None) -> Generator[None, None, None]:
    """Let this be what Hydra knows of the run, whose `hydra` section `${hydra:...}` is read from; None: nothing."""
    here: Any = HydraConfig.instance()
    before, here.cfg = here.cfg, config
    try:
        yield
    finally:
        here.cfg = before


@contextmanager
def hidden() -> Generator[None, None, None]:
    """Hide Hydra from Lightning, which would start helper processes with a command line of Hydra's, not ours."""
    with known(None):
        yield


@contextmanager
def output_folder(hydra_config: DictConfig, folder: Path) -> Generator[None, None, None]:
    """Let `hydra:runtime.output_dir` be this folder, for what is built meanwhile."""
    ours = copy.deepcopy(hydra_config)
    with read_write(ours.hydra):
        ours.hydra.runtime.output_dir = str(folder)
    with known(ours):
        yield


@contextmanager
def environment(name: str, value: str | None) -> Generator[None, None, None]:
    """Set an environment variable, or unset it with None, for a while."""
    before = os.environ.get(name)
    _set(name, value)
    try:
        yield
    finally:
        _set(name, before)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
