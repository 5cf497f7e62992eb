"""Arrays that NumPy's cannot stand for are refused by name: sparse, quantized, keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import polyop
from polyop import Tensor
from polyop.errors import ArgumentError, ReturnError

WARNINGS = ("Sparse CS", "ComplexHalf", "The PyTorch API of nest", "torch.quantize")
pytestmark = pytest.mark.filterwarnings(*[f"ignore:{text}:UserWarning" for text in WARNINGS])


@polyop.custom_op("refusedtest::plus", mutates_args=())
def plus(x: Tensor, y: Tensor) -> Tensor:
    """A kernel on NumPy's arrays."""
    return polyop.from_numpy(x.numpy() + y.numpy())


plus.register_fake(lambda x, y: polyop.empty_like(x))
plus.register_autograd(lambda ctx, g: (g, g))


@polyop.custom_op("refusedtest::joined", mutates_args=())
def joined(xs: Sequence[Tensor], y: Tensor | None = None) -> Tensor:
    """Takes lists, and what may be absent."""
    return polyop.from_numpy(sum(x.numpy() for x in xs) + (0 if y is None else y.numpy()))


joined.register_fake(lambda xs, y=None: polyop.empty_like(xs[0]))


@polyop.custom_op("refusedtest::raised", mutates_args={"x"})
def raised(x: Tensor, y: Tensor) -> None:
    """Writes."""
    x.numpy()[...] += y.numpy()


@polyop.custom_op("refusedtest::own", mutates_args=())
def own(x: Tensor, dense: bool) -> Tensor:
    """Has a kernel for PyTorch's tensors, whatever they are."""
    return x * 2


own.register_fake(lambda x, dense: polyop.empty_like(x))


@own.register_kernel("cpu", library="torch")
def own_torch(x: Any, dense: bool) -> Any:
    return (x * 2).to_dense() if dense else x * 2


