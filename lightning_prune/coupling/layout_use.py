"""Which dimension of a weight is what, as it shows when the model runs: products sum over inputs and leave outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from lightning_prune.coupling.couple import eagerly, plain_copy
from lightning_prune.coupling.example import call, example_of, own_randomness, tensors
from lightning_prune.coupling.layout import Layout


def layouts_used(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, Layout | str]:
    """Return the layout of each parameter as a forward uses it, or why that does not tell.

    A copy of the model, without hooks but for torch's norms of weights, runs on its `example_input_array` once, in
    evaluation. What counts are products with what comes in (`matmul`, `bmm`, `linear`, `einsum`, convolutions), of the
    parameter or of a view of it; all that it is used for must agree.

    Args:
        model: the model; it stays as it is.
        parameters: name -> a parameter of the model.

    Returns:
        A layout or a reason for each name; nothing where the model has no example inputs.
    """
    if getattr(model, "example_input_array", None) is None:
        return {}
    try:
        with own_randomness(), warnings.catch_warnings(), eagerly(model):
            warnings.simplefilter("ignore")
            tried, example = _without_hooks(plain_copy(model).eval()), example_of(model)
            twins = dict(zip(map(id, model.parameters()), tried.parameters(), strict=True))
            uses = _Uses({name: twins[id(parameter)] for name, parameter in parameters.items()}, tried, example)
            with torch.no_grad(), uses:
                call(tried, example)
    except Exception as error:  # whatever a forward raises on inputs that nobody has tried
        said = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        return dict.fromkeys(parameters, f"whose use is not seen, for the example inputs fail with {said}")
    return {name: uses.verdict(name) for name in parameters}


def _without_hooks(model: nn.Module) -> nn.Module:
    for module in model.modules():
        module._forward_hooks.clear()  # pyright: ignore[reportPrivateUsage]
        before = module._forward_pre_hooks  # pyright: ignore[reportPrivateUsage]
        for key in [key for key, hook in before.items() if not isinstance(hook, (WeightNorm, SpectralNorm))]:
            del before[key]
    return model


def _named(*names: str) -> list[Any]:
    """Return the functions and methods of torch of these names."""
    homes = (torch, Tensor, torch.linalg, F)
    return [getattr(home, name) for name in names for home in homes if hasattr(home, name)]


_PRODUCTS: dict[Any, tuple[int, int]] = {
    **dict.fromkeys(_named("matmul", "__matmul__", "mm", "bmm", "mv", "_grouped_mm", "grouped_mm"), (0, 1)),
    **dict.fromkeys(_named("addmm", "addmv", "baddbmm"), (1, 2)),
}
"""Products of matrices -> where the left and the right one stand among the arguments."""
_STRAIGHT = frozenset(_named("linear", "embedding", "conv1d", "conv2d", "conv3d"))
_TRANSPOSED = frozenset(_named("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"))
_KEYWORDS = ("input", "self", "mat1", "batch1", "mat", "mat_a", "other", "mat2", "batch2", "vec", "mat_b", "weight")
"""What tensors are called in these functions, first operands first."""
_VIEWS = frozenset(
    [
        *_named("t", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "adjoint", "unsqueeze"),
        *_named("squeeze", "select", "narrow", "chunk", "split", "unbind", "expand", "detach", "__getitem__"),
        *(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH", "data")),
    ]
)
_COPIES = frozenset(_named("contiguous", "clone", "to", "type", "float", "double", "half", "bfloat16", "type_as"))
_LIKE = frozenset(
    [*_named("zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor")]
)
"""What takes shape, type or device of a tensor, and none of its values."""
_STRIDES = (1000003, 1000033, 1000037, 1000039, 1000081, 1000099, 1000117, 1000121)
"""Strides that tell dimensions apart through views: primes, which no product of sizes is."""


class _Uses(TorchFunctionMode):
    """Watch what parameters are used for.

    Views of a parameter are followed by a tensor without values, of the same shape and strides that are told apart.
    An operand that is made of parameters alone is no input: `x @ (a @ b)` says nothing of `a` by its product with `b`.
    """

    def __init__(self, watched: Mapping[str, Tensor], model: nn.Module, example: Any) -> None:
        super().__init__()
        self._found: dict[str, dict[Layout | str, None]] = {name: {} for name in watched}
        self._dims = {name: tensor.dim() for name, tensor in watched.items()}
        self._followed: Any = WeakTensorKeyDictionary()
        self._comes_in: Any = WeakTensorKeyDictionary()
        for name, tensor in watched.items():
            if tensor.dim() <= len(_STRIDES):
                label = torch.empty_strided(tensor.shape, _STRIDES[: tensor.dim()], device="meta")
                self._followed[tensor] = (name, label)
        for tensor in model.parameters():
            self._comes_in[tensor] = False
        for tensor in tensors(example):
            self._comes_in[tensor] = True

    def verdict(self, name: str) -> Layout | str:
        """Return the layout that all uses of a parameter agree on, or why there is none."""
        found = self._found[name]
        if not found:
            return "which meets no input in a product when the example inputs run"
        unread = [use for use in found if isinstance(use, str)]
        if unread:
            return f"whose use does not say it ({', '.join(unread)})"
        return (
            next(iter(found)) if len(found) == 1 else "which is used as " + " and as ".join(f"'{use}'" for use in found)
        )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and note what it does with parameters."""
        kwargs = kwargs or {}
        operands = list(tensors((args, kwargs)))
        followed = [(tensor, *self._followed[tensor]) for tensor in operands if tensor in self._followed]
        out = func(*args, **kwargs)
        results = list(tensors(out))
        if func is Tensor.__setitem__:
            results = operands[:1]
        self._mark(func, operands, results)
        if not followed or not results or func in _LIKE:
            return out
        if func in _COPIES and followed[0][0] is not operands[0]:  # x.to(w): the type alone is w's
            return out
        if len(followed) == 1 and followed[0][0] is operands[0] and func in _VIEWS | _COPIES:
            self._follow(func, args, kwargs, results, *followed[0][1:])
            return out
        roles = _roles(func, args, kwargs)
        for tensor, name, label in followed:
            use = getattr(func, "__name__", str(func))
            if tensor in roles:
                names, other = roles[tensor]
                inputs = self._comes_in.get(other)
                if inputs is None:  # a constant, such as the first state of a recurrence: it tells nothing
                    continue
                use = (self._read(name, label, names) or use) if inputs else f"{use} with other weights"
            self._found[name][use] = None
        return out

    def _mark(self, func: Any, operands: Sequence[Tensor], results: Iterable[Tensor]) -> None:
        """Mark what a function gives: True where something comes in, False where it is made of parameters alone."""
        marks = {self._comes_in[tensor] for tensor in operands if tensor in self._comes_in}
        if True in marks or (marks and func not in _LIKE):
            for tensor in results:
                self._comes_in[tensor] = True in marks or self._comes_in.get(tensor, False)

    def _follow(self, func: Any, args: Any, kwargs: Any, results: list[Tensor], name: str, label: Tensor) -> None:
        labels = [label]
        if func in _VIEWS:
            labels = _viewed(func, args, kwargs, label)
        if [t.shape for t in labels] != [t.shape for t in results]:
            self._found[name][f"{getattr(func, '__name__', func)} of it"] = None
            return
        for tensor, seen in zip(results, labels, strict=True):
            self._followed[tensor] = (name, seen)

    def _read(self, name: str, label: Tensor, roles: Sequence[str]) -> Layout | None:
        """Return the layout of a parameter of which a view has these roles; what is picked by number is a stack."""
        at = [_STRIDES.index(stride) if stride in _STRIDES else None for stride in label.stride()]
        if len(at) != len(roles):
            return None
        names = {dim: role for dim, role in zip(at, roles, strict=True) if dim is not None}
        if len(names) != sum(dim is not None for dim in at):  # of size 1, and not to be told apart
            return None
        try:
            return Layout(tuple(names.get(dim, "expert") for dim in range(self._dims[name])))
        except ValueError:  # no inputs or no outputs among them, or two stacks
            return None


