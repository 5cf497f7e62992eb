"""Forward mode: `func.jvp`, `jacfwd`, `jacrev`, `hessian` and `linearize`, and their nesting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop.errors import (
    ArgumentError,
    AutogradError,
    MutationError,
)
from polyop.fake import FakeTensorMode
from polyop.func import functionalize, grad, jvp, linearize, vjp
from polyop.graph import make_fx
from polyop.layers.autograd import gradcheck, no_grad
from polyop.layers.vmap import vmap
from polyop.ops.define import ON_TENSORS as OPS
from polyop.tensor.tensor import Tensor, of_array

#: PyTorch's own jvp brings in what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 4))
SQUARE = RNG.normal(size=(3, 3)) + 3 * np.eye(3)
COMPLEX = A + 1j * RNG.normal(size=(3, 4))
X, T = np.array([0.3, 0.7, -0.2]), np.array([1.0, 2.0, 3.0])
Fn = Callable[..., Any]


def tangent_of(array: Any) -> Any:
    """Give a random tangent of an array's shape and dtype."""
    made = RNG.normal(size=array.shape)
    if array.dtype.kind == "c":
        made = made + 1j * RNG.normal(size=array.shape)
    return np.asarray(made).astype(array.dtype)


def same(ours: Fn, theirs: Fn, *arrays: Any) -> None:
    """Hold results and tangents to PyTorch's."""
    tangents = [tangent_of(a) for a in arrays]
    out, d = jvp(ours, tuple(map(of_array, arrays)), tuple(map(of_array, tangents)))
    expected, slope = torch.func.jvp(
        theirs, tuple(map(torch.tensor, arrays)), tuple(map(torch.tensor, tangents))
    )
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=1e-7)
    np.testing.assert_allclose(d.numpy(), slope.numpy(), rtol=1e-7, atol=1e-10)
    assert str(d.dtype) == str(slope.dtype).removeprefix("torch.")


# -- operators ----------------------------------------------------------------

