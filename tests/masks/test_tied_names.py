"""A tied weight under each of its names: copies in nested dicts, sparsity rules, reasons for being left whole."""

from typing import Any

import pytest
import torch
from torch import nn

from lightning_prune import Pruner, Targets
from lightning_prune.masks import Masks
from lightning_prune.schedule import OneShot


def tied() -> nn.ModuleDict:
    """Return three linear layers, the first and the last of which have one weight."""
    torch.manual_seed(0)
    layers = {name: nn.Linear(4, 4, bias=False) for name in ("first", "middle", "last")}
    layers["last"].weight = layers["first"].weight
    return nn.ModuleDict(layers)


def masked() -> tuple[Masks, torch.Tensor]:
    """Return the masks of such a model, the tied one with a hole, and that mask."""
    masks = Masks(Targets().find(tied()).targets, reversible=False)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1, 2] = mask[3] = False
    masks["first.weight"].write(mask, 0.5)
    return masks, mask


def test_G15_a_mask_answers_to_each_name_and_is_counted_once() -> None:
    masks, mask = masked()
    assert masks["last.weight"] is masks["first.weight"]
    assert torch.equal(masks["last.weight"].mask, mask)
    assert list(masks) == ["first.weight", "middle.weight"]
    assert (len(masks), masks.pruned) == (2, 5)
    with pytest.raises(KeyError):
        masks["other.weight"]


@pytest.mark.parametrize("name", ["first.weight", "last.weight"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_G6_copies_in_nested_dicts_become_zero_under_each_name(name: str, prefix: str) -> None:
    masks, mask = masked()
    saved: dict[str, Any] = {
        f"{prefix}{name}": torch.ones(4, 4),
        "average": {"shadow": {name: torch.ones(4, 4, dtype=torch.float64)}, 3: torch.ones(4, 4)},
        "middle.weight": torch.ones(4, 4),
        "other": {f"{name}s": torch.ones(4, 4), name: torch.ones(2, 8)},
        "steps": {name: torch.ones(4, 4, dtype=torch.long)},
    }
    masks.apply_to(saved)
    assert torch.equal(saved[f"{prefix}{name}"] != 0, mask)
    assert torch.equal(saved["average"]["shadow"][name] != 0, mask)
    for left in (saved["average"][3], saved["middle.weight"], *saved["other"].values(), *saved["steps"].values()):
        assert bool((left == 1).all())  # another name, shape or kind of number: no copy of it


def test_a_list_and_what_is_no_dict_are_left_alone() -> None:
    masks, _ = masked()
    copy = {"averages": [{"first.weight": torch.ones(4, 4)}]}
    masks.apply_to(copy)
    masks.apply_to([copy])
    assert bool(copy["averages"][0]["first.weight"].all())


@pytest.mark.parametrize("rule", [r"^first\.", r"^last\.", "last"])
def test_G15_a_sparsity_rule_finds_a_tied_weight_by_each_name(rule: str) -> None:
    targets = Targets(sparsity={rule: 0.75})
    assert [target.rule for target in targets.find(tied()).targets] == [rule, None]
    model = tied()
    pruner = Pruner(OneShot(0.25, 1), targets=targets)
    pruner.attach(model)
    pruner.after_step(1)
    zeros = {weight.name: weight.zeros for weight in pruner.strip().weights}
    assert zeros == {"first.weight": 12, "middle.weight": 4}


def test_G15_of_several_rules_for_one_weight_the_first_holds() -> None:
    for first, second in (("last", "first"), ("first", "last")):
        rules = Targets(sparsity={first: 0.75, second: 0.5})
        assert [target.rule for target in rules.find(tied()).targets] == [first, None]


def test_G15_include_and_exclude_find_a_tied_weight_by_each_name() -> None:
    for name in ("first", "last"):
        found = Targets(include=(f"^{name}",)).find(tied())
        assert [target.names for target in found.targets] == [("first.weight", "last.weight")]
        assert found.skipped == {"middle.weight": "not included"}
        found = Targets(exclude=(f"^{name}",)).find(tied())
        assert [target.name for target in found.targets] == ["middle.weight"]
        assert found.skipped == {"first.weight": f"excluded by '^{name}'"}


class Norms(nn.Module):
    """Parameters that are left whole, alone and tied: a matrix is also an embedding, a norm also a matrix's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)
        self.table = nn.Embedding(4, 4)
        self.table.weight = self.head.weight
        self.norm = nn.LayerNorm(4)
        self.again = nn.LayerNorm(4)
        self.again.weight = self.norm.weight
        self.body = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4, bias=False).requires_grad_(False)


def test_G14_a_reason_names_the_other_names_where_there_are_some() -> None:
    found = Targets().find(Norms())
    assert [target.name for target in found.targets] == ["body.weight"]
    assert found.skipped == {
        "head.weight": "embedding (tied: head.weight, table.weight)",
        "head.bias": "bias",
        "norm.weight": "norm (tied: norm.weight, again.weight)",
        "norm.bias": "norm",
        "again.bias": "norm",
        "body.bias": "bias",
        "frozen.weight": "frozen",
    }
