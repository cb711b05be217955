"""The older system's string, field by field: what each changes in the pruner, by its documentation's formulas."""

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import SparseModelCheckpoint
from lightning_prune.criterion import FirstOrderDelta, Magnitude, SecondOrderDelta
from lightning_prune.hparams import Contrib, parse
from lightning_prune.pattern import Block, Element, NofM
from lightning_prune.scope import Uniform
from lightning_prune.selection import Exact, Histogram


def schedule(text: str) -> Contrib:
    found = parse(text).schedule
    assert isinstance(found, Contrib)
    return found


def updates(text: str, steps: int) -> list[int]:
    """Return the steps at which the pruner's schedule has something new to do, walking through all of them."""
    found: list[int] = []
    for step in range(steps + 1):
        last = schedule(text).last_update(step)
        if last is not None and (not found or last > found[-1]):
            assert last == step
            found.append(last)
    return found


def contribs_rule(begin: int, end: int, frequency: int, steps: int) -> list[int]:
    """Return the same by the older system's condition, taken step by step."""
    last, found = 0, list[int]()
    for t in range(steps + 1):
        if t >= begin and (t <= end or end < 0) and last + frequency <= t:
            last = t
            found.append(t)
    return found


# When


@pytest.mark.parametrize(
    ("begin", "end", "frequency"),
    [
        (5, 50, 10),
        (0, -1, 10),
        (0, 55, 10),
        (15, 44, 10),
        (15, -1, 7),
        (10, 50, 10),
        (3, 4, 1),
        (0, 100, 100),
        (12, 13, 9),
    ],
)
def test_updates_come_by_the_older_systems_condition(begin: int, end: int, frequency: int) -> None:
    text = f"begin_pruning_step={begin},end_pruning_step={end},pruning_frequency={frequency}"
    assert updates(text, 120) == contribs_rule(begin, end, frequency, 120) != []


def test_the_documented_example_of_when() -> None:
    assert updates("begin_pruning_step=5,end_pruning_step=50,pruning_frequency=10", 200) == [10, 20, 30, 40, 50]


def test_without_fields_updates_come_every_ten_steps_for_ever() -> None:
    assert updates("name=x", 45) == [10, 20, 30, 40]
    assert schedule("name=x").last_update(10_000_019) == 10_000_010


@pytest.mark.parametrize(
    ("text", "first", "end"),
    [
        ("begin_pruning_step=5,end_pruning_step=55,pruning_frequency=10", 10, 50),
        ("begin_pruning_step=15,end_pruning_step=44,pruning_frequency=10", 15, 35),
        ("end_pruning_step=50", 10, 50),
        ("end_pruning_step=10", 10, 10),
        ("sparsity_function_end_step=100", 10, 100),
        ("sparsity_function_end_step=101", 10, 110),
        ("sparsity_function_end_step=109,begin_pruning_step=13", 13, 113),
        ("pruning_frequency=300", 300, 300),  # the first update is past the end of the curve
        ("begin_pruning_step=205,end_pruning_step=-1", 205, 205),
    ],
)
def test_pruning_begins_and_is_finished_at_an_update(text: str, first: int, end: int) -> None:
    found = schedule(text)
    assert (found.begin_step, found.end_step) == (first, end)
    assert found.last_update(end) == end
    assert found.last_update(first) == first
    assert found.last_update(first - 1) is None
    assert found.resolve(7) is found


