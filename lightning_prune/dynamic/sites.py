"""Which layers of a model can be gated: convolutions with a norm right behind, whose channels nobody else reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

from lightning_prune.coupling.couple import plain_copy
from lightning_prune.coupling.example import answer, call, distance, example_of, in_full, own_randomness
from lightning_prune.dynamic.links import CHILD, take_off
from lightning_prune.pruning.waiting import Waiting, candidates, that_train
from lightning_prune.targets import Targets

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
_SHIFT = 100.0
"""What is added to channels that are gated off, to see whether somebody reads them all the same."""
_SAME = 1e-3


@dataclass(frozen=True)
class Site:
    """A layer that can be gated.

    Attributes:
        name: of its weight.
        layer: dotted name of the layer.
        norm: dotted name of the norm behind.
        rule: the pattern in `Targets.sparsity` for it, or None.
    """

    name: str
    layer: str
    norm: str
    rule: str | None = None


def bare(model: nn.Module) -> nn.Module:
    """Return a copy for experiments, without gates, in evaluation."""
    copied = plain_copy(model).eval()
    take_off(copied)
    return copied


def sites_of(waiting: Waiting, targets: Targets, example_inputs: Any) -> tuple[list[Site], dict[str, str]]:
    """Return the layers that rules select and that can be gated, and for all other parameters the reason why not.

    Raises:
        ValueError: `include` names one that cannot be gated, there is none, or there are no example inputs.
    """
    model = waiting.model
    found = that_train(targets, candidates(targets, model), waiting)
    left = {name: why for name, why in found.skipped.items() if not _of_gate(name)}
    modules = dict(model.named_modules())
    paths = {id(module): path for path, module in modules.items()}
    pairs, why = _pairs(model, example_inputs)
    sites: list[Site] = []
    for target in found.targets:
        path = paths[id(target.owners[0][0])]
        if _of_gate(target.name):
            continue
        reason = waiting.reasons.get(target.name) or _unfit(modules[path], target.names) or why.get(path)
        if reason is None and path in pairs:
            sites.append(Site(target.name, path, pairs[path], target.rule))
        else:
            left[target.name] = reason or "no norm right behind"
    read = _read_elsewhere(model, sites, example_inputs)
    left |= {
        site.name: "its channels are read beside its norm, or normalised together" for site in sites if site in read
    }
    sites = [site for site in sites if site not in read]
    named = [t.name for t in found.targets if t.name in left] if getattr(targets, "include", ()) else []
    if named:
        raise ValueError(f"include names '{named[0]}', which cannot be gated ({left[named[0]]}): exclude it")
    if not sites:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(left.items())[:8])
        raise ValueError(
            f"no layer of {type(model).__name__} can be gated: that takes a convolution with a norm right behind "
            f"({reasons})"
        )
    return sites, left


def _of_gate(name: str) -> bool:
    return f".{CHILD}." in name


def norms_behind(model: nn.Module, example_inputs: Any = None) -> dict[str, str]:
    """Return the dotted name of the norm right behind each convolution that has one, by the convolution's own."""
    return _pairs(model, example_inputs)[0]


def _unfit(layer: nn.Module, names: Sequence[str]) -> str | None:
    """Return why a layer by itself cannot be gated."""
    if len(names) > 1:
        return f"tied: {', '.join(names)}"
    if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
        return "a recurrent layer, which computes inside"
    if isinstance(layer, nn.Linear):
        return "a linear layer, which costs no more than its predictor would"
    if not isinstance(layer, _ConvNd):
        return f"{type(layer).__name__} is no convolution"
    if layer.groups > 1 and layer.groups == layer.in_channels:
        return "a depthwise convolution, which costs no more than its predictor would"
    return None


def _pairs(model: nn.Module, example_inputs: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the norm right behind each convolution, and why others are not to be had: by their paths."""
    copied, example = in_full(bare(model), example_of(model, example_inputs))
    names = {module: name for name, module in copied.named_modules()}
    calls: dict[str, int] = {}
    made: list[tuple[Any, str]] = []  # kept alive: what is freed may come again under its id
    norms: list[tuple[Any, str]] = []

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        name = names[module]
        calls[name] = calls.get(name, 0) + 1
        if isinstance(module, _ConvNd):
            made.append((output, name))
        else:
            norms.append((args[0] if args else kwargs["input"], name))

    for module in names:
        if isinstance(module, (_ConvNd, *NORMS)):
            module.register_forward_hook(look, with_kwargs=True)
    with torch.no_grad(), own_randomness():
        call(copied, example)
    pairs: dict[str, str] = {}
    why: dict[str, str] = {}
    for module, path in names.items():
        if not isinstance(module, _ConvNd):
            continue
        behind = [norm for read, norm in norms for output, maker in made if maker == path and read is output]
        if calls.get(path, 0) != 1:
            why[path] = f"called {calls.get(path, 0)} times in a forward of the example"
        elif not behind:
            why[path] = "no norm right behind"
        elif calls[behind[0]] != 1:
            why[path] = f"its norm '{behind[0]}' is called {calls[behind[0]]} times in a forward of the example"
        elif next(o for o, m in made if m == path).dim() != len(module.kernel_size) + 2:
            why[path] = "it reads single examples without a batch"
        else:
            pairs[path] = behind[0]
    return pairs, why


def _read_elsewhere(model: nn.Module, sites: Sequence[Site], example_inputs: Any) -> list[Site]:
    """Return the layers whose channels matter to the model's answer although they are gated off."""
    copied, example = in_full(bare(model), example_of(model, example_inputs))
    if _same(copied, example, sites):
        return []
    return [site for site in sites if not _same(copied, example, [site])]


def _same(model: nn.Module, example: Any, sites: Sequence[Site]) -> bool:
    answers: list[list[Tensor]] = []
    modules = dict(model.named_modules())
    for shift in (0.0, _SHIFT):
        handles: list[Any] = []
        for site in sites:
            off = torch.arange(channels_of(modules[site.layer])) % 2 == 0
            handles.append(modules[site.layer].register_forward_hook(_Changed(off, shift, None)))
            handles.append(modules[site.norm].register_forward_hook(_Changed(off, None, 0.0)))
        try:
            answers.append(answer(model, example))
        finally:
            for handle in handles:
                handle.remove()
    return distance(*answers)[1] < _SAME


@dataclass(frozen=True)
class _Changed:
    """Adds to some channels of an output, or sets them."""

    which: Tensor
    add: float | None
    to: float | None

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        which = self.which.to(output.device).view(1, -1, *[1] * (output.dim() - 2))
        return output + which * self.add if self.add is not None else torch.where(which, 0.0, output)


def channels_of(layer: nn.Module) -> int:
    """Return how many channels a convolution computes."""
    assert isinstance(layer, _ConvNd)
    return layer.out_channels
