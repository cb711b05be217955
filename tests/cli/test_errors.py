"""An error of the user's is one line that says what to do, with no traceback, and leaves no folder behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_prune.cli import main
from lightning_prune.cli.errors import near

from .conftest import Command

MISTAKES = {
    "train": "which recipe? Give -cn RECIPE, one of: cifar10_alexnet_dense, ",
    "train -cn": "which recipe?",
    "train -cn seed=1": "which recipe?",
    "train digits_mlp": "'digits_mlp' is one: -cn digits_mlp",
    "plan seed=1 digits_cnn.yaml": "'digits_cnn.yaml' is one: -cn digits_cnn",
    "train -cn digits_mlp pruner.schedule=geometric": "options of a group are chosen by pruner/schedule=geometric;",
    "plan -cn digits_mlp prune.pruner.criterion=magnitud": "chosen by pruner/criterion=magnitude;",
    "train -cn digits_mpl": "no recipe 'digits_mpl': did you mean digits_mlp",
    "train -cn config": "task is not set",
    "train -cn digits_mlp -cd nowhere": "no such folder",
    "train -cn digits_mlp --multi": "did you mean --multirun",
    "train -cn digits_mlp a,b": "write key=value",
    "train -cn digits_mlp pruner.schedule.final_sparsty=0.9": "did you mean pruner.schedule.final_sparsity",
    "train -cn digits_mlp schedule.final_sparsity=0.9": "did you mean pruner.schedule.final_sparsity",
    "train -cn digits_mlp pruner/schdule=geometric": "did you mean pruner/schedule?",
    "train -cn digits_mlp pruner/schedule=cubic": "there are accuracy_budget, geometric, hold, iterative",
    "train -cn digits_mlp +trainer.max_epoch=3": "did you mean max_epochs",
    "train -cn digits_mlp +task.net.size=3": "did you mean sizes",
    "train -cn digits_mlp pruner.schedule.final_sparsity=1.5": "pruner.schedule: final_sparsity=1.5 must be a share",
    "train -cn digits_mlp pruner.schedule.final_sparsity=${gone}": "pruner.schedule.final_sparsity",
    "train -cn digits_mlp trainer.max_epochs=many": "trainer.max_epochs='many' must be of type int or null",
    "train -cn digits_mlp trainer.precision=12": "trainer: Precision",
    "train -cn digits_mlp trainer.strategy=ddp_spawn": "with start_method='spawn' trains in processes of its own",
    "train -cn digits_mlp trainer.strategy=ddp_fork trainer.devices=2": "hand back to this command no smaller model",
    "train -cn digits_mlp trainer=null": "trainer has no _target_",
    "train -cn digits_mlp seed=x": "seed=x must be an int",
    "train -cn digits_mlp data.batch_size=0": "data: batch_size=0",
    "train -cn digits_mlp task.net._target_=no.such.net": "task.net",
    "train -cn digits_mlp prune.rewind=-1": "prune: rewind to=-1",
    "train -cn digits_mlp ckpt_path=gone.ckpt": "ckpt_path=gone.ckpt: there is no such file",
    "train -cn digits_mlp pruner/pattern=n_of_m pruner/selection=sort": "needs an exact selection",
    "train -cn digits_mlp pruner.schedule.begin_step=99999 pruner.schedule.end_step=99999": "past the end of the run",
    "train -cn digits_mlp pruner.targets.include=[layer9]": "matches no weight; near matches: net.layers",
    "train -cn digits_mlp pruning_hparams=name=x,sparsity=1": "no field 'sparsity'",
    "train -cn digits_mlp pruning_hparams=name=x pruner/scope=erk": "pruner/scope would have no effect",
    "train -cn mnist_lenet300": "data.download=true",
    "plan -cn digits_mlp pruner.schedule.begin=3": "did you mean pruner.schedule.begin_step",
    "plan -cn cifar10_resnet20 pruner/schedule=one_shot": "'~pruner.schedule.begin_step' leaves the key out",
    "plan -cn digits_mlp -m": "this command takes -cn",
    "inspect gone.pt": "there is no such file",
    "tarin": "there are train, compress, plan, eval, inspect, compare, diff",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_one_line_and_no_traceback(command: Command, line: str) -> None:
    said = command(*line.split())
    assert said.status != 0
    assert said.err.count("\n") == 1
    assert said.err.startswith("lightning-prune: ")
    assert MISTAKES[line] in said.err
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_the_whole_error_on_demand(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="final_sparsty"):
        command("train", "-cn", "digits_mlp", "pruner.schedule.final_sparsty=0.9")


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.count("usage: lightning-prune COMMAND") == 2


@pytest.mark.parametrize("name", ["train", "plan"])
def test_help_lists_the_recipes(command: Command, name: str) -> None:
    said = command(name, "--help")
    assert said.status == 0
    assert "mnist_lenet300" in said.out


def test_near_prefers_the_same_name_elsewhere() -> None:
    assert near("schedule.power", ["pruner.schedule.power", "pruner.schedule"])[0] == "pruner.schedule.power"
    assert near("zzz", ["pruner"]) == []


@pytest.mark.parametrize("name", ["inspect", "threshold-sweep"])
def test_ctrl_c_is_one_line_and_the_shells_status(command: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"lightning_prune.cli.{name.replace('-', '_')}.main", interrupted)
    said = command(name)
    assert (said.status, said.out, said.err) == (130, "", "lightning-prune: interrupted\n")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(KeyboardInterrupt):
        command(name)