def test_what_ends_off_the_grid_counts_as_finished(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = _Task()
    text = "pruning_frequency=3,end_pruning_step=8,sparsity_function_end_step=6,intra_block_sparsity=2:4"
    pruning = PruningCallback(parse(text))
    saving = SparseModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=1)
    trainer = pl.Trainer(
        max_steps=12, callbacks=[pruning, saving], logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(model, DataLoader(torch.randn(96, 8), 4))  # pyright: ignore[reportArgumentType]
    assert pruning.pruner.last_update == 6 == pruning.pruner.resolved_schedule.end_step
    assert (tmp_path / "last.ckpt").is_file()
    assert pruning.pruner.state_dict()["stripped"]
    assert "masks" not in pruning.pruner.state_dict()


class _Task(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def training_step(self, batch: Tensor) -> Tensor:
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


# How sparse


def test_the_documented_example_of_how_sparse() -> None:
    text = "target_sparsity=0.9,sparsity_function_begin_step=10000,sparsity_function_end_step=100000"
    assert schedule(text).sparsity(20_000) == pytest.approx(0.267901, abs=5e-7)
    assert schedule(text).sparsity(55_000) == pytest.approx(0.7875)
    assert schedule(text).sparsity(10_000) == 0.0 == schedule(text).sparsity(0)
    assert schedule(text).sparsity(100_000) == 0.9 == schedule(text).sparsity(10**6)


@pytest.mark.parametrize(("exponent", "halfway"), [("1", 0.5), ("2", 0.65), ("3", 0.725)])
def test_the_exponent_and_the_initial_sparsity_shape_the_curve(exponent: str, halfway: float) -> None:
    text = (
        "initial_sparsity=0.2,target_sparsity=0.8,sparsity_function_begin_step=20,sparsity_function_end_step=60,"
        f"sparsity_function_exponent={exponent}"
    )
    assert schedule(text).sparsity(40) == pytest.approx(halfway)
    assert (schedule(text).sparsity(20), schedule(text).sparsity(60)) == (pytest.approx(0.2), pytest.approx(0.8))


def test_without_fields_the_curve_is_cubic_from_0_to_a_half_over_100_steps() -> None:
    assert schedule("name=x").sparsity(50) == pytest.approx(0.5 - 0.5 * 0.5**3)
    assert schedule("name=x").final_sparsity == 0.5
    assert schedule("name=x").sparsity(100) == 0.5


def test_the_update_steps_do_not_shape_the_curve() -> None:
    for text in ("pruning_frequency=33", "begin_pruning_step=20", "end_pruning_step=50"):
        assert schedule(text).sparsity(40) == schedule("name=x").sparsity(40)


# How


def test_without_fields_it_is_the_older_system() -> None:
    pruner = parse("name=x")
    assert pruner.name == "x"
    assert parse("target_sparsity=0.6").name == "model_pruning"
    assert pruner.reversible
    assert pruner.scope == Uniform()
    assert pruner.selection == Histogram(255, 0.9)
    assert pruner.criterion == Magnitude()
    assert pruner.pattern == Element()
    assert (pruner.targets.include, pruner.targets.exclude, pruner.targets.sparsity) == ((), (), {})
    assert pruner.regularizer is None


def test_threshold_decay_and_nbins() -> None:
    assert parse("threshold_decay=0.25,nbins=64").selection == Histogram(64, 0.25)


@pytest.mark.parametrize(
    ("option", "criterion"),
    [
        ("weight", Magnitude()),
        ("first_order_gradient", FirstOrderDelta(0.75)),
        ("second_order_gradient", SecondOrderDelta(0.75)),
    ],
)
def test_prune_option_and_gradient_decay_rate(option: str, criterion: Any) -> None:
    assert parse(f"prune_option={option},gradient_decay_rate=0.75").criterion == criterion


def test_the_gradients_decay_is_99_hundredths_unless_given() -> None:
    assert parse("prune_option=first_order_gradient").criterion == FirstOrderDelta(0.99)
    assert parse("prune_option=second_order_gradient").criterion == SecondOrderDelta(0.99)


def test_do_not_prune_holds_parts_of_names_and_no_expressions() -> None:
    net = nn.ModuleDict({"a1": nn.Linear(4, 4), "b": nn.Linear(4, 4), "ax1": nn.Linear(4, 4)})
    found = parse("do_not_prune=[a1, 'b.w']").targets.find(net)
    assert [target.name for target in found.targets] == ["ax1.weight"]
    with pytest.raises(ValueError, match="matches no weight"):
        parse("do_not_prune=[a.1]").targets.find(net)


def test_weight_sparsity_map_sets_final_sparsities_by_expression() -> None:
    targets = parse("weight_sparsity_map=[a.*weight:0.75,^b:0.25]").targets
    assert targets.sparsity == {"a.*weight": 0.75, "^b": 0.25}
    net = nn.ModuleDict({"net": nn.ModuleDict({"a": nn.Linear(4, 4)}), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
    assert [target.rule for target in targets.find(net).targets] == ["a.*weight", "^b", None]


def test_a_rules_sparsity_is_reached_by_its_layer_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 50), nn.Linear(50, 40))
    text = "target_sparsity=0.5,threshold_decay=0,pruning_frequency=1,sparsity_function_end_step=1,nbins=2000"
    report = _pruned(net, parse(f"{text},weight_sparsity_map=[^1:0.8]"), 1)
    assert report["0.weight"] == pytest.approx(0.5, abs=0.01)
    assert report["1.weight"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("block_height=4,block_width=2", Block(4, 2, "avg")),
        ("block_height=4", Block(4, 1, "avg")),
        ("block_width=-1,block_pooling_function=MAX", Block(1, -1, "max")),
        ("block_height=2,block_width=2,block_pooling_function=AVG", Block(2, 2, "avg")),
        ("block_pooling_function=MAX", Element()),
    ],
)
def test_blocks(text: str, pattern: Any) -> None:
    assert parse(text).pattern == pattern


def test_block_dims_map_is_searched_in_names_and_the_first_that_is_found_holds() -> None:
    text = "block_dims_map=[fc1:4x1,fc:2X3,conv:1x1],block_height=8,block_width=8,block_pooling_function=MAX"
    pattern: Any = parse(text).pattern
    assert pattern.at("net.fc1.weight") == Block(4, 1, "max")
    assert pattern.at("net.fc2.weight") == Block(2, 3, "max")
    assert pattern.at("net.conv.weight") == Element()
    assert pattern.at("net.head.weight") == Block(8, 8, "max")


def test_n_of_m_is_kept_exactly_and_sets_the_sparsity_unless_one_is_given() -> None:
    pruner = parse("intra_block_sparsity=1:4")
    assert pruner.pattern == NofM(1, 4)
    assert pruner.selection == Exact()
    assert pruner.schedule.final_sparsity == 0.75
    assert parse("intra_block_sparsity=2:4,target_sparsity=0.6").schedule.final_sparsity == 0.6
    assert parse("intra_block_sparsity=").pattern == Element()


def test_masked_weights_come_back() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    net = nn.Sequential(layer)
    text = "target_sparsity=0.5,threshold_decay=0,pruning_frequency=1,sparsity_function_end_step=1,nbins=1000"
    pruner = parse(text)
    pruner.attach(net, 3)
    weight = layer.weight
    pruner.after_step(1)
    gone = ~pruner.masks["0.weight"].mask
    kept = pruner.masks["0.weight"].mask.clone()
    with torch.no_grad():
        weight[kept] *= 1e-3
    pruner.after_step(2)
    assert pruner.masks["0.weight"].mask[gone].any()
    assert gone.any()


def test_layers_are_ranked_each_on_its_own() -> None:
    torch.manual_seed(0)
    last = nn.Linear(40, 30)
    net = nn.Sequential(nn.Linear(30, 40), last)
    with torch.no_grad():
        last.weight *= 100
    text = "target_sparsity=0.5,threshold_decay=0,pruning_frequency=1,sparsity_function_end_step=1,nbins=1000"
    assert _pruned(net, parse(text), 1) == {
        "0.weight": pytest.approx(0.5, abs=0.01),
        "1.weight": pytest.approx(0.5, abs=0.01),
    }


def test_thresholds_are_the_documented_ones() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0]])
    layer = nn.Linear(8, 1, bias=False)
    net = nn.Sequential(layer)
    with torch.no_grad():
        layer.weight.copy_(weight)
    pruner = parse(
        "target_sparsity=0.5,initial_sparsity=0.5,nbins=4,threshold_decay=0.5,pruning_frequency=1,"
        "sparsity_function_end_step=1"
    )
    pruner.attach(net, 3)
    # bins of width 2: 1 | 2, 3 | 4, 5 | 6, 7, 8; cumulated .125, .375, .625, 1: two lie below .5, so raw = 2 / 4 * 8.
    smoothed = 0.0
    for step in (1, 2):
        pruner.after_step(step)
        smoothed = 0.5 * 4.0 + 0.5 * smoothed
        assert float(pruner.masks["0.weight"].threshold) == smoothed
        assert torch.equal(pruner.masks["0.weight"].mask, weight.abs() > smoothed)


