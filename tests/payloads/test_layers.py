"""Gradients, batches, traces and fakes over other libraries' arrays, and inside of their own."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.payloads.conftest import MADE
from tests.payloads.pair import tensor_of
from torch._subclasses.fake_tensor import FakeTensorMode

import polyop
from polyop.errors import ArgumentError, DataDependentOutputError, MissingKernelError
from polyop.graph import make_fx
from polyop.payloads import library_of

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
W = np.array([[1.0, 0.5], [-0.5, 2.0], [0.25, 1.0]])


def model(x: Any, w: Any) -> Any:
    """Many kinds of operators, views and a write among them."""
    y = polyop.tanh(x @ w) + x[:, :1] * 2
    y = polyop.concat([y, polyop.flip(y, axis=[1])], axis=1)
    z = y * 1
    z[0].mul_(3)
    z = polyop.where(z > 0, z, polyop.exp(z))
    z = z / polyop.sum(polyop.abs(z), axis=[1], keepdims=True)
    return polyop.sum(polyop.softmax(z, axis=-1) * polyop.max(y, axis=[1], keepdims=True))


FUNCTIONS = {
    "grad": lambda x, w: polyop.func.grad(model, (0, 1))(x, w),
    "grad of grad": lambda x, w: polyop.func.grad(
        lambda x: polyop.sum(polyop.func.grad(model)(x, w) ** 2)
    )(x),
    "vmap": lambda x, w: polyop.vmap(lambda row: model(row.reshape([1, 3]), w))(x),
    "grad per sample": lambda x, w: polyop.vmap(
        polyop.func.grad(lambda row: model(row.reshape([1, 3]), w))
    )(x),
    "jvp": lambda x, w: polyop.func.jvp(lambda x: model(x, w), (x,), (x,)),
    "jacrev": lambda x, w: polyop.func.jacrev(lambda x: polyop.softmax(x @ w, axis=1))(x),
    "hessian": lambda x, w: polyop.func.hessian(lambda w: model(x, w))(w),
    "functionalize": lambda x, w: polyop.func.functionalize(model)(x, w),
    "trace": lambda x, w: make_fx(model)(x, w)(x, w),
    "trace of grad": lambda x, w: make_fx(polyop.func.grad(model))(x, w)(x, w),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transforms_agree_with_numpy(library: Any, name: str) -> None:
    """S66: a transform over any library gives NumPy's results, in arrays of the library."""
    wanted = polyop.tree.leaves(FUNCTIONS[name](polyop.tensor(X), polyop.tensor(W)))
    wanted64 = polyop.tree.leaves(FUNCTIONS[name](polyop.from_numpy(X), polyop.from_numpy(W)))
    found = polyop.tree.leaves(FUNCTIONS[name](tensor_of(library, X), tensor_of(library, W)))
    assert len(wanted) == len(found)
    for a, b in zip(wanted64, found, strict=True):
        assert b.payload.library is library and a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-9, atol=1e-12)


def test_backward_accumulates_in_kind(library: Any) -> None:
    """Gradients of leaves are arrays of the leaves' library, and add up."""
    x = tensor_of(library, X).requires_grad_()
    for _ in range(2):
        model(x, tensor_of(library, W)).backward()
    y = polyop.from_numpy(X).requires_grad_()
    for _ in range(2):
        model(y, polyop.from_numpy(W)).backward()
    assert x.grad.payload.library is library
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9)


def test_a_leaf_of_numpy_beside_others(library: Any) -> None:
    """A NumPy leaf in a call with another library's array has its gradient."""
    w = polyop.from_numpy(W.copy()).requires_grad_()
    (tensor_of(library, X) @ w).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), X.sum(0)[:, None] + np.zeros((3, 2)))


def test_fakes_of_other_libraries(library: Any) -> None:
    """A fake of a tensor over any array has its facts, and computes those of the result."""
    mode = polyop.fake.FakeTensorMode()
    fake = mode.from_tensor(tensor_of(library, X))
    assert model(fake, mode.from_tensor(tensor_of(library, W))).shape == ()
    assert fake.shape == (2, 3) and fake.dtype == np.float64


def test_compiled_functions(library: Any) -> None:
    """A compiled function computes over each library."""
    fn = polyop.compile(lambda x: polyop.sum(polyop.sin(x) * 2, axis=[1]))
    for _ in range(2):
        found = fn(tensor_of(library, X))
        np.testing.assert_allclose(found.numpy(), (np.sin(X) * 2).sum(1))
    assert found.payload.library is library


