"""One pruned weight with its mask and threshold, and what is written to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.masks.places import Place
from lightning_prune.masks.zeros import zero_, zero_each_
from lightning_prune.ranking import count, counts
from lightning_prune.shards import each, is_plain, local, shard_of
from lightning_prune.targets import Target


class MaskedWeight:
    """One weight with its mask and threshold.

    Attributes:
        target: where the weight lives in the model now; `follow` keeps it true.
        mask: bool in the weight's shape, true where a weight is alive. Each update puts a new tensor here. Of a weight
            that is taken apart over ranks, all tensors here are those of the piece on this one.
        threshold: 0-dim float64 tensor on the CPU, the boundary score of the latest update; 0 before the first.
        pruned: how many entries of the mask are false, on all ranks.
        dense: the last dense values, where masks are reversible; None otherwise.
        memory: what the criterion remembers of this weight.
        seen: `state` when pruned entries were last known to be zero, None before there were any.
    """

    def __init__(self, target: Target, reversible: bool) -> None:
        self.target = target
        self.shard = shard_of(target.parameter)
        self._plain = is_plain(target.parameter)  # known, since it is asked at every step
        self.mask = torch.ones_like(local(target.parameter), dtype=torch.bool, requires_grad=False)
        self.threshold = torch.zeros((), dtype=torch.float64)
        self.pruned = 0
        self.dense = self.values.detach().clone() if reversible else None
        self.memory: dict[str, Tensor] = {}
        self.seen: tuple[int, int] | None = None
        self._shown: list[tuple[nn.Module, str]] = []
        self._show_on(target.owners)

    @property
    def parameter(self) -> nn.Parameter:
        """The weight itself."""
        return self.target.parameter

    @property
    def values(self) -> Tensor:
        """The weight, or the piece of it that lies here."""
        return self.target.parameter if self._plain else local(self.target.parameter)

    @property
    def grad(self) -> Tensor | None:
        """Its gradient, or that of the piece."""
        grad = self.target.parameter.grad
        return grad if self._plain or grad is None else local(grad)

    @property
    def shape(self) -> torch.Size:
        """The shape of the whole weight."""
        return self.mask.shape if self.shard is None else self.shard.shape

    @property
    def size(self) -> int:
        """How many entries the whole weight has."""
        return self.mask.numel() if self.shard is None else self.shard.size

    @property
    def experts(self) -> int:
        """How many weights are stacked in this one: 1 unless its layout says so."""
        return 1 if self.target.layout is None else self.target.layout.experts(self.shape)

    def check(self, places: Mapping[str, Place]) -> None:
        """Raise ValueError if what lies under the weight's names now cannot take its mask. Changes nothing."""
        shape, names = tuple(self.shape), self.target.names
        for name in names:
            if not places[name].fits(shape):
                raise ValueError(
                    f"'{name}' was replaced while it was being pruned: it was of shape {shape}, now there is "
                    f"{places[name]}, which its mask does not fit. Replace it before pruning begins (in __init__ or "
                    f"configure_model), or leave it whole with Targets(exclude=...)"
                )
            if self._taken_apart(places[name].parameter):
                raise ValueError(
                    f"'{name}' was taken apart over ranks while it was being pruned, or in another way than before: "
                    "do it before pruning begins, in configure_model"
                )
            if places[name].parameter is not places[names[0]].parameter:
                raise ValueError(
                    f"'{name}' and '{names[0]}' were one parameter when pruning began, and are two now; "
                    "load_state_dict(assign=True) parts tied weights. Tie them again right after replacing them"
                )

    def _taken_apart(self, parameter: nn.Parameter | None) -> bool:
        """Return whether another part of a parameter lies here than that of the mask."""
        if parameter is None or (self.shard is None and is_plain(parameter)):
            return False
        now = shard_of(parameter)
        return (now and now.box) != (self.shard and self.shard.box)

    def follow(self, places: Mapping[str, Place]) -> None:
        """Go on with the parameter that lies under the weight's names now: same mask, zeros put in at once."""
        now = [places[name] for name in self.target.names]
        owners = tuple((place.module, place.attribute) for place in now if place.module is not None)
        parameter = now[0].parameter
        assert parameter is not None
        replaced = parameter is not self.parameter
        self.hide()
        self.target = replace(self.target, parameter=parameter, owners=owners)
        self._show_on(owners)
        if replaced:
            self.shard, self._plain = shard_of(parameter), is_plain(parameter)
            self.dense = None if self.dense is None else self.values.detach().clone()
            self.apply()

    def canonical(self, tensor: Tensor) -> Tensor:
        """Return outputs first, inputs second; a view but for stacked experts. As it is where that is not known."""
        return tensor if self.target.layout is None else self.target.layout.canonical(tensor)

    def restore(self, tensor: Tensor) -> Tensor:
        """Return a canonical tensor, whole or of the piece, with its dimensions where the weight has them."""
        if self.target.layout is None:
            return tensor
        of = self.shape if tensor.numel() == self.size else self.mask.shape
        return self.target.layout.restore(tensor, self.target.layout.experts(of))

    def piece(self, tensor: Tensor) -> Tensor:
        """Return the part that lies here of a tensor of the whole weight's shape."""
        return tensor if self.shard is None else self.shard.piece(tensor)

    def parts(self, tensor: Tensor) -> list[Tensor]:
        """Return a whole canonical tensor's part of each expert, itself where nothing is stacked."""
        return [tensor] if self.experts == 1 else list(tensor.unflatten(0, (self.experts, -1)).unbind(0))

    def ranked(self) -> Tensor:
        """Return the values to rank: the weight, with pruned entries at their last dense values where reversible."""
        weight = self.values.detach()
        return weight if self.dense is None else torch.where(self.mask, weight, self.dense)

    def write(self, mask: Tensor, threshold: float, kept: int | None = None, moved: int | None = None) -> int:
        """Take a new mask and threshold, zero pruned entries, and return how many entries of the mask changed.

        Args:
            mask: bool in the weight's shape.
            threshold: the boundary score.
            kept: how many entries of the mask are true, if that is known: counting waits for the device.
            moved: how many differ from those of the mask so far, if that is known; needed of reversible masks alone.
        """
        mask = mask.to(self.mask.device)
        kept = each([count(mask)], [self.shard])[0] if kept is None else kept
        if self.dense is not None:
            self.dense = self.ranked()
            moved = each([count(mask != self.mask)], [self.shard])[0] if moved is None else moved
            with torch.no_grad():
                self.values.copy_(self.dense)
        more = self.take(mask, threshold, kept)
        self.apply()
        return more if self.dense is None or moved is None else moved

    def take(self, mask: Tensor, threshold: float, kept: int) -> int:
        """Take a new mask of which `kept` entries are true, and return how many more are false; nothing is zeroed."""
        before, self.pruned = self.pruned, self.size - kept
        self.propose(mask, threshold)
        return self.pruned - before

    def propose(self, mask: Tensor, threshold: float) -> None:
        """Show a mask and threshold that are not final, and leave the weight as it is."""
        self.mask = mask.to(self.mask.device)
        self.threshold = torch.tensor(threshold, dtype=torch.float64)
        self._show()

    def put(self, values: Tensor) -> None:
        """Take new values; pruned entries are zero whatever they are."""
        with torch.no_grad():
            self.values.copy_(values)
        self.apply()

    def apply(self) -> None:
        """Set pruned entries of the weight to zero."""
        apply_all([self])

    @property
    def state(self) -> tuple[int, int]:
        """How often the weight was written to as torch counts it, and where its memory is."""
        values = self.target.parameter if self._plain else self.values  # four times a step: no call more
        return values._version, values.data_ptr()

    @property
    def written_to(self) -> bool:
        """Whether a write that torch counts was made to the weight since pruned entries were set to zero."""
        return self.pruned > 0 and self.seen != self.state

    @property
    def refilled(self) -> bool:
        """Whether the weight has other memory since then: it was replaced as a whole, not written to."""
        return self.seen is None or self.seen[1] != self.state[1]

    def apply_to_moments(self, optimizers: Iterable[Optimizer]) -> None:
        """Set what optimizers remember of pruned entries to zero; that of kept entries keeps its bits."""
        for optimizer in optimizers:
            remembered = getattr(optimizer, "state", {})  # wrappers may have none of their own
            for value in remembered[self.parameter].values() if self.parameter in remembered else ():
                moment = local(value) if isinstance(value, Tensor) else value
                if (
                    isinstance(moment, Tensor)
                    and moment.shape == self.mask.shape
                    and moment.dim()
                    and moment.is_floating_point()
                ):
                    zero_(moment, self.mask)

    def hide(self) -> None:
        """Remove the attributes from the modules."""
        for module, attribute in self._shown:
            for suffix in ("mask", "threshold"):
                module.__dict__.pop(f"{attribute}_{suffix}", None)

    def come(self) -> None:
        """Go where the weight has gone: a model comes back to the CPU at the end of a fit."""
        device = self.values.device
        if self.mask.device == device:
            return
        self.mask = self.mask.to(device)
        self.memory = {key: value.to(device) for key, value in self.memory.items()}
        self.dense = None if self.dense is None else self.dense.to(device)
        self._show()

    def _show_on(self, owners: Iterable[tuple[nn.Module, str]]) -> None:
        self._shown = [
            (module, attribute)
            for module, attribute in owners
            if not hasattr(module, f"{attribute}_mask") and not hasattr(module, f"{attribute}_threshold")
        ]
        self._show()

    def _show(self) -> None:
        # Plain attributes, not buffers: buffers would enter the state_dict, DDP's broadcast and weight averages.
        for module, attribute in self._shown:
            module.__dict__[f"{attribute}_mask"] = self.mask
            module.__dict__[f"{attribute}_threshold"] = self.threshold