def _pruned(net: nn.Module, pruner: Pruner, step: int) -> dict[str, float]:
    pruner.attach(net, step + 1)
    pruner.after_step(step)
    return {weight.name: weight.sparsity for weight in pruner.strip().weights}


# What is refused


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("begin_pruning_step=-1", "begin_pruning_step=-1 must be at least 0"),
        ("begin_pruning_step=5,end_pruning_step=5", "end_pruning_step=5 must be -1 or after begin_pruning_step=5"),
        ("end_pruning_step=-2", "end_pruning_step=-2 must be -1 or after"),
        ("end_pruning_step=9", "end_pruning_step=9 must be -1 or at least pruning_frequency=10"),
        ("sparsity_function_begin_step=-1", "sparsity_function_begin_step=-1 must be at least 0"),
        ("sparsity_function_begin_step=100", "sparsity_function_end_step=100 must be after"),
        ("sparsity_function_end_step=-1", "sparsity_function_end_step=-1 must be after"),
        ("pruning_frequency=0", "pruning_frequency=0 must be at least 1"),
        ("nbins=1", "nbins=1 must be at least 2"),
        ("threshold_decay=1", r"threshold_decay=1.0 must be in \[0, 1\)"),
        ("threshold_decay=-0.1", r"threshold_decay=-0.1 must be in \[0, 1\)"),
        ("initial_sparsity=-0.1", r"initial_sparsity=-0.1 must be in \[0, 1\)"),
        ("target_sparsity=1", r"target_sparsity=1.0 must be in \[0, 1\)"),
        ("target_sparsity=nan", r"target_sparsity=nan must be in \[0, 1\)"),
        ("gradient_decay_rate=1", r"gradient_decay_rate=1.0 must be in \[0, 1\)"),
        ("initial_sparsity=0.6", "target_sparsity=0.5 must be at least initial_sparsity=0.6"),
        ("sparsity_function_exponent=0", "sparsity_function_exponent=0.0 must be a number above 0"),
        ("sparsity_function_exponent=inf", "sparsity_function_exponent=inf must be a number above 0"),
        ("prune_option=gradient", "prune_option=gradient must be one of weight"),
        ("block_pooling_function=avg", "block_pooling_function=avg must be AVG or MAX"),
        ("block_height=0", "height=0 must be a positive int"),
        ("intra_block_sparsity=2of4", "intra_block_sparsity=2of4 must be of the form N:M"),
        ("intra_block_sparsity=2:x", "intra_block_sparsity=2:x must be of the form N:M"),
        ("intra_block_sparsity=:4", "intra_block_sparsity=:4 must be of the form N:M"),
        ("weight_sparsity_map=[0.5]", "weight_sparsity_map has '0.5', which is not of the form regex:sparsity"),
        ("weight_sparsity_map=[a:b]", "weight_sparsity_map has 'a:b', which is not of the form regex:sparsity"),
        ("block_dims_map=[a:4]", "block_dims_map has 'a:4', which is not of the form regex:HxW"),
        ("pruning_frequency=1.5", "pruning_frequency=1.5 must be an int"),
        ("target_sparsity=half", "target_sparsity=half must be a number"),
        ("name=x,name=y", "name is given twice"),
        ("sparsity=0.5", "no field 'sparsity'"),
        ("name", "'name' is not of the form field=value"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_the_edges_of_the_ranges_are_taken() -> None:
    text = "begin_pruning_step=0,end_pruning_step=1,pruning_frequency=1,nbins=2,threshold_decay=0,target_sparsity=0"
    assert parse(text).selection == Histogram(2, 0.0)
    assert schedule("target_sparsity=0.5,initial_sparsity=0.5").sparsity(3) == 0.5
    assert schedule("sparsity_function_begin_step=0,sparsity_function_end_step=1").sparsity(1) == 0.5
    assert math.isclose(schedule("sparsity_function_exponent=0.5").sparsity(75), 0.5 - 0.5 * 0.25**0.5)


def test_blanks_and_quotes_are_taken_off() -> None:
    pruner = parse(" name = 'mine' , target_sparsity = \"0.7\" , do_not_prune = [ 'a' , \"b\" ] ")
    assert (pruner.name, pruner.schedule.final_sparsity, pruner.targets.exclude) == ("mine", 0.7, ("a", "b"))