def test_seeds_of_numpy(library: Any) -> None:
    """A gradient given as a NumPy tensor goes on in the library of the output."""
    x = tensor_of(library, X).requires_grad_()
    (g,) = polyop.autograd.grad(x * x, x, polyop.from_numpy(np.ones((2, 3))))
    assert g.payload.library is library
    np.testing.assert_allclose(g.numpy(), 2 * X)


def test_gradients_against_differences(library: Any) -> None:
    """Gradients over any library pass the check against finite differences."""
    x, w = tensor_of(library, X).requires_grad_(), tensor_of(library, W).requires_grad_()
    assert polyop.autograd.gradcheck(lambda x, w: polyop.tanh(x @ w), (x, w))


def test_functions_that_go_over_to_numpy(library: Any) -> None:
    """A function whose forward answers in NumPy has its gradient, before it in any library."""

    class Sine(polyop.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return polyop.from_numpy(np.sin(x.numpy()))

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * polyop.cos(ctx.saved_tensors[0])

    x = tensor_of(library, X).requires_grad_()
    Sine.apply(x * 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(2 * X) * 2)


# -- inside the libraries' own transforms -----------------------------------------------


def in_kind(fn: Any) -> Any:
    """Give a function of arrays that computes with tensors."""

    def run(*arrays: Any) -> Any:
        out = fn(*map(polyop.from_array, arrays))
        return polyop.tree.map_leaves(polyop.to_array, out)

    return run


def test_jax_transforms_around_ours() -> None:
    """jit, grad and vmap of JAX work around functions of tensors, gradients of ours inside."""
    expected = polyop.func.grad(model)(polyop.from_numpy(X), polyop.from_numpy(W)).numpy()
    inner = in_kind(polyop.func.grad(model))
    np.testing.assert_allclose(jax.jit(inner)(X, W), expected, rtol=1e-9)
    outer = jax.grad(in_kind(model))
    np.testing.assert_allclose(outer(jnp.asarray(X), jnp.asarray(W)), expected, rtol=1e-9)
    both = jax.jit(jax.vmap(inner, (0, None)))(jnp.stack([X, X]), jnp.asarray(W))
    np.testing.assert_allclose(both[1], expected, rtol=1e-9)


def test_torch_transforms_around_ours() -> None:
    """torch.func and autograd of PyTorch work around functions of tensors."""
    expected = polyop.func.grad(model)(polyop.from_numpy(X), polyop.from_numpy(W)).numpy()
    x, w = torch.tensor(X), torch.tensor(W)
    np.testing.assert_allclose(torch.func.grad(in_kind(model))(x, w), expected, rtol=1e-9)
    x.requires_grad_()
    in_kind(model)(x, w).backward()
    np.testing.assert_allclose(x.grad, expected, rtol=1e-9)
    batch = torch.func.vmap(in_kind(lambda x: polyop.func.grad(lambda x: (x.sin() * x).sum())(x)))
    y = torch.tensor(X)
    np.testing.assert_allclose(batch(y), torch.cos(y) * y + torch.sin(y), rtol=1e-9)


def test_fakes_of_torch_pass() -> None:
    """A fake tensor of PyTorch goes through operators and gradients as a fake."""
    with FakeTensorMode() as mode:
        x, w = mode.from_tensor(torch.tensor(X)), mode.from_tensor(torch.tensor(W))
        out = in_kind(polyop.func.grad(model))(x, w)
    assert tuple(out.shape) == (2, 3) and type(out).__name__ == "FakeTensor"


def test_tracers_are_not_looked_at() -> None:
    """What needs data under a trace is a named error, never a wrong answer."""

    def masked(x: Any) -> Any:
        return x[x > 0]

    with pytest.raises(MissingKernelError, match="argwhere has no kernel for what jax traces"):
        jax.jit(in_kind(masked))(jnp.asarray(X))
    with pytest.raises(DataDependentOutputError, match="jax only traces"):
        jax.jit(in_kind(lambda x: x if x.sum() > 0 else -x))(jnp.asarray(X))


def test_indices_out_of_range_under_a_trace() -> None:
    """JAX would take the nearest element; here it is NaN, and an error where data can be seen."""
    take = in_kind(lambda x, i: polyop.take(x, i, axis=0))
    index = jnp.array([0, 7])
    assert np.isnan(jax.jit(take)(jnp.asarray(X), index)[1]).all()
    with pytest.raises(ArgumentError, match="index 7 is out of bounds"):
        take(jnp.asarray(X), index)


def test_half_the_width() -> None:
    """Where JAX has no 64 bits, results have half the width, and all else is as always."""
    jax.config.update("jax_enable_x64", False)
    t = polyop.from_array(jnp.arange(6.0).reshape(2, 3))
    assert polyop.argmax(t, axis=1).dtype == np.int32 and polyop.argmax(t, axis=1).tolist() == [
        2,
        2,
    ]
    assert (t + polyop.from_numpy(X)).dtype == np.float32
    g = polyop.func.grad(lambda x: (x * polyop.from_numpy(X)).sum())(t)
    np.testing.assert_allclose(g.numpy(), X, rtol=1e-6)


# -- mixing ---------------------------------------------------------------------------------


def test_two_libraries_in_one_call() -> None:
    """NumPy and numbers join any library; two others in one call are an error naming both."""
    a, b = polyop.from_array(torch.ones(2)), polyop.from_array(jnp.ones(2))
    assert (a + polyop.ones(2)).payload.library.name == "torch"
    assert (polyop.ones(2) * b + 1).payload.library.name == "jax"
    with pytest.raises(ArgumentError, match=r"(?s)argument: a, b.*a: torch.*b: jax"):
        polyop.add(a, b)
    with pytest.raises(ArgumentError, match="two libraries"):
        polyop.concat([a, b])


def test_arrays_answer_in_kind() -> None:
    """S66: called with a library's own arrays an operator gives such arrays back."""
    made = {n: library_of(make()) for n, make in MADE.items()}
    for name, library in made.items():
        out = polyop.add(library.from_numpy(X, None), library.from_numpy(X, None))
        assert library_of(out).name == name
        np.testing.assert_array_equal(tensor_of(library, X).numpy() * 2, X + X)


def test_keys_of_any_library() -> None:
    """A library's own arrays index and are written as NumPy's are."""
    t = polyop.from_array(torch.arange(4.0))
    assert t[torch.tensor([0, 2])].tolist() == [0, 2]
    assert t[torch.tensor([True, False, False, True])].tolist() == [0, 3]
    t[torch.tensor([1])] = torch.tensor([9.0])
    assert t.tolist() == [0, 9, 2, 3] and (torch.ones(4) + t).tolist() == [1, 10, 3, 4]


def test_memory_is_let_go() -> None:
    """No circle keeps an array: with its tensors and views it is gone at once."""
    gc.disable()
    try:
        x = torch.ones(3)
        gone = weakref.ref(x)
        t = polyop.from_array(x)
        view = polyop.flip(t[1:])
        view.add_(1)
        del x, t, view
        assert gone() is None
    finally:
        gc.enable()


def test_plain_programs_read_none_of_this() -> None:
    """Importing polyop, and computing with NumPy, reads no file of other libraries' payloads."""
    code = (
        "import sys, polyop; x = polyop.ones(3).requires_grad_(); (x * x).sum().backward(); "
        "assert not [m for m in sys.modules if m.startswith(('polyop.payloads', "
        "'polyop.layers.payloads', 'torch', 'jax', 'array_api_compat'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads(library: Any) -> None:
    """Many threads compute over one library, gradients included, and none meets another's."""
    failed: list[Any] = []

    def work(seed: int) -> None:
        try:
            x = np.random.default_rng(seed).normal(size=(2, 3))
            found = polyop.func.grad(model)(tensor_of(library, x), tensor_of(library, W))
            wanted = polyop.func.grad(model)(polyop.from_numpy(x), polyop.from_numpy(W))
            np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-9)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed


def test_texts(library: Any) -> None:
    """A tensor is printed with its values and its library; a recipe or a tracer without values."""
    text = repr(tensor_of(library, np.array([1.0, 2.0], "float32")))
    assert f"library={library.name}" in text
    assert ("[1., 2.]" in text) == (not library.lazy)
    seen: list[str] = []
    jax.jit(lambda x: seen.append(repr(polyop.from_array(x))) or x)(jnp.ones(2, jnp.float32))
    assert seen == ["tensor(..., size=(2), dtype=float32, library=jax)"]
