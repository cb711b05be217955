"""Torch's attention with fewer heads: the answers of `nn.MultiheadAttention`, and its place in the encoder layer."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.coupling.attention import FewerHeads, fewer_heads
from lightning_prune.shrink import shrink
from tests.coupling.helpers import pruned


def both(**options: Any) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    """Return torch's attention, and the same with all its heads as what takes its place."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, **options).eval()
    ours = copy.deepcopy(attention)
    fewer_heads(ours, ours)
    assert isinstance(ours, FewerHeads)
    return attention, ours


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


OPTIONS: list[dict[str, Any]] = [
    {"batch_first": first, "bias": bias, "add_bias_kv": kv, "add_zero_attn": zero, "kdim": keys, "vdim": keys}
    for first, bias, (kv, zero), keys in itertools.product(
        (True, False), (True, False), ((False, False), (True, True)), (None, 5)
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("floats", [True, False])
def test_same_answers_with_every_mask(options: dict[str, Any], floats: bool):
    attention, ours = both(**options)
    query, key = torch.randn(3, 4, 8), torch.randn(3, 6, options["kdim"] or 8)
    if not options["batch_first"]:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[0, 4:] = True
    masks = [torch.rand(4, 6) > 0.7, torch.rand(6, 4, 6) > 0.7]
    for mask in masks:
        mask[..., 0] = False
    if floats:
        padding, masks = padding * -3.0, [torch.randn(mask.shape) for mask in masks]
    for mask, hidden in itertools.product([None, *masks], [None, padding]):
        for weights, average in ((True, True), (True, False), (False, True)):
            given: dict[str, Any] = {"attn_mask": mask, "key_padding_mask": hidden}
            given |= {"need_weights": weights, "average_attn_weights": average}
            same(attention(query, key, key, **given), ours(query, key, key, **given))


def test_same_answers_without_a_batch():
    attention, ours = both()
    x = torch.randn(4, 8)
    same(attention(x, x, x), ours(x, x, x))


def test_same_dropout_in_training():
    attention, ours = both(dropout=0.5, batch_first=True)
    x = torch.randn(3, 4, 8)
    answers: list[Tensor] = []
    for module in (attention.train(), ours.train()):
        torch.manual_seed(1)
        answers.append(module(x, x, x)[0])
    assert (answers[1] == ours.eval()(x, x, x)[0]).float().mean() < 0.5
    assert torch.allclose(answers[0], answers[1], atol=1e-6)


def test_a_causal_hint_needs_its_mask():
    _, ours = both()
    x = torch.randn(4, 3, 8)
    with pytest.raises(RuntimeError, match="attn_mask"):
        ours(x, x, x, is_causal=True)


def test_a_mask_for_the_heads_before_says_so():
    _, ours = both(batch_first=True)
    x = torch.randn(3, 4, 8)
    with pytest.raises(RuntimeError, match="2 heads that are left"):
        ours(x, x, x, attn_mask=torch.zeros(12, 4, 4))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_with_fewer_heads_takes_masks_in_training_and_evaluation(norm_first: bool):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
    model = nn.Sequential(encoder, nn.Linear(16, 3)).eval()
    x = torch.randn(3, 5, 16)
    pruned(model, x)
    shrunk = shrink(model, x).model
    assert [type(m) for m in shrunk.modules() if isinstance(m, nn.MultiheadAttention)].count(FewerHeads) >= 1
    smaller: Any = shrunk[0]  # pyright: ignore
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    masks: tuple[dict[str, Any], ...] = ({"src_key_padding_mask": padding}, {"mask": causal, "is_causal": True})
    for options in masks:
        seen = ~padding if "src_key_padding_mask" in options else torch.ones(3, 5, dtype=torch.bool)
        for training in (False, True):
            for grad in (False, True):
                with torch.set_grad_enabled(grad):
                    one = encoder.train(training)(x, **options)
                    other = smaller.train(training)(x, **options)
                same(one[seen], other[seen])


def test_an_encoder_that_would_use_nested_tensors_no_longer_does():
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2)
    assert encoder.use_nested_tensor
    attention: Any = encoder.layers[1].self_attn
    fewer_heads(encoder, attention)
    assert not encoder.use_nested_tensor
