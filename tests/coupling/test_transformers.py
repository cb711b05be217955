"""Models of `transformers`, small and with random weights, pruned to half and shrunk."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune.coupling.example import answer, distance
from lightning_prune.shrink import rebuild, shrink
from tests.coupling.helpers import TOLERANCE, assert_trains, pruned

transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

Inputs = dict[str, torch.Tensor]


def pictures(batch: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, 32, 32)}


def words(batch: int) -> Inputs:
    ids = torch.randint(0, 50, (batch, 5 + batch))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2], num_labels=5)
    return transformers.ResNetForImageClassification(config)


def mobilenet_v2() -> nn.Module:
    config = transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=32, num_labels=5)
    return transformers.MobileNetV2ForImageClassification(config)


def convnext() -> nn.Module:
    sizes = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}
    config = transformers.ConvNextConfig(**sizes, num_labels=5, image_size=32, layer_scale_init_value=0.5)
    return transformers.ConvNextForImageClassification(config)


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}


def vit() -> nn.Module:
    config = transformers.ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=5)
    return transformers.ViTForImageClassification(config)


def bert() -> nn.Module:
    config = transformers.BertConfig(**SIZES, vocab_size=50, num_labels=5)
    return transformers.BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
    config = transformers.GPT2Config(**sizes, vocab_size=50, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=50)
    return transformers.LlamaForCausalLM(config)


def gemma() -> nn.Module:
    config = transformers.GemmaConfig(**SIZES, num_key_value_heads=1, head_dim=4, vocab_size=50)
    return transformers.GemmaForCausalLM(config)


def gpt_neox() -> nn.Module:
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES, vocab_size=50))


def t5() -> nn.Module:
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)
    return transformers.T5ForConditionalGeneration(config)


def words_twice(batch: int) -> Inputs:
    return {"input_ids": torch.randint(2, 50, (batch, 7)), "decoder_input_ids": torch.randint(2, 50, (batch, 5))}


# The model, its inputs, and the first weights of groups that must shrink.
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Inputs], tuple[str, ...]]] = {
    "resnet": (
        resnet,
        pictures,
        (
            "resnet.embedder.embedder.convolution.weight",
            "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
            "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
        ),
    ),
    "mobilenet_v2": (
        mobilenet_v2,
        pictures,
        (
            "mobilenet_v2.layer.1.expand_1x1.convolution.weight",
            "mobilenet_v2.layer.9.reduce_1x1.convolution.weight",
            "mobilenet_v2.conv_1x1.convolution.weight",
        ),
    ),
    "convnext": (
        convnext,
        pictures,
        ("convnext.encoder.stages.0.layers.0.pwconv1.weight", "convnext.encoder.stages.2.layers.1.pwconv1.weight"),
    ),
    "vit": (vit, pictures, ("vit.layers.0.mlp.fc1.weight", "vit.layers.1.attention.q_proj.weight")),
    "bert": (
        bert,
        words,
        (
            "bert.encoder.layer.0.attention.self.query.weight",
            "bert.encoder.layer.1.intermediate.dense.weight",
            "bert.pooler.dense.weight",
        ),
    ),
    "gpt2": (gpt2, words, ("transformer.h.0.attn.c_attn.weight", "transformer.h.1.mlp.c_fc.weight")),
    "gpt_neox": (
        gpt_neox,
        words,
        ("gpt_neox.layers.0.attention.query_key_value.weight", "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"),
    ),
    "t5": (t5, words_twice, ("decoder.block.0.layer.2.DenseReluDense.wi.weight",)),
    "gemma": (gemma, words, ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.gate_proj.weight")),
    "llama": (llama, words, ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.gate_proj.weight")),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_shrunk_model_gives_the_same_outputs_and_trains_on(name: str):
    build, inputs, found = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    pruned(model, inputs(2))
    shrunk = shrink(model, inputs(2), TOLERANCE)
    units = {group.name: (group.before, group.after) for group in shrunk.report.groups}
    assert all(units[first][1] < units[first][0] for first in found), units
    assert shrunk.report.parameters[1] < shrunk.report.parameters[0]
    for given in (inputs(2), inputs(3)):
        assert distance(answer(model, given), answer(shrunk.model, given))[1] <= TOLERANCE
    plain = rebuild(build().eval(), shrunk.recipe)
    plain.load_state_dict(shrunk.model.state_dict())
    assert all(map(torch.equal, answer(shrunk.model, inputs_of_seed(inputs)), answer(plain, inputs_of_seed(inputs))))
    assert_trains(shrunk.model, inputs(2))


def inputs_of_seed(inputs: Callable[[int], Inputs]) -> Inputs:
    torch.manual_seed(5)
    return inputs(2)
