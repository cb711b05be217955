"""The mask and threshold beside each pruned weight, and the only code that writes to pruned weights.

Masks act in place: the model stays a plain model with plain parameters. Pruned entries are set to zero through the
bits of their floats, so that an infinite or NaN value becomes zero as well.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.order import bits
from lightning_prune.ranking import count
from lightning_prune.targets import Target, plain_name

_CHUNK = 1 << 18
"""Entries zeroed at a time: multiplying by a bool makes an integer copy of it, which should stay in the cache."""


def zero_(tensor: Tensor, mask: Tensor) -> None:
    """Set the entries of a dense float tensor to zero where the bool `mask` is false; all others keep their bits."""
    raw = bits(tensor)
    if tensor.device.type != "cpu" or tensor.numel() <= _CHUNK or tensor.dim() == 0:
        raw.mul_(mask)
        return
    rows = max(1, _CHUNK * tensor.shape[0] // tensor.numel())
    for raw_part, mask_part in zip(raw.split(rows), mask.split(rows), strict=True):
        raw_part.mul_(mask_part)


def zero_copies(saved: Any, masks: Mapping[str, Tensor]) -> None:
    """Zero entries where masks are false, wherever nested dicts hold a float tensor under a mask's name and shape."""
    if not isinstance(saved, dict):
        return
    for key, value in saved.items():
        if isinstance(value, dict):
            zero_copies(value, masks)
        elif isinstance(value, Tensor) and isinstance(key, str) and value.is_floating_point():
            mask = masks.get(plain_name(key))
            if mask is not None and mask.shape == value.shape:
                zero_(value, mask.to(value.device))


class MaskedWeight:
    """One weight with its mask and threshold.

    Attributes:
        target: where the weight lives in the model.
        mask: bool in the weight's shape, true where a weight is alive. Each update puts a new tensor here.
        threshold: 0-dim float64 tensor on the CPU, the boundary score of the latest update; 0 before the first.
        pruned: how many entries of the mask are false.
        dense: the last dense values, where masks are reversible; None otherwise.
        memory: what the criterion remembers of this weight.
    """

    def __init__(self, target: Target, reversible: bool) -> None:
        self.target = target
        self.mask = torch.ones_like(target.parameter, dtype=torch.bool, requires_grad=False)
        self.threshold = torch.zeros((), dtype=torch.float64)
        self.pruned = 0
        self.dense = target.parameter.detach().clone() if reversible else None
        self.memory: dict[str, Tensor] = {}
        self._shown = [
            (module, attribute)
            for module, attribute in target.owners
            if not hasattr(module, f"{attribute}_mask") and not hasattr(module, f"{attribute}_threshold")
        ]
        self._show()

    @property
    def parameter(self) -> nn.Parameter:
        """The weight itself."""
        return self.target.parameter

    def canonical(self, tensor: Tensor) -> Tensor:
        """Return a view with the output dimension first and the input dimension second, or back again."""
        return tensor.transpose(0, 1) if self.target.transposed else tensor

    def ranked(self) -> Tensor:
        """Return the values to rank: the weight, with pruned entries at their last dense values where reversible."""
        weight = self.parameter.detach()
        return weight if self.dense is None else torch.where(self.mask, weight, self.dense)

    def write(self, mask: Tensor, threshold: float) -> int:
        """Take a new mask and threshold, zero pruned entries, and return how many entries of the mask changed."""
        mask = mask.to(self.mask.device)
        if self.dense is not None:
            self.dense = self.ranked().clone()
            changed = count(mask != self.mask)
            with torch.no_grad():
                self.parameter.copy_(self.dense)
            self.pruned = mask.numel() - count(mask)
        else:
            before, self.pruned = self.pruned, mask.numel() - count(mask)
            changed = self.pruned - before
        self.mask = mask
        self.threshold = torch.tensor(threshold, dtype=torch.float64)
        self._show()
        self.apply()
        return changed

    def propose(self, mask: Tensor, threshold: float) -> None:
        """Show a mask and threshold that are not final, and leave the weight as it is."""
        self.mask = mask.to(self.mask.device)
        self.threshold = torch.tensor(threshold, dtype=torch.float64)
        self._show()

    def apply(self) -> None:
        """Set pruned entries of the weight to zero."""
        if self.pruned:
            zero_(self.parameter, self.mask)

    def apply_to_grad(self) -> None:
        """Zero the gradient of pruned entries. A sparse gradient is left; the weight is masked after the step."""
        grad = self.parameter.grad
        if self.pruned and grad is not None and grad.layout == torch.strided:
            zero_(grad, self.mask)

    def apply_to_moments(self, optimizers: Iterable[Optimizer]) -> None:
        """Set what optimizers remember of pruned entries to zero; that of kept entries keeps its bits."""
        for optimizer in optimizers:
            if self.parameter not in optimizer.state:
                continue
            for moment in optimizer.state[self.parameter].values():
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

    def _show(self) -> None:
        # Plain attributes, not buffers: buffers would enter the state_dict, DDP's broadcast and weight averages.
        for module, attribute in self._shown:
            module.__dict__[f"{attribute}_mask"] = self.mask
            module.__dict__[f"{attribute}_threshold"] = self.threshold


class Masks(Mapping[str, MaskedWeight]):
    """The masked weights of a model, by name; a tied weight answers to each of its names."""

    def __init__(self, targets: Sequence[Target], reversible: bool) -> None:
        self._weights = {target.name: MaskedWeight(target, reversible) for target in targets}
        self._aliases = {alias: target.name for target in targets for alias in target.names}

    def __getitem__(self, name: str) -> MaskedWeight:
        """Return the masked weight of that name."""
        return self._weights[self._aliases[name]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, each weight once."""
        return iter(self._weights)

    def __len__(self) -> int:
        """Return the number of masked weights."""
        return len(self._weights)

    @property
    def pruned(self) -> int:
        """How many entries are masked in all."""
        return sum(weight.pruned for weight in self.values())

    def of(self, optimizer: Optimizer | None) -> list[MaskedWeight]:
        """Return the weights that an optimizer steps, or all."""
        if optimizer is None:
            return list(self.values())
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [weight for weight in self.values() if id(weight.parameter) in stepped]

    def apply(self) -> None:
        """Set pruned entries of all weights to zero."""
        for weight in self.values():
            weight.apply()

    def apply_to(self, saved: Any) -> None:
        """Zero pruned entries wherever nested dicts hold a tensor under the name and shape of a masked weight."""
        zero_copies(saved, {alias: self[alias].mask for alias in self._aliases if self[alias].pruned})

    def digest(self) -> bytes:
        """Return 8 bytes that differ where masks or thresholds differ."""
        hashed = hashlib.blake2b(digest_size=8)
        for name, weight in self.items():
            hashed.update(f"{name}{float(weight.threshold)!r}".encode())
            mask = weight.mask.contiguous().cpu()
            hashed.update((ctypes.c_char * mask.numel()).from_address(mask.data_ptr()))
        return hashed.digest()

    def hide(self) -> None:
        """Remove all attributes from the modules."""
        for weight in self.values():
            weight.hide()
