"""Which weights of an exported program get 8 bits, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

_aten: Any = torch.ops.aten
_LINEAR = _aten.linear.default
_CONVOLUTIONS = tuple(getattr(getattr(_aten, f"conv{n}d"), kind) for n in (1, 2, 3) for kind in ("default", "padding"))
_LAYERS = (_LINEAR, *_CONVOLUTIONS)
_NORMS = (_aten.batch_norm.default, getattr(_aten, "_native_batch_norm_legit_no_training").default)  # noqa: B009
_RECTIFIERS = (_aten.relu.default, _aten.relu_.default, _aten.hardtanh.default, _aten.hardtanh_.default)
_PASSING = (_aten.max_pool2d.default, _aten.flatten.using_ints, _aten.dropout.default)
_KEY = "quantization_annotation"
_READERS = {
    "conv_transpose": "a transposed convolution stays float",
    "embedding": "an embedding is looked up, not multiplied",
    "gru": "a recurrent layer stays float",
    "lstm": "a recurrent layer stays float",
    "rnn": "a recurrent layer stays float",
}
"""Begins the name of an operation -> why what it reads stays float."""


@dataclass(frozen=True)
class Chosen:
    """The weights of a program.

    Attributes:
        layers: name of a weight that gets 8 bits -> the nodes that multiply with it.
        reasons: name of any other that is read -> why it stays float.
    """

    layers: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str]


def choose(program: fx.GraphModule, names: Mapping[str, str]) -> Chosen:
    """Return which weights of a program are those of linear layers and convolutions alone.

    Args:
        program: an exported model.
        names: the program's name of a weight -> ours; it takes any of the names of a shared one.
    """
    readers: dict[str, list[tuple[str, fx.Node]]] = {}
    for node in program.graph.nodes:
        if node.op == "get_attr" and node.target in names:
            readers.setdefault(names[node.target], []).extend((node.target, user) for user in node.users)
    layers: dict[str, tuple[str, ...]] = {}
    reasons: dict[str, str] = {}
    for name, users in readers.items():
        others = [user for own, user in users if not _multiplies(user, own)]
        if others:
            shared = "it is shared, and " if len(users) > len(others) else ""
            reasons[name] = shared + _reason(others[0])
        elif users:
            layers[name] = tuple(user.name for _, user in users)
    return Chosen(layers, reasons)


def settle_norms(program: fx.GraphModule) -> None:
    """Write each batch norm that is not to be folded into the layer before it as a product and a sum.

    torchao folds one whatever else reads that layer, drops the second one of two behind a shared weight, and takes the
    weight of a transposed convolution in groups for one without; and for any that is left it tries patterns for half a
    minute. One without statistics of its own cannot be written so, and is kept apart from the layer by an identity.
    """
    for number, norm in enumerate(list(program.graph.nodes)):
        if norm.op != "call_function" or norm.target not in _NORMS:
            continue
        read = norm.args[0]
        if _may_fold(norm, read):
            continue
        with program.graph.inserting_before(norm):
            if norm.target is _NORMS[0] and isinstance(norm.args[3], fx.Node) and not norm.args[5]:
                scale, shift = (
                    program.graph.get_attr(_added(program, f"_norm_{number}_{name}", value))
                    for name, value in zip(("scale", "shift"), _scale_and_shift(program, norm), strict=True)
                )
                scaled = program.graph.call_function(_aten.mul.Tensor, (read, scale))
                shifted = program.graph.call_function(_aten.add.Tensor, (scaled, shift))
                scaled.meta.update(norm.meta)
                shifted.meta.update(norm.meta)
                norm.replace_all_uses_with(shifted)
            else:
                identity = program.graph.call_function(_aten.clone.default, (read,))
                identity.meta.update(read.meta)
                norm.replace_input_with(read, identity)
    program.graph.eliminate_dead_code()
    program.recompile()


class Quantizer:
    """What torchao's `prepare_pt2e` asks: the ranges of which tensors to look at.

    Args:
        chosen: which weights.
        activation: torchao's specification of what a layer reads.
        weight: gives that of a weight, which may have a batch norm folded into it.
        annotation: torchao's class of an annotation.
    """

    def __init__(
        self, chosen: Chosen, activation: Any, weight: Callable[[Tensor], Any], annotation: Callable[..., Any]
    ) -> None:
        self._nodes = {node for nodes in chosen.layers.values() for node in nodes}
        self._activation, self._weight, self._annotation = activation, weight, annotation

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Return the program as it is."""
        return model

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Mark what the chosen layers read, their weights, and what convolutions give."""
        for node in model.graph.nodes:
            if node.name in self._nodes:
                read, weight = node.args[:2]
                marked = {read: self._activation, weight: self._weight(value_of(model, weight))}
                node.meta[_KEY] = self._annotation(input_qspec_map=marked, _annotated=True)
        for node in model.graph.nodes:
            if node.name in self._nodes and node.target in _CONVOLUTIONS:
                self._mark_end(node)
        return model

    def _mark_end(self, node: fx.Node) -> None:
        """Mark what a convolution gives, behind its ReLU: onnxruntime multiplies integers only where that is known.

        It is known where all that reads it is a layer of 8 bits, maybe behind a pool. What the model gives stays float.
        """
        users = list(node.users)
        end = users[0] if len(users) == 1 and users[0].target in _RECTIFIERS else node
        if not self._is_known(end) and not any(user.op == "output" for user in end.users):
            end.meta.setdefault(_KEY, self._annotation(_annotated=True)).output_qspec = self._activation

    def _is_known(self, node: fx.Node) -> bool:
        return all(
            user.name in self._nodes or (user.target in _PASSING and self._is_known(user)) for user in node.users
        )

    def validate(self, model: fx.GraphModule) -> None:
        """Find nothing wrong."""

    def prepare_obs_or_fq_callback(self, model: fx.GraphModule, edge_or_node_to_obs_or_fq: Any) -> None:
        """Change nothing of the observers."""


def value_of(program: fx.GraphModule, node: Any) -> Tensor:
    """Return the tensor that a node of a program stands for."""
    found: Any = program
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found


def _multiplies(node: fx.Node, name: str) -> bool:
    """Whether a node is a layer that has this weight, and has it as weight alone."""
    if node.op != "call_function" or node.target not in _LAYERS or len(node.args) < 2:
        return False
    weight = node.args[1]
    others = [each for each in node.all_input_nodes if each is not weight]
    return isinstance(weight, fx.Node) and weight.target == name and all(each.target != name for each in others)


def _may_fold(norm: fx.Node, layer: Any) -> bool:
    """Whether torchao folds a norm into a layer, and rightly."""
    if not isinstance(layer, fx.Node) or layer.target not in _LAYERS or len(layer.users) > 1:
        return False
    if layer.target is _LINEAR and layer.meta["val"].dim() != 2:  # the norm is along another dimension
        return False
    own = [each for each in layer.args[1:3] if each is not None]  # its weight, its bias
    once = all(isinstance(each, fx.Node) and each.op == "get_attr" and len(each.users) == 1 for each in own)
    return once and all(isinstance(each, fx.Node) for each in norm.args[1:5])


def _scale_and_shift(program: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    weight, bias, mean, variance = (
        value_of(program, each).detach() if isinstance(each, fx.Node) else None for each in norm.args[1:5]
    )
    assert mean is not None
    assert variance is not None
    epsilon: Any = norm.args[7]
    scale = (variance + epsilon).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    read = norm.args[0]
    ones = [1] * (read.meta["val"].dim() - 2) if isinstance(read, fx.Node) else []
    return scale.view(-1, *ones), shift.view(-1, *ones)


def _added(program: fx.GraphModule, name: str, value: Tensor) -> str:
    program.register_buffer(name, value)
    return name


def _reason(node: fx.Node) -> str:
    if node.op == "output":
        return "it is an output"
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
    known = next((why for begin, why in _READERS.items() if name.startswith(begin)), None)
    return known or f"{name} reads it, which is no linear layer or convolution with a weight of its own"
