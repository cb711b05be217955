"""A recurrent network that predicts the next character."""

from typing import final

from torch import Tensor, nn

from lightning_prune.tasks.example import example_characters

EXAMPLE_LENGTH = 8


@final
class CharLSTM(nn.Module):
    """Embedding, LSTM, linear layer: at every position, logits of the character that comes next.

    Args:
        vocab: How many different characters there are.
        embedding: Numbers per embedded character.
        hidden: Units of each LSTM layer.
        layers: LSTM layers on top of each other.
        dropout: Share of activations dropped between the LSTM layers and before the linear layer.

    Raises:
        ValueError: If a size is below 1 or ``dropout`` is not in [0, 1).
    """

    def __init__(
        self, vocab: int, embedding: int = 64, hidden: int = 256, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        sizes = {"vocab": vocab, "embedding": embedding, "hidden": hidden, "layers": layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}={size}: give 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: give a share in [0, 1)")
        self.vocab = vocab
        self.embedding = nn.Embedding(vocab, embedding)
        # nn.LSTM drops between its layers only, and warns where there is nothing between.
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, vocab)
        self.example_input = example_characters(vocab, EXAMPLE_LENGTH)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits ``(batch, length, vocab)`` for int64 ``characters`` ``(batch, length)``, from a zero state."""
        states, _ = self.lstm(self.embedding(characters))
        return self.linear(self.dropout(states))
