"""A linear layer whose weight is in torch's CSR format: row by row, the columns and values that are not zero."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn


class CsrLinear(nn.Module):
    """`nn.Linear` for inference on the CPU, with a CSR weight.

    The weight is the left factor, W xᵀ. `F.linear` multiplies x Wᵀ, which takes two to three times as long for batches
    of 64, and fails in inference mode.

    Args:
        weight: CSR, (outputs, inputs).
        bias: (outputs,), or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, layer: nn.Linear) -> CsrLinear:
        """Return the layer's twin, whose bias is the layer's own. Raises RuntimeError if torch refuses the weight."""
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            bias = None if layer.bias is None else layer.bias.detach()
            return cls(layer.weight.detach().to_sparse_csr(), bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), contiguous."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) == 1:
            out = torch.mv(self.weight, rows[0])
            out = out if self.bias is None else out + self.bias
        elif self.bias is None:
            out = torch.mm(self.weight, rows.t()).t().contiguous()
        else:
            out = torch.addmm(self.bias.unsqueeze(1), self.weight, rows.t()).t().contiguous()
        return out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Return what stands in the model's printed form."""
        values = self.weight.values().numel()
        return f"in_features={self.in_features}, out_features={self.out_features}, values={values}"

    def __deepcopy__(self, memo: dict[int, Any]) -> CsrLinear:
        # torch cannot copy a CSR tensor deeply.
        made = memo[id(self)] = CsrLinear(self.weight.clone(), copy.deepcopy(self.bias, memo)).train(self.training)
        return made
