"""Networks that are wired in ways of their own: tied layers, a part that is not reached, an input read twice."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TiedMLP(nn.Module):
    """An autoencoder whose decoder is the encoder turned round, and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 16)
        self.twice = nn.Linear(16, 16)
        self.again = nn.Linear(16, 16)
        self.again.weight = self.twice.weight
        self.last = nn.Linear(16, 9)
        self.out = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.again(F.relu(self.twice(F.relu(self.first(x))))))
        return self.out(F.relu(self.last(x)))


class Unreached(nn.Module):
    """A second head that the example does not ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(9, 16)
        self.head, self.other = nn.Linear(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor, other: bool = False) -> Tensor:
        x = F.relu(self.hidden(x))
        return self.other(x) if other else self.head(x)


class Skips(nn.Module):
    """A network that reads its input again in front of its features, as fields of coordinates do; and a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gated, self.head = nn.Linear(9, 16), nn.Linear(25, 24), nn.Linear(21, 3)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.glu(self.gated(torch.cat((x, F.relu(self.first(x))), -1)), -1)
        return self.head(torch.concat([x, gated], dim=1))
