"""The digits' split: whole, disjoint, each class by its share, the same for every seed."""

import pytest
import torch

from lightning_prune.tasks.data.digits import Digits


def ready(**options: int) -> Digits:
    data = Digits(**options)
    data.setup("fit")
    return data


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_the_split_is_whole_disjoint_and_stratified() -> None:
    data = ready()
    parts = (data.train_set, data.validation_set, data.test_set)
    assert [len(part) for part in parts] == [1247, 250, 300]
    assert len(set.union(*(rows(part.inputs) for part in parts))) == 1797  # no two of the images are equal
    for part in parts:
        assert part.inputs.shape[1:] == (1, 8, 8)
        assert (part.inputs.min(), part.inputs.max()) == (0, 1)
        shares = torch.bincount(part.targets, minlength=10) / len(part)
        assert ((shares > 0.09) & (shares < 0.11)).all()


def test_the_split_follows_its_own_seed_only() -> None:
    assert torch.equal(ready(seed=1).test_set.inputs, ready(seed=2).test_set.inputs)
    assert not torch.equal(ready(split_seed=1).test_set.inputs, ready(split_seed=2).test_set.inputs)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("validation", 5), ("test", 5), ("test", 1797), ("seed", -1)]
)
def test_numbers_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ready(**{name: value}).train_dataloader()
