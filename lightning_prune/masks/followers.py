"""Weights that follow others: a teacher or an average in the model, which gets its student's masks."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from torch import nn

from lightning_prune.masks.places import Places
from lightning_prune.targets import Target, Targets, plain_name


def followers(rules: Targets, model: nn.Module, targets: Iterable[Target]) -> dict[str, str]:
    """Return for the names of weights that follow another one the name of that one.

    Raises:
        ValueError: there is no such weight, or it is of another shape; the message names both.
    """
    follow: Mapping[str, str] = getattr(rules, "follow", {})
    shapes = {name: tuple(t.parameter.shape) for t in targets for name in t.names}
    wanted = {
        f"{follower}{name[len(leader) :]}": name
        for follower, leader in follow.items()
        for name in shapes
        if name == leader or name.startswith(f"{leader}.")
    }
    wanted = {name: of for name, of in wanted.items() if not any(re.search(e, name) for e in rules.exclude)}
    for name, place in Places(model, wanted).found.items():
        of = wanted[name]
        if not place.fits(shapes[of]):
            raise ValueError(
                f"'{name}' is to follow '{of}' of shape {shapes[of]}, and there is {place}: follow={dict(follow)} "
                "needs prefixes behind which names and shapes are the same"
            )
        if name in shapes:
            raise ValueError(
                f"'{name}' is to follow '{of}' and is pruned itself: the two are tied or follow each other"
            )
    return wanted


def suggestion(model: nn.Module, pruned: Container[str], waiting: Container[str], rules: Targets) -> list[str]:
    """Return a line for the plan where a module that does not train is built like one that is pruned, or none.

    Layers of one list, which differ by a number alone, are not taken for each other's copies.
    """
    built: dict[tuple[tuple[str, tuple[int, ...]], ...], str] = {}
    resting: list[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]] = []
    for path, module in model.named_modules():
        path, own = plain_name(f"{path}.").rstrip("."), list(module.named_parameters())
        if not path or not any(p.dim() > 1 for _, p in own):
            continue
        names = [f"{path}.{plain_name(name)}" for name, _ in own]
        shapes = tuple((plain_name(name), tuple(p.shape)) for name, p in own)
        if all(name in waiting for name in names):
            resting.append((path, shapes))
        elif any(name in pruned for name in names):
            built.setdefault(shapes, path)
    said = list(getattr(rules, "follow", {}))
    lines: list[str] = []
    for path, shapes in resting:
        leader = built.get(shapes)
        known = any(path == other or path.startswith(f"{other}.") for other in said)
        if leader is None or known or re.sub(r"\d+", "", path) == re.sub(r"\d+", "", leader):
            continue
        said.append(path)
        lines.append(
            f"{path} is built like {leader} and does not train: Targets(follow={{{path!r}: {leader!r}}}) gives it the "
            "same masks"
        )
    return lines
