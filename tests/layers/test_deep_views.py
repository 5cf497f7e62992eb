"""Declared views of what a container holds: plain calls follow them, transforms only read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError, MutationError
from polyop.export import export
from polyop.func import functionalize, grad, hessian, jvp
from polyop.graph import make_fx, reinplace

pytestmark = pytest.mark.filterwarnings("ignore:.*has no vmap rule")
X = polyop.tensor([1.0, 2.0, 3.0])
SCHEMAS = {
    "list": ("(Tensor(a)[] xs) -> Tensor(a)", lambda y: [y], lambda xs: xs[0][1:]),
    "lists": ("(Tensor(a)[] xs) -> Tensor(a)[]", lambda y: [y], lambda xs: [xs[0][1:]]),
    "dict": ("(Dict(str, Tensor(a)) xs) -> Tensor(a)", lambda y: {"k": y}, lambda xs: xs["k"][1:]),
}
TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "functionalize": lambda fn: functionalize(fn)(X),
    "make_fx": lambda fn: make_fx(fn)(X),
    "symbolic": lambda fn: make_fx(fn, "symbolic")(X),
    "export": lambda fn: export(fn, (X,)),
    "vmap": lambda fn: polyop.vmap(fn)(polyop.stack([X, X])),
    "grad": lambda fn: grad(lambda x: fn(x).sum())(X),
    "jvp": lambda fn: jvp(fn, (X,), (X,)),
    "compile": lambda fn: polyop.compile(fn, fullgraph=True)(X),
}


def back(ctx: Any, g: Any) -> Any:
    """Give the gradient of the first tensor in a container."""
    (part,) = g if isinstance(g, list) else [g]
    whole = polyop.concat([polyop.zeros(1), part])
    return {"k": whole} if ctx.by_name else [whole]


def keep(ctx: Any, inputs: Any, output: Any) -> None:
    """Note which container it was."""
    ctx.by_name = isinstance(inputs[0], dict)


@pytest.fixture(params=SCHEMAS)
def view(request: Any) -> Callable[[Tensor], Tensor]:
    """Give such a view of a tensor, all but its first element."""
    text, given, kernel = SCHEMAS[request.param]
    op = polyop.custom_op(f"deep_views::{request.param}", kernel, mutates_args=(), schema=text)
    op.register_fake(kernel)
    op.register_autograd(back, setup_context=keep)

    def taken(y: Tensor) -> Tensor:
        found = op(given(y))
        return found[0] if isinstance(found, list) else found  # type: ignore[no-any-return]

    return taken


@pytest.fixture
def writes(view: Any) -> Callable[[Tensor], Tensor]:
    """Give a function that writes its tensor through such a view."""

    def fn(x: Tensor) -> Tensor:
        y = x * 1
        view(y).mul_(3)
        return y

    return fn


def test_plain_calls_share_memory(writes: Any) -> None:
    """S10, S11: the write through the view is a write to the tensor in the container."""
    assert writes(X).tolist() == [1, 6, 9]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_refuse_writes(writes: Any, transform: str) -> None:
    """S168: never a lost write, nor a bare error: argument or operator is named."""
    with pytest.raises(
        (MutationError, CaptureError),
        match=r"inside 'xs'|raised MutationError|result of deep_views\.\w+\.default is written",
    ):
        TRANSFORMS[transform](writes)


READS: dict[str, Callable[[Any], Any]] = {
    "functionalize": lambda fn: functionalize(fn)(X * 1),
    "vmap": lambda fn: polyop.vmap(fn)(polyop.stack([X, X + 1]))[0],
    "grad": lambda fn: grad(fn)(X),
    "jvp": lambda fn: jvp(fn, (X,), (X,))[1],
    "hessian": lambda fn: hessian(fn)(X),
    "vmap of grad": lambda fn: polyop.vmap(grad(fn))(polyop.stack([X, X + 1]))[0],
    "grad of vmap": lambda fn: grad(lambda b: polyop.vmap(fn)(b).sum())(polyop.stack([X, X]))[0],
    "grad of functionalize": lambda fn: grad(functionalize(fn))(X),
    "trace": lambda fn: make_fx(fn, "fake")(X)(X + 1),
    "symbolic": lambda fn: make_fx(fn, "symbolic")(X)(X + 1),
    "trace of grad": lambda fn: make_fx(grad(fn), "fake")(X)(X + 1),
    "trace of vmap": lambda fn: make_fx(polyop.vmap(fn), "fake")(polyop.stack([X, X]))(BATCH)[0],
    "export": lambda fn: export(fn, (X,)).module()(X + 1),
    "compile": lambda fn: polyop.compile(fn, fullgraph=True)(X + 1),
    "in place": lambda fn: in_place(make_fx(fn, "fake")(X))(X + 1),
}
BATCH = polyop.stack([X + 1, X])


def in_place(program: Any) -> Any:
    """Let a program write the memory that nobody reads any more."""
    reinplace(program)
    return program


@pytest.mark.parametrize("transform", READS)
def test_transforms_read(view: Any, transform: str) -> None:
    """S168, S134: a view that nobody writes has the values, and derivatives, of a slice."""

    def read(take: Any) -> Any:
        def fn(x: Tensor) -> Tensor:
            y = x * 2
            y.mul_(x)
            z = take(y)
            return (z * take(x) * (y + 1)[1:]).sum() + z.sum()

        return READS[transform](fn).tolist()

    assert read(view) == read(lambda y: y[1:])


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "the tensor": lambda take, y: (take(y), y.mul_(3)),
    "an older view": lambda take, y: (lambda old: (take(y), old.mul_(3)))(y[:2]),
    "a newer view": lambda take, y: (take(y), y[2:].mul_(3)),
    "what is detached": lambda take, y: (take(y.detach()), y.mul_(3)),
    "a view of the view": lambda take, y: (take(y)[1:].mul_(3),),
    "an element": lambda take, y: take(y).__setitem__(0, 5),
}


@pytest.mark.parametrize("how", WRITES)
@pytest.mark.parametrize("transform", ["functionalize", "vmap", "grad", "jvp"])
def test_every_write_is_refused(view: Any, transform: str, how: str) -> None:
    """S168: whoever shares the memory is refused the write, in whatever order it was taken."""

    def fn(x: Tensor) -> Tensor:
        y = x * 1
        WRITES[how](view, y)
        return y

    with pytest.raises(MutationError, match="is written, or shares memory with what is"):
        TRANSFORMS[transform](fn)


@pytest.mark.parametrize("way", ["plain", "trace", "export", "compile", "functionalize"])
def test_results_share_memory_as_they_do_eagerly(view: Any, way: str) -> None:
    """S168: what the caller writes later he finds in both."""

    def fn(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2
        return y, view(y)

    made: dict[str, Callable[[], Any]] = {
        "plain": lambda: fn,
        "trace": lambda: make_fx(fn, "fake")(X),
        "export": lambda: export(fn, (X,)).module(),
        "compile": lambda: polyop.compile(fn, fullgraph=True),
        "functionalize": lambda: functionalize(fn),
    }
    y, z = made[way]()(X * 1)
    z.mul_(5)
    assert y.tolist() == [2, 20, 30]


def test_tensors_from_outside_are_refused() -> None:
    """S168: what is no tensor of the transform may be written by anybody, later."""
    pair = polyop.custom_op(
        "deep_views::pair", lambda xs: xs[0][1:], mutates_args=(),
        schema="(Tensor(a)[] xs) -> Tensor(a)",
    )  # fmt: skip
    with pytest.raises(MutationError, match="inside 'xs'"):
        grad(lambda x: pair([x, X]).sum())(X)


def test_a_container_that_is_given_back() -> None:
    """S168: a trace has no name for it; what keeps the writes goes on."""
    double = polyop.custom_op(
        "deep_views::double", lambda xs: [t.mul_(2) for t in xs] and xs,
        mutates_args={"xs"}, schema="(Tensor(a!)[] xs) -> Tensor(a!)[]",
    )  # fmt: skip
    double.register_fake(lambda xs: xs)

    def fn(x: Tensor) -> Tensor:
        out: Tensor = double([x * 1])[0] * 1
        return out

    assert fn(X).tolist() == functionalize(fn)(X).tolist() == [2, 4, 6]
    with pytest.raises(MutationError, match="inside 'xs'"):
        make_fx(fn)(X)
