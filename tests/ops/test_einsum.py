"""`einsum` is NumPy's, and its gradients, batches, fakes and traces are those of its parts."""

from __future__ import annotations

import string
from typing import Any

import array_api_strict
import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop import func
from polyop.errors import ArgumentError
from polyop.fake import FakeTensorMode
from polyop.graph import make_fx
from polyop.ops.contractions import einsum

Case = tuple[str, list[tuple[int, ...]]]
#: Subscripts of each kind, and the shapes of their operands.
CASES: list[Case] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("bij,bjk->kbi", [(2, 3, 4), (2, 4, 5)]),
    ("ii", [(3, 3)]),
    ("iji->ij", [(3, 2, 3)]),
    ("ba", [(2, 3)]),
    ("ij->", [(2, 3)]),
    ("i,i->i", [(3,), (3,)]),
    ("i,j", [(2,), (3,)]),
    ("i,ij,j", [(2,), (2, 3), (3,)]),
    ("ab,cd,bc->da", [(2, 3), (4, 5), (3, 4)]),
    ("bi,bj,bij->b", [(2, 3), (2, 4), (2, 3, 4)]),
    ("abc,bcd,cde->ae", [(2, 3, 4), (3, 4, 5), (4, 5, 2)]),
    ("...ij,...jk->...ik", [(5, 2, 3), (1, 3, 4)]),
    ("i...,...i->...", [(3, 2), (4, 1, 3)]),
    ("ij,jk->ik", [(2, 1), (3, 4)]),
    ("a,ab,b->ab", [(2,), (1, 3), (3,)]),
]
cases = pytest.mark.parametrize(("text", "shapes"), CASES, ids=[case[0] for case in CASES])


def arrays(shapes: list[tuple[int, ...]], dtype: str = "f8") -> list[Any]:
    """Give operands of small integers."""
    numbers = np.random.default_rng(0)
    return [numbers.integers(-3, 4, shape).astype(dtype) for shape in shapes]


def tensors(shapes: list[tuple[int, ...]]) -> list[Any]:
    """Give such operands as tensors."""
    return [polyop.from_numpy(x) for x in arrays(shapes)]


@st.composite
def subscripts(draw: Any) -> Case:
    """Draw subscripts with diagonals, ellipses and sizes of one, and shapes that fit."""
    sizes = draw(st.dictionaries(st.sampled_from("abcdEF"), st.integers(0, 3), min_size=1))
    broad = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 4))):
        term = draw(st.lists(st.sampled_from(sorted(sizes)), max_size=3))
        once = len(set(term)) == len(term)
        shape = [1 if once and draw(st.integers(0, 5)) == 0 else sizes[n] for n in term]
        if draw(st.booleans()):
            at = draw(st.integers(0, len(term)))
            term[at:at] = ["..."]
            shape[at:at] = broad[draw(st.integers(0, len(broad))) :]
        terms.append("".join(term))
        shapes.append(tuple(shape))
    text = ",".join(terms)
    if draw(st.booleans()):
        names = sorted(set(text) & set(string.ascii_letters)) + ["..."] * ("." in text)
        chosen = draw(st.permutations(names))
        cut = draw(st.integers(0, len(chosen)))
        kept = chosen[:cut] + ["..."] * ("." in text and "..." not in chosen[:cut])
        text = f"{text} -> {''.join(kept)}"
    return text, shapes


@settings(max_examples=300, deadline=None)
@given(subscripts(), st.sampled_from(["f8", "f4", "i1", "?", "c8"]))
def test_values_are_those_of_numpy(case: Case, dtype: str) -> None:
    """Every form of subscripts means what it does in NumPy, in the operands' dtype."""
    text, shapes = case
    given = arrays(shapes, dtype)
    wanted = np.einsum(text, *given)
    found = einsum(text, *map(polyop.from_numpy, given)).numpy()
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_dtypes_promote_before_anything_is_summed() -> None:
    """A partial product in the narrower dtype would overflow."""
    small = np.full(3, 100, "i1")
    found = einsum("i,i,i->", *map(polyop.from_numpy, (small, small, np.ones(3))))
    assert (float(found), found.dtype) == (30000.0, polyop.float64)