D = torch.ones(2, 2)
SCALES, ZEROS = torch.tensor([0.5, 0.5]), torch.tensor([0, 0])
#: What is not dense: how to make it, what is seen, what to do, and that done.
ODD = {
    "coo": (lambda: D.to_sparse(), "layout torch.sparse_coo", ".to_dense()", torch.Tensor.to_dense),
    "csr": (lambda: D.to_sparse_csr(), "layout torch.sparse_csr", ".to_dense()",
            torch.Tensor.to_dense),
    "csc": (lambda: D.to_sparse_csc(), "layout torch.sparse_csc", ".to_dense()",
            torch.Tensor.to_dense),
    "quantized": (lambda: torch.quantize_per_tensor(D, 0.5, 0, torch.quint8), "torch.quint8",
                  ".dequantize()", torch.dequantize),
    "by channel": (lambda: torch.quantize_per_channel(D, SCALES, ZEROS, 0, torch.qint8),
                   "torch.qint8", ".dequantize()", torch.dequantize),
    "half complex": (lambda: D.to(torch.complex32), "torch.complex32", ".to(dtype)",
                     lambda x: x.to(torch.complex64).real.contiguous()),
}  # fmt: skip
CALLS = {
    "x": lambda x: plus(x, D),
    "y": lambda x: plus(D, x),
    "x of a handle": lambda x: torch.ops.refusedtest.plus(x, D),
    "x beside a gradient": lambda x: plus(x, D.clone().requires_grad_()),
    "x compiled": lambda x: torch.compile(lambda a: plus(a, D), backend="eager")(x),
    "xs": lambda x: joined([D, x]),
    "y?": lambda x: joined([D], x),
    "x written": lambda x: raised(x, D),
    "y beside what is written": lambda x: raised(D.clone(), x),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("where", CALLS)
def test_what_is_not_dense_is_refused_by_name(kind: str, where: str) -> None:
    """S3: sparse and quantized tensors: operator, argument, what is seen, and what to do."""
    make, seen, fix, _ = ODD[kind]
    with pytest.raises(ArgumentError) as caught:
        CALLS[where](make())
    error = caught.value
    name = where.partition(" ")[0].removesuffix("?")
    assert error.op.startswith("refusedtest::") and error.argument == name
    assert f"cannot take its argument {name!r}" in error.problem
    assert error.seen == seen and fix in error.fix and __file__ in error.source


@pytest.mark.parametrize("kind", ODD)
def test_what_the_error_says_helps(kind: str) -> None:
    """S3: with what the error says to call, the call is right."""
    make, _, _, mend = ODD[kind]
    assert plus(mend(make()), D).tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_built_in_operators_name_their_argument() -> None:
    """S3: so do the built-in ones, and those whose arrays are over a library."""
    for call in (lambda x: polyop.sin(x), lambda x: polyop.add(polyop.from_array(D), x)):
        with pytest.raises(ArgumentError, match=r"(?s)cannot take its argument.*sparse_coo"):
            call(D.to_sparse())


LAYOUTS = (torch.strided, torch.jagged)


def rows(layout: Any, **named: Any) -> Any:
    """Make a tensor that has rows of several lengths."""
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout, **named)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nested_tensors_are_no_tensors_of_ours(layout: Any) -> None:
    """What has rows of several lengths is refused, and never read as if it were dense."""
    x = rows(layout)
    with pytest.raises(ArgumentError, match=r"(?s)nested, layout.*to_padded_tensor"):
        polyop.from_array(x)
    with pytest.raises(ArgumentError, match=r"(?s)core::sin cannot take its argument 'x'"):
        polyop.sin(x)
    assert plus(x.to_padded_tensor(0.0), x.to_padded_tensor(0.0)).shape == (2, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("where", [k for k in CALLS if k not in {"x compiled", "xs", "y?"}])
def test_nested_tensors_are_refused_by_name(layout: Any, watched: bool, where: str) -> None:
    """S3: nested tensors of both layouts, before and after calls with others are remembered."""
    x = rows(layout, requires_grad=watched)
    if "writ" in where:
        x = x.detach()
    plus(D, D)
    raised(D.clone(), D)
    for _ in range(3):
        with pytest.raises(ArgumentError) as caught:
            CALLS[where](x)
        error, name = caught.value, where.partition(" ")[0]
        assert error.op.startswith("refusedtest::") and error.argument == name
        assert f"cannot take its argument {name!r}" in error.problem and __file__ in error.source
        assert error.seen == f"nested, layout {layout}" and "to_padded_tensor" in error.fix
    assert plus(D, D).tolist() == [[2.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lists_of_nested_tensors_are_refused_by_name(layout: Any) -> None:
    """S3: in lists too, and where an argument may be absent."""
    for call, name in ((lambda x: joined([D, x]), "xs"), (lambda x: joined([D], x), "y")):
        with pytest.raises(ArgumentError, match=rf"cannot take its argument '{name}'"):
            call(rows(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_programs_refuse_nested_tensors_by_name(layout: Any) -> None:
    """S3: as calls outside of them do."""
    with pytest.raises(ArgumentError, match=r"(?s)refusedtest::plus cannot take.*nested, layout"):
        torch.compile(lambda a: plus(a, D), backend="eager")(rows(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_author_s_kernel_for_pytorch_takes_nested_tensors(layout: Any) -> None:
    """S66: it is called with them; a nested result, and a gradient of ours, cannot be."""
    with polyop.scoped_library("refusedtest", "FRAGMENT") as lib:
        lib.define("rows(Tensor x, bool dense) -> Tensor")
        lib.impl("rows", lambda x, dense: x * 2, "CPU")
        polyop.library.register_fake(
            "refusedtest::rows", lambda x, dense: polyop.empty_like(x), lib=lib
        )
        op = polyop.ops.refusedtest.rows
        with pytest.raises(ArgumentError, match="rows cannot take its argument 'x'"):
            op(rows(layout), True)  # PyTorch's operator is made before the kernel comes

        def kernel(x: Any, dense: bool) -> Any:
            return (x * 2).to_padded_tensor(0.0) if dense else x * 2

        polyop.library.register_kernel("refusedtest::rows", "cpu", kernel, lib=lib, library="torch")
        assert op(rows(layout), True).tolist() == [[2.0, 2.0, 0.0], [2.0, 2.0, 2.0]]
        with pytest.raises(ReturnError, match=r"(?s)refusedtest::rows for PyTorch.*nested"):
            op(rows(layout), False)
        if layout is torch.strided:
            with pytest.raises(ArgumentError, match=r"(?s)refusedtest::rows cannot.*nested"):
                op(rows(layout, requires_grad=True), True)


def test_an_author_s_kernel_for_pytorch_takes_what_pytorch_has() -> None:
    """S66: it may take sparse tensors; a result that its fake rule cannot say is refused."""
    assert own(torch.eye(2).to_sparse(), True).tolist() == [[2.0, 0.0], [0.0, 2.0]]
    with pytest.raises(
        ReturnError, match=r"(?s)refusedtest::own for PyTorch.*sparse_coo"
    ) as caught:
        own(torch.eye(2).to_sparse(), False)
    assert "to_dense" in caught.value.fix and __file__ in caught.value.source


def test_tensors_without_data_give_none() -> None:
    """A tensor on `meta` beside one with data gives no result that nobody computed."""
    meta = torch.ones(2, 2, device="meta")
    assert plus(meta, meta).is_meta and plus(meta, D).is_meta
    target = D.clone()
    for call, name in [
        (lambda: plus(D, meta), "y"),
        (lambda: joined([D, meta]), "xs"),
        (lambda: raised(target, meta), "y"),
    ]:
        with pytest.raises(ArgumentError, match=r"(?s)on the device meta.*one device") as caught:
            call()
        assert caught.value.argument == name
    assert torch.equal(target, D)


# -- JAX ----------------------------------------------------------------------------------------

JD = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda k: plus(k, JD), "x"),
        (lambda k: plus(jnp.asarray(JD), k), "y"),
        (lambda k: jax.jit(plus)(JD, k), "y"),
        (lambda k: jax.vmap(plus)(JD, k), "y"),
        (lambda k: jax.grad(lambda x: plus(x, k).sum())(JD), "y"),
        (lambda k: joined([jnp.asarray(JD), k]), "xs"),
        (lambda k: joined([jnp.asarray(JD)], k), "y"),
        (lambda k: plus(polyop.from_array(jnp.asarray(JD)), k), "y"),
        (lambda k: polyop.sin(k), "x"),
    ],
)
def test_keys_of_random_numbers_are_refused_by_name(call: Any, name: str) -> None:
    """S3: a key of JAX is no array of numbers: operator, argument, its dtype, and what to give."""
    keys = jax.random.split(jax.random.key(0), 4).reshape(2, 2)
    plus(jnp.asarray(JD), jnp.asarray(JD))  # calls of these classes are remembered
    with pytest.raises(ArgumentError) as caught:
        call(keys)
    assert caught.value.op and caught.value.argument == name
    assert caught.value.seen == "key<fry>" and "jax.random.key_data(key)" in caught.value.fix


def test_the_data_of_a_key_is_an_array() -> None:
    """S3: with what the error says to give, the call is right."""
    data = jax.random.key_data(jax.random.key(7))
    assert plus(data, data).tolist() == (data + data).tolist()
