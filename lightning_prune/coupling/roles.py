"""What a parameter is for, as its layer and its name tell, and why it is no weight to prune, if it is none.

A weight belongs to a linear, bilinear, convolutional or recurrent layer, to `nn.MultiheadAttention` or to GPT-2's
`Conv1D`, subclasses included, whatever its shape; or it is a parameter of another module, with two or more dimensions
larger than 1, that is not named like a norm, bias, embedding, token, table of positions, scale or adapter.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lightning_prune.coupling.zeros_used import Forwards

_MASKABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_OWN: tuple[tuple[tuple[type[nn.Module], ...], re.Pattern[str]], ...] = (
    ((nn.Linear, nn.Bilinear, _ConvNd), re.compile(r"^weight$")),
    ((nn.RNNBase, nn.RNNCellBase), re.compile(r"^weight_[ih][hr]")),
    ((nn.MultiheadAttention,), re.compile(r"_proj_weight$")),
)
"""Kinds of layers, and which of their parameters are their weights."""
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)
_NORM = re.compile(r"Norm(\d[dD])?$")
_POSITIONS = re.compile(r"Pos(ition(al)?)?_?(Emb|Enc|Bias)|RelPos|RelativePosition")
_EMBEDDING = re.compile(r"Embeddings?$")
_ADAPTER = re.compile(
    r"(^|[._])(lora_(embedding_)?[ABEabe]|lora[_.](up|down)|lora_magnitude_vector|(hada|lokr)_[wt]\d|vera_(lambda|[AB])"
    r"|ia3_l|b?oft_[rRsS])(?![a-zA-Z])"
)


def _words(words: str) -> re.Pattern[str]:
    """Return a pattern for names that hold one of the words between underscores, with a number behind it or without."""
    return re.compile(rf"(?:^|[._])(?:{words})_?\d*(?=$|[._])")


_NAMED: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?:^|[._])(?:abs|rel)?(?:_?pos(?:ition)?(?:s|al)?|relative_position)(?:_|\d|$|[.])|(^|_)rpb($|_)"),
        "table of positions",
    ),
    (re.compile(r"(^|[._])bias|bias(es)?(_|$|[.])"), "bias"),
    (_words("tokens?|latents?|latent_quer(?:y|ies)|probe|prompts?"), "token: an input that is learned"),
    (re.compile(r"embed|(^|[._])emb(_|$|[.])|code_?(book|vector)s?"), "embedding"),
    (
        _words("gamma|beta|alphas?|lambdas?|gains?|scales?|scaling|shifts?|temp|temperature|tau|ls"),
        "scale, shift or gain",
    ),
    (_words("log|decays?"), "logarithm or decay: a zero in it is no zero of what is computed with"),
)
"""Names of bare parameters, and what they are."""


def why_unfit(parameter: Tensor) -> str | None:
    """Return why a parameter cannot have a mask, None if it can: a dense one of 16, 32 or 64 bits a float."""
    if not parameter.is_floating_point():
        return f"{parameter.dtype}, not a float"
    if parameter.dtype not in _MASKABLE:
        return f"{parameter.dtype}, too short a float to be ranked"
    if parameter.layout != torch.strided:
        return f"{parameter.layout}, not a dense tensor"
    if is_traceable_wrapper_subclass(parameter) and not hasattr(parameter, "full_tensor"):  # a DTensor is dense
        return f"{type(parameter).__name__}, not a plain tensor"
    return None


def why_whole(name: str, module: nn.Module, attribute: str, parameter: Tensor, forwards: Forwards) -> str | None:
    """Return why a parameter of a module is left whole by default, None if it is a weight to prune.

    Args:
        name: its dotted name in the model.
        module: the module that holds it.
        attribute: its name there.
        parameter: the parameter.
        forwards: of the model's layers.
    """
    if _ADAPTER.search(name):
        return "adapter: what it adds to a weight is dense, whatever zeros it has"
    if "parametrizations." in name:
        return "parametrized: a zero in it need not be a zero of the weight"
    for hook in module._forward_pre_hooks.values():  # pyright: ignore[reportPrivateUsage]
        if isinstance(hook, WeightNorm) and attribute in (f"{hook.name}_g", f"{hook.name}_v"):
            return "weight norm: the weight is made of it in each forward, and is 0/0 where a row of it is zero"
        if isinstance(hook, SpectralNorm) and attribute == f"{hook.name}_orig":
            return "spectral norm: the weight is made of it in each forward"
    if _is_weight_of_layer(module, attribute):
        return forwards.why_lost(module, attribute)
    kind = type(module).__name__
    if isinstance(module, _NORMS) or _NORM.search(kind):
        return "norm"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or (attribute == "weight" and _EMBEDDING.search(kind)):
        return "embedding"
    in_list = isinstance(module, (nn.ParameterList, nn.ParameterDict))
    label = ".".join(name.split(".")[-2:]) if in_list else attribute
    for pattern, role in _NAMED:
        if pattern.search(label):
            return role
    if _POSITIONS.search(kind):
        return "table of positions"
    if parameter.dim() < 2:
        return "fewer than two dimensions"
    if sum(size > 1 for size in parameter.shape) < 2:
        return "fewer than two dimensions larger than 1"
    return None


def _is_weight_of_layer(module: nn.Module, attribute: str) -> bool:
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return attribute == "weight"
    return any(isinstance(module, kinds) and named.search(attribute) for kinds, named in _OWN)
