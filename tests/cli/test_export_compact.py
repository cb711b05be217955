"""`lightning-prune export --format compact`, and every command that reads weights given such a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_prune.cli import main
from lightning_prune.cli.checkpoints import load
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.export import trained
from lightning_prune.export import load_compact
from lightning_prune.shrink import load_shrunk
from lightning_prune.tasks.classifier import Classifier
from lightning_prune.tasks.nets import digits_cnn

from .conftest import SHORT, Command

CHANNELS = ("pruner/pattern=channel", "pruner.schedule.final_sparsity=0.5")
COMPACT = "model.compact.safetensors"


def left_by(folder: Path, *lines: str) -> Path:
    """Return a folder in which these commands were run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in lines:
            assert main(line.split()) == 0
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = f"train -cn digits_mlp {' '.join(SHORT)} hydra.run.dir=run"
    return left_by(tmp_path_factory.mktemp("compact"), train, "export run --format compact")


@pytest.fixture(scope="module")
def shrunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = f"train -cn digits_cnn {' '.join((*SHORT, *CHANNELS))} hydra.run.dir=channels"
    return left_by(tmp_path_factory.mktemp("shrunk"), train, "shrink channels")


@pytest.fixture(autouse=True)
def run(command: Command, once: Path) -> None:
    """Put a sparse run, with a compact file of its model, where the test is."""
    shutil.copytree(once / "run", "run")


@pytest.fixture
def channels(command: Command, shrunk: Path) -> None:
    """Put a run whose model was shrunk where the test is."""
    shutil.copytree(shrunk / "channels", "channels")


def test_writes_the_model_in_few_bytes_and_says_how_few(command: Command) -> None:
    Path("run", COMPACT).unlink()
    said = command("export", "run", "--format", "compact")
    assert (said.status, said.err) == (0, "")
    size = Path("run", COMPACT).stat().st_size
    assert f"run/{COMPACT}: {size:,} bytes, " in said.out
    saved = torch.load("run/model.pt", weights_only=True)
    found = load_compact(Path("run", COMPACT))
    assert list(found) == list(saved)
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
    facts = json.loads(command("export", "run", "--format", "compact", "--json").out)
    assert facts["file"] == f"run/{COMPACT}"
    assert facts["bytes"] == size
    assert facts["dense_bytes"] == sum(tensor.nbytes for tensor in saved.values())
    assert facts["times_smaller"] == pytest.approx(facts["dense_bytes"] / size)
    assert facts["times_smaller"] > 5
    assert {each["encoding"] for each in facts["tensors"]} >= {"gaps", "dense"}


def test_inspect_and_diff_see_in_it_what_is_in_the_model(command: Command) -> None:
    said = [json.loads(command("inspect", f"run/{name}", "--json").out) for name in (COMPACT, "model.pt")]
    assert said[0] == said[1]
    found = json.loads(command("diff", "run/model.pt", f"run/{COMPACT}", "--json").out)
    assert all(each["gone"] == each["returned"] == each["moved"] == 0 for each in found["tensors"])


def test_eval_answers_the_same(command: Command) -> None:
    said = [command("eval", f"run/{name}", "--json") for name in (COMPACT, "model.pt")]
    metrics = [json.loads(each.out) for each in said]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]
    assert metrics[0]["zeros"] == metrics[1]["zeros"] > 0


@pytest.mark.slow
def test_train_starts_with_it_and_holds_its_zeros(command: Command) -> None:
    hold = ("pruner/schedule=hold", f"weights=run/{COMPACT}", "hydra.run.dir=held")
    said = command("train", "-cn", "digits_mlp", *SHORT, *hold)
    assert (said.status, said.err) == (0, "")
    before, after = load_compact(Path("run", COMPACT)), torch.load("held/model.pt", weights_only=True)
    assert all(torch.equal(before[n] == 0, after[n] == 0) for n in before if before[n].dim() >= 2)
    assert json.loads(Path("held/report.json").read_text(encoding="utf-8"))["started_from"]["file"] == f"run/{COMPACT}"


def test_strip_says_of_it_what_it_says_of_the_model(command: Command) -> None:
    said = [command("strip", f"run/{name}").err for name in (COMPACT, "model.pt")]
    assert said[0].replace(COMPACT, "model.pt") == said[1]
    assert "there are no masks in it" in said[0]


def test_the_weights_of_every_other_command(command: Command) -> None:
    compact = f"run/{COMPACT}"
    said = command("bench", "run", "--weights", compact, "--batches", "1", "--threads", "1", "--json")
    assert (said.status, said.err) == (0, "")
    said = command("shrink", "run", "--weights", compact)
    assert (said.status, said.err) == (0, "")
    said = command("export", "run", "--format", "compact", "--weights", compact, "--out", "again.safetensors")
    assert said.status == 0
    assert Path("again.safetensors").read_bytes() == Path(compact).read_bytes()
    command("export", "run", "--format", "compact", "--weights", compact)
    assert sorted(path.name for path in Path("run").glob("*.safetensors")) == [COMPACT]


