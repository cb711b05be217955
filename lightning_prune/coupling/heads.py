"""Attention heads as units: rows of query, key and value, columns of the output projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling.layers import layer_of
from lightning_prune.coupling.units import BIAS, IN, OUT, Count, Group, Part, Role

_NUMBER = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_NUMBER_OF_KEYS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads")
_QUERIES_OF_A_KEY = ("num_key_value_groups", "n_rep")
_WIDTH = ("head_dim", "attention_head_size", "head_size", "dim_head", "d_head")
_SIZES = ("all_head_size", "inner_dim", "split_size")
"""Attributes that hold heads times the width of one, and fall with them."""
_QKV = (
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("q_proj", "k_proj", "v_proj"),
    ("to_q", "to_k", "to_v"),
    ("wq", "wk", "wv"),
    ("q_lin", "k_lin", "v_lin"),
)
_BY_HEAD = "query_key_value"
"""A fused layer whose rows are those of one head after the other (GPT-NeoX); elsewhere all queries come first."""
_FUSED = ("qkv", "c_attn", "in_proj", "to_qkv", "qkv_proj", _BY_HEAD)
_OUT = ("out", "proj", "out_proj", "o_proj", "c_proj", "to_out", "output", "dense", "o", "wo", "out_lin")


def heads_of(model: nn.Module, every_size: bool = False) -> list[Group]:
    """Return the attention heads of every module that has the usual projections.

    A unit is a head; where several queries share a key, it is the key, its value and its queries, and where all of them
    share one, it is a query.

    Args:
        model: the model.
        every_size: every attribute that equals heads times the width of one falls with the heads, whatever its name.
    """
    names = {id(t): n for n, t in model.named_parameters()}
    found: list[Group] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            found += _torch_heads(path, module, names)
        else:
            found += _heads(model, path, module, names, every_size)
    return found


def attentions(model: nn.Module) -> list[str]:
    """Return the paths of the modules, torch's own apart, whose heads were found."""
    names = {id(t): n for n, t in model.named_parameters()}
    modules = [(p, m) for p, m in model.named_modules() if not isinstance(m, nn.MultiheadAttention)]
    return [path for path, module in modules if any(_heads(model, path, module, names, False))]


def _torch_heads(path: str, module: nn.MultiheadAttention, names: Mapping[int, str]) -> Iterator[Group]:
    heads, width = module.num_heads, module.head_dim
    if heads < 2:
        return
    one, fused = _rows(heads, width), _rows(heads, width, 3)
    slices: tuple[tuple[Tensor | None, int, Tensor, Role], ...] = (
        (module.in_proj_weight, 0, fused, OUT),
        (module.q_proj_weight, 0, one, OUT),
        (module.k_proj_weight, 0, one, OUT),
        (module.v_proj_weight, 0, one, OUT),
        (module.in_proj_bias, 0, fused, BIAS),
        (module.bias_k, 2, one, BIAS),
        (module.bias_v, 2, one, BIAS),
        (module.out_proj.weight, 1, one, IN),
    )
    parts = tuple(
        Part(names[id(tensor)], dim, index, role) for tensor, dim, index, role in slices if tensor is not None
    )
    yield Group(parts[0].name, heads, parts, (Count(path, "num_heads", 1),))


def _heads(
    model: nn.Module, path: str, module: nn.Module, names: Mapping[int, str], every_size: bool
) -> Iterator[Group]:
    inputs, output = _inputs(module), _output(model, path, module)
    if not inputs or output is None:
        return
    fused = len(inputs) == 1
    rows = [_outputs(inputs[0]) // 3] * 3 if fused else [_outputs(layer) for layer in inputs]
    heads = _number(module, _NUMBER) or rows[0] // (_number(module, _WIDTH) or rows[0])
    if heads < 2 or rows[0] % heads:
        return
    width = rows[0] // heads
    keys = rows[1] // width
    if rows[1] != rows[2] or not keys or heads % keys or keys * width != rows[1]:
        return
    shared = keys == 1  # by all queries: they go one by one, and the key stays
    units, queries = (heads, 1) if shared else (keys, heads // keys)
    of_query, of_key = _rows(units, queries * width), _rows(keys, width)
    by_head = getattr(module, _BY_HEAD, None) is not None
    of_all = _rows(heads, 3 * width) if by_head else _rows(heads, width, 3)
    indices = [of_all] if fused else [of_query, of_key, of_key]
    parts: list[Part] = []
    for layer, index in list(zip(inputs, indices, strict=True))[: 1 if shared else None]:
        parts.append(Part(names[id(layer.weight)], 1 if hasattr(layer, "nf") else 0, index, OUT))
        if layer.bias is not None:
            parts.append(Part(names[id(layer.bias)], 0, index, BIAS))
    reading = 0 if hasattr(output, "nf") else 1
    if output.weight.shape[reading] != rows[0]:
        return
    parts.append(Part(names[id(output.weight)], reading, of_query, IN))
    counts = [Count(path, name, queries) for name in _NUMBER if _number(module, (name,))]
    each_key = _QUERIES_OF_A_KEY if shared else _NUMBER_OF_KEYS
    counts += [Count(path, name, 1) for name in each_key if _number(module, (name,))]
    sizes = [name for name, value in vars(module).items() if type(value) is int and value == rows[0]]
    counts += [Count(path, name, queries * width) for name in sizes if every_size or name in _SIZES]
    yield Group(parts[0].name, units, tuple(parts), tuple(counts))


def _rows(heads: int, width: int, blocks: int = 1) -> Tensor:
    """Return the rows of each head, in that many blocks one after the other."""
    one = torch.arange(heads)[:, None] * width + torch.arange(width)
    return torch.cat([one + block * heads * width for block in range(blocks)], 1)


def _number(module: nn.Module, names: tuple[str, ...]) -> int | None:
    found = (vars(module).get(name) for name in names)
    return next((value for value in found if type(value) is int and value > 0), None)


def _inputs(module: nn.Module) -> list[Any]:
    for names in (*_QKV, *((name,) for name in _FUSED)):
        layers = [_linear(getattr(module, name, None)) for name in names]
        if all(layer is not None for layer in layers):
            return layers
    return []


def _output(model: nn.Module, path: str, module: nn.Module) -> Any:
    """Return the projection of the heads: in the module itself, or in the `output` beside it."""
    for name in _OUT:
        found = _linear(getattr(module, name, None))
        if found is not None:
            return found
    parent = model.get_submodule(path.rpartition(".")[0])
    beside = getattr(parent, "output", None)
    return _linear(getattr(beside, "dense", None))


def _linear(module: Any) -> Any:
    if isinstance(module, nn.Sequential) and len(module):
        module = module[0]
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Module) and hasattr(module, "nf") and layer_of(module)):
        return module
    return None


def _outputs(layer: Any) -> int:
    return layer.weight.shape[1 if hasattr(layer, "nf") else 0]
