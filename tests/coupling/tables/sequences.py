"""The architectures over tokens and patches: how to build each, and what must be found in it."""

import torch
from torch import nn

from tests.coupling.architecture import ANY_LENGTH, NORMALISES, OTHER_BATCH, OUTPUT, Architecture, images, tokens
from tests.coupling.nets import sequences as nets


def _transformer(*names: str) -> dict[str, tuple[str, ...]]:
    """Return what is found in both of its blocks: the heads, and the hidden units."""
    heads, project, first, second = names
    found: dict[str, tuple[str, ...]] = {}
    for block in (0, 1):
        at = heads.format(block)
        found[at] = (project.format(block),)
        found[first.format(block)] = (second.format(block),)
    return found


_BLOCK_MLP = ("blocks.{}.mlp.fc1.weight", "blocks.{}.mlp.fc2.weight")
_GPT = _transformer("blocks.{}.attn.c_attn.weight", "blocks.{}.attn.c_proj.weight", *_BLOCK_MLP)
_ENCODER = _transformer(
    "encoder.layers.{}.self_attn.in_proj_weight",
    "encoder.layers.{}.self_attn.out_proj.weight",
    "encoder.layers.{}.linear1.weight",
    "encoder.layers.{}.linear2.weight",
)

SEQUENCES = {
    "lstm": Architecture(
        lambda: nets.Recurrent(nn.LSTM, 2),
        tokens,
        ANY_LENGTH,
        {"rnn.weight_ih_l0": ("rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1", "head.weight")},
    ),
    "gru": Architecture(
        lambda: nets.Recurrent(nn.GRU, bidirectional=True),
        tokens,
        ANY_LENGTH,
        {"rnn.weight_ih_l0": ("rnn.weight_hh_l0", "rnn.weight_ih_l0_reverse", "head.weight")},
    ),
    "attention_pool": Architecture(
        nets.AttentionPool,
        tokens,
        ANY_LENGTH,
        {"rnn.weight_ih_l0": ("rnn.weight_hh_l1_reverse", "score.weight", "head.weight")},
        {"score.weight": "it has one channel"},
    ),
    "transformer_encoder": Architecture(nets.Encoder, tokens, ANY_LENGTH, _ENCODER, {"embed.weight": NORMALISES}),
    "transformer_encoder_norm_first": Architecture(lambda: nets.Encoder(True), tokens, ANY_LENGTH, _ENCODER),
    "gpt": Architecture(nets.GPT, tokens, ANY_LENGTH, _GPT, {"wte.weight": NORMALISES, "head.weight": OUTPUT}),
    "gpt_tied": Architecture(lambda: nets.GPT(tied=True), tokens, ANY_LENGTH, _GPT, {"wte.weight": ""}),
    "gpt_of_fixed_width": Architecture(
        lambda: nets.GPT(own=False),
        tokens,
        ANY_LENGTH,
        {"blocks.0.mlp.fc1.weight": (), "blocks.1.mlp.fc1.weight": ()},
        {"blocks.0.attn.c_attn.weight": "without some of them the model fails"},
    ),
    "vit": Architecture(
        nets.ViT,
        images,
        OTHER_BATCH,
        _transformer("blocks.{}.attn.qkv.weight", "blocks.{}.attn.proj.weight", *_BLOCK_MLP),
        {"patch_embed.weight": NORMALISES, "pos_embed": NORMALISES, "cls_token": NORMALISES},
    ),
    "vit_separate": Architecture(
        lambda: nets.ViT(separate=True),
        images,
        OTHER_BATCH,
        _transformer("blocks.{}.attn.to_q.weight", "blocks.{}.attn.to_out.0.weight", *_BLOCK_MLP),
    ),
    "mlp_mixer": Architecture(
        nets.Mixer,
        images,
        OTHER_BATCH,
        {f"blocks.{i}.{kind}_mlp.fc1.weight": () for i in (0, 1) for kind in ("token", "channel")},
        {"stem.weight": NORMALISES},
    ),
    "gated_mlp": Architecture(
        lambda: nn.Sequential(nets.GatedMLP(8, 12), nn.Linear(8, 3)),
        lambda: torch.randn(2, 5, 8),
        (lambda: torch.randn(7, 3, 8),),
        {"0.fc1.weight": ("0.fc2.weight",), "0.fc2.weight": ("1.weight",)},
    ),
}
