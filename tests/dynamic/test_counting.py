"""Multiply-adds: at most, and counted on data, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_prune.cost import count
from lightning_prune.dynamic import Counting, DynamicGates
from lightning_prune.dynamic.links import links_on
from lightning_prune.schedule import OneShot
from tests.dynamic.helpers import Stream, batch, chain, finished, gated, sequences


def test_the_most_an_example_takes_is_what_one_counts_by_hand() -> None:
    model = chain()
    gates = gated(model, batch(), OneShot(0.5, 0))
    gates.after_step(0)
    counted = gates.report().counted  # pyright: ignore
    first, second, last = 9 * 3 * 8 * 64, 9 * 8 * 12 * 16, 12 * 16 * 5
    assert counted.dense == first + second + last == count(chain(), batch(1)).macs
    assert counted.predictors == 3 * 8 + 8 * 12
    assert counted.executed == 9 * 3 * 4 * 64 + 9 * 4 * 6 * 16 + 6 * 16 * 5
    assert counted.layers["4"] == (second, second / 4)


def by_hand(model: nn.Sequential, x: torch.Tensor) -> float:
    """Count products of `chain` example by example, channel by channel: those that are on at both ends."""
    total = 0
    for example in x.split(1):
        on = {name: (link.gate(_read(model, name, example)) != 0)[0] for name, link in links_on(model)}
        for _ in range(64):
            for out in range(8):
                total += 9 * 3 if on["0"][out] else 0
        for _ in range(16):
            for out in range(12):
                for inside in range(8):
                    total += 9 if on["4"][out] and on["0"][inside] else 0
        for unit in range(12 * 16):
            total += 5 if on["4"][unit // 16] else 0
    return total / len(x)


def _read(model: nn.Sequential, layer: str, example: torch.Tensor) -> torch.Tensor:
    for part in list(model)[: int(layer)]:
        example = part(example)
    return example


@pytest.mark.parametrize("shift", [0.0, -1.5])
def test_counted_on_data_it_is_what_one_counts_by_hand(shift: float) -> None:
    model = finished()
    with torch.no_grad():
        model[0].channel_gate.bias += shift  # pyright: ignore - saliencies of 0: winners that are off all the same
        model[4].channel_gate.bias += shift  # pyright: ignore
    x = batch(6, 3)
    with Counting(model, batch()) as counting, torch.no_grad():
        model(x[:4])
        model(x[4:])
    result = counting.result
    assert result.examples == 6
    assert result.executed == pytest.approx(by_hand(model, x))
    most = 9 * 3 * 4 * 64 + 9 * 4 * 6 * 16 + 6 * 16 * 5
    assert result.executed == most if not shift else result.executed < most


def test_what_a_sum_reads_counts_in_full_and_a_concatenation_by_its_parts() -> None:
    model, x = Stream(), torch.randn(3, 2, 5, 5)
    gates = gated(model, x, OneShot(0.5, 0))
    gates.after_step(0)
    layers = gates.report().counted.layers  # pyright: ignore
    shares = {name: executed / dense for name, (dense, executed) in layers.items()}
    assert shares == pytest.approx({"stem": 1.0, "one": 0.5, "two": 0.25, "left": 0.5, "last": 0.8})  # reads 8 of 10


def test_layers_of_sequences_and_in_groups() -> None:
    gates = gated(sequences(), torch.randn(2, 4, 12), OneShot(0.5, 0))
    gates.after_step(0)
    layers = gates.report().counted.layers  # pyright: ignore
    assert {name: executed / dense for name, (dense, executed) in layers.items()} == {"0": 0.5, "3": 0.25}
    grouped = chain()
    grouped[4] = nn.Conv2d(8, 12, 3, padding=1, groups=2)
    gates = gated(grouped, batch(), OneShot(0.5, 0))
    gates.after_step(0)
    most = gates.report().counted  # pyright: ignore
    assert most.layers["4"][1] / most.layers["4"][0] == 0.5
    gates.strip()
    with Counting(grouped.eval(), batch()) as counting:
        grouped(batch(16))
    on = 0
    for example in batch(16).split(1):
        inside = dict(links_on(grouped))["0"].gate(example)[0] != 0
        outside = dict(links_on(grouped))["4"].gate(_read(grouped, "4", example))[0] != 0
        on += sum(int(outside[6 * g : 6 * g + 6].sum()) * int(inside[4 * g : 4 * g + 4].sum()) for g in (0, 1))
    dense, executed = counting.result.layers["4"]
    assert executed / dense == pytest.approx(on / 16 / (2 * 6 * 4))


@pytest.mark.parametrize("between", [nn.Sigmoid(), nn.BatchNorm2d(8)])
def test_behind_what_does_not_keep_zeros_all_is_read(between: nn.Module) -> None:
    model = chain()
    model[2] = between
    gates = gated(model, batch(), OneShot(0.5, 0))
    gates.after_step(0)
    dense, executed = gates.report().counted.layers["4"]  # pyright: ignore
    assert executed / dense == 0.5


def test_a_model_without_gates_has_nothing_to_count() -> None:
    with pytest.raises(ValueError, match="Sequential has no gates"):
        Counting(chain(), batch())
    with Counting(finished(), batch()) as counting, pytest.raises(ValueError, match="nothing has run yet"):
        _ = counting.result


def test_the_report_says_what_is_static_and_what_is_not() -> None:
    gates: DynamicGates = gated(chain(), batch())
    table, plan, facts = gates.report().table(), gates.report().plan(), gates.report().to_dict()
    assert "no weight is zero and none can be taken out" in table
    assert "torch's own kernels compute them all" in plan
    assert "in the end, MACs an example: 28,608 dense, 10,968 at most, 120 of them for the predictors" in plan
    assert facts["dynamic"]["weights_that_are_zero"] == 0
    assert facts["dynamic"]["predictor_parameters"] == 3 * 8 + 8 + 8 * 12 + 12
