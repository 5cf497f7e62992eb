"""Records whose class does more than put values into fields go through every transform whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.errors import UsageError
from polyop.func import functionalize, grad, jvp, vjp, vmap

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")


@dataclass
class Post:
    """Changes its own field."""

    w: Any

    def __post_init__(self) -> None:
        """Add one."""
        self.w = self.w + 1.0


@dataclass
class Late:
    """Has a field that the constructor does not take."""

    w: Any
    c: float = field(init=False, default=1.0)


@dataclass
class Init:
    """Makes a number of what is no field."""

    w: Any
    scale: InitVar[float] = 1.0

    def __post_init__(self, scale: float) -> None:
        """Keep it."""
        self.c = scale


class Own(Late):
    """Has a constructor of its own."""

    def __init__(self, w: Any, c: float) -> None:
        self.w, self.c = w, c


@dataclass(frozen=True)
class Frozen:
    """Cannot be written."""

    w: Any
    c: float = 7.0


@dataclass
class Slots:
    """Has no dict."""

    __slots__ = ("c", "w")
    w: Any
    c: float


@dataclass(kw_only=True)
class Named:
    """Takes its fields by name alone."""

    w: Any
    c: float = 7.0


@dataclass
class Derived:
    """Derives a number from the shape of its field."""

    w: Any
    c: float = field(init=False)

    def __post_init__(self) -> None:
        """Count the elements of the last axis."""
        self.c = 7.0 if self.w.shape[-1] == 1 else 0.0


@dataclass
class Remembers:
    """Keeps what it computed."""

    w: Any

    @cached_property
    def c(self) -> float:
        """Give a number."""
        return 7.0


def late(x: Any) -> Late:
    made = Late(x)
    made.c = 7.0
    return made


def remembers(x: Any) -> Remembers:
    made = Remembers(x)
    assert made.c == 7.0
    return made


#: The class, how one is made of `x`, and what the operator then gives of it.
FORMS: dict[str, tuple[type, Callable[[Any], Any], float, float]] = {
    "post": (Post, Post, 1.0, 1.0),
    "late": (Late, late, 7.0, 0.0),
    "init": (Init, lambda x: Init(x, 7.0), 7.0, 0.0),
    "own": (Late, lambda x: Own(x, 7.0), 7.0, 0.0),
    "frozen": (Frozen, Frozen, 7.0, 0.0),
    "slots": (Slots, lambda x: Slots(x, 7.0), 7.0, 0.0),
    "named": (Named, lambda x: Named(w=x), 7.0, 0.0),
    "derived": (Derived, Derived, 7.0, 0.0),
    "remembers": (Remembers, remembers, 7.0, 0.0),
}


def defined(name: str, cls: type) -> Any:
    def fn(p: Any) -> Any:
        return polyop.from_numpy(p.w.numpy() * getattr(p, "c", 1.0))

    for record in (cls, *cls.__subclasses__()):
        record.__annotations__ = {**record.__annotations__}
        if "w" in record.__annotations__:
            record.__annotations__["w"] = Tensor
    fn.__annotations__ = {"p": cls, "return": Tensor}
    op: Any = polyop.custom_op(f"made_again::{name}", fn, mutates_args=())
    op.register_fake(lambda p: polyop.empty_like(p.w))

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.c = getattr(inputs[0], "c", 1.0)

    op.register_autograd(lambda ctx, g: {"w": g * ctx.c}, setup_context=keep)
    return op


OPERATORS = {name: defined(name, form[0]) for name, form in FORMS.items()}


@pytest.mark.parametrize("name", FORMS)
def test_every_transform_keeps_the_record(name: str) -> None:
    """S134, S157: what a record has beside its fields, and what its class did, is there once."""
    _, make, factor, plus = FORMS[name]
    op = OPERATORS[name]
    x = polyop.from_numpy(np.array([2.0]))
    wanted = [(2.0 + plus) * factor]

    def f(x: Tensor) -> Any:
        return op(make(x))

    assert f(x).tolist() == wanted
    assert functionalize(f)(x).tolist() == wanted
    assert vmap(f)(polyop.stack([x, x])).tolist() == [wanted, wanted]
    assert vjp(f, x)[0].tolist() == wanted
    assert vjp(f, x)[1](x)[0].tolist() == [2.0 * factor]
    value, slope = jvp(f, (x,), (x,))
    assert (value.tolist(), slope.tolist()) == (wanted, [2.0 * factor])
    assert grad(lambda x: polyop.sum(f(x)))(x).tolist() == [factor]
    assert polyop.compile(f)(x).tolist() == wanted


@pytest.mark.parametrize("name", [n for n in FORMS if n != "derived"])
def test_jax_keeps_the_record(name: str) -> None:
    """S66: so it is under JAX's transforms."""
    _, make, factor, plus = FORMS[name]
    op, x = OPERATORS[name], jax.numpy.array([2.0])
    wanted = [(2.0 + plus) * factor]
    assert op(make(x)).tolist() == wanted
    assert jax.jit(lambda x: op(make(x)))(x).tolist() == wanted
    assert jax.grad(lambda x: op(make(x)).sum())(x).tolist() == [factor]


def test_what_a_program_knows_is_each_call_s_own() -> None:
    """S64: a record with another number beside its fields is another call for JAX's caches."""
    op, x = OPERATORS["late"], jax.numpy.array([2.0])

    def f(x: Any, c: float) -> Any:
        made = Late(x)
        made.c = c
        return op(made)

    assert [f(x, c).tolist() for c in (1.0, 3.0, 1.0)] == [[2.0], [6.0], [2.0]]


def test_arrays_beside_the_fields_are_refused() -> None:
    """S1: an array that no field holds, and the class would not make again, is refused by name."""

    def with_tensor(w: Tensor) -> Any:
        made: Any = late(w)
        made.c = polyop.ones(2)
        return made

    with pytest.raises(UsageError, match=r"(?s)Late\.c is an array beside the fields.*argument: c"):
        vjp(lambda w: OPERATORS["late"](with_tensor(w)), polyop.ones(2))


# -- records inside of other containers ---------------------------------------------


class Held(NamedTuple):
    """A tuple with a record."""

    r: Frozen


class Keyed(TypedDict):
    """A dict with a record."""

    r: Frozen


NESTED: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "dict": (dict[str, Frozen], lambda x: {"z": Frozen(x)}, lambda p: p["z"].w),
    "tuple": (tuple[int, Frozen], lambda x: (1, Frozen(x)), lambda p: p[1].w),
    "list": (list[Frozen], lambda x: [Frozen(x)], lambda p: p[0].w),
    "named": (Held, lambda x: Held(Frozen(x)), lambda p: p.r.w),
    "keyed": (Keyed, lambda x: {"r": Frozen(x)}, lambda p: p["r"].w),
}


@pytest.mark.parametrize("name", NESTED)
def test_records_in_containers_are_compiled(name: str) -> None:
    """S64: a compiled call finds the tensors of records in dicts and tuples."""
    annotation, make, get = NESTED[name]

    def fn(p: Any) -> Any:
        return get(p) * 2.0

    fn.__annotations__ = {"p": annotation, "return": Tensor}
    op: Any = polyop.custom_op(f"made_again::nested_{name}", fn, mutates_args=())
    op.register_fake(lambda p: polyop.empty_like(get(p)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert polyop.compile(lambda x: op(make(x * 1.0)))(polyop.ones(2)).tolist() == [2.0, 2.0]
        assert polyop.compile(lambda x: op(make(x)))(polyop.ones(2)).tolist() == [2.0, 2.0]
