"""G35: reading a run calls nothing but our classes, PyTorch's, and those of packages that the user trusts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from lightning_prune.cli import main
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.trusted import Trust, config_of
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import digits_cnn

PACKAGE = """\
import os
from pathlib import Path

from lightning_prune.tasks.nets import digits_cnn

Path("imported").touch()


def net():
    return digits_cnn()


class Tools:
    @staticmethod
    def run(*_):
        Path("called").touch()
"""
"""A package of the user's, which leaves a file when it is imported and another one when it is called."""


def task(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "_target_": "lightning_prune.tasks.classifier.Classifier",
        "net": {"_target_": "lightning_prune.tasks.nets.digits_cnn"},
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.9},
    }
    return values | changes


def write(folder: Path, **changes: Any) -> Path:
    """Write what a run would leave: a config, with changes, and a model some of whose units are dead."""
    folder.mkdir()
    values = {"defaults": ["run_folder", "_self_"], "recipe": "mine", "seed": 0, "task": task()} | changes
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(values)), encoding="utf-8")
    net: Any = digits_cnn()
    with torch.no_grad():
        for layer in (m for m in net.modules() if isinstance(m, torch.nn.Conv2d)):
            layer.weight[:2] = 0.0
            if layer.bias is not None:
                layer.bias[:2] = 0.0
        for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.bias[:2] = norm.running_mean[:2] = 0.0  # pyright: ignore[reportOptionalSubscript]
    torch.save(Classifier(net).state_dict(), folder / "model.pt")
    return folder


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a package of the user's where Python looks for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mypackage.py").write_text(PACKAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mypackage", None)


CALLS = {
    "torch.load": {"_target_": "torch.load", "f": "evil.pt", "weights_only": False},
    "os.system": {"_target_": "os.system", "command": "touch called"},
    "eval": {"_target_": "builtins.eval", "_args_": ["open('called', 'w')"]},
    "partial": {"_target_": "functools.partial", "_args_": [{"_target_": "mypackage.Tools.run"}]},
    "hydra": {"_target_": "hydra.utils.get_method", "path": "mypackage.Tools.run"},
    "instantiate": {"_target_": "hydra.utils.instantiate", "config": {"a": 1}},
    "package": {"_target_": "mypackage.Tools.run"},
    "partially": {"_target_": "mypackage.Tools.run", "_partial_": True},
    "through our modules": {"_target_": "lightning_prune.tasks.data.files.os.system", "command": "touch called"},
    "through ours to torch": {"_target_": "lightning_prune.cost.cost.torch.load", "f": "evil.pt"},
    "through torch.nn": {"_target_": "torch.nn.modules.module.torch.load", "f": "evil.pt"},
    "through torch.optim": {"_target_": "torch.optim.optimizer.functools.partial", "_args_": [1]},
    "a method of ours": {"_target_": "lightning_prune.tasks.classifier.Classifier.load_from_checkpoint"},
    "our command line": {"_target_": "lightning_prune.cli.main", "argv": ["train"]},
    "the command line as a module": {"_target_": "lightning_prune.__main__.main"},
    "a function of ours that writes": {"_target_": "lightning_prune.shrink.save_shrunk", "folder": "."},
    "a function of torch.nn": {"_target_": "torch.nn.init.zeros_", "tensor": 1},
    "a file": {"_target_": "torch.nn.modules.module.OrderedDict"},
    "not a name": {"_target_": "os;system"},
    "no text": {"_target_": 5},
    "from the environment": {"_target_": "${oc.env:TARGET}", "command": "touch called"},
    "made by a resolver": '${oc.decode:"{_target_: os.system, command: touch called}"}',
    "made by another one": "${oc.create:'{_target_: os.system, command: touch called}'}",
    "in two steps": {"_target_": "lightning_prune.tasks.nets.MLP", "sizes": '\\${oc.decode:"{_target_: os.system}"}'},
    "in a list": [[{"deep": {"_target_": "os.system", "command": "touch called"}}]],
}
"""What a hostile config names, none of which may be called."""


