"""Kernels for the arrays of one library: chosen before all others, and right in all transforms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask.array as da
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tests.bridges.marks import COMPILES

import polyop
from polyop.errors import (
    AliasError,
    MetadataMismatchError,
    MissingKernelError,
    ReturnError,
    UsageError,
    UsageTypeError,
)
from polyop.library import Library, register_kernel, scoped_library

pytestmark = COMPILES
KINDS = (torch.Tensor, jax.Array, da.Array, np.ndarray)


@pytest.fixture
def lib() -> Iterator[Library]:
    with scoped_library("own_kernels", "FRAGMENT") as made:
        yield made


@pytest.fixture
def seen() -> list[Any]:
    return []


def define(lib: Library, seen: list[Any]) -> Any:
    """Define `x * k` with a kernel for tensors, which says when it runs."""
    lib.define("times(Tensor x, int k=2) -> Tensor")
    op = polyop.ops.own_kernels.times.default

    def kernel(x: Any, k: int = 2) -> Any:
        seen.append("tensor")
        return polyop.from_numpy(np.asarray(x.numpy() * k))

    register_kernel(op, None, kernel, lib=lib)
    polyop.library.register_fake(op, lambda x, k=2: polyop.empty_like(x), lib=lib)

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.k = inputs[1]

    polyop.library.register_autograd(
        op, lambda ctx, g: (op(g, ctx.k), None), setup_context=setup, lib=lib
    )
    polyop.library.register_vmap(op, lambda info, dims, x, k=2: (op(x, k), dims[0]), lib=lib)
    return op


def own(op: Any, lib: Library, seen: list[Any], library: str, devices: Any = None) -> None:
    """Give it a kernel for a library, which says what it gets."""

    def kernel(x: Any, k: int = 2) -> Any:
        seen.append(next(kind for kind in KINDS if isinstance(x, kind)))
        return x * k

    register_kernel(op, devices, kernel, lib=lib, library=library)


@pytest.mark.parametrize("early", [False, True])
def test_a_kernel_for_pytorch_gets_its_tensors(lib: Library, seen: list[Any], early: bool) -> None:
    """S50: PyTorch's operator runs the kernel for its tensors, whenever it was registered."""
    op = define(lib, seen)
    x = torch.ones(3, requires_grad=True)
    if not early:
        op(x)
        assert seen == ["tensor"]
    own(op, lib, seen, "torch")
    seen.clear()
    y = op(x, 3)
    y.sum().backward()
    assert y.tolist() == [3.0] * 3 and x.grad is not None and x.grad.tolist() == [3.0] * 3
    assert torch.ops.own_kernels.times(torch.ones(1)).tolist() == [2.0]
    assert torch.vmap(op)(torch.ones(2, 2)).tolist() == [[2.0, 2.0]] * 2
    assert torch.func.jvp(op, (torch.ones(1),), (torch.ones(1),))[1].tolist() == [2.0]
    torch._dynamo.reset()
    known = torch.ops.own_kernels.times
    run = torch.compile(lambda x: known(x, 4) + 1, fullgraph=True, backend="aot_eager")
    assert run(torch.ones(1)).tolist() == [5.0]
    assert set(seen) == {torch.Tensor}
    assert op(polyop.from_array(torch.ones(1))).tolist() == [2.0]
    assert seen[-1] is torch.Tensor
    assert op(polyop.ones(1)).tolist() == [2.0] and seen[-1] == "tensor"


