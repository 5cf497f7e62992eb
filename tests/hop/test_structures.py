"""The structure of what functions give: the same rule, and the same results, whoever acts first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from tests.layers.author_signatures import same

import polyop
from polyop import Tensor, func, tree
from polyop.errors import SubgraphError
from polyop.export import export
from polyop.graph import make_fx


class Pair(NamedTuple):
    a: Any
    b: Any


Laid = Callable[[Any, Any], Any]
STRUCTURES: dict[str, Laid] = {
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"a": a, "b": b},
    "other keys": lambda a, b: {"c": a, "b": b},
    "named": Pair,
    "none last": lambda a, b: (a, b, None),
    "none first": lambda a, b: (None, a, b),
    "nested": lambda a, b: ((a,), b),
    "nested later": lambda a, b: (a, (b,)),
}


def pair(t: Any, factor: float, laid: Laid) -> Any:
    """Lay the two leaves of a tree out, times something."""
    first, second = tree.leaves(t)
    return laid(first * factor, second * factor)


Call = Callable[[Tensor, Laid, Laid], Any]
CALLS: dict[str, Call] = {
    "cond": lambda x, f, g: polyop.cond(
        x.sum() > 0, lambda x: f(x * 1, x * 2), lambda x: g(x * 3, x * 4), (x,)
    ),
    "while_loop": lambda x, f, g: polyop.while_loop(
        lambda i, c: i < 3, lambda i, c: (i + 1, pair(c, 2.0, g)), (x.sum() * 0, f(x, x * 2))
    ),
    "scan": lambda x, f, g: polyop.scan(
        lambda c, v: (pair(c, 2.0, g), v * 3), f(x[0] * 1, x[0] * 2), x
    ),
    "associative_scan": lambda x, f, g: polyop.associative_scan(
        lambda a, b: g(*[p + q for p, q in zip(tree.leaves(a), tree.leaves(b), strict=True)]),
        f(x * 1, x * 2),
    ),
}


def total(out: Any) -> Any:
    return sum((i + 1) * t.sum() for i, t in enumerate(tree.leaves(out)))


Run = Callable[[Callable[[Tensor], Any], Tensor], Any]
RUNS: dict[str, Run] = {
    "make_fx": lambda f, x: make_fx(f, "fake")(x)(x),
    "before dispatch": lambda f, x: make_fx(f, "fake", pre_dispatch=True)(x)(x),
    "functionalized": lambda f, x: make_fx(func.functionalize(f), "fake")(x)(x),
    "vjp": lambda f, x: make_fx(lambda x: func.vjp(f, x)[0], "fake")(x)(x),
    "compile": lambda f, x: polyop.compile(f, fullgraph=True)(x),
    "compile of a gradient": lambda f, x: polyop.compile(f, fullgraph=True)(
        x.clone().requires_grad_()
    ),
    "export": lambda f, x: export(f, (x,)).module()(x),
}
#: Runs whose results are others than those of the call.
TRANSFORMS: dict[str, Run] = {
    "grad": lambda f, x: make_fx(func.grad(lambda x: total(f(x))), "fake")(x),
    "jvp": lambda f, x: make_fx(lambda x: func.jvp(f, (x,), (x,)), "fake")(x),
    "vmap": lambda f, x: make_fx(func.vmap(f), "fake")(polyop.stack([x, x])),
}
X = polyop.tensor([1.0, 2.0, 4.0], dtype="float64")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("laid", ["list", "dict", "named", "none first", "nested"])
def test_results_have_the_structure_of_a_plain_call(laid: str, name: str, run: str) -> None:
    """S180, S182: layers see leaves, and users see what their functions gave."""

    def f(x: Tensor) -> Any:
        return CALLS[name](x, STRUCTURES[laid], STRUCTURES[laid])

    want, got = f(X), RUNS[run](f, X)
    assert tree.structure(got) == tree.structure(want)
    same(tree.leaves(got), tree.leaves(want))


OTHERS = [
    ("dict", "other keys"), ("none first", "none last"), ("tuple", "list"), ("named", "tuple"),
    ("nested", "nested later"),
]  # fmt: skip


@pytest.mark.parametrize("run", [*RUNS, *TRANSFORMS])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("first", "second"), OTHERS)
def test_other_structures_are_refused(first: str, second: str, name: str, run: str) -> None:
    """S180, S182: as many leaves in another structure are a breach, whoever acts first."""

    def f(x: Tensor) -> Any:
        return CALLS[name](x, STRUCTURES[first], STRUCTURES[second])

    with pytest.raises(SubgraphError, match="have different structures") as info:
        {**RUNS, **TRANSFORMS}[run](f, X)
    assert info.value.declared
    assert info.value.seen


def test_a_carry_is_a_tuple_whoever_acts_first() -> None:
    """S182: a tensor is no carry of one tensor."""
    f = lambda x: polyop.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, (x,))  # noqa: E731
    for run in (lambda f, x: f(x), *RUNS.values(), *TRANSFORMS.values()):
        with pytest.raises(SubgraphError, match="have different structures"):
            run(f, X)


@pytest.mark.parametrize("run", RUNS)
def test_a_scan_gives_a_tuple_whatever_its_function_gives(run: str) -> None:
    """S182, S211: `[carry, y]` is taken apart, and the results are a plain call's."""

    def f(x: Tensor) -> Any:
        return polyop.scan(lambda c, v: [c + v, c * v], x.sum() * 0, x)

    want, got = f(X), RUNS[run](f, X)
    assert type(got) is type(want) is tuple
    same(got, want)


@pytest.mark.parametrize("run", RUNS)
def test_a_carry_may_have_parts_without_a_tensor(run: str) -> None:
    """S182: `None` and empty containers are part of the structure, at the end of it too."""

    def f(x: Tensor) -> Any:
        return polyop.while_loop(
            lambda x, *rest: x.sum() < 99, lambda x, *rest: (x * 2, *rest), (x, {"a": None}, ())
        )

    want, got = f(X), RUNS[run](f, X)
    assert tree.structure(got) == tree.structure(want)
    same(got[0], want[0])
