"""Declared views of what a container holds: plain calls follow them, transforms refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError, MutationError
from polyop.export import export
from polyop.func import functionalize, grad, jvp
from polyop.graph import make_fx

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


@pytest.fixture(params=SCHEMAS)
def writes(request: Any) -> Callable[[Tensor], Tensor]:
    """Give a function that writes its tensor through such a view."""
    text, given, kernel = SCHEMAS[request.param]
    name = f"deep_views::{request.param}"
    view = polyop.custom_op(name, kernel, mutates_args=(), schema=text)
    view.register_fake(kernel)

    def fn(x: Tensor) -> Tensor:
        y = x * 1
        found = view(given(y))
        (found[0] if isinstance(found, list) else found).mul_(3)
        return y

    return fn


def test_plain_calls_share_memory(writes: Any) -> None:
    """S10, S11: the write through the view is a write to the tensor in the container."""
    assert writes(X).tolist() == [1, 6, 9]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_refuse(writes: Any, transform: str) -> None:
    """S168: never a lost write, nor a bare error: the argument is named."""
    with pytest.raises((MutationError, CaptureError), match=r"inside 'xs'|raised MutationError"):
        TRANSFORMS[transform](writes)


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
