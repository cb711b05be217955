"""The older system's CIFAR-10 example: its network, its images, its training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from lightning_prune.tasks.averaging import WarmAverage
from lightning_prune.tasks.cifar10_cnn import cifar10_cnn
from lightning_prune.tasks.data import cifar10
from lightning_prune.tasks.data.cifar10_crops import CIFAR10Crops
from lightning_prune.tasks.data.crops import CentralCrop, Look, RandomCrops, standardised
from lightning_prune.tasks.local_response import LocalResponseNorm
from lightning_prune.tasks.nets import MLP
from lightning_prune.tasks.staircase import Staircase, StaircaseClassifier

from .conftest import MakeTrainer
from .test_cifar10 import contents as contents  # fixtures
from .test_cifar10 import root as root

# The network


def test_the_network_has_the_weights_and_the_start_of_the_example() -> None:
    torch.manual_seed(0)
    net = cifar10_cnn()
    weights = {name: p for name, p in net.named_parameters() if p.dim() > 1}
    assert {name: tuple(p.shape) for name, p in weights.items()} == {
        "conv1.weight": (64, 3, 5, 5),
        "conv2.weight": (64, 64, 5, 5),
        "dense1.weight": (384, 2304),
        "dense2.weight": (192, 384),
        "linear.weight": (10, 192),
    }
    assert sum(p.numel() for p in weights.values()) == 1_067_584
    for name, deviation in (("conv2.weight", 0.05), ("dense1.weight", 0.04), ("linear.weight", 1 / 192)):
        assert float(weights[name].detach().abs().max()) <= 2 * deviation
        assert float(weights[name].detach().std()) == pytest.approx(0.88 * deviation, rel=0.05)  # cut off at two
    biases = {name: sorted(set(p.tolist())) for name, p in net.named_parameters() if p.dim() == 1}
    assert {name: values[0] for name, values in biases.items()} == pytest.approx(
        {"conv1.bias": 0.0, "conv2.bias": 0.1, "dense1.bias": 0.1, "dense2.bias": 0.1, "linear.bias": 0.0}
    )
    with pytest.raises(ValueError, match="classes=0"):
        cifar10_cnn(0)


def test_pooling_takes_in_the_last_row_as_padding_at_the_end_does() -> None:
    pool = cifar10_cnn().get_submodule("pool1")
    for length in (24, 12):
        image = torch.randn(1, 1, length, length)
        padded = nn.functional.pad(image, (0, 1, 0, 1), value=-math.inf)
        assert torch.equal(pool(image), nn.functional.max_pool2d(padded, 3, 2))
        assert pool(image).shape[2:] == (length // 2, length // 2)


@pytest.mark.parametrize(("channels", "size", "beta"), [(64, 9, 0.75), (7, 4, 0.5), (3, 5, 1.0)])
def test_the_norm_is_torch_s(channels: int, size: int, beta: float) -> None:
    x = torch.randn(2, channels, 5, 4, dtype=torch.float64, requires_grad=True)
    ours, theirs = LocalResponseNorm(size, 0.3, beta, 1.5), nn.LocalResponseNorm(size, 0.3, beta, 1.5)
    torch.testing.assert_close(ours(x), theirs(x))
    cotangent = torch.randn_like(x)
    torch.testing.assert_close(*(torch.autograd.grad(norm(x), x, cotangent)[0] for norm in (ours, theirs)))


# The images

LOOK = Look(crop=24, brightness=63.0, contrast=(0.2, 1.8))


def photographs(count: int = 6) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))


def test_a_crop_is_what_one_works_out_image_by_image() -> None:
    images, crops = photographs(), RandomCrops(6, 32, seed=3, look=LOOK)
    crops.set_epoch(2)
    rows = torch.tensor([4, 0, 5])
    found = crops(images[rows], rows)
    for at, row in enumerate(rows.tolist()):
        top, left = crops.corners[row].tolist()
        image = images[row, :, top : top + 24, left : left + 24].double()
        image = image.flip(2) if crops.mirrored[row] else image
        image = image + float(crops.brighter[row])
        means = image.mean((1, 2), keepdim=True)
        image = (image - means) * float(crops.contrast[row]) + means
        image = (image - image.mean()) / max(float(image.std(correction=0)), (3 * 24 * 24) ** -0.5)
        torch.testing.assert_close(found[at].double(), image, atol=1e-4, rtol=1e-4)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_draws_belong_to_seed_epoch_and_image_and_fill_their_ranges() -> None:
    def drawn(seed: int, epoch: int) -> Tensor:
        crops = RandomCrops(4000, 32, seed, LOOK)
        crops.set_epoch(epoch)
        columns = (*crops.corners.unbind(1), crops.mirrored, crops.brighter, crops.contrast)
        return torch.stack([column.double() for column in columns], 1)

    one = drawn(1, 0)
    assert torch.equal(one, drawn(1, 0))
    for other in (drawn(2, 0), drawn(1, 1)):
        assert not (one == other).all(0).any()
    least, most = one.amin(0).tolist(), one.amax(0).tolist()
    assert least[:3] == [0, 0, 0]
    assert most[:3] == [8, 8, 1]
    assert (least[3], most[3]) == pytest.approx((-63, 63), abs=0.2)
    assert (least[4], most[4]) == pytest.approx((0.2, 1.8), abs=0.01)


def test_evaluation_takes_the_middle() -> None:
    images = photographs(2)
    found = CentralCrop(24)(images, torch.arange(2))
    torch.testing.assert_close(found, standardised(images[:, :, 4:28, 4:28].float()))
    assert found.mean((1, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert found.std((1, 2, 3), correction=0).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_an_image_of_one_colour_becomes_zero_and_not_nan() -> None:
    assert standardised(torch.full((2, 3, 24, 24), 7.0)).abs().max() == 0


def crops_of(root: Path, **options: object) -> CIFAR10Crops:
    data = CIFAR10Crops(root, batch_size=4, validation=10, **options)  # pyright: ignore[reportArgumentType]
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def test_only_training_images_are_changed_and_anew_in_each_epoch(root: Path) -> None:
    data = crops_of(root)

    def labels(loader: object) -> list[int]:
        return [int(label) for _, batch in loader for label in batch]  # pyright: ignore

    parts = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert [len(labels(part)) for part in parts] == [30, 10, 8]
    assert isinstance(data.train_set.change, RandomCrops)
    assert isinstance(data.test_set.change, CentralCrop)
    first = data.train_set.change.corners.clone()
    data.train_set.set_epoch(1)
    assert not torch.equal(first, data.train_set.change.corners)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 24, 24)
    data = CIFAR10Crops(root, batch_size=4, validation=0)
    data.setup("fit")
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "crop=0"),
        ({"crop": 33}, "crop=33: the images have 32"),
        ({"brightness": -1.0}, "brightness=-1.0"),
        ({"contrast": (1.8, 0.2)}, r"contrast=\[1.8, 0.2\]"),
        ({"contrast": (1.0,)}, r"contrast=\[1.0\]"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_is_out_of_range_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CIFAR10Crops(**options)  # pyright: ignore[reportArgumentType]
    assert set(cifar10.SHA256)


# The training


@pytest.mark.parametrize(("every", "steps"), [(3, 999), (0.3, 10)])
def test_the_rate_falls_after_every_so_many_steps(every: int | float, steps: int) -> None:
    stairs = Staircase(every, 0.1)
    assert [stairs.at(step, steps) for step in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("every", "factor", "message"),
    [
        (0, 0.1, "every=0"),
        (0.0, 0.1, "every=0.0"),
        (1.5, 0.1, "a share of the run"),
        (5, 0.0, "factor=0"),
        (5, 2, "=2"),
    ],
)
def test_stairs_out_of_range(every: int | float, factor: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Staircase(every, factor)


class Net(nn.Sequential):
    """Two layers with names of the example's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.dense1 = nn.Linear(4, 3)
        self.linear = nn.Linear(3, 2)