def _viewed(func: Any, args: Any, kwargs: Any, label: Tensor) -> list[Tensor]:
    """Return the label of a view, or of some entries along the first dimension."""
    index = args[1] if func is Tensor.__getitem__ else None
    if isinstance(index, Tensor) and index.dim() == 1:
        picked = int(index.sum()) if index.dtype == torch.bool else len(index)
        return [torch.empty_strided((picked, *label.shape[1:]), label.stride(), device="meta")]
    try:
        return list(tensors(func(label, *args[1:], **kwargs)))
    except Exception:  # picked by what has values
        return []


def _roles(func: Any, args: Any, kwargs: Any) -> Any:
    """Return tensor -> the roles of its dimensions in a product, and the other operand of it."""
    found: Any = WeakTensorKeyDictionary()
    if func is torch.einsum:
        operands = args[1] if len(args) == 2 else args[1:]
        terms = _terms(args[0]) if isinstance(args[0], str) and len(operands) == 2 else None
        if terms is not None:
            for n in (0, 1):
                found[operands[n]] = (_of_equation(terms[n], terms[1 - n], terms[2]), operands[1 - n])
        return found
    operands = [*args, *(kwargs[key] for key in _KEYWORDS if key in kwargs)]
    if func in _PRODUCTS:
        left, right = (operands[n] for n in _PRODUCTS[func])
        found[left] = (_of_matrix(left.dim(), ("out", "in")), right)
        found[right] = (_of_matrix(right.dim(), ("in", "out")), left)
    elif func in _STRAIGHT | _TRANSPOSED:
        x, weight = operands[:2]
        first = ("in", "out") if func in _TRANSPOSED else ("out", "in")
        found[weight] = ((*first, *(f"k{n}" for n in range(weight.dim() - 2))), x)
    return found


def _of_matrix(dims: int, last: tuple[str, str]) -> tuple[str, ...]:
    return ("in",) if dims == 1 else (*("expert",) * (dims - 2), *last)


def _terms(equation: str) -> tuple[str, str, str] | None:
    """Return the letters of two operands and of the result, None where they are not written out."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    one, comma, other = inputs.partition(",")
    return (one, other, output) if arrow and comma else None


def _of_equation(term: str, other: str, output: str) -> tuple[str, ...]:
    """Return the roles of an operand's dimensions: none where they are more than inputs, outputs and one stack."""
    roles = {(True, False): "in", (False, True): "out", (True, True): "expert"}
    found = tuple(roles.get((letter in other, letter in output), "") for letter in term)
    return found if set(found) <= set(roles.values()) and "." not in term and len(set(found)) == len(found) else ()
