"""The layout of a weight is known by how a forward uses it, or is not known, with the reason."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.coupling.layout_use import layouts_used

Use = Callable[[Tensor, Tensor], Tensor]
FLAT, STACK = torch.randn(5, 4), torch.randn(3, 5, 4)
"""Rows of 4 inputs, and one batch of them for each of 3 experts."""


class Uses(nn.Module):
    """A module that does something with an input and one bare parameter."""

    def __init__(self, shape: tuple[int, ...], use: Use, example: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.use = use
        self.example_input_array = example

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.weight)


def seen(shape: tuple[int, ...], use: Use, example: Any = FLAT) -> str:
    model = Uses(shape, use, example)
    return str(layouts_used(model, {"weight": model.weight})["weight"])


PRODUCTS: dict[str, tuple[str, tuple[int, ...], Use, Tensor]] = {
    "x @ w": ("in out", (4, 6), lambda x, w: x @ w, FLAT),
    "mm": ("in out", (4, 6), torch.mm, FLAT),
    "by keyword": ("in out", (4, 6), lambda x, w: torch.matmul(input=x, other=w), FLAT),
    "of a batch": ("in out", (4, 6), torch.matmul, STACK),
    "addmm": ("in out", (4, 6), lambda x, w: torch.addmm(torch.zeros(6), x, w), FLAT),
    "w @ x": ("out in", (6, 5), lambda x, w: w @ x, FLAT),
    "mv": ("out in", (6, 4), lambda x, w: w.mv(x[0]), FLAT),
    "linear": ("out in", (6, 4), F.linear, FLAT),
    "bmm": ("expert in out", (3, 4, 6), torch.bmm, STACK),
    "baddbmm": ("expert in out", (3, 4, 6), lambda x, w: torch.baddbmm(torch.zeros(1), x, w), STACK),
    "stack @ x": ("expert out in", (3, 6, 5), lambda x, w: w @ x, STACK),
    "conv1d": ("out in k0", (6, 4, 2), F.conv1d, torch.randn(2, 4, 7)),
    "conv2d": ("out in k0 k1", (6, 4, 2, 3), lambda x, w: F.conv2d(x, w, padding=1), torch.randn(2, 4, 7, 7)),
    "conv_transpose2d": ("in out k0 k1", (4, 6, 2, 3), F.conv_transpose2d, torch.randn(2, 4, 7, 7)),
    "embedding": ("out in", (9, 4), lambda x, w: F.embedding(x, w), torch.tensor([[1, 8]])),
}
VIEWS: dict[str, tuple[str, tuple[int, ...], Use, Tensor]] = {
    "T": ("out in", (6, 4), lambda x, w: x @ w.T, FLAT),
    "t of a linear": ("in out", (4, 6), lambda x, w: F.linear(x, w.t()), FLAT),
    "mT": ("expert out in", (3, 6, 4), lambda x, w: x @ w.mT, STACK),
    "twice": ("expert in out", (3, 4, 6), lambda x, w: x @ w.mT.mT, STACK),
    "transpose, a copy": ("expert out in", (3, 6, 4), lambda x, w: x.bmm(w.transpose(1, 2).contiguous()), STACK),
    "permute": ("in expert out", (4, 3, 6), lambda x, w: x @ w.permute(1, 0, 2), STACK),
    "permute of a square": ("out expert in", (4, 3, 4), lambda x, w: x @ w.permute(1, 2, 0), STACK),
    "movedim": ("in out expert", (4, 6, 3), lambda x, w: x @ w.movedim(-1, 0), STACK),
    "expert by number": ("expert in out", (3, 4, 6), lambda x, w: torch.stack([x @ w[e] for e in range(3)]), FLAT),
    "one of them": ("expert out in", (3, 6, 4), lambda x, w: F.linear(x, w[-1]), FLAT),
    "expert of the last": ("out in expert", (6, 4, 3), lambda x, w: F.linear(x, w[..., 1]), FLAT),
    "for w in weight": ("expert out in", (3, 6, 4), lambda x, w: torch.stack([F.linear(x, v) for v in w]), FLAT),
    "experts picked": ("expert in out", (3, 4, 6), lambda x, w: x[:2].bmm(w[torch.tensor([2, 0])]), STACK),
    "experts picked by a mask": (
        "expert in out",
        (3, 4, 6),
        lambda x, w: x[:2].bmm(w[torch.tensor([True, False, True])]),
        STACK,
    ),
    "half of the outputs": ("in out", (4, 6), lambda x, w: x @ w[:, :3] + x @ w.chunk(2, -1)[1], FLAT),
    "cast": ("in out", (4, 6), lambda x, w: x.to(w) @ w.to(torch.float64).float(), FLAT),
    "expanded": ("in out", (4, 6), lambda x, w: torch.bmm(x, w.expand(3, -1, -1)), STACK),
    "data": ("out in", (6, 4), lambda x, w: x @ w.data.mT, FLAT),
}
EQUATIONS = {
    "bi,io->bo": ("in out", (4, 6), FLAT),
    "bi, oi -> bo": ("out in", (6, 4), FLAT),
    "...i,io->...o": ("in out", (4, 6), STACK),
    "ebi,eio->ebo": ("expert in out", (3, 4, 6), STACK),
    "ebi,oei->ebo": ("out expert in", (6, 3, 4), STACK),
    "bi,eih->ebh": ("whose use does not say it (einsum)", (3, 4, 6), FLAT),
    "ebi,eio->bo": ("whose use does not say it (einsum)", (3, 4, 6), STACK),
    "bi,io": ("whose use does not say it (einsum)", (4, 6), FLAT),
    "...i,...io->...o": ("whose use does not say it (einsum)", (5, 4, 6), FLAT),
}
UNREAD: dict[str, tuple[str, Use]] = {
    "two ways": ("which is used as 'in out' and as 'out in'", lambda x, w: x @ w + x @ w.T),
    "another function": ("whose use does not say it (abs)", lambda x, w: x @ w.abs()),
    "a product as well": ("whose use does not say it (sum)", lambda x, w: x @ w + w.sum()),
    "reshaped": ("whose use does not say it (reshape)", lambda x, w: x @ w.reshape(4, 4)),
    "picked by numbers": ("whose use does not say it (matmul)", lambda x, w: x @ w[:, torch.tensor([0, 1])]),
    "unused": ("which meets no input in a product when the example inputs run", lambda x, w: x + 1),
    "with a constant": (
        "which meets no input in a product when the example inputs run",
        lambda x, w: x @ (w @ torch.eye(4)),
    ),
    "with itself": ("whose use does not say it (matmul with other weights)", lambda x, w: x @ (w @ w.mT)),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_G31_a_product_with_the_input_tells_the_layout(case: str) -> None:
    layout, shape, use, example = PRODUCTS[case]
    assert seen(shape, use, example) == layout


@pytest.mark.parametrize("case", VIEWS)
def test_G31_a_view_of_a_weight_is_followed(case: str) -> None:
    layout, shape, use, example = VIEWS[case]
    assert seen(shape, use, example) == layout


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("listed", [False, True])
def test_G31_letters_of_an_equation_tell_the_layout(equation: str, listed: bool) -> None:
    layout, shape, example = EQUATIONS[equation]
    assert seen(shape, lambda x, w: torch.einsum(equation, *([[x, w]] if listed else [x, w])), example) == layout


def test_the_weight_may_come_first_in_an_equation() -> None:
    assert seen((6, 4), lambda x, w: torch.einsum("oi,bi->bo", w, x)) == "out in"
    assert seen((4, 6), lambda x, w: torch.einsum("io,bi->ob", w, x)) == "in out"


@pytest.mark.parametrize("case", UNREAD)
def test_G31_a_use_that_does_not_tell_gives_the_reason(case: str) -> None:
    reason, use = UNREAD[case]
    assert seen((4, 4), use) == reason


class LowRank(nn.Module):
    """Two factors, multiplied with each other before they meet an input, or one by one."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.down, self.up = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 6))
        self.example_input_array = FLAT

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.down @ self.up) if self.first else x @ self.down @ self.up


