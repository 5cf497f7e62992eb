"""What makes Jacobians of small functions cheap changes nothing else: words, rows, rules, names."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import polyop
from polyop.dispatch.context import AUTOGRAD, PLAIN, Word, run_under, word
from polyop.dispatch.library import Library
from polyop.dispatch.rules import register_autograd, register_kernel, register_vmap
from polyop.errors import UsageTypeError, VmapError
from polyop.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from polyop.layers.rows import taken_apart
from polyop.layers.trace import make_fx
from polyop.tensor.tensor import Tensor, of_array

#: PyTorch's own jvp brings in what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
X = np.array([0.3, 0.7, -0.2])
M = np.random.default_rng(0).normal(size=(3, 2))


class Pair(NamedTuple):
    """A container that is no plain tuple."""

    u: Any
    v: Any


def scalar(x: Any) -> Any:
    """Compute a number, here and in PyTorch."""
    return (x.sin() * x).sum()


# -- words --------------------------------------------------------------------

ENTER: dict[str, Callable[[Any, Tensor], Any]] = {
    "grad": lambda f, x: grad(f)(x),
    "jvp": lambda f, x: jvp(f, (x,), (x,)),
    "vmap": lambda f, x: vmap(f)(x),
    "vmap of two": lambda f, x: vmap(lambda a, _: f(a))(x, x),
}
OUTSIDE: dict[str, Word] = {
    "plain": PLAIN,
    "no grad": PLAIN.but(grad=False),
    "without autograd": PLAIN.but(exclude=PLAIN.exclude | AUTOGRAD),
    "below": PLAIN.but(below=True),
}


def expected(name: str, outer: Word, levels: Any) -> Word:
    """Say what a word inside is, field by field."""
    vmapped = name.startswith("vmap")
    return outer.but(
        levels=levels,
        below=False,
        grad=True if name == "grad" else outer.grad,
        exclude=outer.exclude if vmapped else outer.exclude - AUTOGRAD,
    )


@pytest.mark.parametrize("names", [(a, b) for a in ENTER for b in ENTER], ids="-".join)
@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_word_inside_is_the_one_outside_and_a_level(outside: str, names: Any) -> None:
    """S134: inside of nested transforms all is as outside, but levels, and what autograd sees."""
    seen: list[Word] = []

    def look(x: Tensor) -> Tensor:
        seen.append(word())
        return x.sum()

    def nested(x: Tensor) -> Tensor:
        seen.append(word())
        ENTER[names[1]](look, of_array(X))
        return x.sum()

    outer = OUTSIDE[outside]
    run_under(outer, ENTER[names[0]], nested, of_array(X))
    for depth, (name, found) in enumerate(zip(names, seen, strict=True), 1):
        outer = expected(name, outer, found.levels)
        assert len(found.levels) == depth
        assert (int(found), found._fields) == (int(outer), outer._fields)
        assert found.within == outer.within


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("name", ENTER)
def test_the_word_below_a_level_is_the_one_outside(name: str, outside: str) -> None:
    """S156: what runs with a level off meets what was active where the transform was called."""
    outer, seen = OUTSIDE[outside], []

    def look(x: Tensor) -> Tensor:
        seen.append(word().levels[-1].below())
        return x.sum()

    run_under(outer, ENTER[name], look, of_array(X))
    beneath = outer.but(below=False)
    assert [(int(w), w._fields) for w in seen] == [(int(beneath), beneath._fields)]


LEAVES: dict[str, Callable[[Tensor], Any]] = {
    "grad": grad(scalar),
    "jacrev": jacrev(lambda x: x.sin() * x),
    "jacfwd": jacfwd(lambda x: x.sin() * x),
    "hessian": hessian(scalar),
    "vmap of grad": lambda x: vmap(grad(scalar))(x.reshape([3, 1])),
    "vmap of a sum": lambda x: vmap(lambda r: r.sum())(x.reshape([3, 1])),
    "vjp": lambda x: vjp(scalar, x)[1](of_array(np.ones(()))),
}


@pytest.mark.parametrize("name", LEAVES)
def test_nothing_is_left_for_the_collector(name: str) -> None:
    """S134: a transform that is over holds nothing in a cycle; what it saved is freed at once."""
    x = of_array(X)
    for _ in range(3):  # handlers are made by the first calls
        LEAVES[name](x)
    left = []
    gc.disable()
    try:
        for _ in range(5):  # others may leave something meanwhile, such as a thread that ends
            gc.collect()
            LEAVES[name](x)
            left.append(gc.collect())
    finally:
        gc.enable()
    assert min(left) == 0


# -- rows ---------------------------------------------------------------------

TREES: list[Any] = [
    of_array(X), (of_array(X),), (), (of_array(X), of_array(M)), [of_array(X)], None, 3,
    Pair(1.0, of_array(X)), {"b": of_array(X), "a": (of_array(M), 2)}, (of_array(X), 2.0),
    (of_array(X), None), ((of_array(X),), of_array(M)), Pair(of_array(X), of_array(M)),
]  # fmt: skip


@pytest.mark.parametrize("tree", TREES, ids=range(len(TREES)))
def test_rows_are_those_of_trees(tree: Any) -> None:
    """S134: leaves come in the order of trees, and others in their places give the structure."""
    leaves, build = taken_apart(tree)
    assert list(map(id, leaves)) == list(map(id, polyop.tree.leaves(tree)))
    others = [str(i) for i in range(len(leaves))]
    made, wanted = build(others), polyop.tree.unflatten(polyop.tree.structure(tree), others)
    assert made == wanted
    assert type(made) is type(wanted)


SHAPES = [(), (1,), (3,), (2, 3), (3, 1, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("function", ["square", "number", "transposed", "two", "rows"])
@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "hessian"])
def test_jacobians_are_pytorchs_and_own_their_memory(name: str, function: str, shape: Any) -> None:
    """S134: of one vector as of any shape, values, dtypes and shapes are PyTorch's.

    A Jacobian shares no memory with the input, nor with that of another result.
    """
    functions: dict[str, Callable[[Any], Any]] = {
        "square": lambda x: x * x,
        "number": lambda x: (x * x * x).sum(),
        "transposed": lambda x: (x.reshape([-1, 1]) * 2).mT,
        "two": lambda x: (x, {"cube": x * x * x, "twice": x + x}),
        "rows": lambda x: x * x.sum(),
    }
    f, array = functions[function], np.random.default_rng(1).normal(size=shape).astype("f4")
    x = of_array(array.copy())
    found = getattr(polyop.func, name)(f)(x)
    wanted = getattr(torch.func, name)(f)(torch.tensor(array))
    mine, theirs = polyop.tree.leaves(found), torch.utils._pytree.tree_leaves(wanted)
    for a, b in zip(mine, theirs, strict=True):
        assert (a.shape, str(a.dtype)) == (tuple(b.shape), "float32")
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-5, atol=1e-6)
    kept = [t.numpy().copy() for t in mine[1:]]
    mine[0].fill_(7.0) if mine[0].numpy().size else None
    np.testing.assert_array_equal(x.numpy(), array)
    for t, before in zip(mine[1:], kept, strict=True):
        np.testing.assert_array_equal(t.numpy(), before)


def test_chosen_arguments_of_any_structure() -> None:
    """S134: a Jacobian has the structure of results, with that of the chosen arguments inside."""

    def f(p: Any, q: Any, *, k: float) -> Any:
        return Pair(p["a"] * q.v.sum() * k, [q.u])

    p, q = {"a": of_array(X)}, Pair(of_array(np.float64(2.0)), of_array(M))
    for transform in (jacrev, jacfwd):
        one = transform(f, 1)(p, q, k=2.0)
        assert type(one) is Pair
        assert type(one.u) is Pair
        assert one.u.v.shape == (3, 3, 2)
        both = transform(f, (1, 0))(p, q, k=2.0)
        assert type(both.u) is tuple
        np.testing.assert_array_equal(both.u[0].v.numpy(), one.u.v.numpy())
        np.testing.assert_allclose(both.u[1]["a"].numpy(), np.eye(3) * M.sum() * 2)
        assert both.v[0][1]["a"].tolist() == [0, 0, 0]
        again = transform(f, (-1,))(p, q, k=2.0)
        np.testing.assert_array_equal(again.u[0].v.numpy(), one.u.v.numpy())


def test_a_result_that_is_no_tensor_is_refused() -> None:
    """S134: the gradient of what is no tensor is an error that says so, by the result's number."""
    _, pull = vjp(lambda x: (x, 3.0), of_array(X))
    with pytest.raises(UsageTypeError, match="result 1 of a differentiated function is no Tensor"):
        pull((of_array(X), of_array(X)))


