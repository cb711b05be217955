"""A shrunk model of `transformers`: its config says the new sizes where it can; files that load again where it cannot.

`from_pretrained` builds a model by its config, and a config has one number for all layers. Where the layers of a shrunk
model differ, or its family has no number for what was taken out (transformers 5 has no `pruned_heads` any more), the
folder holds the shapes beside the weights, as `save_shrunk` writes them, and `load_pretrained` reads it.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.coupling.units import tensors_of
from lightning_prune.shrink.stored import RECIPE, load_shrunk, shapes_recipe, write
from lightning_prune.targets import plain_name

Sizes = dict[str, tuple[int, ...]]
_WIDTH_OF_HEAD = "head_dim"


def pretrained_in(model: nn.Module) -> dict[str, Any]:
    """Return the models of `transformers` in a model by path, without those that are part of another one."""
    kind: Any = getattr(sys.modules.get("transformers.modeling_utils"), "PreTrainedModel", ())  # else there is none
    found: dict[str, Any] = {}
    for path, module in model.named_modules() if kind else ():
        if isinstance(module, kind) and not any(f"{path}.".startswith(f"{above}." if above else "") for above in found):
            found[path] = module
    return found


def say_sizes(model: nn.Module) -> list[str]:
    """Have configs of shrunk models of `transformers` in a model say their sizes; return a line for each that cannot.

    A config is changed in place, and only where a model that is built by it has all shapes of the one at hand.
    """
    notes: list[str] = []
    for path, module in pretrained_in(model).items():
        config = config_for(module)
        if config is None:
            name = path or "model"
            notes.append(
                f"the config of {type(module).__name__} cannot say its new sizes, so that from_pretrained would not "
                f"load what its own save_pretrained writes: lightning_prune.shrink.save_pretrained({name}, folder) and "
                "load_pretrained(folder) keep them beside the weights"
            )
        elif config is not module.config:
            vars(module.config).update(vars(config))
    return notes


def save_pretrained(model: Any, folder: str | Path) -> bool:
    """Write a model of `transformers`, shrunk or not, so that `load_pretrained` reads it.

    Args:
        model: a `PreTrainedModel`. Where its config can say its sizes, it does so from here on.
        folder: made if it is not there.

    Returns:
        Whether plain `from_pretrained` reads it too.

    Raises:
        ValueError: it is no model of transformers.
    """
    if list(pretrained_in(model)) != [""]:
        raise ValueError(
            f"{type(model).__name__} is no model of transformers: give the one that is in it, such as module.model, or "
            "use save_shrunk"
        )
    folder = Path(folder)
    if not say_sizes(model):
        model.save_pretrained(folder)
        (folder / RECIPE).unlink(missing_ok=True)  # of another model that was saved here
        return True
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], model.dtype
    plain = _built(model, model.config)
    assert plain is not None, "it was built to find that its config cannot say the sizes"
    attributes = {path: {key: now for key, (_, now) in own.items()} for path, own in _attributes(model, plain).items()}
    write(model, shapes_recipe(model, attributes), folder)
    config.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    return False


def load_pretrained(folder: str | Path, kind: Any = None) -> Any:
    """Return the model that `save_pretrained` wrote, in evaluation mode.

    Args:
        folder: what it wrote, or any folder that `from_pretrained` reads.
        kind: the model's class; None for the class of transformers that the folder's config names.

    Raises:
        FileNotFoundError: there is no config, or no weights.
        ValueError: the class is not known, or the files are of another model or damaged.
    """
    import transformers

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder / 'config.json'} is missing: save_pretrained(model, folder) writes it")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = kind or _kind(config, folder)
    if not (folder / RECIPE).is_file():
        return kind.from_pretrained(folder, local_files_only=True)
    model = kind(config).to(config.dtype)
    load_shrunk(model, folder)
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.eval()


def _kind(config: Any, folder: Path) -> Any:
    import transformers

    names = getattr(config, "architectures", None) or [None]
    found = getattr(transformers, str(names[0]), None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ValueError(f"{folder / 'config.json'} names no class of transformers ({names[0]}): give kind=...")
    return found


def config_for(model: Any) -> Any:
    """Return a config by which a model of these sizes is built: the model's own if it does, None if there is none.

    Numbers of the config that equal a size which has changed are tried one after the other, as long as more shapes are
    right then; the last word has a model built by it, whose shapes and numbers must all be those of the one at hand.
    """
    sizes, config = _sizes(model), model.config
    plain = _built(model, config)
    if plain is None:
        return None
    before = _sizes(plain)
    if before == sizes:
        return config
    if before.keys() != sizes.keys():
        return None
    changed = {(old, new) for name in sizes for old, new in _pairs(before[name], sizes[name])}
    changed |= {(old, new) for own in _attributes(model, plain).values() for old, new in own.values()}
    changed |= {(a // w, b // w) for w in _widths(plain) for a, b in changed if a % w == b % w == 0}  # as heads
    config, wrong = _with_width_of_head(model, config, plain), _wrong(before, sizes) + 1
    while wrong:
        tried = [(_off(model, plain, each), n, each) for n, each in enumerate(_candidates(config, changed))]
        best = min(tried, default=(wrong, 0, None), key=lambda t: t[:2])
        if best[0] >= wrong:
            return None
        wrong, _, config = best
    return config


def _built(model: Any, config: Any) -> nn.Module | None:
    """Return a model without values that a config makes, None where it makes none."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return type(model)(copy.deepcopy(config))
    except Exception:  # the family's own checks of numbers that are tried
        return None


