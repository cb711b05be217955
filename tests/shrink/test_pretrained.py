"""A model of transformers is shrunk, saved and loaded with its outputs: by its config, or by the shapes beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.coupling.example import answer, distance
from lightning_prune.pattern import Channel
from lightning_prune.scope import GlobalRanking, Uniform
from lightning_prune.shrink import RECIPE, load_pretrained, save_pretrained, shrink, shrink_
from lightning_prune.targets import Targets
from tests.helpers import pruned_once

transformers: Any = pytest.importorskip("transformers")

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
Inputs = dict[str, torch.Tensor]


def words() -> Inputs:
    return {"input_ids": torch.arange(12).view(2, 6) + 3}


def pictures() -> Inputs:
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)}


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, vocab_size=50, num_labels=3))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, vocab_size=50, bos_token_id=0, eos_token_id=0))


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=50))


def vit() -> nn.Module:
    config = transformers.ViTConfig(**SIZES, image_size=16, patch_size=8, num_labels=3)
    return transformers.ViTForImageClassification(config)


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2], num_labels=5)
    return transformers.ResNetForImageClassification(config)


Build = Callable[[], nn.Module]
FAMILIES: dict[str, tuple[Build, Callable[[], Inputs], str]] = {
    "bert": (bert, words, r"intermediate\.dense\.weight"),
    "gpt2": (gpt2, words, r"mlp\..*weight"),
    "llama": (llama, words, r"mlp\..*weight"),
    "vit": (vit, pictures, r"mlp\..*weight"),
}
"""What builds a model, what it takes, and the weights of its hidden layers."""


def smaller(build: Build, inputs: Inputs, **ideas: Any) -> Any:
    """Return a model that was pruned in whole units and shrunk."""
    torch.manual_seed(0)
    model = build().eval()
    pruned_once(model, 0.5, pattern=Channel(example_inputs=inputs), **ideas).strip()
    return shrink(model, inputs)


def same_outputs(one: nn.Module, other: nn.Module, inputs: Inputs) -> bool:
    return all(map(torch.equal, answer(one, inputs), answer(other, inputs)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_that_can_say_the_sizes_says_them(family: str, tmp_path: Path) -> None:
    build, inputs, hidden = FAMILIES[family]
    shrunk = smaller(build, inputs(), scope=Uniform(), targets=Targets(include=(hidden,)))
    assert shrunk.report.parameters[1] < shrunk.report.parameters[0]
    assert not shrunk.report.notes
    kind = type(shrunk.model)
    shrunk.model.save_pretrained(tmp_path / "own")
    assert save_pretrained(shrunk.model, tmp_path / "ours")
    for folder in ("own", "ours"):
        loaded = kind.from_pretrained(tmp_path / folder)
        assert same_outputs(shrunk.model, loaded.eval(), inputs())
    assert same_outputs(shrunk.model, load_pretrained(tmp_path / "ours"), inputs())
    width = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert (width["n_inner"] if family == "gpt2" else width["intermediate_size"]) < 24 + 40 * (family == "gpt2")


@pytest.mark.parametrize("build", [llama, vit])
def test_heads_are_said_where_the_width_of_one_can_be(build: Build, tmp_path: Path) -> None:
    inputs = words() if build is llama else pictures()
    include = (r"(q|k|v|o)_proj\.weight",)
    shrunk = smaller(build, inputs, scope=Uniform(), targets=Targets(include=include))
    assert not shrunk.report.notes
    config = shrunk.model.config
    assert (config.num_attention_heads, config.head_dim) == (2, 4)
    shrunk.model.save_pretrained(tmp_path)
    assert same_outputs(shrunk.model, type(shrunk.model).from_pretrained(tmp_path).eval(), inputs)


@pytest.mark.parametrize("family", [*FAMILIES, "resnet"])
def test_sizes_that_no_config_can_say_are_kept_beside_the_weights(family: str, tmp_path: Path) -> None:
    build, inputs, _ = FAMILIES.get(family, (resnet, pictures, ""))
    shrunk = smaller(build, inputs(), scope=GlobalRanking())
    kind = type(shrunk.model)
    (note,) = shrunk.report.notes
    assert f"the config of {kind.__name__} cannot say its new sizes" in note
    assert note in shrunk.report.table()
    assert not save_pretrained(shrunk.model, tmp_path)
    assert same_outputs(shrunk.model, load_pretrained(tmp_path), inputs())
    assert same_outputs(shrunk.model, load_pretrained(tmp_path, kind), inputs())
    with pytest.raises(Exception, match="ignore_mismatched_sizes"):
        kind.from_pretrained(tmp_path)


def test_a_model_in_a_module_is_shrunk_in_place_with_its_config(tmp_path: Path) -> None:
    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = vit()

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.net(pixel_values).logits

    torch.manual_seed(0)
    task = Task().eval()
    targets, pattern = Targets(include=(r"mlp\..*weight",)), Channel(example_inputs=pictures())
    pruned_once(task, 0.5, pattern=pattern, scope=Uniform(), targets=targets).strip()
    before = task(**pictures())
    report, _ = shrink_(task, pictures())
    assert not report.notes
    config: Any = task.net.config
    assert config.intermediate_size == task.net.get_submodule("vit.layers.0.mlp.fc1").out_features == 12  # pyright: ignore
    task.net.save_pretrained(tmp_path)  # pyright: ignore
    task.net = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    assert distance([before.detach()], [task(**pictures()).detach()])[1] < 1e-5


def test_bfloat16_comes_back_as_it_was(tmp_path: Path) -> None:
    shrunk = smaller(llama, words())
    model = shrunk.model.to(torch.bfloat16)
    assert not save_pretrained(model, tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert same_outputs(model, loaded, words())


def test_a_model_that_was_not_shrunk_is_saved_as_ever(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = smaller(bert, words()).model
    save_pretrained(small, tmp_path)
    assert (tmp_path / RECIPE).is_file()
    model = bert().eval()
    before = model.config.to_dict()  # pyright: ignore
    assert save_pretrained(model, tmp_path), "the shapes of the model that was there before are gone"
    assert {k: v for k, v in model.config.to_dict().items() if k != "architectures" and "dtype" not in k} == {  # pyright: ignore
        k: v for k, v in before.items() if k != "architectures" and "dtype" not in k
    }
    assert same_outputs(model, load_pretrained(tmp_path), words())


def test_G13_what_cannot_be_saved_or_loaded_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Sequential is no model of transformers: give the one that is in it"):
        save_pretrained(nn.Sequential(bert()), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_pretrained(tmp_path)
    save_pretrained(smaller(bert, words()).model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Mine"]}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"names no class of transformers \(Mine\): give kind="):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 8}), encoding="utf-8")
    with pytest.raises(ValueError, match="does not shrink to"):
        load_pretrained(tmp_path)
