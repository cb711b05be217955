"""How a gate acts: a hook on the layer asks it, and one on the norm behind multiplies by what it said."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.dynamic.gate import ChannelGate
from lightning_prune.observing.compiled import forget_compiled

CHILD = "channel_gate"
"""The name of a gate in the module of its layer, and in the keys of files."""


class Link:
    """A gate between a layer and its norm.

    Args:
        name: of the layer, for errors.
        gate: the gate.
        shared: copies of the model ask this very gate: while it trains. Else they get one of their own.
    """

    def __init__(self, name: str, gate: ChannelGate, shared: bool) -> None:
        self.name = name
        self.gate = gate
        self.shared = shared
        self._said: Tensor | None = None

    def ask(self, x: Tensor, training: bool) -> None:
        """Ask the gate about what the layer reads."""
        self._said = self.gate(x, training)

    def act(self, normalised: Tensor) -> Tensor:
        """Multiply the normalised channels. Raises RuntimeError if the layer has not run before its norm."""
        said, self._said = self._said, None
        if said is None:
            raise RuntimeError(
                f"the norm behind '{self.name}' runs without it: its gate has not been asked. Let activation "
                "checkpointing hold both or neither"
            )
        return normalised * said.to(normalised.dtype).view(*said.shape, *[1] * (normalised.dim() - 2))

    def __deepcopy__(self, memo: dict[int, Any]) -> Link:
        """Return itself where it is shared: an average of the model computes with the same gates."""
        if self.shared:
            return self
        memo[id(self)] = made = Link(self.name, copy.deepcopy(self.gate, memo), False)
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was said to a forward."""
        return vars(self) | {"_said": None}


class Ask:
    """The hook before a layer."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Ask the gate."""
        self.link.ask(args[0] if args else kwargs["input"], module.training)


class Act:
    """The hook behind a norm."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Return the output multiplied."""
        return self.link.act(output)


class Save:
    """Puts a gate that is not in the model yet into a state_dict, under the key that it will have."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
        """Add its tensors."""
        for key, value in self.link.gate.state_dict().items():
            state[f"{prefix}{CHILD}.{key}"] = value


class Load:
    """Takes the tensors of a gate that is not in the model out of a state_dict."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
        """Take them over."""
        found = {key: state.pop(f"{prefix}{CHILD}.{key}", None) for key in self.link.gate.state_dict()}
        with torch.no_grad():
            for key, own in self.link.gate.state_dict().items():
                if found[key] is not None:
                    own.copy_(found[key])


def put(layer: nn.Module, norm: nn.Module, link: Link) -> None:
    """Have a gate act on a layer and its norm; where it is not shared it becomes a part of the layer."""
    layer.register_forward_pre_hook(Ask(link), with_kwargs=True)
    norm.register_forward_hook(Act(link))
    if link.shared:
        layer._register_state_dict_hook(Save(link))  # pyright: ignore
        layer._register_load_state_dict_pre_hook(Load(link), with_module=True)  # pyright: ignore
    else:
        layer.add_module(CHILD, link.gate)


def links_on(model: nn.Module) -> Iterator[tuple[str, Link]]:
    """Iterate over the gates that act in a model, each with the dotted name of its layer."""
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():  # pyright: ignore
            if isinstance(hook, Ask):
                yield name, hook.link


def take_off(model: nn.Module) -> None:
    """Take all gates off a model."""
    for module in model.modules():
        for name in ("_forward_pre_hooks", "_forward_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks"):
            hooks: dict[int, Any] = getattr(module, name)
            for number in [number for number, hook in hooks.items() if _is_ours(hook)]:
                del hooks[number]
                getattr(module, f"{name}_with_kwargs", {}).pop(number, None)
        if isinstance(module._modules.get(CHILD), ChannelGate):  # pyright: ignore
            del module._modules[CHILD]  # pyright: ignore


def norms_of(model: nn.Module) -> dict[str, str]:
    """Return the dotted name of the norm behind each gated layer, by the layer's own."""
    behind: dict[int, str] = {}
    for name, module in model.named_modules():
        for hook in module._forward_hooks.values():  # pyright: ignore
            if isinstance(hook, Act):
                behind[id(hook.link)] = name
    return {name: behind[id(link)] for name, link in links_on(model)}


def hold(model: nn.Module, shared: bool) -> None:
    """Have the gates of a model be parts of its layers, or not: no optimizer that is made then has them twice."""
    links, norms = dict(links_on(model)), norms_of(model)
    if any(link.shared != shared for link in links.values()):
        take_off(model)
        for name, link in links.items():
            put(model.get_submodule(name), model.get_submodule(norms[name]), Link(link.name, link.gate, shared))
        forget_compiled()


def _is_ours(hook: Any) -> bool:
    hook = getattr(hook, "hook", hook)  # torch wraps those of loading
    return isinstance(hook, (Ask, Act, Save, Load))


def gates_in(state: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of gates in a state_dict: name of the layer -> "weight", "bias", "kept"."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        layer, _, rest = key.rpartition(f".{CHILD}.")
        if layer and rest in ("weight", "bias", "kept") and isinstance(value, Tensor):
            found.setdefault(layer, {})[rest] = value
    return found