def _sizes(model: nn.Module) -> Sizes:
    return {plain_name(name): tuple(tensor.shape) for name, tensor in tensors_of(model).items()}


def _pairs(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return ((a, b) for a, b in zip(old, new, strict=True) if a != b) if len(old) == len(new) else iter(())


def _wrong(found: Sizes, wanted: Sizes) -> int:
    return sum(found.get(name) != size for name, size in wanted.items())


def _off(model: Any, plain: nn.Module, config: Any) -> int:
    """Return how many shapes are others in a model that a config makes; one more where numbers are. 0 is a fit."""
    built, sizes = _built(model, config), _sizes(model)
    if built is None:
        return len(sizes) + 2
    wrong = _wrong(_sizes(built), sizes)
    return wrong + 1 if wrong or not _alike(model, plain, built) else 0


def _candidates(config: Any, changed: set[tuple[int, int]]) -> Iterator[Any]:
    """Return configs with one number changed as sizes have: those that had the old size, and those without a value."""
    for key, value in sorted(config.to_dict().items()):
        if key == _WIDTH_OF_HEAD:  # whole heads go
            continue
        if value is None and re.search("inner|intermediate|ffn|dim", key):
            options: set[Any] = {new for _, new in changed}
        elif isinstance(value, list):
            options = {
                (*value[:i], new, *value[i + 1 :]) for i, v in enumerate(value) for old, new in changed if v == old
            }
        else:
            options = {new for old, new in changed if type(value) is int and value == old}
        for option in sorted(options):
            tried = copy.deepcopy(config)
            setattr(tried, key, list(option) if isinstance(option, tuple) else option)
            yield tried


def _widths(plain: nn.Module) -> set[int]:
    """Return how wide the heads are, where modules say it."""
    return {width for module in plain.modules() if type(width := vars(module).get(_WIDTH_OF_HEAD)) is int and width}


def _with_width_of_head(model: Any, config: Any, plain: nn.Module) -> Any:
    """Return the config with the width of a head, which is else a share of the hidden size, where it is read."""
    widths = _widths(plain)
    tried = copy.deepcopy(config)
    if len(widths) == 1 and getattr(config, _WIDTH_OF_HEAD, None) is None:
        setattr(tried, _WIDTH_OF_HEAD, widths.pop())
    built = _built(model, tried)
    return tried if built is not None and _sizes(built) == _sizes(plain) else config


def _attributes(model: nn.Module, plain: nn.Module) -> dict[str, dict[str, tuple[int, int]]]:
    """Return the whole numbers that modules of a shrunk model have changed: path -> attribute -> before and now."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    now = dict(model.named_modules())
    for path, module in plain.named_modules():
        here = vars(now[path]) if path in now else {}
        for key, old in vars(module).items():
            if type(old) is int and type(here.get(key)) is int and here[key] != old:
                found.setdefault(path, {})[key] = (old, here[key])
    return found


def _alike(model: nn.Module, plain: nn.Module, built: nn.Module) -> bool:
    """Whether a model that was built anew computes with the numbers of the one at hand.

    A number that shrinking left as it was may be a size that nobody reads (of the layers in it, for one).
    """
    now, before = dict(model.named_modules()), dict(plain.named_modules())
    own, old = _sizes(model), _sizes(plain)
    for path, module in built.named_modules():
        pairs = {p for name in own if name.startswith(f"{path}." if path else "") for p in _pairs(old[name], own[name])}
        for key, value in vars(module).items():
            here, there = vars(now[path]).get(key), vars(before[path]).get(key)
            if type(value) not in (int, float) or value == here:
                continue
            if type(value) is float or here != there or (there, value) not in pairs:
                return False
    return True
