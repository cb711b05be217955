"""What gates know while they train on a model: layers, predictors, how many channels win by now; saved and restored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_prune.dynamic.counting import Counted, Structure
from lightning_prune.dynamic.gate import ChannelGate
from lightning_prune.dynamic.gate_report import GateReport
from lightning_prune.dynamic.links import Link, links_on, put, take_off
from lightning_prune.dynamic.scales import Scale, give_back, take_over
from lightning_prune.dynamic.sites import Site, sites_of
from lightning_prune.dynamic.state_schema import check_gates
from lightning_prune.masks import Masks
from lightning_prune.observing.compiled import forget_compiled
from lightning_prune.pruning import checks
from lightning_prune.pruning.header import header, still_due
from lightning_prune.pruning.saved_window import check_saved
from lightning_prune.pruning.state_schema import check_position
from lightning_prune.pruning.waiting import Trained, Waiting
from lightning_prune.ranking import is_finite, read
from lightning_prune.report import WeightReport
from lightning_prune.schedule import Schedule
from lightning_prune.shards import over_ranks, ranks
from lightning_prune.targets import Targets


class Ideas(Protocol):
    """What gates compose."""

    schedule: Schedule
    targets: Targets
    strength: float
    lr: float
    seed: int
    example_inputs: Any


def channels_kept(channels: int, sparsity: float) -> int:
    """Return how many of a layer's channels win: all but round(s n) of n, and one at least."""
    return max(1, channels - round(sparsity * channels))