def test_operands_and_sublists() -> None:
    """Integers name axes as letters do, and give the order of the result."""
    a, b = arrays([(2, 3), (3, 4, 5)])
    x, y = polyop.from_numpy(a), polyop.from_numpy(b)
    for rest in ([], [[2, 0, ...]], [[..., 0, 2]]):
        wanted: Any = np.einsum(a, [0, 30], b, [30, 2, ...], *rest)
        found = einsum(x, [0, 30], y, (np.int64(30), 2, ...), *rest)
        np.testing.assert_array_equal(found.numpy(), wanted)
    np.testing.assert_array_equal(einsum("ij,jkl", [x, y]).numpy(), np.einsum("ij,jkl", a, b))


def test_what_an_ellipsis_stands_for_may_be_summed() -> None:
    """PyTorch's and JAX's rule, where NumPy refuses."""
    (a,) = arrays([(2, 3, 4)])
    wanted = torch.einsum("...i->i", torch.tensor(a))
    np.testing.assert_array_equal(einsum("...i->i", polyop.from_numpy(a)).numpy(), wanted)


@pytest.mark.parametrize("text", ["ij->ij", "ij->ji", "ii->i"])
def test_one_operand_in_order_is_a_view(text: str) -> None:
    """S135: a write to it is seen in the operand, as in NumPy and PyTorch."""
    a = np.zeros((3, 3))
    x = polyop.from_numpy(a)
    view = einsum(text, x)
    assert view is not x
    view[0] += 1
    np.einsum(text, a)[0] += 1
    np.testing.assert_array_equal(x.numpy(), a)


@cases
def test_gradients_are_those_of_pytorch(text: str, shapes: list[tuple[int, ...]]) -> None:
    """S134: each operand's gradient, and the tangent, that PyTorch finds."""
    given = [torch.tensor(x, requires_grad=True) for x in arrays(shapes)]
    (torch.einsum(text, *given) ** 2).sum().backward()
    found = func.grad(lambda *x: (einsum(text, *x) ** 2).sum(), tuple(range(len(shapes))))(
        *tensors(shapes)
    )
    for f, w in zip(found, given, strict=True):
        np.testing.assert_allclose(f.numpy(), w.grad)
    primals, tangents = tuple(tensors(shapes)), tuple(x + 1 for x in tensors(shapes))
    slope = func.jvp(lambda *x: (einsum(text, *x) ** 2).sum(), primals, tangents)[1]
    wanted = sum(float((g.grad.numpy() * t.numpy()).sum()) for g, t in zip(given, tangents))  # type: ignore[union-attr]
    np.testing.assert_allclose(float(slope), wanted)


@cases
def test_vmap_is_the_loop(text: str, shapes: list[tuple[int, ...]]) -> None:
    """S155: a batch of any one operand, along any axis, gives what a loop gives."""
    for at, shape in enumerate(shapes):
        given = tensors(shapes)
        given[at] = polyop.from_numpy(arrays([(*shape, 3)])[0])
        dims = [None] * len(shapes)
        dims[at] = -1  # type: ignore[call-overload]
        found = polyop.vmap(lambda *x: einsum(text, *x), tuple(dims))(*given)
        each = [[*given[:at], given[at][..., i], *given[at + 1 :]] for i in range(3)]
        wanted = polyop.stack([einsum(text, *sample) for sample in each])
        np.testing.assert_allclose(found.numpy(), wanted.numpy())


@cases
def test_fakes_and_traces(text: str, shapes: list[tuple[int, ...]]) -> None:
    """S145: a fake has the shape and dtype; a trace with symbolic sizes meets other sizes."""
    given = tensors(shapes)
    wanted = einsum(text, *given)
    mode = FakeTensorMode()
    fake = einsum(text, *[mode.from_tensor(x) for x in given])
    assert (tuple(fake.shape), fake.dtype) == (tuple(wanted.shape), wanted.dtype)
    program = make_fx(lambda *x: einsum(text, *x), tracing_mode="symbolic")(*given)
    twice = tensors([tuple(n if n == 1 else 2 * n for n in shape) for shape in shapes])
    for sample in (given, twice):
        np.testing.assert_allclose(program(*sample).numpy(), einsum(text, *sample).numpy())


