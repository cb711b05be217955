"""What learned masks learn: a logit per unit, trained beside the model, and the draws that make masks of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.gate import Gate
from lightning_prune.ranking import is_finite, read
from lightning_prune.shards import over_ranks, ranks

_AJAR = 1e-3
"""The least by which a unit that stays is multiplied."""


class Logits:
    """The logits of groups of units, on the model's device but no part of the model.

    Attributes:
        gates: for each group, what makes probabilities and masks of its logits.
        values: one leaf tensor a group, float32.
        step: completed optimizer steps; with seed, rank and group it decides every draw.
        progress: the share of the window that is over.
        of_weights: whether masks follow from the values of the weights as well, and move with them.
    """

    of_weights = False

    def __init__(
        self, gates: Sequence[Gate], names: Sequence[str], sizes: Sequence[int], device: Any, lr: float, seed: int
    ) -> None:
        self.gates = gates
        self._names = names
        self._seed = seed
        self.values = [
            gate.first(size, _generator("cpu", seed, "first", name)).to(device).requires_grad_()
            for gate, name, size in zip(gates, names, sizes, strict=True)
        ]
        self._optimizer = torch.optim.Adam(self.values, lr=lr)
        self.step = 0
        self.progress = 0.0
        self._draws = [0] * len(self.values)
        self._uniform: list[dict[int, tuple[Tensor, set[int]]]] = [{} for _ in self.values]

    def probabilities(self) -> list[Tensor]:
        """Return each group's probabilities, differentiable."""
        return [gate.probability(logits) for gate, logits in zip(self.gates, self.values, strict=True)]

    def masks(self, number: int, reader: int, batch: int, weight: Tensor | None = None) -> Tensor:
        """Return random masks, (batch, units), for a reader. A weight given is of no consequence here; see `draw`."""
        return self.gates[number].sample(self.values[number], self.draw(number, reader, batch), self.progress)

    def draw(self, number: int, reader: int, batch: int) -> Tensor:
        """Return draws from U(0, 1), (batch, units), within one forward the same for all readers of a group.

        Raises:
            RuntimeError: a layer that was called more than once since the last step is called in a backward pass.
        """
        if torch._C._current_graph_task_id() != -1:  # pyright: ignore
            return self._again(number, reader, batch)
        uniform, served = self._uniform[number].get(batch, (None, set[int]()))
        if uniform is None or reader in served:  # the layer's next call: a new forward
            uniform, served = self._draw(number, batch), set[int]()
            self._uniform[number][batch] = uniform, served
        served.add(reader)
        return uniform

    def readers_are_new(self) -> None:
        """Take note that nobody of those who read from here on has read yet."""
        self._uniform = [{batch: (uniform, set[int]()) for batch, (uniform, _) in of.items()} for of in self._uniform]

    def _again(self, number: int, reader: int, batch: int) -> Tensor:
        """Return the draw of the forward that activation checkpointing repeats in the backward pass."""
        uniform, served = self._uniform[number].get(batch, (None, set[int]()))
        if uniform is None or reader not in served or self._draws[number] > 1:
            raise RuntimeError(
                "activation checkpointing repeats one of several forwards of this step, and learned masks do not know "
                "which: let the layers that read masked units out of it"
            )
        return uniform

    def _draw(self, number: int, batch: int) -> Tensor:
        device, rank = self.values[number].device, ranks()[0]
        generator = _generator(device, self._seed, self.step, rank, self._draws[number], self._names[number])
        self._draws[number] += 1
        return torch.rand(batch, len(self.values[number]), generator=generator, device=device)

    def settled(self, number: int, weight: Tensor | None = None) -> Tensor:
        """Return by what the outputs of units that are kept are multiplied in evaluation; never by 0."""
        logits = self.values[number].detach()
        return open_gates(self.gates[number], logits)

    def above(self, threshold: float) -> list[Tensor]:
        """Return which units have p > T, of each group one at least."""
        least = float(torch.nextafter(torch.tensor(threshold), torch.tensor(2.0)))
        return [p >= min(float(p.max()), least) for p in (p.detach().float().cpu() for p in self.probabilities())]

    def final(self, keeps: Sequence[Tensor]) -> list[Tensor]:
        """Return the probabilities of the end."""
        return [p.detach().cpu() for p in self.probabilities()]

    def forget_draws(self) -> None:
        """Draw anew from here on."""
        self._uniform = [{} for _ in self.values]

    def now_at(self, step: int, progress: float) -> None:
        """Move on to another step."""
        if step != self.step:
            self._draws = [0] * len(self.values)
            self.forget_draws()
        self.step, self.progress = step, progress

    def drop_gradients(self, numbers: Sequence[int]) -> None:
        """Forget the gradients of groups."""
        for number in numbers:
            self.values[number].grad = None

    def reduce_gradients(self, numbers: Sequence[int], loss_scale: float) -> list[str]:
        """Average the gradients of groups over ranks, take the loss scale out, and name groups with one not finite."""
        every = [self.values[number] for number in numbers]
        grads = over_ranks([torch.zeros_like(v) if v.grad is None else v.grad for v in every])
        means = [grad / ranks()[1] for grad in grads]
        for logits, mean in zip(every, means, strict=True):
            logits.grad = mean / loss_scale
        finite = [is_finite(mean) for mean in means]
        return [self._names[number] for number, good in zip(numbers, read(finite), strict=True) if not good]

    def weights_are(self, weights: Sequence[Tensor]) -> None:
        """Take note of which weights the groups have now. Probabilities follow from logits alone."""

    def worth(self) -> list[Tensor]:
        """Return by what a schedule chooses the units that stay: their probabilities."""
        return [p.detach() for p in self.probabilities()]

    def follow(self, worth: Sequence[Tensor], keeps: Sequence[Tensor]) -> None:
        """Take note of what a schedule has kept of units worth so much. Probabilities need not."""

    def thresholds(self, between: Sequence[float]) -> Sequence[float]:
        """Return the threshold of each group, given those that lie between what is kept and what not: these."""
        return between

    def advance(self, numbers: Sequence[int]) -> None:
        """Step the logits of groups along their gradients."""
        waiting = {n: logits.grad for n, logits in enumerate(self.values) if n not in numbers}
        for n in waiting:
            self.values[n].grad = None
        self._optimizer.step()
        for number in numbers:
            self.values[number].grad = None
        for n, grad in waiting.items():
            self.values[n].grad = grad

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors."""
        return {
            "logits": {name: v.detach().clone() for name, v in zip(self._names, self.values, strict=True)},
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "progress": self.progress,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError if it is of other units."""
        sizes = {name: len(v) for name, v in zip(self._names, self.values, strict=True)}
        saved = {name: len(v) for name, v in state["logits"].items()}
        if saved != sizes:
            raise ValueError(f"the state's learned masks are of other units: it has {saved}, the model {sizes}")
        with torch.no_grad():
            for name, value in zip(self._names, self.values, strict=True):
                value.copy_(state["logits"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.now_at(state["step"], state["progress"])


def open_gates(gate: Gate, logits: Tensor) -> Tensor:
    """Return by what units that are kept are multiplied; where the gate is closed by their probability, .001 at least.

    A group keeps one unit whatever its gates say, and a schedule a number: times 0 they would be dead all the same.
    """
    factors = gate.settled(logits)
    if bool((factors != 0).all()):
        return factors
    return torch.where(factors != 0, factors, gate.probability(logits).clamp(min=_AJAR).to(factors.dtype))


def _generator(device: Any, *of: object) -> torch.Generator:
    digest = hashlib.blake2b("/".join(map(str, of)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
