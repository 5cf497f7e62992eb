"""Views among several results, or of an argument that is not the first: writes reach their base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.autograd import grad
from polyop.errors import MissingGradientError
from polyop.library import Library, register_autograd, register_fake, register_kernel

NS = "viewsamong"


def both(x: Tensor) -> Any:
    return x[:1], x[1:]


def both_backward(ctx: Any, g: Tensor, h: Tensor) -> Any:
    return polyop.concat([g, h])


def listed(x: Tensor) -> Any:
    return [x[:1], x[1:]], x * 2


def listed_backward(ctx: Any, gs: list[Tensor], h: Tensor) -> Any:
    return polyop.concat(gs) + 2 * h


def second(n: int, x: Tensor) -> Any:
    return x[n:]


def second_backward(ctx: Any, g: Tensor) -> Any:
    return None, polyop.concat([polyop.zeros(1), g])


#: By schema: the kernel, its gradient, and the view of the last elements, by the operator or not.
CASES: list[tuple[str, Any, Any, Callable[[Any, Tensor], Tensor]]] = [
    ("both(Tensor(a) x) -> (Tensor(a), Tensor(a))", both, both_backward, lambda op, x: op(x)[1]),
    (
        "listed(Tensor(a) x) -> (Tensor(a)[], Tensor)",
        listed,
        listed_backward,
        lambda op, x: op(x)[0][1],
    ),
    ("second(int n, Tensor(a) x) -> Tensor(a)", second, second_backward, lambda op, x: op(1, x)),
]


@pytest.fixture(params=CASES, ids=lambda case: str(case[0]).partition("(")[0])
def pair(request: Any) -> Iterator[tuple[Any, Any]]:
    """Two functions that give the same view: by an author's operator, and by a built-in one."""
    schema, kernel, backward, view = request.param
    name = schema.partition("(")[0]
    made = Library(NS, "FRAGMENT")
    made.define(schema)
    register_kernel(f"{NS}::{name}", "cpu", kernel, lib=made)
    register_autograd(f"{NS}::{name}", backward, lib=made)
    op = getattr(getattr(polyop.ops, NS), name)
    yield (lambda x: view(op, x)), (lambda x: x[1:])
    made._destroy()


def written_view(x: Tensor, view: Any) -> Tensor:
    base = x * 1
    view(base).mul_(x[1:])
    return base * base


def written_base(x: Tensor, view: Any) -> Tensor:
    base = x * 1
    part = view(base)
    base.mul_(x)
    return part * part


def written_twice(x: Tensor, view: Any) -> Tensor:
    base = x * 1
    part, other = view(base), view(base)
    part.mul_(3.0)
    base[1].mul_(x[0])
    return other * x[1:]


@pytest.mark.parametrize("program", [written_view, written_base, written_twice])
def test_backward_is_that_of_slices(pair: Any, program: Any) -> None:
    """S136: a view among several results is taken again as the result that it is."""
    found = []
    for view in pair:
        x = polyop.from_numpy(np.array([2.0, 3.0, 4.0])).requires_grad_()
        found.append(grad(program(x, view).sum(), x)[0].tolist())
    assert found[0] == found[1]


def test_func_grad_is_that_of_slices(pair: Any) -> None:
    """S134, S136: the same under `func.grad` and `func.jvp`, where the base is written."""
    x = polyop.from_numpy(np.array([2.0, 3.0, 4.0]))

    def gradient(view: Any) -> Any:
        return polyop.func.grad(lambda x: written_base(x, view).sum())(x).tolist()

    assert gradient(pair[0]) == gradient(pair[1])
    value, tangent = polyop.func.jvp(lambda x: written_base(x, pair[0]), (x,), (x,))
    wanted, moved = polyop.func.jvp(lambda x: written_base(x, pair[1]), (x,), (x,))
    assert (value.tolist(), tangent.tolist()) == (wanted.tolist(), moved.tolist())


@pytest.mark.parametrize("formula", [True, False])
def test_a_new_result_beside_a_view(formula: bool) -> None:
    """S129, S136: a write to a new result, a part of the kernel's own memory, keeps its history."""
    made = Library(NS, "FRAGMENT")
    made.define("beside(Tensor(a) x) -> (Tensor(a), Tensor)")
    register_kernel(f"{NS}::beside", "cpu", lambda x: (x[:1], (x * 2)[1:]), lib=made)
    if formula:
        register_autograd(
            f"{NS}::beside",
            lambda ctx, g, h: (
                polyop.concat([g, polyop.zeros(2)]) + 2 * polyop.concat([polyop.zeros(1), h])
            ),
            lib=made,
        )
    x = polyop.ones(3).requires_grad_()
    _, new = polyop.ops.viewsamong.beside(x * 1)
    new.mul_(3.0)
    try:
        if formula:
            assert grad(new.sum(), x)[0].tolist() == [0.0, 6.0, 6.0]
        else:
            with pytest.raises(MissingGradientError):
                grad(new.sum(), x, allow_unused=True)
    finally:
        made._destroy()


def test_fakes_of_views_among_results() -> None:
    """S136, S147: a fake of a view among several results is taken again too."""
    made = Library(NS, "FRAGMENT")
    made.define("mixed(int n, Tensor(a) x) -> (Tensor(a)[], Tensor, Tensor(a))")
    name = f"{NS}::mixed"

    def mixed(n: int, x: Tensor) -> Any:
        return [x[:1], x[1:]], polyop.empty_like(x), x[n:]

    register_kernel(name, "cpu", mixed, lib=made)
    register_fake(name, mixed, lib=made)
    register_autograd(name, lambda ctx, gs, g, h: (None, polyop.concat(gs)), lib=made)

    def program(x: Tensor) -> Any:
        base = x * 1
        (_, item), new, last = polyop.ops.viewsamong.mixed(2, base)
        base.mul_(x)
        return [(t.shape, t._version, t.requires_grad) for t in (item, new, last)]

    wanted = program(polyop.ones(3).requires_grad_())
    with polyop.fake.FakeTensorMode():
        assert program(polyop.ones(3).requires_grad_()) == wanted
    made._destroy()
