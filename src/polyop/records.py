"""Named tuples that are made faster than those of `typing`, for files that are always read.

`typing.NamedTuple` compiles each annotation that is text. Here annotations stay text: a fourth of
the time. To type checkers this is the class of `typing` itself.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any

#: What a named tuple has of its own, beside what its author writes.
_MADE = frozenset(("__module__", "__qualname__", "__annotations__"))


class _Maker(type):
    """Makes a named tuple of a class whose only base is `NamedTuple`."""

    def __new__(cls, name: str, _bases: tuple[type, ...], scope: dict[str, Any]) -> Any:
        fields = scope["__annotations__"]
        defaults = [scope[field] for field in fields if field in scope]
        made: Any = namedtuple(name, fields, defaults=defaults, module=scope["__module__"])  # type: ignore[misc]
        made.__qualname__ = scope["__qualname__"]
        made.__annotations__ = fields
        for key, value in scope.items():
            if key not in _MADE and key not in fields:
                setattr(made, key, value)
        return made


if TYPE_CHECKING:
    from typing import NamedTuple
else:
    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})

__all__ = ["NamedTuple"]
