"""Results that carry the alias set of several arguments, or a set that changes in the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.dispatch.library import Library
from polyop.dispatch.rules import register_fake
from polyop.errors import AliasError, MutationError, PolyopError, ReturnError
from polyop.func import functionalize, grad, jvp
from polyop.graph import make_fx
from polyop.layers.schema_check import SchemaCheckMode

pytestmark = pytest.mark.filterwarnings("ignore:.*has no vmap rule")
X = polyop.tensor([5.0, 6.0])

#: A schema, what its kernel gives of the arguments, and how it is called on `x` and `y`.
VIEWS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "(Tensor(a) x, Tensor(a) y) -> Tensor(a)": (lambda x, y: y[:1], lambda f, x, y: f(x, y)),
    "(Tensor(a) x, Tensor(b) y) -> Tensor(a|b)": (lambda x, y: y[:1], lambda f, x, y: f(x, y)),
    "(Tensor(a|b) x, Tensor(b) y) -> Tensor(b)": (lambda x, y: y[:1], lambda f, x, y: f(x, y)),
    "(Tensor(a)? x, Tensor(a)? y) -> Tensor(a)": (lambda x, y: y[:1], lambda f, x, y: f(None, y)),
    "(Tensor(*) x, Tensor y) -> Tensor(*)": (lambda x, y: y[:1], lambda f, x, y: f(x, y)),
    "(Tensor(a -> b) y) -> Tensor(b)": (lambda y: y[:1], lambda f, x, y: f(y)),
    "(Tensor(a -> *) y) -> Tensor(*)": (lambda y: y[:1], lambda f, x, y: f(y)),
    "(Tensor(a -> *) y) -> Tensor(*)[]": (lambda y: [y[:1]], lambda f, x, y: f(y)[0]),
}
GIVEN_BACK: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "(Tensor(a!) x, Tensor(a!) y) -> Tensor(a!)": (
        lambda x, y: y.add_(1),
        lambda f, x, y: f(x, y),
    ),
    "(Tensor(a!)[] y) -> Tensor(a!)[]": (
        lambda y: [t.add_(1) for t in y],
        lambda f, x, y: f([y])[0],
    ),
}


@pytest.fixture
def lib() -> Iterator[Library]:
    lib = Library("alias_sets", "FRAGMENT")
    yield lib
    lib.destroy()


def make(lib: Library, schema: str, fn: Callable[..., Any]) -> Any:
    """Define an operator whose kernel is its fake rule too."""
    lib.define(f"f{schema}")
    lib.impl("f", fn, "CompositeExplicitAutograd")
    op = polyop.ops.alias_sets.f.default
    register_fake(op, fn)
    return op


@pytest.mark.parametrize("schema", VIEWS)
def test_a_view_is_one_of_the_argument_whose_memory_it_has(lib: Library, schema: str) -> None:
    """S10, S136: each argument that carries the set counts; a write reaches the right one."""
    kernel, call = VIEWS[schema]
    op, x, y = make(lib, schema, kernel), X.clone(), X.clone()
    with SchemaCheckMode():
        call(op, x, y)
    view = call(op, x, y)
    assert view._base is y
    view.fill_(9.0)
    assert y.tolist() == [9.0, 6.0] and x.tolist() == [5.0, 6.0] and y._version == 1


@pytest.mark.parametrize("schema", GIVEN_BACK)
def test_a_result_may_be_any_argument_of_its_set(lib: Library, schema: str) -> None:
    """S10, S11: a written set is given back as whichever argument it is; in lists by elements."""
    kernel, call = GIVEN_BACK[schema]
    op, x, y = make(lib, schema, kernel), X.clone(), X.clone()
    with SchemaCheckMode():
        assert call(op, x, y) is y
    assert call(op, x, y) is y and y.tolist() == [7.0, 8.0]


def test_what_no_set_declares_is_refused(lib: Library) -> None:
    """S47: an argument without the set of the result shares nothing with it."""
    lib.define("v(Tensor(a) x, Tensor(a) y, Tensor z) -> Tensor(a)")
    lib.impl("v", lambda x, y, z: z[:1], "CompositeExplicitAutograd")
    with pytest.raises(AliasError, match="'z'"):
        polyop.ops.alias_sets.v(X, X.clone(), X.clone())
    lib.define("w(Tensor(a!) x, Tensor(a!) y, Tensor z) -> Tensor(a!)")
    lib.impl("w", lambda x, y, z: x.clone(), "CompositeExplicitAutograd")
    with pytest.raises(ReturnError, match="'x' or 'y' itself"):
        polyop.ops.alias_sets.w(X, X.clone(), X.clone())


def used(op: Any, call: Callable[..., Any], write: str) -> Callable[[Tensor], Tensor]:
    """Give a function that reads what shares memory, after a write through one of two names."""

    def fn(z: Tensor) -> Tensor:
        x, y = z * 2.0, z * 1.0
        r = call(op, x, y)
        {"none": lambda: None, "view": lambda: r.mul_(3.0), "base": lambda: y.mul_(3.0)}[write]()
        return (y * y).sum() + (r * 2.0).sum() + x.sum()

    return fn


def backward(fn: Callable[[Tensor], Tensor]) -> Tensor:
    z = X.clone().requires_grad_()
    fn(z).backward()
    return z.grad  # type: ignore[no-any-return]


def slope(fn: Callable[[Tensor], Tensor]) -> Any:
    """Give the gradient by finite differences."""
    x, steps = X.numpy().astype("float64"), 1e-3 * np.eye(2)
    at: Any = lambda step: fn(polyop.from_numpy(x + step)).item()  # noqa: E731 - one use
    return [(at(s) - at(-s)) / 2e-3 for s in steps]


VALUES: dict[str, Callable[[Any], Any]] = {
    "functionalize": lambda fn: functionalize(fn)(X),
    "make_fx": lambda fn: make_fx(fn)(X)(X),
    "symbolic": lambda fn: make_fx(fn, "symbolic")(X)(X),
    "compile": lambda fn: polyop.compile(fn)(X),
    "vmap": lambda fn: polyop.vmap(fn)(polyop.stack([X, X]))[0],
}
SLOPES: dict[str, Callable[[Any], Any]] = {
    "backward": backward,
    "grad": lambda fn: grad(fn)(X),
    "jvp": lambda fn: jvp(fn, (X,), (polyop.ones(2),))[1],
    "of functionalize": lambda fn: grad(functionalize(fn))(X),
}


@pytest.mark.parametrize("write", ["none", "view", "base"])
@pytest.mark.parametrize("schema", [*VIEWS, *GIVEN_BACK])
def test_transforms_are_right_or_refuse(lib: Library, schema: str, write: str) -> None:
    """S47, S168: under transforms no write to shared memory is lost in silence."""
    kernel, call = (VIEWS | GIVEN_BACK)[schema]
    fn = used(make(lib, schema, kernel), call, write)
    eager, by_steps = fn(X).item(), slope(fn)
    wanted = dict.fromkeys(VALUES, eager) | dict.fromkeys(SLOPES, by_steps)
    wanted["jvp"] = sum(by_steps)
    for name, transform in (VALUES | SLOPES).items():
        try:
            seen = transform(fn).detach().numpy()
        except PolyopError:
            continue
        assert np.allclose(seen, wanted[name], rtol=1e-3), name
    if write == "none" and schema in VIEWS:
        assert functionalize(fn)(X).item() == eager


def test_arrays_of_other_libraries_are_refused(lib: Library) -> None:
    """S66: nobody knows of which of several arrays a NumPy kernel gave a view."""
    op = make(lib, "(Tensor(a) x, Tensor(a) y) -> Tensor(a)", lambda x, y: y[:1])
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(MutationError, match="one of several arguments"):
        op(*[polyop.from_array(strict.ones(2)) for _ in range(2)])


@pytest.mark.parametrize("schema", VIEWS)
def test_the_laws_blame_no_right_rule(lib: Library, schema: str) -> None:
    """S202, S204: what fakes cannot show of a view is not held against its fake rule."""
    kernel, call = VIEWS[schema]
    op = make(lib, schema, kernel)
    laws = ("test_schema", "test_faketensor")
    args = call(lambda *args: [args], X.clone(), X.clone())
    args = args if isinstance(args, tuple) else args[0]
    polyop.library.opcheck(op, args, test_utils=laws)
