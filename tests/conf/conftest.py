"""What the tests of configs share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig, OmegaConf

from lightning_prune.cli import arguments, compose

Compose = Callable[..., DictConfig]


@pytest.fixture
def composed() -> Compose:
    """Compose a recipe as the command line does; references are resolved."""

    def compose_recipe(recipe: str, *overrides: str) -> DictConfig:
        with compose.composed(arguments.read(["-cn", recipe, *overrides])) as config:
            keep = {"callbacks", "logger"}  # they point to a run folder
            return OmegaConf.masked_copy(config, [str(key) for key in config if key not in keep])

    return compose_recipe
