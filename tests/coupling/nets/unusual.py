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
    """A second head that the example does not ask for: nobody knows which of the layers of its width it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.further = nn.Linear(9, 16), nn.Linear(16, 20)
        self.head, self.other = nn.Linear(20, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor, other: bool = False) -> Tensor:
        x = F.relu(self.hidden(x))
        return self.other(x) if other else self.head(F.relu(self.further(x)))


class Auxiliary(nn.Module):
    """A second head that is there in training alone, on features behind dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(9, 16), nn.BatchNorm1d(16), nn.Linear(16, 12)
        self.head, self.aside, self.aux = nn.Linear(12, 4), nn.Linear(16, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.dropout(F.relu(self.norm(self.first(x))), 0.3, self.training)
        out = self.head(F.relu(self.second(x)))
        return (out, self.aux(F.relu(self.aside(x)))) if self.training else out


class DeepSupervision(nn.Module):
    """Every stage has a head, added up in training; in evaluation the last alone. Stages are dropped by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(n, m, 3, padding=1) for n, m in ((3, 8), (8, 8), (8, 12))])
        self.heads = nn.ModuleList([nn.Conv2d(n, 4, 1) for n in (8, 8, 12)])

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for number, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            y = F.relu(stage(x))
            if self.training and number == 1:
                y = x + y * torch.empty(len(x), 1, 1, 1).bernoulli_(0.9)
            elif number == 1:
                y = x + y
            x = y
            if self.training:
                outputs.append(head(F.dropout2d(x, 0.2, self.training)))
        return torch.stack(outputs).sum(0) if self.training else self.heads[-1](x)


class Skips(nn.Module):
    """A network that reads its input again in front of its features, as fields of coordinates do; and a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gated, self.head = nn.Linear(9, 16), nn.Linear(25, 24), nn.Linear(21, 3)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.glu(self.gated(torch.cat((x, F.relu(self.first(x))), -1)), -1)
        return self.head(torch.concat([x, gated], dim=1))