@pytest.mark.slow
@pytest.mark.usefixtures("channels")
def test_a_shrunk_model_brings_its_shapes_along_wherever_the_file_lies(command: Command) -> None:
    said = command("export", "channels", "--format", "compact", "--weights", "channels/shrunk/model.safetensors")
    assert (said.status, said.err) == (0, "")
    beside = Path("channels/shrunk", COMPACT)
    assert f"{beside}: " in said.out
    Path("elsewhere").mkdir()
    shutil.move(beside, "elsewhere/small.safetensors")
    expected = load_file("channels/shrunk/model.safetensors")
    small = trained(Path("channels"), Path("elsewhere/small.safetensors"))
    assert {name: tuple(t.shape) for name, t in small.state_dict().items()} == {
        name: tuple(t.shape) for name, t in expected.items()
    }
    assert all(torch.equal(tensor, expected[name]) for name, tensor in small.state_dict().items())
    loaded = load_shrunk(Classifier(digits_cnn()), "elsewhere/small.safetensors").eval()
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), small.eval()(x))
    said = command(
        *("bench", "channels", "--weights", "elsewhere/small.safetensors", "--batches", "1", "--threads", "1", "--json")
    )
    facts = json.loads(said.out)
    assert facts["model"]["macs"] < facts["dense"]["macs"]
    said = command("inspect", "elsewhere/small.safetensors", "--json")
    assert len(json.loads(said.out)["tensors"]) == len(expected)


@pytest.mark.slow
@pytest.mark.usefixtures("channels")
def test_its_own_shapes_count_and_not_those_beside_it(command: Command) -> None:
    words = (
        "--format",
        "compact",
        "--weights",
        "channels/shrunk/model.safetensors",
        "--out",
        "channels/small.safetensors",
    )
    assert command("export", "channels", *words).status == 0
    shutil.copy("channels/shrunk/shrunk.json", "run/shrunk.json")  # of another model than that of the run
    shutil.move("channels/small.safetensors", "run/small.safetensors")
    expected = load_file("channels/shrunk/model.safetensors")
    Path("run/shrunk.json").write_text("{}", encoding="utf-8")
    found = trained(Path("channels"), Path("run/small.safetensors")).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.slow
@pytest.mark.usefixtures("channels")
def test_a_shrunk_folder_may_hold_a_compact_file(command: Command) -> None:
    command("export", "channels", "--format", "compact", "--weights", "channels/shrunk/model.safetensors")
    expected = load_file("channels/shrunk/model.safetensors")
    shutil.move(Path("channels/shrunk", COMPACT), "channels/shrunk/model.safetensors")
    loaded = load_shrunk(Classifier(digits_cnn()), "channels/shrunk").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


def test_a_dense_model_gets_no_smaller_and_the_command_says_so(command: Command) -> None:
    torch.save(
        {name: torch.ones_like(tensor) for name, tensor in load_compact(Path("run", COMPACT)).items()}, "ones.pt"
    )
    said = command("export", "run", "--format", "compact", "--weights", "ones.pt")
    assert (said.status, said.err) == (0, "")
    assert "no tensor has zeros enough: all are written dense" in said.out


@pytest.mark.parametrize("argv", [("inspect",), ("eval", "--run", "run"), ("strip",), ("diff", "run/model.pt")])
def test_G35_a_damaged_one_is_one_line_that_names_it(command: Command, argv: tuple[str, ...]) -> None:
    content = Path("run", COMPACT).read_bytes()
    other_bits = content.replace(b'\\"encoding\\": \\"gaps', b'\\"encoding\\": \\"bits')
    assert other_bits != content
    for number, damaged in enumerate((content[:-7], other_bits, content[:50], b"")):
        Path("damaged.safetensors").write_bytes(damaged)
        said = command(*argv, "damaged.safetensors")
        assert said.status == 1, number
        assert said.err.count("\n") == 1
        assert "damaged.safetensors" in said.err


def test_G35_a_checkpoint_names_a_newer_version(command: Command) -> None:
    content = Path("run", COMPACT).read_bytes()
    assert b'"version\\": 1' in content
    Path("newer.safetensors").write_bytes(content.replace(b'"version\\": 1', b'"version\\": 7'))
    with pytest.raises(UserError, match=r"newer\.safetensors is a compact file of version 7"):
        load(Path("newer.safetensors"))
    said = command("export", "run", "--format", "onnx", "--weights", "newer.safetensors")
    assert said.err.startswith("lightning-prune: weights=newer.safetensors: newer.safetensors is a compact file of ver")
