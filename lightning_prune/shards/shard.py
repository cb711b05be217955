"""The piece of a weight that lies on this rank."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

Group = Any
"""A `torch.distributed.ProcessGroup`, where torch is built with it."""


@dataclass(frozen=True)
class Shard:
    """Which part of a tensor lies here.

    Attributes:
        shape: of the whole.
        box: the part, as a slice of each dimension of the whole; some may be empty.
        groups: the groups of ranks over which pieces add up to the whole, one for each dimension of the mesh on which
            the tensor is split. Replicas are in none, so that they count once.
        device: where the piece lies.
        tensor: the tensor itself.
    """

    shape: torch.Size
    box: tuple[slice, ...]
    groups: tuple[Group, ...]
    device: torch.device
    tensor: Tensor

    @property
    def size(self) -> int:
        """How many entries the whole has."""
        return self.shape.numel()

    def piece(self, whole: Tensor) -> Tensor:
        """Return the part of a tensor of the whole's shape, as a view."""
        return whole[self.box]

    def positions(self, flags: Tensor) -> Tensor:
        """Return where in the whole, flattened, the true entries of a bool tensor of the piece lie, ascending."""
        found = flags.nonzero()
        strides = torch.tensor(_strides(self.shape), device=flags.device)
        starts = torch.tensor([some.start for some in self.box], device=flags.device)
        return ((found + starts) * strides).sum(1)

    def runs(self) -> tuple[Tensor, int]:
        """Return where the piece's runs of entries that lie side by side in the whole begin, and how long each is.

        The first on the host, where it can be looked at without waiting for a device.
        """
        lengths = [some.stop - some.start for some in self.box]
        last = len(lengths)
        while last > 0 and (last == len(lengths) or lengths[last] == self.shape[last]):
            last -= 1
        strides = _strides(self.shape)
        starts = torch.tensor([sum(some.start * s for some, s in zip(self.box, strides, strict=True))])
        for dim in range(last):
            starts = (starts[:, None] + torch.arange(lengths[dim]) * strides[dim]).flatten()
        return starts, torch.Size(lengths[last:]).numel()

    def place(self, positions: Tensor, order: Sequence[int]) -> Tensor:
        """Return where in the whole, flattened, entries at some places of the piece, flattened, lie.

        Args:
            positions: int64, in the piece.
            order: in which the dimensions are flattened, of the piece and of the whole.
        """
        box = [self.box[dim] for dim in order]
        here = _strides(torch.Size([some.stop - some.start for some in box]))
        there = _strides(torch.Size([self.shape[dim] for dim in order]))
        rest, found = positions, torch.zeros_like(positions)
        for some, stride, far in zip(box, here, there, strict=True):
            found += (rest.div(stride, rounding_mode="floor") + some.start) * far
            rest = rest % stride
        return found

    def within(self, positions: Tensor) -> Tensor:
        """Return which entries of the piece lie at some positions of the whole, flattened: bool, the piece's shape."""
        shape = tuple(some.stop - some.start for some in self.box)
        flags = torch.zeros(shape, dtype=torch.bool, device=positions.device)
        rest, inside, index = positions, torch.ones_like(positions, dtype=torch.bool), list[Tensor]()
        for some, stride in zip(self.box, _strides(self.shape), strict=True):
            at, rest = rest.div(stride, rounding_mode="floor"), rest % stride
            inside &= (at >= some.start) & (at < some.stop)
            index.append(at - some.start)
        flags[tuple(at[inside] for at in index)] = True
        return flags


def _strides(shape: torch.Size) -> list[int]:
    return [shape[dim + 1 :].numel() for dim in range(len(shape))]


