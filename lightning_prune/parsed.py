"""What parsers of signatures, such as LightningCLI's, read of a constructor: ideas by class path.

Such a parser (jsonargparse) makes a dict of a default that is a frozen dataclass, without its class; and it takes a
class for an idea only if the types of its methods are word for word those of the Protocol, where Python allows narrower
ones. So it is shown another signature: each default idea as `{class_path: ...}`, and Protocols whose methods have the
same names and parameters without types. What Python calls, and what type checkers read, stays as it is written.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from functools import reduce
from operator import or_
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def parsed(kind: C) -> C:
    """Have parsers read a class's constructor so; return the class itself."""
    written: Any = kind
    written.__signature__ = inspect.signature(kind)  # what people read
    init: Any = written.__init__
    hints = typing.get_type_hints(init)
    shown = [
        parameter.replace(annotation=_type(hints.get(name, parameter.annotation)), default=_default(parameter, hints))
        for name, parameter in inspect.signature(init).parameters.items()
    ]
    init.__signature__ = inspect.Signature(shown)
    return kind


def _default(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    """Return a default, one that is an idea by its class path: its type is a Protocol, and does not say its class."""
    idea = parameter.default
    if not dataclasses.is_dataclass(idea) or isinstance(idea, type) or hints.get(parameter.name) is type(idea):
        return idea
    values = {field.name: getattr(idea, field.name) for field in dataclasses.fields(idea) if field.init}
    return {"class_path": f"{type(idea).__module__}.{type(idea).__qualname__}", "init_args": values}


def _type(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return reduce(or_, (_type(each) for each in typing.get_args(hint)))
    return _untyped(hint) if getattr(hint, "_is_protocol", False) else hint


def _untyped(protocol: Any) -> Any:
    """Return a Protocol with the same methods without types. Properties are left out: such a parser skips them."""
    methods = {
        name: types.FunctionType(method.__code__, method.__globals__, name, method.__defaults__)
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if name == "__call__" or not name.startswith("_")
    }
    for method in methods.values():
        method.__annotations__ = {"return": Any}  # without one, what can be called is taken for a factory
    named = {"__module__": protocol.__module__, "__qualname__": protocol.__qualname__, "__doc__": protocol.__doc__}
    bases: Any = (typing.Protocol,)
    return types.new_class(protocol.__name__, bases, exec_body=lambda body: body.update(methods | named))
