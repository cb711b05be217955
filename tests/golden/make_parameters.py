"""Make parameters.json: what the default rule takes of architectures of timm, torchvision and transformers.

Made once, in an environment that has the three (`python -m tests.golden.make_parameters` at the project's root); the
test needs none of them. It makes the table anew for the architectures that are in it: give another one an empty list,
and look at what has changed before you keep it. Parameters that differ in the numbers of their names alone are one row,
with the first of them and how many there are.
"""

from __future__ import annotations

import importlib
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.targets import Targets, plain_name

TABLE = Path(__file__).with_name("parameters.json")


def kind_of(module: nn.Module, reason: str) -> str:
    """Return a module's type: its name, and behind `<` torch's own that it is a kind of, and what its forward does."""
    base = next((c for c in type(module).__mro__ if c.__module__.startswith("torch.nn.modules.")), nn.Module)
    name = type(module).__name__
    if base is type(module):
        return name
    own = next(c for c in type(module).__mro__ if "forward" in vars(c))
    forward = "" if own.__module__.startswith("torch.nn.") or base is nn.Module else "~plain"
    return f"{name}<{base.__name__}{'~standardises' if 'zeros do not stay' in reason else forward}"


def rows_of(model: nn.Module) -> list[list[Any]]:
    """Return (names, shape, kinds, taken or the reason, how many alike) of the parameters of a model."""
    found = Targets().find(model)
    uses: dict[int, list[tuple[str, nn.Module]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                uses.setdefault(id(parameter), []).append((plain_name(f"{path}.{attribute}").lstrip("."), module))
    rows: dict[Any, list[Any]] = {}
    for name, parameter in model.named_parameters():
        verdict = found.skipped.get(name, "taken").partition(" (tied")[0]
        names = [n for n, _ in uses[id(parameter)]]
        kinds = [kind_of(module, verdict) for _, module in uses[id(parameter)]]
        shape = list(parameter.shape)
        alike = re.sub(r"\d+", "#", repr((names, kinds, [s > 1 for s in shape], verdict)))
        row = rows.setdefault(alike, [" ".join(names), shape, " ".join(kinds), verdict, 0])
        row[-1] += 1
    return list(rows.values())


def made(architecture: str) -> nn.Module:
    """Return a model with the library's own default configuration, on no device where it lets itself be made there."""
    library, name = architecture.split(" ")
    package = importlib.import_module(library)
    if library == "transformers":
        config = package.AutoConfig.for_model(name)
        make = partial(package.AutoModel.from_config, config)
    elif library == "torchvision":
        given: dict[str, Any] = {"weights": None}
        given |= {"weights_backbone": None} if "rcnn" in name else {}
        given |= {"init_weights": False} if name == "googlenet" else {}
        make = partial(package.models.get_model, name, **given)
    else:
        make = partial(package.create_model, name)
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, NotImplementedError):  # it looks at values while it is made
        return make()


def main() -> None:
    """Write the table."""
    table = {
        architecture: rows_of(made(architecture)) for architecture in json.loads(TABLE.read_text(encoding="utf-8"))
    }
    lines = (
        f"{json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]"
        for name, rows in table.items()
    )
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
