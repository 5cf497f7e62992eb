"""Writes inside `func.grad` and `func.jvp` into tensors from outside, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import polyop
from polyop import func
from polyop.errors import MutationError, VmapError
from polyop.layers.trace import make_fx

Program = Callable[[Any, Any], Any]
A = np.arange(1.0, 6)


def elements(a: Any, xp: Any) -> Any:
    out = xp.zeros(5, dtype=a.dtype)
    for i in range(5):
        out[i] = a[i] * a[(i + 1) % 5]
    return out


def parts(a: Any, xp: Any) -> Any:
    out = xp.zeros(5, dtype=a.dtype)
    out[1:3] = a[1:3] * a[:2]
    out[xp.asarray([0, 3])] = a[3:]
    out[4] = a[0]
    return out * out


def row_by_indices(a: Any, xp: Any) -> Any:
    out = xp.zeros((2, 5), dtype=a.dtype)
    row = out[1]
    row[xp.asarray([0, 1])] = a[:2] * 3
    row[2] = 7
    return (out * out)[1] * a


def views_of_views(a: Any, xp: Any) -> Any:
    out = xp.ones(5, dtype=a.dtype)
    most = out[1:]
    rest = most[1:]
    rest *= 3
    rest += a[2:]
    most[0] = a[0] * a[1]
    return out + rest.sum()


def repeated(a: Any, xp: Any) -> Any:
    out = xp.ones(5, dtype=a.dtype)
    out *= a
    out *= a
    return out


PROGRAMS = [elements, parts, row_by_indices, views_of_views, repeated]


def transforms(xp: Any) -> Any:
    return polyop.func if xp is polyop else torch.func


def once(program: Program, xp: Any) -> Any:
    return transforms(xp).grad(lambda a: program(a, xp).sum())


def twice(program: Program, xp: Any) -> Any:
    inner = transforms(xp).grad(lambda a: (program(a, xp) ** 2 * a).sum())
    return transforms(xp).grad(lambda a: inner(a).sum())


def forward(program: Program, xp: Any) -> Any:
    t = transforms(xp)
    return lambda a: t.jvp(lambda b: program(b, xp), (a,), (xp.ones_like(a),))[1]


def rows(program: Program, xp: Any) -> Any:
    """A batch; PyTorch refuses some of these, so there it is a loop."""
    one = once(program, xp)
    if xp is torch:
        return lambda a: torch.stack([one(a), one(a * 2)])
    return lambda a: polyop.vmap(one)(xp.stack([a, a * 2]))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own jvp
@pytest.mark.parametrize("transform", [once, twice, forward, rows])
@pytest.mark.parametrize("program", PROGRAMS)
def test_new_tensors_may_be_written(program: Program, transform: Any) -> None:
    """S134, S135: a tensor made inside a transform takes values that depend on its input."""
    ours, theirs = (transform(program, xp)(xp.asarray(A)) for xp in (polyop, torch))
    np.testing.assert_allclose(ours.numpy(), np.asarray(theirs))


@pytest.mark.parametrize("program", PROGRAMS)
def test_graphs_of_such_writes_run_on_other_data(program: Program) -> None:
    """S134: a traced gradient of a function that fills a new tensor is that gradient."""
    gradient = once(program, polyop)
    graph = make_fx(gradient)(polyop.asarray(A))
    found = graph(polyop.asarray(A * 3))
    np.testing.assert_allclose(found.numpy(), gradient(polyop.asarray(A * 3)).numpy())


def test_captured_tensors_are_written_when_the_function_is_done() -> None:
    """S135: who has the tensor, a view of it or its memory sees the value, and plain tensors."""
    memory = np.zeros(3)
    captured: Any = polyop.from_numpy(memory)
    view: Any = captured[1:]

    def program(x: Any) -> Any:
        captured[1] = x[2] * 2
        return (captured * x).sum()

    x = polyop.asarray(np.arange(3.0))
    before = captured._version
    assert polyop.func.grad(program)(x).tolist() == [0.0, 4.0, 2.0]
    assert memory.tolist() == captured.tolist() == [0.0, 4.0, 0.0]
    assert view.tolist() == [4.0, 0.0] and view.numpy().base is not None
    assert captured._version == view._version > before
    captured[2] = 5.0
    assert memory[2] == view[1].item() == 5.0


def test_memory_is_written_though_its_tensor_is_gone() -> None:
    """S135: an array that was wrapped inside has the value afterwards, as without a transform."""
    memory = np.zeros(3)

    def program(x: Any) -> Any:
        out: Any = polyop.from_numpy(memory)
        out[:] = x * x
        return out.sum()

    polyop.func.grad(program)(polyop.asarray(np.arange(3.0)))
    assert memory.tolist() == [0.0, 1.0, 4.0]


def test_kept_tensors_are_plain_again() -> None:
    """S134: what a function stores elsewhere is a tensor that outlives the transform."""
    kept: list[Any] = []

    def program(x: Any) -> Any:
        out = polyop.zeros(3, dtype=x.dtype)
        out[0] = x[1]
        kept.append(out)
        return out

    value, pull = polyop.func.vjp(lambda x: program(x).sum(), polyop.asarray(A))
    assert value.item() == 2.0 and pull(polyop.ones_like(value))[0].tolist() == [0, 1, 0, 0, 0]
    assert (kept[0] + 1).tolist() == [3.0, 1.0, 1.0]
    value, slope = polyop.func.jvp(program, (polyop.asarray(A),), (polyop.asarray(A),))
    assert value.tolist() == slope.tolist() == [2.0, 0.0, 0.0]


def test_outer_gradients_follow_what_was_written() -> None:
    """S135: a captured tensor that was written inside has a history outside, and its views too."""
    t = polyop.tensor([1.0, 2.0, 3.0], requires_grad=True)
    captured = polyop.zeros(3)
    view: Any = captured[1:]

    def program(x: Any) -> Any:
        captured[:] = x * t
        return (captured * x).sum()

    polyop.func.grad(program)(polyop.full(3, 2.0))
    view.sum().backward()
    assert t.grad.tolist() == [0.0, 2.0, 2.0]


def test_levels_lend_to_levels() -> None:
    """S134: an inner gradient may write what an outer one follows, and a view of it."""

    def writing(a: Any) -> Any:
        kept = a * 2
        part = kept[2:]

        def inner(b: Any) -> Any:
            kept[0] = b[0] * a[1]
            part[1] = b[1] * b[1]
            return (kept * b).sum()

        return (polyop.func.grad(inner)(a) * kept).sum() + part.sum()

    def written(a: Any) -> Any:  # PyTorch refuses to write captured tensors
        def kept(b: Any) -> Any:
            return torch.stack([b[0] * a[1], a[1] * 2, a[2] * 2, b[1] * b[1], a[4] * 2])

        inner = torch.func.grad(lambda b: (kept(b) * b).sum())
        return (inner(a) * kept(a)).sum() + kept(a)[2:].sum()

    ours = polyop.func.grad(writing)(polyop.asarray(A))
    theirs = torch.func.grad(written)(torch.asarray(A))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy())


def test_an_error_gives_everything_back() -> None:
    """S134: after a function that raises, captured tensors are plain, with what was written."""
    captured = polyop.zeros(3)

    def program(x: Any) -> Any:
        captured[0] = x[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        polyop.func.grad(program)(polyop.ones(3))
    assert (captured + 1).tolist() == [2.0, 1.0, 1.0]


def test_an_error_stays_what_it_is_where_the_outer_level_refuses() -> None:
    """S134, S135: frames of an error hold what was written inside; the error is not replaced."""

    def program(x: Any) -> Any:
        first, second = polyop.zeros(3), polyop.zeros(3)
        first[0], second[1] = x[0], x[1]
        raise ZeroDivisionError

    ones = polyop.ones(3)
    with pytest.raises(ZeroDivisionError):
        polyop.func.jvp(polyop.func.grad(program), (ones,), (ones,))


def test_one_refusal_leaves_no_other_tensor_behind() -> None:
    """S135: where an outer level refuses a write, all else that was taken over is given back."""
    kept = [polyop.zeros(3) for _ in range(3)]

    def program(x: Any) -> Any:
        for captured in kept:
            captured.copy_(x)
        return (kept[0] * x).sum()

    with pytest.raises(VmapError, match="same for all samples"):
        polyop.vmap(polyop.func.grad(program))(polyop.ones((2, 3)))
    for captured in kept:
        assert (captured + 1).tolist() == [1.0, 1.0, 1.0]
        assert captured.numpy().shape == (3,)


def test_what_a_level_may_not_take_over() -> None:
    """S135: a tensor with a history outside is refused; one value for many samples is refused."""
    known: Any = polyop.zeros(3).requires_grad_() * 1
    with pytest.raises(MutationError, match="derivative cannot follow"):
        polyop.func.grad(lambda x: known.copy_(x).sum())(polyop.ones(3))
    assert known.tolist() == [0.0, 0.0, 0.0] and known._version == 0
    captured = polyop.zeros(3)
    fill = polyop.func.grad(lambda x: captured.copy_(x).sum())
    with pytest.raises(VmapError, match="same for all samples"):
        polyop.vmap(fill)(polyop.ones((2, 3)))
    assert captured.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("part", [slice(None), slice(1, None)])
def test_gradients_read_captured_tensors_as_they_were(part: slice) -> None:
    """S134, S135: that the memory gets its new value at the end changes no derivative."""
    ours, theirs = (xp.asarray(A.copy()) for xp in (polyop, torch))

    def scaled(captured: Any) -> Any:
        def f(a: Any) -> Any:
            captured[part].mul_(a[part])
            return (captured * captured).sum()

        return f

    a = polyop.asarray(A / 3)
    expected = 2 * A**2 * (A / 3)
    expected[: part.start or 0] = 0
    np.testing.assert_allclose(polyop.func.grad(scaled(ours))(a).numpy(), expected)
    theirs[part] *= torch.asarray(A / 3)[part]
    np.testing.assert_allclose(ours.numpy(), theirs.numpy())


def test_a_trace_keeps_what_was_read_before_the_write() -> None:
    """S134, S166: a traced gradient may read, view and then write what it was given."""

    def f(a: Any, out: Any) -> Any:
        old, part = out.clone(), out[1:]
        out.lerp_(a, 0.25)
        return (out * old).sum() + part.sum()

    program = make_fx(polyop.func.grad(f))(*(polyop.asarray(A.copy()) for _ in range(2)))
    for data in (A, A[::-1] + 1):
        out = polyop.asarray(data.copy())
        expected = data / 4 + np.array([0, 1, 1, 1, 1]) / 4
        np.testing.assert_allclose(program(polyop.asarray(A * 2), out).numpy(), expected)
        np.testing.assert_allclose(out.numpy(), data + (A * 2 - data) / 4)


@pytest.mark.parametrize("end", [lambda v: v, lambda v: v[None, :], lambda v: v.mT])
def test_results_on_written_memory_keep_their_tangents_or_are_refused(end: Any) -> None:
    """S132: a view that a `jvp` gives of what it wrote is no level's outside to take over."""

    def inner(z: Any) -> Any:
        base = polyop.ones(2, 3, dtype=polyop.float64)
        part = base[1:]
        part.mul_(z.sum())
        return end(part)

    def outer(z: Any) -> Any:
        return func.jvp(inner, (z,), (z.sin(),))[1].sum()

    z = polyop.tensor([1.0, 2.0], dtype=polyop.float64)
    with pytest.raises(MutationError, match="cannot follow"):
        func.grad(outer)(z)
    assert outer(z).item() == pytest.approx(3 * float(z.sin().sum()))
