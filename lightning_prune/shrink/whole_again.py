"""The way back from a model that FSDP2 and tensor parallelism have taken apart to a plain module."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_prune.coupling.remove import put
from lightning_prune.coupling.units import tensors_of
from lightning_prune.shards import is_plain, local, reshard, resharding

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)

_NOTED = ("__composable_api_state_key", "_distribute_module_applied")
"""With what the attributes begin in which torch notes on a module what was done to it."""


def is_apart(model: nn.Module) -> bool:
    """Return whether parameters of a model are spread over ranks, or FSDP2 stands around its modules."""
    return bool(resharding(model)) or not all(is_plain(parameter) for parameter in model.parameters())


def whole_again(model: nn.Module) -> None:
    """Make a module that FSDP2 and tensor parallelism have taken apart a plain one, on the CPU of every rank.

    Its modules stay the same objects. Parameters are collected one at a time; buffers, which each rank has moved by its
    own share of the data, are those of rank 0. All ranks call it. A plain module stays as it is.
    """
    if not is_apart(model):
        return
    reshard(resharding(model))
    for module in model.modules():
        if hasattr(module, "set_reshard_after_backward"):
            module.__class__ = _before(type(module))
        for hooks in _HOOKS:
            _drop(vars(module).get(hooks, {}))
        for noted in [key for key in vars(module) if key.startswith(_NOTED)]:
            del vars(module)[noted]
        _forget(module)
    spread = {name: tensor for name, tensor in tensors_of(model).items() if not is_plain(tensor)}
    with torch.no_grad():
        device = local(next(iter(spread.values()))).device if spread else torch.device("cpu")
        put(model, {name: _full(tensor) for name, tensor in spread.items()})
        for buffer in model.buffers():
            sent = buffer.to(device)  # the groups may know no other
            dist.broadcast(sent, 0)
            buffer.copy_(sent)
    model.cpu()


def _full(tensor: Tensor) -> Tensor:
    spread: Any = tensor.detach()
    return spread.full_tensor().cpu()


def _before(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the class that FSDP2 has put its own in front of."""
    from torch.distributed.fsdp import FSDPModule

    return next(base for base in kind.__mro__[1:] if not issubclass(base, FSDPModule))


def _forget(module: nn.Module) -> None:
    """Have FSDP2 know nothing of a module, so that `configure_model` can take it apart again."""
    from torch.distributed import _composable_state

    vars(_composable_state).get("_module_state_mapping", {}).pop(module, None)


def _drop(hooks: Any) -> None:
    """Take out what torch.distributed has hung on a module."""
    for key, hook in list(hooks.items()):
        made = getattr(hook, "hook", hook)  # torch wraps those that ask for the module
        if str(getattr(made, "__module__", "")).startswith("torch.distributed."):
            del hooks[key]
