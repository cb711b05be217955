"""Laws of every reconstruction under conf/pruner/reconstruction; single ones are in tests/laws/reconstruction."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_prune.criterion import Site
from lightning_prune.observing import inputs_of
from lightning_prune.reconstruction import Reconstruction, UnitReconstruction
from tests.helpers import ideas, same, vary
from tests.laws.reconstruction.layers import LAYERS, at, canonical, chosen, error, layer_and_input, reader

RECONSTRUCTIONS = pytest.mark.parametrize("reconstruction", ideas("reconstruction"))
EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)


def asked_for(reconstruction: Any, layer: Any, x: Tensor) -> Tensor:
    """Return what a reconstruction thinks of single weights, or of the units that a layer reads."""
    if isinstance(reconstruction, UnitReconstruction):
        return reconstruction.worth([reader(reconstruction, layer, x)])
    return at(reconstruction, layer, x)(canonical(layer, layer.weight.detach()), None)


@RECONSTRUCTIONS
def test_it_is_one_of_weights_or_of_units(reconstruction: Any) -> None:
    assert isinstance(reconstruction, Reconstruction)
    assert isinstance(reconstruction, UnitReconstruction) != callable(reconstruction)


@RECONSTRUCTIONS
@EVERY_LAYER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_shapes_and_types(reconstruction: Any, name: str, dtype: torch.dtype) -> None:
    layer, x = layer_and_input(name, dtype)
    weight: Tensor = canonical(layer, layer.weight.detach())
    found = asked_for(reconstruction, layer, x)
    assert found.shape == ((8,) if isinstance(reconstruction, UnitReconstruction) else weight.shape)
    assert found.is_floating_point()
    assert torch.isfinite(found).all()
    better = at(reconstruction, layer, x).corrected(weight, chosen(reconstruction, layer, x))
    assert (better.shape, better.dtype) == (weight.shape, weight.dtype)
    assert torch.isfinite(better).all()


@RECONSTRUCTIONS
@EVERY_LAYER
def test_the_output_is_nearer_than_with_the_same_weights_taken_out(reconstruction: Any, name: str) -> None:
    layer, x = layer_and_input(name)
    weight = canonical(layer, layer.weight.detach())
    keep = chosen(reconstruction, layer, x)
    better = at(reconstruction, layer, x).corrected(weight, keep) * keep
    assert 0.0 < error(layer, better, x) < error(layer, weight * keep, x)


@RECONSTRUCTIONS
@EVERY_LAYER
def test_where_nothing_goes_nothing_changes(reconstruction: Any, name: str) -> None:
    layer, x = layer_and_input(name)
    weight = canonical(layer, layer.weight.detach())
    whole = at(reconstruction, layer, x).corrected(weight, torch.ones_like(weight, dtype=torch.bool))
    assert torch.equal(whole, weight)


@RECONSTRUCTIONS
def test_where_everything_goes_nothing_fails(reconstruction: Any) -> None:
    layer, x = layer_and_input("conv")
    weight = canonical(layer, layer.weight.detach())
    found = at(reconstruction, layer, x).corrected(weight, torch.zeros_like(weight, dtype=torch.bool))
    assert torch.isfinite(found).all()


@RECONSTRUCTIONS
@EVERY_LAYER
def test_an_input_of_zeros_says_nothing_and_fails_nowhere(reconstruction: Any, name: str) -> None:
    layer, x = layer_and_input(name)
    weight = canonical(layer, layer.weight.detach())
    found = asked_for(reconstruction, layer, torch.zeros_like(x))
    assert torch.isfinite(found).all()
    keep = chosen(reconstruction, layer, x)
    better = at(reconstruction, layer, torch.zeros_like(x)).corrected(weight, keep)
    torch.testing.assert_close(better * keep, weight * keep)


@RECONSTRUCTIONS
def test_rows_that_go_take_part_in_nothing(reconstruction: Any) -> None:
    """An output that goes with the units of its own group does not bend what the others become."""
    layer, x = layer_and_input("linear")
    weight, keep = layer.weight.detach(), chosen(reconstruction, layer, x)
    keep[2] = False
    found = at(reconstruction, layer, x).corrected(weight, keep)
    changed = weight.clone()
    changed[2] *= -30.0
    torch.testing.assert_close(at(reconstruction, layer, x).corrected(changed, keep) * keep, found * keep)


@RECONSTRUCTIONS
def test_inputs_and_memory_stay_as_they_are(reconstruction: Any) -> None:
    layer, x = layer_and_input("conv")
    weight, keep = layer.weight.detach(), chosen(reconstruction, layer, x)
    asked = at(reconstruction, layer, x)
    held = [x, weight, keep, *asked.memory.values()]
    before = [some.clone() for some in held]
    asked.corrected(weight, keep).add_(1.0)
    asked_for(reconstruction, layer, x).add_(1.0)
    assert same(held, before)


@RECONSTRUCTIONS
def test_G1_deterministic_with_the_global_generators_untouched(reconstruction: Any) -> None:
    layer, x = layer_and_input("in groups")
    weight, found = layer.weight.detach(), list[Any]()
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
        keep = chosen(reconstruction, layer, x)
        found.append([keep, at(reconstruction, layer, x).corrected(weight, keep)])
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)
    assert same(*found)


@RECONSTRUCTIONS
@EVERY_LAYER
def test_sums_of_batches_are_those_of_all_examples(reconstruction: Any, name: str) -> None:
    layer, x = layer_and_input(name)
    one, parts = at(reconstruction, layer, x).memory, at(reconstruction, layer, *x.split(4), x[:0]).memory
    assert one.keys() == parts.keys()
    for key in one:
        torch.testing.assert_close(parts[key], one[key], rtol=1e-9, atol=1e-12)


@RECONSTRUCTIONS
def test_patches_are_written_out_some_at_a_time(reconstruction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_and_input("conv")
    whole = at(reconstruction, layer, x).memory
    monkeypatch.setattr("lightning_prune.reconstruction.protocol._CHUNK", 2 * inputs_of(layer, x)[0].numel())
    some = at(reconstruction, layer, x).memory
    for key in whole:
        torch.testing.assert_close(some[key], whole[key], rtol=1e-9, atol=1e-12)


@RECONSTRUCTIONS
def test_an_input_that_is_not_finite_is_named(reconstruction: Any) -> None:
    layer, x = layer_and_input("linear")
    x[3, 2] = torch.inf
    with pytest.raises(ValueError, match=r"what 'layer.weight' reads is not finite"):
        asked_for(reconstruction, layer, x)
    with pytest.raises(ValueError, match=r"what 'layer.weight' reads is not finite"):
        at(reconstruction, layer, x).corrected(layer.weight.detach(), torch.ones(6, 8, dtype=torch.bool))


@RECONSTRUCTIONS
def test_before_anything_was_seen_it_is_named(reconstruction: Any) -> None:
    with pytest.raises(ValueError, match=r"has seen nothing of 'layer.weight'"):
        reconstruction.at(Site("layer.weight", 5)).corrected(torch.ones(4, 6), torch.ones(4, 6, dtype=torch.bool))


@RECONSTRUCTIONS
def test_arguments_out_of_range_are_refused(reconstruction: Any) -> None:
    bad: Any
    for bad in (0, 2.5, True):
        with pytest.raises(ValueError, match="window="):
            vary(reconstruction, window=bad)
    for bad in (0.0, -1.0, float("inf"), float("nan"), True, "0.1"):
        with pytest.raises(ValueError, match="damping="):
            vary(reconstruction, damping=bad)
    assert vary(reconstruction, window=None, damping=1).damping == 1
