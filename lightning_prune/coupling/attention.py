"""Multi-head attention with any number of heads: what takes the place of torch's where heads are removed."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@final
class FewerHeads(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads together may be narrower than the model.

    Same parameters, same call, same answers. torch's own insists on heads x width of a head = width of the model, in
    its functions and its fast path. A module becomes one by `fewer_heads`: it is never constructed.
    """

    # torch's encoder layer asks for this before it takes its fast path, which does not know of fewer heads.
    _qkv_same_embed_dim = property(lambda self: False, lambda self, value: None)  # pyright: ignore

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, query, key)
        q, k, v, mask = self._heads(query, key, value, mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            seen = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            seen = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = F.linear(seen.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _heads(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Project to (batch, heads, length, width), with the extra keys and values that were asked for."""
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(k.shape[0], -1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(v.shape[0], -1, -1)], 1)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        if mask is not None:
            mask = F.pad(mask, (0, k.shape[1] - key.shape[1]))
        q, k, v = (t.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for t in (q, k, v))
        return q, k, v, mask

    def _mask(self, attn: Tensor | None, padding: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
        """Return both masks as one to add, (batch or 1, heads or 1, length, keys)."""
        mask = None
        if attn is not None:
            if attn.dim() == 3 and attn.shape[0] != query.shape[0] * self.num_heads:
                raise RuntimeError(
                    f"attn_mask of shape {tuple(attn.shape)} does not fit the {self.num_heads} heads that are left: "
                    f"({query.shape[0]} * {self.num_heads}, {query.shape[1]}, {key.shape[1]}) is asked for"
                )
            mask = _added(attn, query)
            mask = mask.unflatten(0, (-1, self.num_heads)) if attn.dim() == 3 else mask[None, None]
        if padding is not None:
            hidden = _added(padding, query).view(-1, 1, 1, key.shape[1])
            mask = hidden if mask is None else mask + hidden
        return mask


def fewer_heads(model: nn.Module, attention: nn.MultiheadAttention) -> None:
    """Let a module of the model have any number of heads, in place."""
    attention.__class__ = FewerHeads
    attention.__dict__.pop("_qkv_same_embed_dim", None)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and attention in module.modules():
            module.use_nested_tensor = False  # nested tensors are for the fast path alone


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask of floats; True means that a position is not seen."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