class Gating:
    """Gates on one model, with the schedule in whole steps.

    Attributes:
        masks: none: no weight is masked.
        schedule: resolved for a run of `length` optimizer steps.
        step: the step of the latest update, None before the first.
        begun: whether something was learned.
        changed: the share of all gated channels that the latest update has each example go without, in addition.

    Raises:
        ValueError: nothing can be gated, or a window that cannot be met. The model is as it was then.
    """

    def __init__(
        self, ideas: Ideas, model: nn.Module, length: int | None, total_steps: int | None, trial: bool, trained: Trained
    ) -> None:
        self._ideas = ideas
        self._model = model
        self.length = length
        self.schedule: Schedule = ideas.schedule.resolve(length)
        if not trial:
            checks.check_window(self.schedule, total_steps)
        self.sites, self._skipped = sites_of(Waiting(model, trained), ideas.targets, ideas.example_inputs)
        self._by_rule()
        self._structure = Structure(model, self.sites, ideas.example_inputs)
        self._parameters = sum(p.numel() for p in model.parameters())
        self.masks = Masks((), False)
        self.step: int | None = None
        self.changed = 0.0
        self.begun = False
        self._factor = 1.0
        self._before = {name: link.gate for name, link in links_on(model)}
        self._parameters -= sum(_size(gate) for gate in self._before.values())
        self.gates: dict[str, ChannelGate] = {}
        for site in self.sites:
            layer = model.get_submodule(site.layer)
            weight: Any = layer.weight
            width, channels, _ = self._structure.shapes[site.layer]
            self.gates[site.layer] = gate = ChannelGate(width, channels, weight)
            gate.draw(_seed(ideas.seed, site.layer))
            gate.strength = torch.tensor(ideas.strength, device=weight.device) if ideas.strength else None
            if site.layer in self._before:
                gate.load_state_dict(self._before[site.layer].state_dict())
        self.parameters = [p for gate in self.gates.values() for p in (gate.weight, gate.bias)]
        self._optimizer = torch.optim.Adam(self.parameters, lr=ideas.lr)
        self._scales: dict[str, Scale] = {}
        self._layers = [model.get_submodule(site.layer) for site in self.sites]
        take_off(model)
        for site in self.sites:
            self._put(site, Link(site.layer, self.gates[site.layer], shared=True))
        forget_compiled()

    def _put(self, site: Site, link: Link) -> None:
        put(self._model.get_submodule(site.layer), self._model.get_submodule(site.norm), link)

    def _by_rule(self) -> dict[str | None, Schedule]:
        finals = self._ideas.targets.sparsity
        return {rule: checks.with_final(self.schedule, rule, finals) for rule in {site.rule for site in self.sites}}

    def _norm(self, site: Site) -> Any:
        return self._model.get_submodule(site.norm)

    def take_over_scales(self) -> None:
        """Have predictors begin at the scales of norms that were not gated before; see `scales.take_over`."""
        for site in self.sites:
            if site.layer not in self._before:
                self._scales[site.layer] = take_over(self._norm(site), self.gates[site.layer])

    def withdraw(self) -> None:
        """Leave the model as it was before."""
        take_off(self._model)
        for site in self.sites:
            if site.layer in self._scales:
                give_back(self._norm(site), self._scales[site.layer])
            if site.layer in self._before:
                self._put(site, Link(site.layer, self._before[site.layer], shared=False))
        forget_compiled()

    def follow(self) -> None:
        """Look whether the layers are still those. Raises ValueError that names one that is not."""
        for site, layer in zip(self.sites, self._layers, strict=True):
            if self._model.get_submodule(site.layer) is not layer:
                raise ValueError(f"the layer '{site.layer}' was replaced while its gate trained: do so before training")

    # Steps

    def resolve(self, length: int | None) -> None:
        """Resolve the schedule for another length. Raises ValueError if it does not fit; nothing is changed then."""
        before, self.schedule = self.schedule, self._ideas.schedule.resolve(length)
        self.step, self.length = still_due(self.step, before, self.schedule), length

    def scaled(self, factor: float) -> None:
        """Multiply the penalty by what the loss is multiplied by."""
        if factor != self._factor:
            self._factor = factor
            for gate in self.gates.values():
                if gate.strength is not None:
                    gate.strength.fill_(factor * self._ideas.strength)

    def learn(self, optimizer: Optimizer | None, loss_scale: float) -> None:
        """Step the predictors of the layers that an optimizer steps, and let the scales of their norms be.

        Raises:
            ValueError: a gradient is not finite, and no loss scale is to blame; the message names the layer.
        """
        numbers, self.begun = self._of(optimizer), True
        some = [p for n in numbers for p in self.parameters[2 * n : 2 * n + 2]]
        for n in numbers:
            norm = self._norm(self.sites[n])
            if norm.weight is not None:
                norm.weight.grad = None
        grads = over_ranks([torch.zeros_like(p) if p.grad is None else p.grad for p in some])
        for parameter, grad in zip(some, grads, strict=True):
            parameter.grad = grad / (ranks()[1] * loss_scale)
        finite = read([is_finite(p.grad) for p in some if p.grad is not None])
        if all(finite):
            _step(self._optimizer, self.parameters, some)
        for parameter in some:
            parameter.grad = None
        if not all(finite) and loss_scale == 1.0:
            layer = self.sites[numbers[finite.index(0) // 2]].layer
            raise ValueError(
                f"the gradient of the gate of '{layer}' is not finite, so nothing can be learned of it; look for a "
                "diverged loss or an overflow"
            )

    def _of(self, optimizer: Optimizer | None) -> list[int]:
        stepped = None if optimizer is None else {id(p) for g in optimizer.param_groups for p in g["params"]}
        layers: list[Any] = self._layers
        return [n for n, layer in enumerate(layers) if stepped is None or id(layer.weight) in stepped]

    @property
    def penalty(self) -> float:
        """The penalty of the latest forward of training."""
        levels = [gate.level for gate in self.gates.values() if gate.level is not None]
        return self._ideas.strength * float(torch.stack(levels).sum()) if levels else 0.0

    def update(self, step: int, optimizers: Iterable[Optimizer]) -> bool:
        """Have as many channels win as the schedule asks for, if an update is due."""
        due = self.schedule.last_update(step)
        if due is None or (self.step is not None and due <= self.step):
            return False
        before, schedules = sum(self.kept().values()), self._by_rule()
        for site in self.sites:
            gate = self.gates[site.layer]
            gate.kept.fill_(channels_kept(len(gate.bias), schedules[site.rule].sparsity(due)))
        self.step = due
        self.changed = abs(before - sum(self.kept().values())) / sum(len(gate.bias) for gate in self.gates.values())
        return True

    def kept(self) -> dict[str, int]:
        """Return how many channels of each layer win now."""
        return dict(zip(self.gates, read([gate.kept for gate in self.gates.values()]), strict=True))

    def finish(self) -> None:
        """Leave a plain model with its gates as modules of its layers."""
        take_off(self._model)
        for site in self.sites:
            gate = self.gates[site.layer]
            gate.strength = gate.level = gate.weight.grad = gate.bias.grad = None
            self._put(site, Link(site.layer, gate, shared=False))
        forget_compiled()

    # What is said of it

    def report(self) -> GateReport:
        """Return the numbers of now."""
        kept, schedules = self.kept(), self._by_rule()
        sizes = {layer: len(gate.bias) for layer, gate in self.gates.items()}
        whole = sum(sizes.values())
        finals = {site.layer: schedules[site.rule].final_sparsity for site in self.sites}
        asked = {
            site.layer: 0.0 if self.step is None else schedules[site.rule].sparsity(self.step) for site in self.sites
        }
        rows = [
            WeightReport(s.name, (n,), n, n - kept[s.layer], 0.0, finals[s.layer] if s.rule else None)
            for s in self.sites
            for n in [sizes[s.layer]]
        ]
        return GateReport(
            weights=rows,
            skipped=self._skipped,
            target_sparsity=sum(asked[layer] * n for layer, n in sizes.items()) / whole,
            final_sparsity=sum(finals[layer] * n for layer, n in sizes.items()) / whole,
            parameters=self._parameters,
            step=self.step,
            grain=len(rows),
            reachable=sum(n - 1 for n in sizes.values()) / whole,
            notes=[f"in the end, {self._at_the_end(finals)}"],
            predictors=sum(_size(gate) for gate in self.gates.values()),
            counted=self._structure.most(kept),
        )

    def _at_the_end(self, finals: Mapping[str, float]) -> Counted:
        return self._structure.most({n: channels_kept(len(g.bias), finals[n]) for n, g in self.gates.items()})

    def digest(self) -> bytes:
        """Return 8 bytes that differ where predictors or numbers of winners differ."""
        hashed = hashlib.blake2b(digest_size=8)
        for gate in self.gates.values():
            for tensor in gate.state_dict().values():
                hashed.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return hashed.digest()

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs beside the weights: plain values and tensors."""
        gates = {n: {k: v.detach().clone() for k, v in g.state_dict().items()} for n, g in self.gates.items()}
        return header(self.schedule, self.length, self.step) | {
            "gates": gates,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError if it is of other layers or damaged; nothing is changed then."""
        check_gates(state, self.gates, self._optimizer.state_dict(), self.parameters)
        schedule = self._ideas.schedule.resolve(state["total_steps"] or self.length)
        check_position(state, schedule)
        check_saved(state, schedule, reversible=True)
        for layer, gate in self.gates.items():
            gate.load_state_dict(state["gates"][layer])
        self._optimizer.load_state_dict(dict(state["optimizer"]))
        self.resolve(state["total_steps"] or self.length)
        self.step, self.begun = state["last_update"], True


def _seed(*of: object) -> int:
    return int.from_bytes(hashlib.blake2b("/".join(map(str, of)).encode(), digest_size=7).digest(), "big")


def _size(gate: ChannelGate) -> int:
    return sum(p.numel() for p in gate.parameters())


def _step(optimizer: Optimizer, every: Sequence[nn.Parameter], some: Sequence[nn.Parameter]) -> None:
    """Step some parameters of an optimizer, and leave the others with the gradients they have."""
    stepped = {id(p) for p in some}
    waiting = [(p, p.grad) for p in every if id(p) not in stepped]
    for parameter, _ in waiting:
        parameter.grad = None
    optimizer.step()
    for parameter, grad in waiting:
        parameter.grad = grad
