"""Which weights the outputs depend on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_prune.coupling.example import call, own_randomness, tensors


def unreached(model: nn.Module, example_inputs: Any) -> list[str]:
    """Return the parameters of two or more dimensions on which the outputs for the example inputs do not depend.

    Args:
        model: a model in evaluation mode all of whose parameters require gradients.
        example_inputs: what one forward takes.
    """
    with torch.enable_grad(), own_randomness():
        waiting: list[Any] = [t.grad_fn for t in tensors(call(model, example_inputs)) if t.grad_fn is not None]
    seen: set[Any] = set(waiting)
    found: set[int] = set()
    while waiting:
        node = waiting.pop()
        found.add(id(getattr(node, "variable", None)))
        later = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= later
        waiting += later
    return [name for name, p in model.named_parameters() if p.dim() > 1 and id(p) not in found]