def fitted(make_trainer: MakeTrainer, **options: object) -> tuple[StaircaseClassifier, Trainer]:
    torch.manual_seed(0)
    task = StaircaseClassifier(Net(), lr=0.5, weight_decay=0.1, **options)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(1)
    batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(5)]
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, *(DataLoader(part, batch_size=None) for part in (batches, batches[:1])))  # pyright: ignore
    return task, trainer


@pytest.mark.parametrize("every", [2, 0.4])
def test_a_run_goes_as_plain_sgd_by_hand(make_trainer: MakeTrainer, every: int | float) -> None:
    task, trainer = fitted(make_trainer, every=every)
    torch.manual_seed(0)
    by_hand = Net()
    torch.manual_seed(1)
    batches = [(torch.randn(8, 4), torch.randint(2, (8,))) for _ in range(5)]
    for step, (inputs, labels) in enumerate(batches):
        by_hand.zero_grad()
        loss = nn.functional.cross_entropy(by_hand(inputs), labels)
        (loss + 0.1 * by_hand.dense1.weight.square().sum() / 2).backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                assert parameter.grad is not None
                parameter -= 0.5 * 0.1 ** (step // 2) * parameter.grad
    assert trainer.global_step == 5
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(task.net.get_parameter(name), parameter)


def test_decay_of_no_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decayed='dens' is found in no name .* layers\.0\.weight"):
        StaircaseClassifier(MLP((4, 2)), decayed="dens")
    with pytest.raises(ValueError, match=r"is no regular expression"):
        StaircaseClassifier(Net(), decayed="(")
    assert StaircaseClassifier(MLP((4, 2)), weight_decay=0.0, decayed="dens").decayed == []


def test_the_average_forgets_its_start() -> None:
    with pytest.raises(ValueError, match="decay=1"):
        WarmAverage(1)
    layer = nn.Linear(1, 1)
    model = AveragedModel(layer, avg_fn=WarmAverage(0.5))
    values, expected = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0, 5.0, 3.0, 8.0], 0.0
    for n, value in enumerate(values):
        layer.weight.data.fill_(value)
        model.update_parameters(layer)
        averaged: Any = model.module
        kept = min(0.5, (1 + n) / (10 + n)) if n else 0.0
        expected = kept * expected + (1 - kept) * value
        assert float(averaged.weight.detach()) == pytest.approx(expected, abs=1e-5)
    assert (1 + len(values)) / (10 + len(values)) > 0.5, "the cap is reached"