@pytest.mark.parametrize("early", [False, True])
def test_a_kernel_for_jax_is_part_of_its_programs(
    lib: Library, seen: list[Any], early: bool
) -> None:
    """S50: JAX traces the kernel for its arrays; programs can be exported with it inside."""
    op = define(lib, seen)
    x = jnp.ones(3)
    run = jax.jit(lambda x: op(x, 3))
    if not early:
        assert run(x).tolist() == [3.0] * 3 and seen == ["tensor"]
    own(op, lib, seen, "jax")
    seen.clear()
    assert op(x, 3).tolist() == run(x).tolist() == [3.0] * 3
    assert jax.grad(lambda x: op(x, 5).sum())(x).tolist() == [5.0] * 3
    assert jax.jit(jax.vmap(op))(jnp.ones((2, 2))).tolist() == [[2.0, 2.0]] * 2
    assert jax.jvp(op, (x,), (x,))[1].tolist() == [2.0] * 3
    written = jax.export.export(run)(x).serialize()
    assert jax.export.deserialize(written).call(x).tolist() == [3.0] * 3
    assert set(seen) == {jax.Array}
    assert op(polyop.from_array(x)).tolist() == [2.0] * 3 and "tensor" not in seen


def test_a_kernel_for_dask_builds_recipes(lib: Library, seen: list[Any]) -> None:
    """S50: a kernel for Dask gets recipes and gives recipes; nothing is computed."""
    op = define(lib, seen)
    own(op, lib, seen, "dask", "cpu")
    y = op(da.ones(4, chunks=2), 3)
    assert isinstance(y, da.Array) and y.numblocks == (2,) and seen == [da.Array]
    assert y.compute().tolist() == [3.0] * 4
    t = polyop.from_array(da.ones(2, chunks=1)).requires_grad_()
    op(t, 7).sum().backward()
    assert t.grad is not None and t.grad.tolist() == [7.0, 7.0] and "tensor" not in seen


def test_a_kernel_for_numpy_gets_its_arrays(lib: Library, seen: list[Any]) -> None:
    """S50: a kernel for NumPy is one for the CPU that gets arrays, converted ones too."""
    op = define(lib, seen)
    own(op, lib, seen, "numpy", "cpu")
    x = polyop.ones(2, requires_grad=True)
    op(x, 3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3.0, 3.0]
    assert op(np.ones(1)).tolist() == op(torch.ones(1)).tolist() == op(jnp.ones(1)).tolist() == [2]
    assert set(seen) == {np.ndarray}


def test_the_most_specific_kernel_runs(lib: Library, seen: list[Any]) -> None:
    """S50: library and device go before the library, this before the device, this before any."""
    op = define(lib, seen)
    register_kernel(op, "cpu", lambda x, k=2: x.clone(), lib=lib)
    x = torch.ones(1)
    assert op(x).tolist() == [1.0]
    register_kernel(op, None, lambda x, k=2: x * 10, lib=lib, library="torch")
    assert op(x).tolist() == [10.0]
    register_kernel(op, "cuda", lambda x, k=2: x * 20, lib=lib, library="torch")
    assert op(x).tolist() == [10.0]
    register_kernel(op, ["cpu"], lambda x, k=2: x * 30, lib=lib, library="torch")
    assert op(x).tolist() == [30.0] and op(np.ones(1)).tolist() == [1.0]


def test_kernels_go_with_their_library(seen: list[Any]) -> None:
    """S41: a destroyed library takes its kernels for other libraries' arrays back."""
    with scoped_library("own_kernels", "FRAGMENT") as lib:
        op = define(lib, seen)
        with scoped_library("own_kernels", "FRAGMENT") as more:
            for library in ("torch", "jax"):
                own(op, more, seen, library)
            op(torch.ones(1)), op(jnp.ones(1))
            assert "tensor" not in seen
        seen.clear()
        assert op(torch.ones(1), 3).tolist() == op(jnp.ones(1), 3).tolist() == [3.0]
        assert seen == ["tensor"] * 2


def test_an_operator_with_kernels_for_libraries_alone(lib: Library) -> None:
    """S90: without a kernel for the arrays of a call, the error says for which there are some."""
    lib.define("alone(Tensor x) -> Tensor")
    op = polyop.ops.own_kernels.alone.default
    register_kernel(op, ["cpu", "cuda"], lambda x: x + 1, lib=lib, library="torch")
    assert op(torch.ones(1)).tolist() == [2.0]
    for x in (np.ones(1), polyop.ones(1), da.ones(1)):
        with pytest.raises(MissingKernelError, match="torch on cpu, torch on cuda"):
            op(x)
    register_kernel(op, None, lambda x: x.clone(), lib=lib)
    assert op(np.ones(1)).tolist() == [1.0] and op(torch.ones(1)).tolist() == [2.0]