def test_a_trace_of_a_jacobian_computes_it() -> None:
    """S134: what a Jacobian calls is seen by a trace around it."""
    f = hessian(scalar)
    graph = make_fx(f)(of_array(np.ones(3)))
    np.testing.assert_allclose(graph(of_array(X)).numpy(), f(of_array(X)).numpy())


# -- rules and names ----------------------------------------------------------


@pytest.fixture
def lib() -> Iterator[Library]:
    """Give a library of its own."""
    made = Library("smalljac", "FRAGMENT")
    yield made
    made._destroy()


def test_a_rule_that_is_registered_anew_runs(lib: Library) -> None:
    """S155: what is known of a rule is forgotten when another takes its place, or none."""
    lib.define("scaled(Tensor x, *, float by) -> Tensor")
    name, by = "smalljac::scaled", []
    register_kernel(name, "cpu", lambda x, *, by: of_array(x.numpy() * by), lib=lib)
    register_autograd(name, lambda ctx, g: g, lib=lib)
    op = polyop.ops.smalljac.scaled

    def rule(factor: float) -> Callable[..., Any]:
        def run(info: Any, in_dims: Any, x: Tensor, **named: Any) -> Any:
            by.append((in_dims, dict(info.kwarg_dims), named))
            return x * factor, in_dims[0]

        return run

    x = of_array(X)
    for factor in (2.0, 3.0):
        own = Library("smalljac", "FRAGMENT")
        register_vmap(name, rule(factor), lib=own)
        for _ in range(2):
            found = vmap(lambda r: op(r, by=9.0))(x)
            np.testing.assert_allclose(found.numpy(), X * factor)
        own._destroy()
    assert by == [((0,), {"by": None}, {"by": 9.0})] * 4


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_lists_are_peeled_as_deep_as_they_are(lib: Library) -> None:
    """S155: a rule gets axes that mirror lists, with None for what has no batch, numbers too."""
    lib.define("many(Tensor[] xs, int[] k, Tensor? y, bool b) -> Tensor")
    name, seen = "smalljac::many", []
    register_kernel(name, "cpu", lambda xs, k, y, b: of_array(xs[0].numpy() + 0), lib=lib)

    def rule(info: Any, in_dims: Any, xs: Any, k: Any, y: Any, b: Any) -> Any:
        seen.append((in_dims, [x.shape for x in xs], k, y, b))
        return xs[0] * 1, 0

    register_vmap(name, rule, lib=lib)
    op, constant = polyop.ops.smalljac.many, of_array(np.ones(4))
    vmap(lambda r: vmap(lambda s: op([s, constant, r], [1, 2], None, True))(of_array(X)))(
        of_array(M)
    )
    assert seen == [
        (([0, None, None], [None, None], None, None), [(3,), (4,), (2,)], [1, 2], None, True)
    ]


NAMES: dict[str, tuple[Callable[[], Any], str]] = {
    "a number": (lambda: vmap(lambda x: 2.0)(of_array(X)), "the result"),
    "in a dict": (lambda: vmap(lambda x: {"w": [x, 2.0]})(of_array(X)), r"\['w'\]\[1\]"),
    "axis of one": (lambda: vmap(lambda x: (x, x), 0, (0, 3))(of_array(X)), r"\[1\]"),
    "no axis": (lambda: vmap(lambda x: (x, [x]), 0, (0, None))(of_array(X)), r"\[1\]\[0\]"),
    "a tuple": (lambda: vmap(lambda x: (x, 2))(of_array(X)), r"\[1\]"),
    "argument": (lambda: vmap(lambda p: p)({"w": (of_array(X), 2)}), r"p\['w'\]\[1\]"),
    "size": (
        lambda: vmap(lambda p, q: p)([of_array(X)], {"k": of_array(M.T)}),
        r"q\['k'\] \(position 1\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_errors_name_leaves(name: str) -> None:
    """S154: an error of a mapped function names the leaf by its way from the root."""
    call, where = NAMES[name]
    with pytest.raises(VmapError, match=where):
        call()
