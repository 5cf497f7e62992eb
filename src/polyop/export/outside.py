"""The opaque objects that a function reads from outside, and the places where it finds them.

While a function is exported, each place holds the fake of its object: code like
`self.queue.push(x)` would otherwise change the object, and the program would
not do it. One export at a time does that; what runs besides must leave these
objects alone meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from polyop import tree
from polyop.forks import process_lock
from polyop.objects.fakes import FakeObject, stays_real
from polyop.schema.opaque import is_reference
from polyop.tensor.tensor import Tensor

#: How many objects deep they are looked for, and among how many.
DEEPEST = 4
MOST = 20_000
LOCK = process_lock()
_LEAVES = (ModuleType, type, Tensor, str, bytes, int, float, complex, type(None))


class Place(NamedTuple):
    """A name in a scope, an item of a list, or a cell, that holds an object."""

    owner: Any
    key: Any

    def get(self) -> Any:
        """Give what is there now."""
        return self.owner.cell_contents if self.key is None else self.owner[self.key]

    def put(self, value: Any) -> None:
        """Put something there."""
        if self.key is None:
            self.owner.cell_contents = value
        else:
            self.owner[self.key] = value


class Outside(NamedTuple):
    """The places of a function."""

    places: tuple[Place, ...]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other exports, which put their fakes there, away for a while."""
        with LOCK if self.places else nullcontext():
            yield

    @contextmanager
    def replaced(self, fake_of: Callable[[Any], Any]) -> Iterator[None]:
        """Let each place hold the fake of its object for a while."""
        if not self.places:
            yield
            return
        with LOCK:
            real = [place.get() for place in self.places]
            fakes = [fake_of(value) for value in real]
            try:
                for place, fake in zip(self.places, fakes, strict=True):
                    place.put(fake)
                yield
            finally:
                for place, fake, value in zip(self.places, fakes, real, strict=True):
                    if _holds(place, fake):  # else the function put something else there
                        place.put(value)


def _holds(place: Place, value: Any) -> bool:
    try:
        return place.get() is value
    except (ValueError, LookupError):
        return False


def outside_objects(f: Callable[..., Any]) -> Outside:
    """Find the places where a function reads opaque objects."""
    with LOCK:  # else another export's fakes may stand there
        seen: set[int] = set()
        return Outside(tuple(_places(f, 0, seen)))


def _places(value: Any, depth: int, seen: set[int]) -> Iterator[Place]:
    if depth > DEEPEST or len(seen) > MOST or id(value) in seen or _is_closed(value):
        return
    seen.add(id(value))
    for place in _parts(value):
        try:
            part = place.get()
        except ValueError:  # a cell that is still empty
            continue
        if type(part) is not FakeObject and is_reference(part):
            if not stays_real(part):
                yield place
        else:
            yield from _places(part, depth + 1, seen)


def _is_closed(value: Any) -> bool:
    """Tell whether a value is none that a user keeps objects in."""
    owner = value if isinstance(value, FunctionType) else type(value)
    return isinstance(value, _LEAVES) or f"{owner.__module__}.".startswith(("polyop.", "numpy."))


def _parts(value: Any) -> Iterator[Place]:
    if isinstance(value, partial):
        cells = [CellType(value.func), CellType(value.args), CellType(value.keywords)]
        yield from (Place(cell, None) for cell in cells)
    elif isinstance(value, MethodType):
        yield from (Place(CellType(part), None) for part in (value.__self__, value.__func__))
    elif isinstance(value, FunctionType):
        yield from (Place(cell, None) for cell in value.__closure__ or ())
        scope = value.__globals__
        yield from (Place(scope, name) for name in _names(value.__code__) if name in scope)
    elif isinstance(value, (list, dict)):
        keys = range(len(value)) if isinstance(value, list) else list(value)
        yield from (Place(value, key) for key in keys if key is not None)
    elif isinstance(value, tuple):
        yield from (Place(CellType(part), None) for part in value)
    else:
        own = getattr(value, "__dict__", None)
        if type(own) is dict:
            yield from (Place(own, name) for name in list(own))
        call = type(value).__call__ if callable(value) else None
        if isinstance(call, FunctionType):
            yield Place(CellType(call), None)


def rebound(f: Callable[..., Any], fake_of: Callable[[Any], Any]) -> Callable[..., Any]:
    """Give a function with the fakes of the objects that it is bound to."""
    if isinstance(f, partial):
        args, kwargs = tree.map_leaves(fake_of, (f.args, f.keywords))
        return partial(rebound(f.func, fake_of), *args, **kwargs)
    if isinstance(f, MethodType) and is_reference(f.__self__):
        return MethodType(f.__func__, fake_of(f.__self__))
    return f


def _names(code: CodeType) -> Iterator[str]:
    """Give the names of a scope that a function, or one written in it, reads."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