def test_writes_count_as_written(lib: Library) -> None:
    """S174: a kernel for PyTorch writes its tensors, and what was saved of them is known as old."""
    lib.define("fill(Tensor(a!) x, float value) -> ()")
    op = polyop.ops.own_kernels.fill.default

    def kernel(x: Any, value: float) -> None:
        x.detach().numpy()[...] = value  # as a launcher of kernels would: PyTorch does not see it

    register_kernel(op, None, kernel, lib=lib, library="torch")
    x = torch.ones(2)
    before = x._version
    op(x, 3.0)
    assert x.tolist() == [3.0, 3.0] and x._version > before
    w = torch.ones(2, requires_grad=True)
    y = w * x
    op(x, 5.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("torch", lambda x, k=2: x, AliasError, "returned memory of an argument"),
    ("torch", lambda x, k=2: x[:1], AliasError, "returned memory of an argument"),
    ("torch", lambda x, k=2: x.numpy() * 2, ReturnError, "an array of torch"),
    ("torch", lambda x, k=2: (x * 2, x * 3), ReturnError, "an array of torch"),
    ("torch", lambda x, k=2: None, ReturnError, "NoneType"),
    ("jax", lambda x, k=2: np.asarray(x), ReturnError, "an array of jax"),
    ("jax", lambda x, k=2: x[:1] * 2, MetadataMismatchError, "not what its fake rule says"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_results_are_refused(number: int, lib: Library, seen: list[Any]) -> None:
    """S47: what a kernel for a library returns is looked at; the error names where it is."""
    library, kernel, error, text = BAD[number]
    op = define(lib, seen)
    register_kernel(op, None, kernel, lib=lib, library=library)
    x: Any = {"torch": torch.ones, "jax": jnp.ones}[library]((2,))
    with pytest.raises(error, match=text) as caught:
        op(x)
    assert "test_library_kernels.py:" in str(caught.value)


def test_errors_of_kernels_are_the_authors_own(lib: Library, seen: list[Any]) -> None:
    """S2: what a kernel for a library raises arrives as it is."""
    op = define(lib, seen)

    def failing(x: Any, k: int = 2) -> Any:
        raise KeyError("boom")

    for library in ("torch", "jax", "dask", "numpy"):
        register_kernel(op, None, failing, lib=lib, library=library)
    for x in (
        torch.ones(1),
        torch.ones(1, requires_grad=True),
        jnp.ones(1),
        da.ones(1),
        np.ones(1),
    ):
        with pytest.raises(KeyError, match="boom"):
            op(x)


def test_wrong_registrations(lib: Library, seen: list[Any]) -> None:
    """S50: what a library's arrays cannot do is refused, and nothing is changed."""
    op = define(lib, seen)
    lib.define("view(Tensor(a) x) -> Tensor(a)")
    lib.define("fill(Tensor(a!) x) -> ()")
    ops = polyop.ops.own_kernels
    before = dict(op.places.items())
    for wrong in (3, "", "two words", "torch.nn"):
        with pytest.raises(UsageTypeError, match="the name of a module"):
            register_kernel(op, None, lambda x: x, library=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="NumPy's arrays are on the CPU"):
        register_kernel(op, "cuda", lambda x: x, library="numpy")
    with pytest.raises(UsageError, match="cudda"):
        register_kernel(op, "cudda", lambda x: x, library="torch")
    with pytest.raises(UsageError, match="returns views"):
        register_kernel(ops.view.default, None, lambda x: x, library="torch")
    with pytest.raises(UsageError, match="arrays of jax are never written"):
        register_kernel(ops.fill.default, None, lambda x: x, library="jax")
    assert dict(op.places.items()) == before
