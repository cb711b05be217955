"""A damaged recipe, or damaged weights beside it, are refused by field and leave the plain model as it was."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lightning_prune.shrink import load_shrunk, save_shrunk, shrink
from lightning_prune.shrink.stored import rebuild

Recipe = dict[str, Any]


class Plain(nn.Module):
    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.last = nn.Conv2d(6, 2, 1)
        self.flag = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)).relu())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a model three of whose six channels were dead."""
    torch.manual_seed(0)
    model = Plain()
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.bias, model.norm.weight, model.norm.bias):
            assert isinstance(tensor, torch.Tensor)
            tensor[:3] = 0.0
    save_shrunk(shrink(model.eval(), torch.randn(1, 1, 8, 8)), tmp_path)
    return tmp_path


def unchanged(model: Plain, act: Callable[[], Any], said: str) -> None:
    """Check that an act is refused and that the model is what it was."""
    before = copy.deepcopy(model.state_dict())
    sizes = (model.first.out_channels, model.norm.num_features, model.last.in_channels)  # pyright: ignore
    with pytest.raises(ValueError, match=said):
        act()
    assert {name: t.shape for name, t in model.state_dict().items()} == {n: t.shape for n, t in before.items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert sizes == (model.first.out_channels, model.norm.num_features, model.last.in_channels)  # pyright: ignore
    assert model.flag is True


def put(*path: Any) -> Callable[[Recipe], Any]:
    *keys, last, value = path

    def change(recipe: Recipe) -> None:
        for key in keys:
            recipe = recipe[key]
        recipe[last] = value

    return change


DAMAGE: dict[str, tuple[Callable[[Recipe], Any], str]] = {
    "newer": (put("version", 99), "version 99"),
    "no version": (lambda r: r.pop("version"), "version None"),
    "version true": (put("version", True), "version True"),
    "no tensors": (lambda r: r.pop("tensors"), "no 'tensors'"),
    "no attributes": (lambda r: r.pop("attributes"), "no 'attributes'"),
    "tensors a list": (put("tensors", []), "tensors is a list"),
    "a shape is text": (put("tensors", "first.weight", "3133"), r"tensors\['first.weight'\] is '3133'"),
    "a size is a float": (put("tensors", "first.weight", [3.0, 1, 3, 3]), r"a size is 3\.0"),
    "a size is negative": (put("tensors", "first.weight", [-3, 1, 3, 3]), "a size is -3"),
    "a size is huge": (put("tensors", "first.weight", [10**30, 1, 3, 3]), "beyond all counts"),
    "a larger size": (put("tensors", "first.weight", [7, 1, 3, 3]), "does not shrink"),
    "more dimensions": (put("tensors", "first.weight", [3, 1, 3, 3, 1]), "does not shrink"),
    "attributes a list": (put("attributes", [1]), "attributes is a list"),
    "of no module": (put("attributes", "gone", {"x": 1}), r"attributes\['gone'\] is of a module"),
    "of no attribute": (put("attributes", "first", "gone", 1), "sets 'gone'"),
    "a method": (put("attributes", "first", "forward", 1), "sets 'forward'"),
    "a class": (put("attributes", "first", "__class__", 1), "sets '__class__'"),
    "a flag": (put("attributes", "", {"flag": 1}), "sets 'flag'"),
    "a module": (put("attributes", "", {"norm": 1}), "sets 'norm'"),
    "a value of text": (put("attributes", "first", "out_channels", "3"), r"\['out_channels'\] is '3'"),
    "a value too large": (put("attributes", "first", "out_channels", 7), r"\['out_channels'\] is 7"),
    "a value of zero": (put("attributes", "first", "out_channels", 0), r"\['out_channels'\] is 0"),
    "an attribute a list": (put("attributes", "last", [1]), r"attributes\['last'\] is a list"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_G35_a_damaged_recipe_is_refused_by_field(case: str, folder: Path) -> None:
    change, said = DAMAGE[case]
    recipe = json.loads((folder / "shrunk.json").read_text(encoding="utf-8"))
    change(recipe)
    model = Plain()
    unchanged(model, lambda: rebuild(model, recipe), said)
    (folder / "shrunk.json").write_text(json.dumps(recipe), encoding="utf-8")
    unchanged(model, lambda: load_shrunk(model, folder), said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("shrunk.json", b"{", r"shrunk\.json is no JSON, or damaged"),
        ("shrunk.json", b"\xff\xfe\x00", r"shrunk\.json is no JSON, or damaged"),
        ("shrunk.json", b"[1]", r"shrunk\.json is a list; it must be a mapping"),
        ("shrunk.json", b"[" * 100_000, r"shrunk\.json is no JSON, or damaged"),
        ("model.safetensors", b"no such thing", r"model\.safetensors is no safetensors file, or damaged"),
        ("model.safetensors", b"", r"model\.safetensors is no safetensors file, or damaged"),
    ],
)
def test_G35_a_damaged_file_is_named(name: str, content: bytes, said: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    model = Plain()
    unchanged(model, lambda: load_shrunk(model, folder), said)


def test_G35_weights_that_are_not_the_recipes_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    sound = load_file(file)
    model = Plain()
    for name, value, said in (
        ("first.weight", torch.ones(1, 1, 3, 3), r"'first\.weight' has shape \(1, 1, 3, 3\)"),  # it would broadcast
        ("norm.num_batches_tracked", torch.tensor(1.5), r"'norm\.num_batches_tracked' has values of torch\.float32"),
        ("more", torch.ones(1), "holds other tensors than its recipe"),
    ):
        save_file({**sound, name: value}, file)
        unchanged(model, lambda said=said: load_shrunk(model, folder), said)
    del sound["last.bias"]
    save_file(sound, file)
    unchanged(model, lambda: load_shrunk(model, folder), r"no \['last\.bias'\]")


def test_G35_a_checkpoints_weights_are_looked_at_too(folder: Path) -> None:
    recipe = json.loads((folder / "shrunk.json").read_text(encoding="utf-8"))
    weights: dict[str, Any] = load_file(folder / "model.safetensors")
    file = folder / "run.ckpt"
    model = Plain()
    for change, said in (
        ({"first.weight": torch.ones(1, 1, 3, 3)}, "'first.weight' has shape"),
        ({"first.weight": 3}, "'first.weight' has a int"),
        ({"new": torch.ones(1)}, "holds other tensors"),
    ):
        torch.save({"callbacks": {"PruningCallback": {"shrunk": recipe}}, "state_dict": {**weights, **change}}, file)
        unchanged(model, lambda said=said: load_shrunk(model, file), said)
    torch.save({"callbacks": {"PruningCallback": {"shrunk": recipe}}}, file)
    unchanged(model, lambda: load_shrunk(model, file), "no 'state_dict'")
    file.write_bytes(file.read_bytes()[:300])
    unchanged(model, lambda: load_shrunk(model, file), "is no checkpoint of tensors and plain values, or damaged")
    torch.save({"callbacks": {"PruningCallback": {"shrunk": recipe}}, "state_dict": weights}, file)
    assert load_shrunk(model, file) is model
    assert model.first.weight.shape == (3, 1, 3, 3)