PAIRS: dict[str, tuple[Fn, Fn, tuple[Any, ...]]] = {
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, (A, A.T.copy())),
    "det": (OPS["det"], torch.linalg.det, (SQUARE,)),
    "inv": (OPS["inv"], torch.linalg.inv, (SQUARE,)),
    "solve": (OPS["solve_matrix"], torch.linalg.solve, (SQUARE, A)),
    "norm": (OPS["norm2"], torch.linalg.vector_norm, (A,)),
    "softmax": (lambda a: OPS["softmax"](a, 1), lambda a: torch.softmax(a, 1), (A,)),
    "log_softmax": (lambda a: OPS["log_softmax"](a, 1), lambda a: torch.log_softmax(a, 1), (A,)),
    "logsumexp": (lambda a: polyop.logsumexp(a, axis=1), lambda a: torch.logsumexp(a, 1), (A,)),
    "max": (lambda a: polyop.max(a, axis=1), lambda a: torch.amax(a, 1), (A,)),
    "min of equals": (lambda a: polyop.min(a), lambda a: torch.amin(a), (np.ones((2, 2)),)),
    "var": (lambda a: polyop.var(a, axis=1), lambda a: torch.var(a, 1, correction=0), (A,)),
    "std": (lambda a: polyop.std(a, axis=0), lambda a: torch.std(a, 0, correction=0), (A,)),
    "prod": (lambda a: polyop.prod(a, axis=0), lambda a: torch.prod(a, 0), (A * (A > -0.5),)),
    "sort": (lambda a: polyop.sort(a, axis=0), lambda a: torch.sort(a, 0)[0], (A,)),
    "topk": (lambda a: polyop.topk(a, 2)[0], lambda a: torch.topk(a, 2)[0], (A,)),
    "cumsum": (lambda a: polyop.cumulative_sum(a, axis=0), lambda a: torch.cumsum(a, 0), (A,)),
    "concat": (
        lambda a: polyop.concat([of_array(A), a]),
        lambda a: torch.cat([torch.tensor(A), a]),
        (A,),
    ),
    "pad": (
        lambda a: polyop.pad(a, ((1, 0), (0, 2)), constant_values=3.0),
        lambda a: torch.nn.functional.pad(a, (0, 2, 1, 0), value=3.0),
        (A,),
    ),
    "index": (lambda a: a[1:, [0, 2]] * a[0, 0], lambda a: a[1:, [0, 2]] * a[0, 0], (A,)),
    "where": (
        lambda a, b: polyop.where(a > 0, a * b, b),
        lambda a, b: torch.where(a > 0, a * b, b),
        (A, A[:1].copy()),
    ),
    "broadcast": (lambda a, b: a + b, lambda a, b: a + b, (A[:1].copy(), A[:, :1].copy())),
    "a wider dtype": (
        lambda a: a * of_array(np.arange(4.0)),
        lambda a: a * torch.arange(4.0, dtype=torch.float64),
        (A.astype("f4"),),
    ),
    "complex, holomorphic": (
        lambda a: a * a * polyop.exp(a),
        lambda a: a * a * torch.exp(a),
        (COMPLEX,),
    ),
    "complex, not holomorphic": (
        lambda a: polyop.abs(a) * polyop.real(a),
        lambda a: torch.abs(a) * torch.real(a),
        (COMPLEX,),
    ),
    "complex and real": (lambda a, b: b / a, lambda a, b: b / a, (COMPLEX, A)),
    "complex factor": (lambda a: a * (1 + 2j), lambda a: a * (1 + 2j), (A,)),
    "complex matmul": (
        lambda a: a @ polyop.conj(a).mT,
        lambda a: a @ torch.conj(a).mT,
        (COMPLEX,),
    ),
    "complex vecdot": (polyop.vecdot, torch.linalg.vecdot, (COMPLEX, COMPLEX * 1j)),
    "detach": (lambda a: a.detach() * a, lambda a: a.detach() * a, (A,)),
    "to integers": (
        lambda a: (a * 3).astype(polyop.int64),
        lambda a: (a * 3).to(torch.int64),
        (A,),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_operators_push_as_pytorchs(name: str) -> None:
    """S134: the tangent of an operator is PyTorch's, linear, pointwise or transposed."""
    ours, theirs, arrays = PAIRS[name]
    same(ours, theirs, *arrays)


UNARY = ["sin", "cos", "tanh", "exp", "negative", "sigmoid", "square"]
BINARY = ["add", "subtract", "multiply"]
TORCH = {"subtract": "sub"}


@st.composite
def programs(draw: Any) -> list[tuple[str, int, int]]:
    """Draw a DAG: each step reads two earlier values."""
    count = draw(st.integers(1, 8))
    places = [st.integers(0, i + 2) for i in range(count)]
    names = st.sampled_from(UNARY + BINARY)
    return [(draw(names), draw(place), draw(place)) for place in places]


def play(steps: list[tuple[str, int, int]], inputs: Any, of: Fn) -> Any:
    """Run a program; its values stay bounded."""
    values = list(inputs)
    for name, i, j in steps:
        given = (values[i],) if name in UNARY else (values[i], values[j])
        values.append(of("tanh")(of(name)(*given)))
    return values[-1]


def torchs(name: str) -> Any:
    """Give PyTorch's operator."""
    return getattr(torch, TORCH.get(name, name))


START = (X, np.array([[0.5], [0.1]]), np.array(0.4))


@given(programs())
@settings(max_examples=40, deadline=None)
def test_programs_push_as_pytorchs(steps: list[tuple[str, int, int]]) -> None:
    """S134: first and second forward derivatives of any program are PyTorch's."""
    ours = lambda *xs: play(steps, xs, OPS.__getitem__)  # noqa: E731
    theirs = lambda *xs: play(steps, xs, torchs)  # noqa: E731
    same(ours, theirs, *START)
    same(lambda *xs: jvp(ours, xs, xs)[1], lambda *xs: torch.func.jvp(theirs, xs, xs)[1], *START)


@given(programs())
@settings(max_examples=25, deadline=None)
def test_forward_and_reverse_mode_are_adjoint(steps: list[tuple[str, int, int]]) -> None:
    """S134: for any program `<w, J v>` is `<J^T w, v>`, and linearize gives the same `J v`."""
    ours = lambda *xs: play(steps, xs, OPS.__getitem__)  # noqa: E731
    primals, tangents = tuple(map(of_array, START)), tuple(of_array(tangent_of(x)) for x in START)
    out, d = jvp(ours, primals, tangents)
    w = of_array(tangent_of(out.numpy()))
    _, pull = vjp(ours, *primals)
    pushed = float((w * d).sum())
    pulled = sum(float((g * t).sum()) for g, t in zip(pull(w), tangents, strict=True))
    assert pushed == pytest.approx(pulled, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(linearize(ours, *primals)[1](*tangents).numpy(), d.numpy())


@given(programs())
@settings(max_examples=20, deadline=None)
def test_programs_push_as_finite_differences(steps: list[tuple[str, int, int]]) -> None:
    """S139: gradcheck with check_forward_ad holds forward mode to finite differences."""
    inputs = [of_array(x.copy()).requires_grad_() for x in START]
    gradcheck(lambda *xs: play(steps, xs, OPS.__getitem__), inputs, check_forward_ad=True)


# -- nesting ------------------------------------------------------------------


def ours(x: Tensor) -> Tensor:
    """Compute something that is neither linear nor elementwise."""
    return x.sin() * (x * x).sum()


def theirs(x: Any) -> Any:
    """Compute the same by PyTorch."""
    return x.sin() * (x * x).sum()


NESTED: dict[str, tuple[Fn, Fn]] = {
    "jvp of vmap": (lambda a: vmap(ours)(a), lambda a: torch.vmap(theirs)(a)),
    "jvp of grad": (
        lambda a: grad(lambda x: ours(x).sum())(a),
        lambda a: torch.func.grad(lambda x: theirs(x).sum())(a),
    ),
    "jvp of jvp": (
        lambda a: jvp(ours, (a,), (a,))[1],
        lambda a: torch.func.jvp(theirs, (a,), (a,))[1],
    ),
    "jvp of jvp with a captured tangent": (
        lambda a: jvp(lambda x: x * a, (a * 2,), (a.sin(),))[1],
        lambda a: torch.func.jvp(lambda x: x * a, (a * 2,), (a.sin(),))[1],
    ),
    "jvp of vmap of jvp": (
        lambda a: vmap(lambda x: jvp(ours, (x,), (x,))[1])(a),
        lambda a: torch.vmap(lambda x: torch.func.jvp(theirs, (x,), (x,))[1])(a),
    ),
    "jvp of vjp of jvp": (
        lambda a: vjp(lambda x: jvp(ours, (x,), (x,))[1], a)[1](a)[0],
        lambda a: torch.func.vjp(lambda x: torch.func.jvp(theirs, (x,), (x,))[1], a)[1](a)[0],
    ),
    "jvp of linearize": (
        lambda a: linearize(ours, a)[1](a),
        lambda a: torch.func.jvp(theirs, (a,), (a,))[1],
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_nesting_is_pytorchs(name: str) -> None:
    """S134: forward mode nests with itself, reverse mode and vmap, in any order."""
    same(*NESTED[name], A)


def test_outside_of_forward_mode() -> None:
    """S134: what jvp gives is batched, differentiated and recorded by what runs around it."""
    of = lambda f: lambda x: f(ours, (x,), (x,))[1]  # noqa: E731
    torchs = lambda x: torch.func.jvp(theirs, (x,), (x,))[1]  # noqa: E731
    x, t = of_array(A), torch.tensor(A)
    np.testing.assert_allclose(vmap(of(jvp))(x).numpy(), torch.vmap(torchs)(t).numpy())
    found = grad(lambda x: of(jvp)(x).sum())(x).numpy()
    np.testing.assert_allclose(found, torch.func.grad(lambda x: torchs(x).sum())(t).numpy())
    leaf, theirs_leaf = of_array(A.copy()).requires_grad_(), torch.tensor(A, requires_grad=True)
    of(jvp)(leaf).sum().backward()
    torchs(theirs_leaf).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), theirs_leaf.grad.numpy())


def test_traced_and_fake() -> None:
    """S134: a traced jvp is a graph of operators that computes it; fakes have shapes alone."""
    f = lambda x, t: jvp(lambda x: ours(x) * polyop.std(x), (x,), (t,))  # noqa: E731
    x, t = of_array(X), of_array(T)
    traced = make_fx(f)(x, t)
    other = of_array(X + 1)
    for found, expected in zip(traced(other, t), f(other, t), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy())
    with FakeTensorMode():
        out, d = f(polyop.ones(2, 3), polyop.ones(2, 3))
    assert d.is_fake
    assert tuple(out.shape) == tuple(d.shape) == (2, 3)


def test_closures_and_grad_mode() -> None:
    """S134, S140: captured tensors are constants, of outer levels too; no_grad stops no tangent."""
    w = of_array(T)
    _, d = jvp(lambda x: x * w, (of_array(X),), (of_array(T),))
    np.testing.assert_allclose(d.numpy(), T * T)

    def held(x: Any, lib: Any) -> Any:
        with lib.no_grad():
            y = x * x
        return y * x

    same(lambda x: held(x, polyop), lambda x: held(x, torch), A)
    with no_grad():
        assert jvp(lambda x: x * x, (w,), (w,))[1].tolist() == (2 * T * T).tolist()


def test_a_tangent_that_outlives_its_jvp() -> None:
    """S134: a tensor of a jvp that has ended belongs to nobody."""
    kept: list[Tensor] = []

    def leak(x: Tensor) -> Tensor:
        kept.append(x * 2)
        return x

    jvp(leak, (of_array(X),), (of_array(T),))
    with pytest.raises(AutogradError, match=r"func\.jvp is used after func\.jvp has ended"):
        kept[0] + 1


def test_threads_have_levels_of_their_own() -> None:
    """S134: many forward derivatives at once do not meet."""
    inputs = [of_array(X + i) for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: jvp(ours, (x,), (x,))[1].numpy(), inputs))
    for x, d in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(d, jvp(ours, (x,), (x,))[1].numpy())


# -- writes -------------------------------------------------------------------


def test_writes_carry_tangents() -> None:
    """S134: an in-place operator writes value and tangent, also under functionalize."""

    def write(x: Any) -> Any:
        y = x * 2
        y.multiply_(x) if isinstance(y, Tensor) else y.mul_(x)
        y.add_(1.0)
        return y * y

    same(write, write, A)
    same(lambda x: functionalize(write)(x), write, A)


def _view(x: Any) -> Any:
    y = x * 1
    y.reshape(-1).mul_(x.reshape(-1))
    return y


def _base(x: Any) -> Any:
    y = x * 1
    z = y.reshape(-1)
    y.mul_(x)
    return z


def _item(x: Any) -> Any:
    y = x * 1
    y[0] = x[1]
    return y


@pytest.mark.parametrize("write", [_view, _base, _item])
def test_writes_reach_what_shares_the_memory(write: Any) -> None:
    """S134, S136: value and tangent of a write reach the base and all its views."""
    same(write, write, A)


def _outside(x: Tensor) -> Tensor:
    return (polyop.zeros(3, dtype=polyop.float64).requires_grad_() * 1).copy_(x)


WRITES = {
    "an input": (lambda x: x.add_(1.0), "writes an input of func.jvp"),
    "a view of an input": (lambda x: x[0].add_(1.0), "writes a view of an input of func.jvp"),
    "a tensor with a history outside": (_outside, "derivative cannot follow"),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_that_tangents_cannot_follow(name: str) -> None:
    """S134: what would lose a tangent raises by name, and nothing is written."""
    write, text = WRITES[name]
    x = of_array(X.copy())
    with pytest.raises(MutationError, match=text):
        jvp(write, (x,), (of_array(T),))
    assert x.tolist() == X.tolist()


def test_a_write_must_fit() -> None:
    """S134: an in-place operator does not change a tensor's shape."""
    with pytest.raises(ArgumentError, match="cannot be written"):
        jvp(lambda x: (x * 1).add_(of_array(A[:, :3].copy())), (of_array(X),), (of_array(T),))


def test_data_taken_out_is_refused() -> None:
    """S132: numpy() would silently make the tangent zero; item() may steer."""
    for take in (lambda x: x.numpy(), lambda x: of_array(np.array(x.tolist()))):
        with pytest.raises(AutogradError, match="would lose its tangent"):
            jvp(lambda x, take=take: take(x), (of_array(X),), (of_array(T),))
    out, d = jvp(lambda x: x * 2 if x.sum() > 0 else x, (of_array(X),), (of_array(T),))
    assert d.tolist() == (2 * T).tolist()
    assert out.tolist() == (2 * X).tolist()


HOPS: dict[str, Fn] = {
    "cond": lambda x: polyop.hop.cond(x.sum() > 0, ours, lambda x: x, (x,)),
    "map": lambda x: polyop.hop.map(ours, x[None])[0],
    "checkpoint": lambda x: polyop.hop.checkpoint(ours, x),
    "checkpoint in vmap": lambda x: vmap(lambda r: polyop.hop.checkpoint(ours, r))(x[None])[0],
    "invoke_subgraph": lambda x: polyop.hop.invoke_subgraph(ours, "forward_mode", x),
    "compile": polyop.compile(ours),
}


@pytest.mark.parametrize("name", HOPS)
def test_operators_that_take_functions_let_tangents_through(name: str) -> None:
    """S132: no operator that takes functions, and no compiled program, drops a tangent."""
    f = HOPS[name]
    same(f, theirs, X)
    same(
        lambda x: grad(lambda x: jvp(f, (x,), (x,))[1].sum())(x),
        lambda x: torch.func.grad(lambda x: torch.func.jvp(theirs, (x,), (x,))[1].sum())(x),
        X,
    )


# -- memory of tangents ---------------------------------------------------------

#: Programs whose tangent is, without a copy, what was given.
PASSING: list[Fn] = [
    lambda x: x + 1,
    lambda x: x.clone(),
    lambda x: (x + 1)[:2],
    lambda x: polyop.expand_dims(x - 2, axis=0),
]


@pytest.mark.parametrize("size", [3, (1 << 15) + 3])
@pytest.mark.parametrize("program", PASSING)
def test_a_written_tangent_is_nobody_elses(program: Fn, size: int) -> None:
    """S134: what is written to the tangent of a result is in no tangent that was given."""
    x, t = polyop.ones(size), polyop.ones(size)
    for push in (
        lambda: jvp(program, (x,), (t,))[1],
        lambda: jvp(lambda x: {"one": program(x)}, (x,), (t,))[1]["one"],
        lambda: linearize(program, x)[1](t),
        lambda: jvp(lambda x: jvp(program, (x,), (t,)), (x,), (t,))[0][1],
    ):
        push().mul_(3.0)
        np.testing.assert_array_equal(t.numpy(), np.ones(size))


def test_tangents_of_two_results_are_two() -> None:
    """S134: results that share no memory have tangents that share none, as in PyTorch."""
    x, t = polyop.ones(3), polyop.ones(3)
    first, second = jvp(lambda x: (x + 1, x + 2), (x,), (t,))[1]
    first.mul_(3.0)
    assert second.tolist() == [1.0, 1.0, 1.0]
    base, view = jvp(lambda x: (y := x + 1, y[:2]), (x,), (t,))[1]
    base.mul_(3.0)
    assert t.tolist() == [1.0, 1.0, 1.0]
    assert view.shape == (2,)


def test_a_level_outside_may_write_the_tangent_of_one_inside() -> None:
    """S134: the inner result's tangent is no input of the outer transform, as in PyTorch."""

    def program(t: Any) -> Any:
        d = jvp(lambda a: a + 1, (t * 1,), (t,))[1]
        d *= 2.0
        return t * d

    def theirs(t: Any) -> Any:
        d = torch.func.jvp(lambda a: a + 1, (t * 1,), (t,))[1]
        d *= 2.0
        return t * d

    found = jvp(program, (polyop.asarray(X),), (polyop.asarray(T),))
    expected = torch.func.jvp(theirs, (torch.tensor(X),), (torch.tensor(T),))
    for ours, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), other.numpy())


def test_views_of_inputs_have_views_of_tangents() -> None:
    """S134: where a result is an input, or a view of it, so is its tangent: nothing is copied."""
    x, t = polyop.ones(3), polyop.ones(3)
    for program in (lambda x: x, lambda x: x[:2]):
        value, slope = jvp(program, (x,), (t,))
        assert np.shares_memory(value.numpy(), x.numpy())
        assert np.shares_memory(slope.numpy(), t.numpy())
