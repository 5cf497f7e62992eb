"""Authors' operators over other libraries: NumPy kernels by the exchange, answers in kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask.array
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.payloads.pair import tensor_of

import polyop
from polyop.errors import ArgumentError, MutationError, UsageError
from polyop.extend import payload_route
from polyop.payloads import library_of

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


@pytest.fixture
def lib() -> Iterator[Any]:
    """A library that is gone after the test."""
    with polyop.scoped_library("payload_tests", "FRAGMENT") as lib:
        yield lib


def scale(lib: Any) -> Any:
    """Define an operator with all its rules; its kernel looks into data."""
    lib.define("scale(Tensor x, float by) -> Tensor")
    lib.impl("scale", lambda x, by: polyop.from_numpy(np.sin(x.numpy()) * by), "CPU")
    polyop.library.register_fake("payload_tests::scale", lambda x, by: polyop.empty_like(x))
    polyop.library.register_autograd(
        "payload_tests::scale",
        lambda ctx, g: (g * polyop.cos(ctx.saved_tensors[0]) * ctx.by, None),
        setup_context=_keep,
    )
    return polyop.ops.payload_tests.scale


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.by = inputs[1]


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_a_numpy_kernel_serves_all(library: Any, lib: Any) -> None:
    """S66: one NumPy kernel serves every library, its gradient and batches too, in kind."""
    op = scale(lib)
    x = tensor_of(library, X)
    assert op(x, 2.0).payload.library is library
    np.testing.assert_allclose(op(x, 2.0).numpy(), np.sin(X) * 2)
    g = polyop.func.grad(lambda x: op(x, 2.0).sum())(x)
    assert g.payload.library is library
    np.testing.assert_allclose(g.numpy(), np.cos(X) * 2)
    rows = polyop.vmap(polyop.func.grad(lambda x: op(x, 2.0).sum()))(x)
    np.testing.assert_allclose(rows.numpy(), np.cos(X) * 2)
    y = tensor_of(library, X).requires_grad_()
    op(y, 3.0).sum().backward()
    np.testing.assert_allclose(y.grad.numpy(), np.cos(X) * 3)


def test_bare_arrays_answer_in_kind(library: Any, lib: Any) -> None:
    """S66: called with a library's own arrays an author's operator gives such arrays."""
    out = scale(lib)(library.from_numpy(X, None), 2.0)
    assert library_of(out) is library


def test_under_a_trace(lib: Any) -> None:
    """A NumPy kernel serves a trace of JAX too, by its bridge."""
    op = scale(lib)
    found = jax.jit(lambda a: polyop.to_array(op(polyop.from_array(a), 2.0)))(jnp.ones(2))
    np.testing.assert_allclose(found, np.sin(1.0) * 2, rtol=1e-6)


def test_kernels_of_operators_run_as_they_are(lib: Any) -> None:
    """A kernel that is made of operators computes over any library, traced ones too."""
    lib.define("twice(Tensor x) -> Tensor")
    lib.impl("twice", lambda x: x * 2, "CompositeImplicitAutograd")
    op = polyop.ops.payload_tests.twice
    found = jax.jit(lambda a: polyop.to_array(op(polyop.from_array(a))))(jnp.ones(2))
    assert found.tolist() == [2, 2]


def test_written_arguments(library: Any, lib: Any) -> None:
    """What a kernel writes is written back, into views too, and counted."""
    lib.define("bump(Tensor(a!) x, int by) -> ()")

    def kernel(x: Any, by: int) -> None:
        x.numpy()[...] += by

    lib.impl("bump", kernel, "CPU")
    t = tensor_of(library, np.arange(4.0))
    view = t[1:3]
    polyop.ops.payload_tests.bump(view, 10)
    assert t.tolist() == [0, 11, 12, 3] and view.tolist() == [11, 12]
    assert t._version == view._version == 1
    leaf = tensor_of(library, np.ones(2)).requires_grad_()
    with pytest.raises(MutationError, match="leaf"):
        polyop.ops.payload_tests.bump(leaf, 1)


def test_bare_arrays_are_written_if_they_can_be(lib: Any) -> None:
    """A bare PyTorch tensor is written in place; a bare JAX array is refused, with a way out."""
    lib.define("bump(Tensor(a!) x) -> ()")
    lib.impl("bump", _add, "CPU")
    x = torch.zeros(2)
    polyop.ops.payload_tests.bump(x)
    assert x.tolist() == [1, 1]
    with pytest.raises(ArgumentError, match=r"(?s)never written.*from_array"):
        polyop.ops.payload_tests.bump(jnp.zeros(2))


def _add(x: Any) -> None:
    x.numpy()[...] += 1


def test_declared_views_follow_their_base(library: Any, lib: Any) -> None:
    """S136: a declared view sees writes to its base; over PyTorch its base sees its own."""
    lib.define("tail(Tensor(a) x) -> Tensor(a)")
    lib.impl("tail", lambda x: polyop.from_numpy(x.numpy()[1:]), "CPU")
    t = tensor_of(library, np.arange(3.0))
    view = polyop.ops.payload_tests.tail(t)
    t.add_(1)
    assert view.tolist() == [2, 3]
    if library.name == "torch":
        view.add_(1)
        assert t.tolist() == [1, 3, 4]
        return
    with pytest.raises(MutationError, match="shares no memory with its base"):
        view.add_(1)


def test_lists_numbers_and_several_results(library: Any, lib: Any) -> None:
    """Lists of tensors, optional ones, numbers and several results go through."""
    lib.define("parts(Tensor[] xs, Tensor? y=None) -> (Tensor, int, Tensor[])")

    def kernel(xs: Any, y: Any = None) -> Any:
        arrays = [x.numpy() for x in xs]
        total = polyop.from_numpy(sum(arrays))
        return total, len(xs), [polyop.from_numpy(a * 2) for a in arrays]

    lib.impl("parts", kernel, "CPU")
    total, n, doubled = polyop.ops.payload_tests.parts(
        [tensor_of(library, X), polyop.from_numpy(X)]
    )
    assert n == 2 and total.payload.library is library and len(doubled) == 2
    np.testing.assert_allclose(total.numpy(), X * 2)
    assert all(d.payload.library is library for d in doubled)


def test_routes_are_of_built_in_operators(lib: Any) -> None:
    """Which way a built-in operator goes can be asked; an author's has kernels instead."""
    assert payload_route("core::add", "jax") == "native"
    assert payload_route("core::softmax", "torch") == "decomposed"
    assert payload_route("core::unique_values", "torch") == "exchange"
    assert payload_route("core::among", "dask") == "task"
    with pytest.raises(UsageError, match="no built-in operator"):
        payload_route(scale(lib).default, "torch")


def test_dask_computes_when_asked() -> None:
    """No operator computes a recipe: only a look at data does."""
    ran: list[int] = []

    def block(x: Any) -> Any:
        ran.append(1)
        return x

    meta = np.empty((0, 0))
    x = polyop.from_array(dask.array.ones((4, 4), chunks=2).map_blocks(block, meta=meta))
    y = polyop.sum(polyop.sort(polyop.softmax(x @ x, axis=-1), axis=0), axis=[0])
    polyop.func.grad(lambda x: (x * polyop.matmul(x, x)).sum())(x)
    assert not ran and y.shape == (4,)
    assert y.numpy().shape == (4,) and ran
