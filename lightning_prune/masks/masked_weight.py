"""One pruned weight with its mask and threshold, and what is written to it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.masks.zeros import zero_
from lightning_prune.ranking import count
from lightning_prune.targets import Target


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

    @property
    def experts(self) -> int:
        """How many weights are stacked in this one: 1 unless its layout says so."""
        return 1 if self.target.layout is None else self.target.layout.experts(self.mask.shape)

    def canonical(self, tensor: Tensor) -> Tensor:
        """Return outputs first, inputs second; a view but for stacked experts. As it is where that is not known."""
        return tensor if self.target.layout is None else self.target.layout.canonical(tensor)

    def restore(self, tensor: Tensor) -> Tensor:
        """Return a canonical tensor with its dimensions where the weight has them."""
        return tensor if self.target.layout is None else self.target.layout.restore(tensor, self.experts)

    def parts(self, tensor: Tensor) -> list[Tensor]:
        """Return a canonical tensor's part of each expert, itself where nothing is stacked."""
        return [tensor] if self.experts == 1 else list(tensor.unflatten(0, (self.experts, -1)).unbind(0))

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