def test_a_product_of_two_weights_tells_of_neither() -> None:
    found = layouts_used(low := LowRank(True), dict(low.named_parameters()))
    assert found == dict.fromkeys(("down", "up"), "whose use does not say it (matmul with other weights)")
    found = layouts_used(low := LowRank(False), dict(low.named_parameters()))
    assert {name: str(layout) for name, layout in found.items()} == {"down": "in out", "up": "in out"}


class Recurrent(nn.Module):
    """A recurrence written out, from zeros or from a state that is learned."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(5, 6)) if learned else None
        self.across, self.along = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6, 6))
        self.example_input_array = (STACK,)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(5, 6) if self.start is None else self.start
        for step in x:
            state = (step @ self.across + F.linear(state, self.along)).tanh()
        return state


def test_a_recurrence_may_begin_with_a_constant() -> None:
    for learned, along in ((False, "out in"), (True, "whose use does not say it (linear with other weights)")):
        model = Recurrent(learned)
        found = layouts_used(model, {"across": model.across, "along": model.along})
        assert {name: str(layout) for name, layout in found.items()} == {"across": "in out", "along": along}


class Everything(nn.Module):
    """Chance in three generators, statistics, a count of its calls, and an output written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.up = nn.Parameter(torch.randn(4, 6))
        self.down = nn.Parameter(torch.randn(2, 4, 6))
        self.register_buffer("calls", torch.zeros(()))
        self.example_input_array = {"x": FLAT}
        self.seen: list[Tensor] = []

    def forward(self, *, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(x)
        hidden = (self.norm(x) @ self.up + torch.rand(()) + random.random()).relu()
        out = torch.zeros(2, 5, 4)
        for n, weight in enumerate(self.down):
            out[n] = F.linear(hidden, weight)
        return out


def test_the_model_its_hooks_and_all_randomness_stay_as_they_are() -> None:
    model = Everything().train()
    called: list[str] = []
    model.register_forward_pre_hook(lambda *_: called.append("before"))
    model.norm.register_forward_hook(lambda *_: called.append("after"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state(), random.getstate()
    found = layouts_used(model, {"up": model.up, "down": model.down})
    assert {name: str(layout) for name, layout in found.items()} == {"up": "in out", "down": "expert out in"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not called
    assert not model.seen
    assert model.up.grad is None
    assert torch.equal(torch.get_rng_state(), chance[0])
    assert random.getstate() == chance[1]
    model(x=FLAT)
    assert called == ["before", "after"]


def test_a_weight_behind_torchs_norm_of_weights_is_not_taken_for_another() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), Uses((6, 3), torch.matmul, None))
    model.example_input_array = FLAT
    found = layouts_used(model, dict(model.named_parameters()))
    assert str(found["1.weight"]) == "in out"
    assert isinstance(found["0.parametrizations.weight.original1"], str)


def test_a_weight_under_two_names_is_one() -> None:
    head = Uses((4, 4), torch.matmul, None)
    turned = Uses((4, 4), F.linear, None)
    turned.weight = head.weight
    model = nn.Sequential(head, turned)
    model.example_input_array = FLAT
    assert layouts_used(model, {"0.weight": head.weight}) == {"0.weight": "which is used as 'in out' and as 'out in'"}


def test_no_example_tells_nothing_and_one_that_fails_is_a_reason() -> None:
    silent = Uses((4, 6), torch.matmul, None)
    assert layouts_used(silent, {"weight": silent.weight}) == {}
    wrong = Uses((4, 6), torch.matmul, torch.randn(5, 3))
    found = layouts_used(wrong, {"weight": wrong.weight})["weight"]
    assert isinstance(found, str)
    assert found.startswith(
        "whose use is not seen, for the example inputs fail with RuntimeError: mat1 and mat2 shapes"
    )


def test_it_is_seen_in_the_dtype_of_the_model() -> None:
    model = Uses((3, 4, 6), torch.bmm, STACK).double()
    assert str(layouts_used(model, {"weight": model.weight})["weight"]) == "expert in out"