def apply_all(weights: Iterable[MaskedWeight]) -> None:
    """Set pruned entries of weights to zero."""
    pruned = [weight for weight in weights if weight.pruned]
    for weight in pruned:
        weight.come()
    zero_each_([weight.values for weight in pruned], [weight.mask for weight in pruned])
    for weight in pruned:
        weight.seen = weight.state


def zero_gradients(weights: Iterable[MaskedWeight]) -> None:
    """Zero the gradients of pruned entries. Sparse ones are left; the weight is masked after the step."""
    pairs = [(weight.grad, weight.mask) for weight in weights if weight.pruned]
    dense = [(grad, mask) for grad, mask in pairs if grad is not None and grad.layout == torch.strided]
    zero_each_([grad for grad, _ in dense], [mask for _, mask in dense])


def alive(weights: Iterable[MaskedWeight]) -> list[MaskedWeight]:
    """Return the weights of which pruned entries are not all zero here, found by a look at all values."""
    pruned = [weight for weight in weights if weight.pruned]
    found = counts((weight.values.detach() != 0) > weight.mask for weight in pruned)
    return [weight for weight, number in zip(pruned, found, strict=True) if number]


def mend(weights: Iterable[MaskedWeight]) -> list[MaskedWeight]:
    """Look at the values, and return the weights of which pruned entries were alive; they are zero then again."""
    looked = list(weights)
    found = alive(looked)
    for weight in looked:
        weight.seen = weight.state
    apply_all(found)
    return found
