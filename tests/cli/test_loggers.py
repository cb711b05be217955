"""Runs in wandb, TensorBoard and MLflow, read back: each says what it was, and a resumed one is the one that it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from lightning_prune.cli import loggers
from tests.callbacks.logging.wandb_file import read

from . import killed
from .conftest import SHORT, Command
from .test_resume import kill

pytestmark = pytest.mark.slow  # many processes or whole trainings

RUN = ("-cn", "digits_mlp", *SHORT, "callbacks.checkpoint.share=1.0")
ADDS = ("pruner/schedule=geometric", "pruner.schedule.final_sparsity=0.8", "seed=3")


@pytest.fixture
def wandb_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)


def said_of(config: dict[str, Any], final: float, steps: int = 36) -> None:
    """The config in full, and the pruner as it was resolved."""
    assert (config["recipe"], config["seed"]) == ("digits_mlp", 3)
    assert config["pruner"]["schedule"]["_target_"] == "lightning_prune.schedule.geometric.Geometric"
    assert config["pruner"]["schedule"]["final_sparsity"] == final
    assert config["data"]["seed"] == 3
    assert config["trainer"]["max_epochs"] == 3
    pruning = config["pruning"]
    assert pruning["schedule"].startswith(f"Geometric(final_sparsity={final}, begin_step=2, end_step=22, ")
    assert (pruning["final_sparsity"], pruning["begin_step"], pruning["end_step"]) == (final, 2, 22)
    assert (pruning["kind"], pruning["criterion"], pruning["pattern"]) == ("Pruner", "Magnitude()", "Element()")


@pytest.mark.usefixtures("wandb_here")
def test_a_sweep_in_wandb_is_a_group_of_runs_that_say_what_they_are(command: Command) -> None:
    sweep = ("hydra.sweep.dir=sweep", "pruner/schedule=geometric", "pruner.schedule.final_sparsity=0.5,0.8")
    assert command("train", "-m", *RUN, *sweep, "seed=3", "logger=wandb", "logger.wandb.tags=[mine]").status == 0
    runs = [read(Path(f"sweep/{job}")) for job in "01"]
    for run, final in zip(runs, (0.5, 0.8), strict=True):
        said_of(run.config, final)
        assert run.config["lr"] == 3e-3  # the module's own
        assert run.about["group"] == "sweep"
        assert run.about["job_type"] == "train"
        assert set(run.about["tags"]) == {"mine", "digits_mlp", "Geometric", "Magnitude", "Element"}
        assert f"final_sparsity={final}" in run.about["name"]
        assert run.about["name"].startswith("digits_mlp ")
        assert "schedule=geometric" in run.about["name"]
    assert runs[0].about["id"] != runs[1].about["id"]


@pytest.mark.usefixtures("wandb_here")
def test_a_resumed_run_is_the_same_run_in_wandb(command: Command) -> None:
    kill(killed.at_batch, (20,), [*RUN, "hydra.run.dir=run", "logger=wandb", "seed=3", "logger.wandb.group=mine"])
    assert command("train", "run", "--resume").status == 0
    known = yaml.safe_load(Path("run/loggers.json").read_text(encoding="utf-8"))["wandb"]
    files = sorted(Path("run").glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert {file.stem for file in files} == {f"run-{known['id']}"}
    finished = read(Path("run"), timeout=120.0, newest=True)
    assert finished.about["id"] == known["id"]
    assert finished.about["name"] == known["name"]
    assert "seed=3" in known["name"]
    assert finished.about["group"] == "mine"
    steps = [step for step, _ in finished.series("train/loss")]
    assert min(steps) >= 12  # the first epoch is in the other part


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_read_back(command: Command) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import plugin_data_pb2

    assert command("train", *RUN, "hydra.run.dir=run", "logger=tensorboard", *ADDS).status == 0
    events = accumulator.EventAccumulator("run/tensorboard")
    events.Reload()
    sparsity = [(event.step, event.value) for event in events.Scalars("pruning/sparsity")]
    assert sparsity[-1][0] == 22
    assert sparsity[-1][1] == pytest.approx(0.8, abs=1e-4)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    given = plugin_data_pb2.HParamsPluginData.FromString(content)  # pyright: ignore[reportAttributeAccessIssue]
    given = given.session_start_info.hparams
    assert given["pruning/end_step"].number_value == 22
    assert given["pruner/schedule/final_sparsity"].number_value == 0.8
    assert given["seed"].number_value == 3
    assert given["lr"].number_value == 3e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_mlflow_read_back(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert command("train", *RUN, "hydra.run.dir=run", "logger=mlflow", *ADDS).status == 0
    client = tracking.MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("lightning-prune")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name.startswith("digits_mlp max_epochs=3 ")
    assert run.info.run_name.endswith(" schedule=geometric final_sparsity=0.8 seed=3")
    assert run.info.status == "FINISHED"
    assert run.data.params["pruning/end_step"] == "22"
    assert run.data.params["pruner/schedule/final_sparsity"] == "0.8"
    assert run.data.tags["recipe"] == "digits_mlp"
    history = client.get_metric_history(run.info.run_id, "pruning/sparsity")
    assert max(history, key=lambda metric: metric.step).value == pytest.approx(0.8, abs=1e-4)
    assert yaml.safe_load(Path("run/loggers.json").read_text(encoding="utf-8")) == {
        "mlflow": {"run_id": run.info.run_id}
    }


def test_the_csv_loggers_hyper_parameters(command: Command) -> None:
    assert command("train", *RUN, "hydra.run.dir=run", *ADDS).status == 0
    said_of(yaml.safe_load(Path("run/hparams.yaml").read_text(encoding="utf-8")), 0.8)
    assert not Path("run/loggers.json").exists()


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "r"),
        (["seed=1", "pruner.schedule.final_sparsity=0.9"], "r seed=1 final_sparsity=0.9"),
        (["pruner/schedule=geometric", "+a.b=1", "~pruner.targets"], "r schedule=geometric b=1 targets="),
        (["seed=1", "data.seed=2"], "r seed=1 data.seed=2"),
        (["logger=wandb", "callbacks=none", "trainer.enable_progress_bar=false", "++resume=true"], "r"),
    ],
)
def test_the_name_of_a_run(overrides: list[str], name: str) -> None:
    assert loggers.run_name("r", overrides) == name
    assert len(loggers.run_name("r", [f"a{n}={n}" for n in range(100)])) == 120


def test_outside_of_hydra_the_config_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    config = OmegaConf.create({"logger": {"wandb": {"_target_": "x.WandbLogger", "name": None}}})
    assert loggers.filled(config) is config
