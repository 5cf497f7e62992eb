"""`Dim`: which sizes of the inputs may change, and within which bounds.

A named dimension is a promise: the program holds for every size in its range,
and an export whose code narrows the range is refused. `Dim.AUTO` promises
nothing: what the code asked of such a size becomes a constraint of the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from polyop import tree
from polyop.errors import UsageError, UsageTypeError, nearest
from polyop.export.wrappers import Wrapped, dims_inside
from polyop.tensor.tensor import Tensor


class Kind(Enum):
    """How a size without a name behaves."""

    AUTO = "AUTO"
    DYNAMIC = "DYNAMIC"
    STATIC = "STATIC"


@dataclass(frozen=True)
class Dim:
    """A named size of the inputs; the same name is the same size everywhere.

    Args:
        name: an identifier.
        min: the least size. Sizes 0 and 1 broadcast differently, so they are left out
            unless this says otherwise.
        max: the greatest size; None for no bound.

    Raises:
        UsageError: the name is no identifier, or the range holds no size.

    Example:
        >>> Dim("batch", max=64)
        Dim('batch', min=2, max=64)
    """

    name: str
    min: int = 2
    max: int | None = None

    AUTO: ClassVar = Kind.AUTO
    DYNAMIC: ClassVar = Kind.DYNAMIC
    STATIC: ClassVar = Kind.STATIC

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise UsageError("a dimension has an identifier for a name", seen=repr(self.name))
        for end in (self.min, self.max):
            if end is not None and type(end) is not int:
                raise UsageTypeError("the ends of a range are ints", seen=repr(end))
        if self.min < 0 or (self.max is not None and self.max < self.min):
            raise UsageError(f"the range of {self.name} holds no size", seen=repr(self))

    def __repr__(self) -> str:
        return f"Dim({self.name!r}, min={self.min}, max={self.max})"


class Leaf(NamedTuple):
    """One leaf of the arguments: how a reader writes it, its value, its dimensions by axis.

    A plain number has its dimension under the key None.
    """

    path: str
    value: Any
    dims: Mapping[int | None, Any]


def spread(
    names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any], shapes: Any
) -> list[Leaf]:
    """Give each leaf of the arguments with its dimensions, in the order of `tree.flatten`.

    Args:
        names: the parameters that take the positional arguments.
        args: the positional arguments.
        kwargs: the others.
        shapes: what `export` takes as `dynamic_shapes`.

    Raises:
        UsageError: it does not match the arguments.
    """
    order = [*names, *sorted(kwargs)]
    values = [*args, *(kwargs[name] for name in sorted(kwargs))]
    by_name = _by_argument(order, shapes)
    return [
        leaf
        for name, value in zip(order, values, strict=True)
        for leaf in _leaves(name, value, by_name.get(name))
    ]


def _by_argument(order: Sequence[str], shapes: Any) -> Mapping[str, Any]:
    if shapes is None:
        return {}
    if isinstance(shapes, (tuple, list)):
        if len(shapes) != len(order):
            raise UsageError(
                "dynamic_shapes has another length than the arguments",
                declared=f"{len(order)} arguments: {', '.join(order)}",
                seen=len(shapes),
            )
        return dict(zip(order, shapes, strict=True))
    if not isinstance(shapes, Mapping):
        raise UsageTypeError("dynamic_shapes is a dict or a tuple", seen=type(shapes).__name__)
    for name in shapes:
        if name not in order:
            raise UsageError(
                f"dynamic_shapes names an argument that is not there: {name!r}"
                f"{nearest(name, order)}",
                declared=", ".join(order),
            )
    return shapes


def _leaves(path: str, value: Any, shapes: Any) -> Iterator[Leaf]:
    if value is None:
        return
    if isinstance(value, Wrapped):
        shapes = dims_inside(path, value, shapes)
    names, parts = tree.children(value)
    if parts is None:
        yield Leaf(path, value, _of_leaf(path, value, shapes))
        return
    for name, part in zip(names, parts, strict=True):
        is_field = hasattr(value, "_fields") or not isinstance(value, (Mapping, list, tuple))
        inner = f"{path}.{name}" if is_field else f"{path}[{name!r}]"
        yield from _leaves(inner, part, _of_part(path, names, name, shapes))


def _of_part(path: str, names: Sequence[Any], name: Any, shapes: Any) -> Any:
    if shapes is None:
        return None
    if isinstance(shapes, Mapping) and set(shapes) <= set(names):
        return shapes.get(name)
    if isinstance(shapes, (tuple, list)) and len(shapes) == len(names):
        return shapes[list(names).index(name)]
    raise UsageError(
        f"dynamic_shapes does not match {path}",
        declared=f"parts {', '.join(map(str, names))}",
        seen=repr(shapes),
    )


def _of_leaf(path: str, value: Any, shapes: Any) -> Mapping[int | None, Any]:
    if shapes is None:
        return {}
    if type(value) is int:
        return _checked(path, {None: shapes})
    if not isinstance(value, Tensor):
        raise UsageError(
            f"{path} is no tensor and no int, so it has no dimensions", seen=type(value).__name__
        )
    if isinstance(shapes, Mapping):
        return _checked(path, {_axis(path, value, axis): dim for axis, dim in shapes.items()})
    if isinstance(shapes, (tuple, list)) and len(shapes) == value.ndim:
        return _checked(path, dict(enumerate(shapes)))
    raise UsageError(
        f"dynamic_shapes does not match {path}",
        declared="a dict from axes, or one entry for each axis",
        seen=f"{shapes!r}, for {value.ndim} axes",
    )


def _axis(path: str, value: Tensor, axis: Any) -> int:
    if type(axis) is not int or not -value.ndim <= axis < value.ndim:
        raise UsageError(f"{path} has no axis {axis!r}", declared=f"{value.ndim} axes")
    return axis % value.ndim


def _checked(path: str, dims: dict[Any, Any]) -> Mapping[int | None, Any]:
    for axis, dim in dims.items():
        fixed = dim is None or dim is Kind.STATIC or type(dim) is int
        if not fixed and not isinstance(dim, (Dim, Kind)):
            raise UsageTypeError(
                f"axis {axis} of {path} has something that is no dimension",
                declared='Dim("name"), Dim.AUTO, Dim.DYNAMIC, or None',
                seen=repr(dim),
                fix=f"write Dim({dim!r})" if isinstance(dim, str) else "",
            )
    return {
        axis: dim
        for axis, dim in dims.items()
        if isinstance(dim, Dim) or dim in (Kind.AUTO, Kind.DYNAMIC)
    }
