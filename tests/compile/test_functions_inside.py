"""Functions of higher-order operators in compiled functions: what they hold, and who acts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor, hop
from polyop.dispatch.keyset import after_autograd_keys
from polyop.dispatch.library import Library
from polyop.errors import CaptureError

X = polyop.ones(2, 3)
Made = Callable[[Any], Callable[[Tensor], Tensor]]


class Linear:
    """A part with a parameter, which no call names."""

    def __init__(self) -> None:
        self.made_at = time.time()
        self.weight = polyop.ones(3, 3, requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ self.weight


def _loop(fn: Any) -> Any:
    def step(i: Any, x: Any) -> Any:
        return i + 1, fn(x)

    return lambda x: polyop.while_loop(
        lambda i, _: i < 3, step, (polyop.zeros((), dtype=polyop.int64), x)
    )[1]


CALLS: dict[str, Made] = {
    "cond": lambda fn: lambda x: polyop.cond(x.sum() > 0, fn, fn, (x,)),
    "wrap": lambda fn: lambda x: hop.wrap(fn, x),
    "map": lambda fn: lambda x: polyop.map(fn, x[None])[0],
    "while_loop": _loop,
    "scan": lambda fn: lambda x: polyop.scan(lambda c, v: (fn(c), v * 1), x, X)[0],
    "invoke_subgraph": lambda fn: lambda x: hop.invoke_subgraph(fn, "one", x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_parameter_that_no_call_names_has_its_gradient(name: str) -> None:
    """S211: it is that of the plain function; one graph of it is refused."""
    found = []
    for compiled in (False, True):
        part = Linear()
        fn = CALLS[name](part)
        run = polyop.compile(fn) if compiled else fn
        (run(X).sum() + (part.weight * part.weight).sum()).backward()
        found.append(part.weight.grad.tolist())
        with pytest.raises(CaptureError, match="requires grad and is no operand"):
            polyop.compile(fn, fullgraph=True)(X)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("looks", [False, True])
def test_an_author_s_kernel_acts_in_them(name: str, looks: bool) -> None:
    """S209, S211: also where the function looks at data."""
    lib = Library("functions_inside", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: x * x, "CompositeExplicitAutograd")
    op = polyop.ops.functions_inside.f.default

    def kernel(keys: Any, x: Tensor) -> Any:
        return op.redispatch(keys & after_autograd_keys, x) + 1

    lib.impl("f", kernel, "AutogradCPU", with_keyset=True)
    inner = CALLS[name](lambda x: op(x * x.sum().item() if looks else x) * 2)

    def f(x: Tensor) -> Tensor:
        return inner(x) if float(x.sum()) else x

    x = X * 0.25
    assert polyop.compile(f)(x).tolist() == f(x).tolist()
    lib._destroy()


def test_a_logger_is_no_obstacle() -> None:
    """S211, S212: only whether it takes a record is watched."""
    log = logging.getLogger("polyop.tests.functions")
    log.addHandler(logging.StreamHandler())

    def f(x: Tensor) -> Tensor:
        log.debug("shape %s", x.shape)
        return x * (3 if log.isEnabledFor(logging.DEBUG) else 2)

    compiled = polyop.compile(f, fullgraph=True)
    for level in (logging.WARNING, logging.DEBUG, logging.ERROR):
        log.setLevel(level)
        assert compiled(X).tolist() == f(X).tolist()


def test_what_made_an_object_is_past() -> None:
    """S212: a clock that only its `__init__` reads."""
    part = Linear()
    compiled = polyop.compile(part, fullgraph=True)
    assert compiled(X).tolist() == part(X).tolist()
