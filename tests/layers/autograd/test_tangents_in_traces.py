"""Traces of `jvp` and `linearize`: memory is shared, and laid out, as it is eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor, func
from polyop.export import export
from polyop.graph import make_fx

Fn = Callable[..., Any]

TRANSFORMS: dict[str, Callable[[Fn, Tensor, Tensor], Fn]] = {
    "compile": lambda f, x, v: polyop.compile(f),
    "fakes": lambda f, x, v: make_fx(f, "fake")(x, v),
    "symbols": lambda f, x, v: make_fx(f, "symbolic")(x, v),
    "data": lambda f, x, v: make_fx(f, "real")(x, v),
    "functionalize": lambda f, x, v: func.functionalize(f),
    "export": lambda f, x, v: export(f, (x, v)).module(),
}
ROWS = np.arange(6.0).reshape(2, 3) + 1.0
TANGENTS: dict[str, Callable[[], Tensor]] = {
    "rows": lambda: polyop.from_numpy(ROWS * 2.0),
    "columns": lambda: polyop.from_numpy(np.asfortranarray(ROWS * 2.0)),
}
BODIES: dict[str, Fn] = {
    "plus one": lambda z: z + 1.0,
    "part": lambda z: z[:, ::2],
    "two sums": lambda z: (lambda u: (u + 1.0, u + 2.0))(z * 3.0),
    "alias": lambda z: z.alias(),
    "itself": lambda z: z,
    "reshape": lambda z: z.reshape(-1),
    "diagonal": polyop.diagonal,
    "flip": lambda z: polyop.flip(z, axis=0),
    "unstack": lambda z: polyop.unstack(z, axis=1),
    "astype": lambda z: z.astype(polyop.float64, copy=False),
    "a tensor and a view of it": lambda z: (lambda u: (u, u[0]))(z * 2.0),
    "an argument and another": lambda z: (z, z + 1.0),
}


def pushed(api: str, body: Fn, x: Tensor, v: Tensor) -> Any:
    return func.jvp(body, (x,), (v,))[1] if api == "jvp" else func.linearize(body, x)[1](v)


@pytest.mark.parametrize("api", ["jvp", "linearize"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("tangent", TANGENTS)
def test_writes_reach_what_they_reach_eagerly(
    api: str, body: str, transform: str, tangent: str
) -> None:
    """S134: a write to a tangent reaches the same tensors, whoever runs or records the call."""

    def program(x: Tensor, v: Tensor) -> list[Tensor]:
        found = pushed(api, BODIES[body], x, v)
        tangents = list(found) if isinstance(found, (tuple, list)) else [found]
        tangents[0].mul_(10.0)
        return [v * 1.0, *(t * 1.0 for t in tangents)]

    def run(f: Fn) -> list[Any]:
        v = TANGENTS[tangent]()
        return [t.tolist() for t in (*f(polyop.from_numpy(ROWS), v), v)]

    traced = TRANSFORMS[transform](program, polyop.from_numpy(ROWS), TANGENTS[tangent]())
    assert run(traced) == run(program)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    "body",
    [
        lambda z: polyop.broadcast_to(z, (4, 2, 3)).alias(),
        lambda z: polyop.broadcast_to(z[0] + 1.0, (2, 3)),
        lambda z: polyop.meshgrid(z[0], z[:, 0])[0],
        lambda z: polyop.copysign(z, polyop.from_numpy(ROWS)),
    ],
)
def test_copied_tangents_are_laid_out_alike(transform: str, body: Fn) -> None:
    """S134: a tangent that is copied, for its memory is another's, has the strides of a clone."""

    def program(x: Tensor, v: Tensor) -> Any:
        return func.jvp(body, (x,), (x,))[1]

    x, v = polyop.from_numpy(ROWS), TANGENTS["rows"]()
    found = TRANSFORMS[transform](program, x, v)(x, v)
    assert found.stride() == program(x, v).stride() == body(x * 1.0).clone().stride()


@pytest.mark.parametrize("transform", ["compile", "fakes"])
def test_a_broadcast_tangent_is_copied_as_a_clone_is(transform: str) -> None:
    """S134: what is given as repeated rows, and must be copied, is laid out the same in a trace."""

    def program(x: Tensor, v: Tensor) -> Any:
        return func.jvp(lambda z: z - 1.0, (x,), (v,))[1]

    x, v = polyop.from_numpy(ROWS), polyop.broadcast_to(polyop.from_numpy(ROWS[0]), (2, 3))
    found = TRANSFORMS[transform](program, x, v)(x, v)
    assert found.stride() == program(x, v).stride() == (3, 1)
