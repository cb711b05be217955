"""Where configs come from: the user's folder first, ours behind it; and ours in the user's own Hydra app."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_prune.cli import arguments
from lightning_prune.cli.arguments import folder

from .conftest import SHORT, Command

APP = """
import hydra
from hydra.utils import instantiate

@hydra.main(version_base="1.3", config_path=".", config_name="app")
def main(config):
    pruner = instantiate(config.pruner, _convert_="all")
    print(pruner.schedule.final_sparsity, type(pruner.schedule).__name__, pruner.pattern, pruner.regularizer)

main()
"""
CONFIG = """
defaults:
  - pruner: default
  - override pruner/schedule: geometric
  - _self_
pruner: {{schedule: {{final_sparsity: 0.95}}}}
hydra: {{searchpath: ["{ours}"], run: {{dir: .}}, output_subdir: null}}
"""


def test_a_recipe_of_the_users_own(command: Command) -> None:
    Path("mine").mkdir()
    Path("mine/my_recipe.yaml").write_text("defaults: [digits_mlp, _self_]\nseed: 5\n", encoding="utf-8")
    said = command("train", "-cn", "my_recipe", "--config-dir", "mine", "--cfg", "job")
    assert said.status == 0
    assert "seed: 5" in said.out
    assert "my_recipe" in command("train", "-cd=mine", "-cn=gone").err


@pytest.mark.slow
def test_an_option_of_the_users_own_goes_first(command: Command) -> None:
    Path("mine/pruner/schedule").mkdir(parents=True)
    Path("mine/pruner/schedule/polynomial.yaml").write_text(
        "_target_: lightning_prune.schedule.one_shot.OneShot\nfinal_sparsity: 0.7\nstep: 3\n", encoding="utf-8"
    )
    said = command("plan", "-cn", "digits_mlp", "-cd", "mine")
    assert "1 update of 1,170 steps, at step 3" in said.out
    assert command("train", "-cn", "digits_mlp", "--config-dir=mine", *SHORT, "hydra.run.dir=run").status == 0
    assert "OneShot" in Path("run/config.yaml").read_text(encoding="utf-8")


def test_a_recipe_of_the_same_name_goes_first(command: Command) -> None:
    Path("mine").mkdir()
    Path("mine/digits_mlp.yaml").write_text("defaults: [config, _self_]\nseed: 7\n", encoding="utf-8")
    assert "seed: 7" in command("train", "-cn", "digits_mlp", "-cd", "mine", "--cfg", "job").out


@pytest.mark.parametrize(("name", "file"), [("conf", "config.yaml"), ("recipes", "digits_mlp.yaml")])
def test_our_folders_are_found_installed_or_not(name: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError

    assert (folder(name) / file).is_file()
    if Path(arguments.__file__).parents[2].joinpath(name).is_dir():  # a checkout
        monkeypatch.setattr(arguments.resources, "files", missing)
        assert (folder(name) / file).is_file()


@pytest.mark.parametrize("argument", ["name=a,target_sparsity=0.5", "name=a", "block_dims_map=['a:4x4',b:1x2]"])
def test_the_older_systems_string_is_quoted_for_hydra(argument: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([arguments.quoted(f"pruning_hparams={argument}")])
    assert override.value() == argument


def test_other_arguments_stay_as_they_are() -> None:
    for argument in ("pruning_hparams=null", "pruning_hparams='name=a'", "seed=1,2", "-m"):
        assert arguments.quoted(argument) == argument


def test_a_hydra_app_of_the_users_own_takes_our_groups(tmp_path: Path) -> None:
    installed = importlib.util.find_spec("lightning_prune.conf") is not None
    ours = "pkg://lightning_prune.conf" if installed else f"file://{folder('conf')}"
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    (tmp_path / "app.yaml").write_text(CONFIG.format(ours=ours), encoding="utf-8")
    overrides = ("pruner/pattern=n_of_m", "pruner/regularizer=l1", "pruner.regularizer.strength=0.5")
    done = subprocess.run(
        [sys.executable, "app.py", *overrides], cwd=tmp_path, capture_output=True, text=True, env=_environment()
    )
    assert done.stdout.strip() == "0.95 Geometric NofM(n=2, m=4) L1(strength=0.5)", done.stderr


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_prune", "plan", "-cn", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=_environment(),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("lightning-prune: no recipe 'nowhere'")


def _environment() -> dict[str, str]:
    import os

    here = str(Path(arguments.__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}