LIBRARIES = {"torch": torch.tensor, "jax": jnp.asarray, "strict": array_api_strict.asarray,
             "dask": da.from_array, "numpy": np.asarray}  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["f4", "i1", "?"])
def test_arrays_of_every_library(library: str, dtype: str) -> None:
    """S66: held in tensors, and as they are, which is answered in kind."""
    make = LIBRARIES[library]
    for text, shapes in CASES:
        wanted = np.einsum(text, *arrays(shapes, dtype))
        given = [make(x) for x in arrays(shapes, dtype)]
        found = einsum(text, *given)
        held = einsum(text, *map(polyop.from_array, given))
        assert type(found) is type(given[0]) or not found.shape
        for result in (found, polyop.to_array(held)):
            np.testing.assert_array_equal(np.asarray(result), wanted)
            assert np.asarray(result).dtype == wanted.dtype


def test_numpy_hands_it_over() -> None:
    """`np.einsum` of tensors keeps gradients; with words of NumPy's own it reads arrays."""
    a, b = tensors([(2, 3), (3, 4)])
    x = a.clone().requires_grad_()
    np.einsum("ij,jk->", x, b, optimize=True).backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(b.numpy().sum(1), (2, 3)))
    out = np.zeros((2, 4))
    np.einsum("ij,jk->ik", a, b, out=out)
    np.testing.assert_array_equal(out, (a @ b).numpy())


def test_transpose_takes_an_order() -> None:
    """NumPy's form, by which libraries of contractions call; PyTorch's swaps two axes."""
    x = polyop.zeros((2, 3, 4))
    shapes = [polyop.transpose(x, (2, 0, 1)).shape, polyop.transpose(x, 0, -1).shape]
    assert shapes == [(4, 2, 3), (4, 3, 2)]
    with pytest.raises(ArgumentError, match="two axes are swapped"):
        polyop.transpose(x, 1)


X, Y = polyop.zeros((2, 3)), polyop.zeros((3, 4))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("ij",), "1 operands by 'ij'"),
        (("ij", X, Y), "each operand has one term"),
        (("i1", X), "'1' is no index"),
        (("ié", X), "'é' is no index"),
        (("i.j", X), "part of one ellipsis"),
        (("......", X), "part of one ellipsis"),
        (("ij-ji", X), "an arrow '->' stands once"),
        (("ij>ji", X), "an arrow '->' stands once"),
        (("ij->ji->ij", X), "an arrow '->' stands once"),
        (("ij->i,j", X), "the result is one term"),
        (("ij->ii", X), "'i' comes twice in the result"),
        (("ij->k", X), "'k' is none of an operand's"),
        (("ijk", X), "has 2 axes, of which subscripts name 3"),
        (("i", X), "has 2 axes, of which subscripts name 1"),
        (("ijk...", X), "has 2 axes, of which subscripts name 3"),
        (("ii", X), "'i' of operand 0 stands for axes that differ"),
        (("ij,ik", X, Y), "index 'i' stands for axes that differ"),
        (("...,...", X, Y), "axis -2 of '...' stands for axes that differ"),
        (("ij,", X, 2.0), "operand 1 is no tensor"),
        ((X, "ij"), "operands and lists of their indices come in turn"),
        ((X, [0, 1], Y), "operands and lists of their indices come in turn"),
        ((X, [0, -1]), "-1 is no index of a sublist"),
        ((X, [0, True]), "True is no index of a sublist"),
        ((X, [..., ...]), "an ellipsis stands once"),
        ((X, [0, 1], [0, 0]), "0 comes twice in the result"),
        ((X, [0, 1], [2]), "2 is none of an operand's"),
    ],
)
def test_what_is_malformed_is_named(given: tuple[Any, ...], message: str) -> None:
    """S1: each fault of subscripts has its words, and names the operator."""
    with pytest.raises(ArgumentError, match=message) as caught:
        einsum(*given)
    assert "core::einsum" in str(caught.value)
