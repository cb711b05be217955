"""A small GPT that predicts the next character (Radford et al., "Language Models are Unsupervised ...", 2019)."""

from math import sqrt
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightning_prune.tasks.example import example_characters

DEVIATION = 0.02  # of GPT-2's initial weights


@final
class Attention(nn.Module):
    """Each position looks at itself and those before it, with several heads.

    Args:
        width: Numbers per position that come in and go out.
        heads: Heads, each of ``width / heads`` numbers.
        dropout: Share of the attention dropped in training.

    Attributes:
        num_heads: As given.
        head_dim: Numbers per head.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = heads
        self.head_dim = width // heads
        self.dropout = dropout
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States of the same shape, ``(batch, length, width)``."""
        q, k, v = (self._heads(layer(states)) for layer in (self.q, self.k, self.v))
        dropout = self.dropout if self.training else 0.0
        seen = scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.out(seen.transpose(1, 2).flatten(2))

    def _heads(self, states: Tensor) -> Tensor:
        # -1, not num_heads: as many heads as the layers have rows for, should some be removed.
        return states.view(*states.shape[:2], -1, self.head_dim).transpose(1, 2)


@final
class Block(nn.Module):
    """Attention, then two linear layers with a GELU between, each after a LayerNorm and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """States of the same shape, ``(batch, length, width)``."""
        states = states + self.dropout(self.attention(self.norm1(states)))
        return states + self.dropout(self.mlp(self.norm2(states)))


@final
class GPT(nn.Module):
    """Embeddings of character and position, blocks, LayerNorm, linear layer: at every position, the next character.

    Args:
        vocab: How many different characters there are.
        length: Characters that it sees at most.
        width: Numbers per position.
        heads: Heads of each attention; divides ``width``.
        layers: Blocks.
        dropout: Share of activations dropped in training.

    Raises:
        ValueError: If a size is below 1, ``heads`` does not divide ``width``, or ``dropout`` is not in [0, 1).
    """

    def __init__(
        self, vocab: int, length: int = 128, width: int = 128, heads: int = 4, layers: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        sizes = {"vocab": vocab, "length": length, "width": width, "heads": heads, "layers": layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}={size}: give 1 or more")
        if width % heads:
            raise ValueError(f"heads={heads}: does not divide width={width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: give a share in [0, 1)")
        self.vocab = vocab
        self.length = length
        self.embedding = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, vocab)
        self.example_input = example_characters(vocab, length)
        self._initialize(layers)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits ``(batch, length, vocab)`` for int64 ``characters`` ``(batch, length)``.

        Raises:
            ValueError: If there are more characters than ``length``.
        """
        count = characters.shape[1]
        if count > self.length:
            raise ValueError(f"{count} characters: the network sees length={self.length} at most")
        places = torch.arange(count, device=characters.device)
        states = self.embedding(characters) + self.positions(places)
        return self.linear(self.norm(self.blocks(self.dropout(states))))

    def _initialize(self, layers: int) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                # GPT-2: what is added to the residual stream is smaller, the more blocks add to it.
                adds = name.endswith(("attention.out.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=DEVIATION / sqrt(2 * layers) if adds else DEVIATION)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