@pytest.mark.parametrize("place", ["net", "optimizer"])
@pytest.mark.parametrize("case", CALLS)
@pytest.mark.usefixtures("own_package")
def test_G35_a_config_that_calls_something_else_is_refused(
    case: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARGET", "os.system")
    run = write(tmp_path / "run", task=task(**{place: CALLS[case]}))
    with pytest.raises(UserError) as refused:
        config_of(run, ("task",), Trust())
    assert f"task.{place}" in str(refused.value)
    assert not Path("called").exists()
    assert not Path("imported").exists()
    assert "mypackage" not in sys.modules


@pytest.mark.parametrize(
    "command",
    [
        ("shrink",),
        ("export", "--format", "onnx"),
        ("threshold-sweep",),
        ("sensitivity",),
        ("bench",),
        ("eval", "--run-once"),
    ],
)
@pytest.mark.usefixtures("own_package")
def test_G35_each_command_that_builds_names_key_target_and_remedy(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path / "run", task=task(net={"_target_": "mypackage.net"}))
    torch.save({}, run / "learned.pt")
    assert main([*command, str(run)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "task.net._target_=mypackage.net is not called" in said
    assert "--trust mypackage" in said
    assert not Path("imported").exists()


@pytest.mark.usefixtures("own_package")
def test_G35_what_is_trusted_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path / "run", task=task(net={"_target_": "mypackage.net"}))
    assert main(["shrink", str(run), "--trust", "elsewhere,mypackage"]) == 0, capsys.readouterr().err
    assert Path("imported").exists()
    recipe = json.loads((run / "shrunk" / "shrunk.json").read_text(encoding="utf-8"))
    assert recipe["model"] == "Classifier"
    with pytest.raises(UserError, match="neither a class nor a function"):
        config_of(write(tmp_path / "other", task={"_target_": "mypackage.os.system"}), ("task",), Trust(("mypackage",)))
    with pytest.raises(UserError, match="is not called"):
        config_of(write(tmp_path / "third", task={"_target_": "mypackages.Net"}), ("task",), Trust(("mypackage",)))


@pytest.mark.parametrize(
    "prefix", ["os", "torch", "torch.serialization", "builtins", "hydra.utils", "a b", "", "1x", "a..b"]
)
def test_G35_nobody_can_trust_everything(prefix: str) -> None:
    with pytest.raises(UserError, match="--trust="):
        Trust((prefix,))


def test_G35_hydra_does_not_compose_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = {"_target_": "os.system", "command": "touch called"}
    for number, changes in enumerate(
        (
            {"hydra": {"callbacks": {"evil": evil}, "searchpath": ["pkg://mypackage"]}},
            {"callbacks": {"evil": evil}, "logger": {"evil": evil}},  # not built, so not in the way
        )
    ):
        run = write(tmp_path / str(number), **changes)
        (run / "run_folder.yaml").write_text(
            OmegaConf.to_yaml({"hydra": {"callbacks": {"evil": evil}}}), encoding="utf-8"
        )
        assert set(config_of(run, ("task",), Trust())) == {"seed", "task", "ckpt_path", "weights"}
        assert main(["export", str(run), "--format", "2:4"]) in (0, 1)
        assert not Path("called").exists()
    with pytest.raises(UserError, match="was not left by a run"):
        config_of(write(tmp_path / "composed", defaults=["run_folder", "evil", "_self_"]), ("task",), Trust())


def test_G35_references_are_resolved_and_the_folder_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE", "0.25")
    run = write(
        tmp_path / "run",
        task=task(lr="${oc.decode:${oc.env:RATE}}", weight_decay="${seed}"),
        trainer={"_target_": "pytorch_lightning.Trainer", "default_root_dir": "${hydra:runtime.output_dir}/x"},
    )
    config = config_of(run, ("task", "trainer", "data"), Trust())
    assert (config.task.lr, config.task.weight_decay, config.data) == (0.25, 0, None)
    assert config.trainer.default_root_dir == f"{run}/x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "was not left by a run"),
        ("- a\n- b\n", "was not left by a run"),
        ("defaults:\n- run_folder\n- _self_\ntask: ${nowhere}\nseed: 0\n", "nowhere"),
    ],
)
def test_G35_a_damaged_config_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        config_of(tmp_path, ("task",), Trust())


def test_G35_a_class_named_with_escapes_is_printed_without_them(tmp_path: Path) -> None:
    run = write(tmp_path / "run", task={"_target_": "x\x1b[2J", "k\x1b[0m": 1})
    with pytest.raises(UserError) as refused:
        config_of(run, ("task",), Trust())
    assert "\x1b" not in str(refused.value)
    assert "\\x1b[2J" in str(refused.value)


ROOT = Path(__file__).parents[2]
NAMED = {
    target
    for folder in ("recipes", "conf/pruner")
    for file in (ROOT / folder).rglob("*.yaml")
    for target in re.findall(r"_target_: *([\w.]+)", file.read_text(encoding="utf-8"))
}


def test_G35_what_recipes_of_ours_name_needs_no_trust() -> None:
    ours = {target for target in NAMED if not target.startswith("pytorch_lightning.")}
    assert len(ours) > 40
    for target in (*ours, "lightning_prune.PruningCallback", "lightning_prune.Pruner"):
        Trust().check(Path("run"), "key", target)
    Trust().check(Path("run"), "trainer", "pytorch_lightning.Trainer")
    with pytest.raises(UserError, match="--trust pytorch_lightning"):
        Trust().check(Path("run"), "task", "pytorch_lightning.Trainer")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