def shard_of(tensor: Tensor) -> Shard | None:
    """Return which part of a `DTensor` lies here; None for a plain tensor, and for one that lies whole on each rank.

    Raises:
        ValueError: its pieces are sums that were not reduced yet.
    """
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return None
    # The one import of a private module: of the pieces of a strided shard (FSDP over tensor parallel) torch tells the
    # place nowhere else.
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sharded = cast(Any, tensor)
    if any(placement.is_partial() for placement in placements):
        raise ValueError(f"a parameter of shape {tuple(tensor.shape)} has the placements {placements}: no values")
    split = [dim for dim, placement in enumerate(placements) if not placement.is_replicate()]
    split = [dim for dim in split if sharded.device_mesh.size(dim) > 1]
    if not split:
        return None
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, sharded.device_mesh, placements)
    box = tuple(slice(start, start + length) for start, length in zip(offset, shape, strict=True))
    groups = tuple(sharded.device_mesh.get_group(dim) for dim in split)
    return Shard(tensor.shape, box, groups, local(tensor).device, tensor)


def check_whole(model: nn.Module, what: str, remedy: str) -> None:
    """Raise ValueError that names a parameter of which only a piece lies here, where something needs whole ones.

    Args:
        model: whose parameters.
        what: needs whole weights, and how: "pattern=Channel() finds units in".
        remedy: what to do.
    """
    for name, parameter in model.named_parameters():
        if shard_of(parameter) is not None:
            raise ValueError(f"'{name}' is taken apart over ranks, and {what} whole weights: {remedy}")


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is none that is spread over ranks."""
    return not hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """Return the piece of a tensor that lies here, itself where it is plain. Nothing is copied or sent."""
    if is_plain(tensor):
        return tensor
    with torch.no_grad():
        return cast(Any, tensor).to_local()


def grad_of(parameter: Tensor) -> Tensor | None:
    """Return the gradient of the piece that lies here, reduced over ranks if it has not been yet; None without one."""
    grad = cast(Any, parameter.grad)
    if grad is None or is_plain(grad):
        return grad
    wanted = cast(Any, parameter).placements
    return local(grad if tuple(grad.placements) == tuple(wanted) else grad.redistribute(placements=wanted))


def whole(tensor: Tensor, shard: Shard | None) -> Tensor:
    """Return the whole tensor of which the pieces are `tensor`, on every rank. O(its size) bytes are sent."""
    if shard is None:
        return tensor
    return cast(Any, like(tensor, shard.tensor)).full_tensor()


def whole_on_host(tensor: Tensor, shard: Shard | None) -> Tensor:
    """Return the whole tensor on the CPU; a plain one as it is."""
    return tensor if shard is None else whole(tensor, shard).cpu()


def like(tensor: Tensor, of: Tensor) -> Tensor:
    """Return a tensor whose piece here is `tensor`, spread over ranks as another one is; itself where that is plain."""
    if is_plain(of):
        return tensor
    from torch.distributed.tensor import DTensor

    spread, strides = cast(Any, of), tuple(_strides(of.shape))
    return DTensor.from_local(
        tensor, spread.device_mesh, spread.placements, run_check=False, shape=of.shape, stride=strides
    )


def resharding(model: nn.Module) -> list[nn.Module]:
    """Return the modules of which FSDP2 has taken the parameters apart."""
    return [m for m in model.modules() if hasattr(m, "reshard") and hasattr(m, "set_reshard_after_backward")]


def reshard(modules: Iterable[nn.Module]) -> None:
    """Have FSDP2 forget the whole parameters that it keeps after a forward without a backward.

    They stand in the modules in place of the pieces, and the next forward would compute with what they were.
    """
    for module in modules:
        cast(Any, module).reshard()


@contextmanager
def whole_parameters(module: nn.Module) -> Generator[None, None, None]:
    """Have whole parameters stand for the pieces of a module's own, and keep of them what lies here at the end.

    Each is collected on every rank: what is done to them there must be the same on all.
    """
    own: dict[str, Any] = vars(module)["_parameters"]
    spread = {name: parameter for name, parameter in own.items() if parameter is not None and not is_plain(parameter)}
    shards = {name: shard_of(parameter) for name, parameter in spread.items()}
    for name, parameter in spread.items():
        values = whole(local(parameter.detach()), shards[name]).clone()
        own[name] = nn.Parameter(values, parameter.requires_grad)
    try:
        yield
    finally:
        for name, parameter in spread.items():
            made, shard = own[name].detach(), shards[name]
            own[name] = parameter
            with torch.no_grad():
                local(parameter).copy_(made if shard is None else shard.piece(made))
