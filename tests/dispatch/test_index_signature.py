"""Index signatures: the rules that follow from which axes meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dispatch.registry_state import refused

from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.index_signature import index_of, register_index
from polyop.dispatch.library import Library
from polyop.dispatch.registry import DEFINITIONS
from polyop.dispatch.table import Kernel
from polyop.errors import (
    ArgumentError,
    MissingFakeError,
    RegistrationError,
    ReturnError,
    UsageError,
)
from polyop.layers.fake import FakeTensorMode
from polyop.layers.vmap import vmap
from polyop.tensor.tensor import Tensor, of_array


@custom_op("index::matmul", mutates_args=())
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return of_array(np.matmul(a.numpy(), b.numpy()))


matmul.register_index("(m,n),(n,k)->(m,k)")


@custom_op("index::stats", mutates_args=())
def stats(x: Tensor, *, weight: Tensor) -> tuple[Tensor, Tensor]:
    xs = x.numpy()
    return of_array(np.array((xs * weight.numpy()).sum(-1))), of_array(xs + weight.numpy())


register_index(stats, "(n), (n) -> (), (n)")


@custom_op("index::spread", mutates_args=())
def spread(x: Tensor, count: int) -> Tensor:
    return of_array(np.repeat(x.numpy()[..., None], count, -1))


register_index("index::spread", "()->(count)")


def array(*shape: int) -> Any:
    return np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)


def faked(op: Any, *args: Any, **kwargs: Any) -> Any:
    """The result under a fake mode, of tensors that are made there."""
    with FakeTensorMode() as mode:
        convert = [mode.from_tensor(of_array(a)) if isinstance(a, np.ndarray) else a for a in args]
        named = {k: mode.from_tensor(of_array(a)) for k, a in kwargs.items()}
        return op(*convert, **named)


SIZES = st.integers(1, 3)


@given(st.lists(SIZES, max_size=2), SIZES, SIZES, SIZES, st.integers(0, 2), st.booleans())
def test_the_fake_is_what_the_kernel_gives(
    loops: list[int], m: int, n: int, k: int, drop: int, single: bool
) -> None:
    """S56: shapes follow from the axes, loops broadcast, dtypes are promoted."""
    a, b = array(*loops, m, n), array(*loops[drop:], n, k)
    if single:
        b = b.astype(np.float32)
    real, fake = matmul(of_array(a), of_array(b)), faked(matmul, a, b)
    assert tuple(fake.shape) == tuple(real.shape)
    assert fake.dtype == real.dtype


def test_sizes_come_from_arguments() -> None:
    """S56: a result's axis may be named after an int argument; groups may be empty."""
    assert tuple(faked(spread, array(2), 5).shape) == (2, 5)
    total, whole = faked(stats, array(4, 3), weight=array(3))
    assert (tuple(total.shape), tuple(whole.shape)) == ((4,), (4, 3))


@given(
    st.tuples(st.booleans(), st.booleans()).filter(any),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(-1, 1),
)
def test_a_batch_is_one_more_loop(
    batched: tuple[bool, bool], loops: int, other: int, dim: int
) -> None:
    """S56: vmap equals the loop, whatever is batched and however many loops there are."""
    shapes = [(2,) * loops + (2, 3), (2,) * other + (3, 4)]
    a, b = (array(*((5, *s) if on else s)) for s, on in zip(shapes, batched, strict=True))
    moved = [np.moveaxis(x, 0, dim) if on else x for x, on in zip((a, b), batched, strict=True)]
    dims = tuple(dim if on else None for on in batched)
    out = vmap(matmul, in_dims=dims)(*map(of_array, moved))
    rows = [np.matmul(a[i] if batched[0] else a, b[i] if batched[1] else b) for i in range(5)]
    np.testing.assert_allclose(out.numpy(), np.stack(rows))


def test_the_batch_is_none_of_the_named_axes() -> None:
    """S56: a sample that lacks a named axis is refused: the batch would stand in its place."""
    a, b = of_array(array(4, 3)), of_array(array(3, 2))
    words = r"'a'[\s\S]*axes \(m, n\)[\s\S]*1 axes without the batch"
    with pytest.raises(ArgumentError, match=words):
        vmap(matmul, in_dims=(0, None))(a, b)


def test_vmap_of_keywords_and_several_results() -> None:
    """S56: keyword-only Tensors are batched too, and each result has the batch in front."""
    x, w = array(3), array(4, 3)
    total, whole = vmap(lambda w: stats(of_array(x), weight=w))(of_array(w))
    np.testing.assert_allclose(total.numpy(), (x * w).sum(-1))
    np.testing.assert_allclose(whole.numpy(), x + w)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ((2, 3), (4, 5), ("'b'", "axis n of size 3 as in argument 'a'", "size 4")),
        ((3,), (3, 5), ("'a'", "axes (m, n)", "shape (3,)")),
        ((2, 2, 3), (5, 3, 4), ("'b'", "loops that broadcast with [2]", "loops [5]")),
    ],
)
def test_sizes_that_break_it(a: Any, b: Any, words: tuple[str, ...]) -> None:
    """S56: in fakes, sizes that do not fit are an ArgumentError that names the axis."""
    with pytest.raises(ArgumentError) as caught:
        faked(matmul, array(*a), array(*b))
    assert [w for w in words if w not in str(caught.value)] == [], str(caught.value)


def test_a_fixed_size() -> None:
    """S56: an axis may be a number."""
    lib = Library("index_fixed", "DEF")
    lib.define("cross(Tensor a, Tensor b) -> Tensor")
    register_index("index_fixed::cross", "(3),(3)->(3)")
    op = DEFINITIONS["index_fixed::cross"].op
    assert tuple(faked(op, array(2, 3), array(3)).shape) == (2, 3)
    with pytest.raises(ArgumentError, match="axis 3 of size 3"):
        faked(op, array(2), array(2))
    lib.destroy()


def wrong_fake() -> CustomOpDef:
    @custom_op("index::wrong", mutates_args=(), replace=True)
    def wrong(x: Tensor) -> Tensor:
        return of_array(x.numpy().sum(-1))

    wrong.register_fake(lambda x: x.new_empty([*x.shape[:-2], 7]))
    return wrong


def test_an_own_fake_is_held_against_it() -> None:
    """S56: a result of a fake rule that breaks it is a ReturnError that names the axis."""
    op = wrong_fake()
    assert tuple(faked(op, array(2, 3)).shape) == (7,)
    op.register_index("(m,n)->(m)")
    with pytest.raises(ReturnError, match="axis m") as caught:
        faked(op, array(2, 3))
    assert "(2,)" in str(caught.value)
    assert "(7,)" in str(caught.value)


@pytest.fixture
def plain() -> Iterator[Library]:
    lib = Library("index_plain", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    yield lib
    lib.destroy()


def test_it_fills_empty_slots_only(plain: Library) -> None:
    """S56, S37: rules that are there act; without them, in any order, what the axes say."""
    op = DEFINITIONS["index_plain::f"].op
    over = Library("index_plain", "FRAGMENT")
    register_index(op, "(n)->(n)", lib=over)
    assert index_of(op) is not None
    assert tuple(faked(op, array(3)).shape) == (3,)

    def rule(info: Any, in_dims: Any, x: Any) -> Any:
        return x, in_dims[0]

    op.places.put("vmap", Kernel(rule, op.source, plain))
    assert op.rule("vmap") is rule
    over.destroy()
    assert op.rule("vmap") is rule
    assert op.rule("fake") is None
    with pytest.raises(MissingFakeError):
        faked(op, array(3))


def test_a_composite_decomposes(plain: Library) -> None:
    """S56, S38: an operator that decomposes gets no fake rule from its axes."""
    plain.impl("f", lambda x: x + 1)
    register_index("index_plain::f", "(n)->(n)", lib=plain)
    assert DEFINITIONS["index_plain::f"].op.rule("fake") is None
    assert tuple(faked(DEFINITIONS["index_plain::f"].op, array(3)).shape) == (3,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(n)", ("written otherwise", "'(n)'")),
        ("(n->(n)", ("written otherwise",)),
        (3, ("written otherwise", "3")),
        ("(n),(n)->(n)", ("1 Tensor arguments and 1 results",)),
        ("(n)->(n),(n)", ("1 Tensor arguments and 1 results",)),
        ("(n)->(m)", ("no argument says how large 'm' is",)),
    ],
)
def test_bad_signatures(plain: Library, text: Any, words: tuple[str, ...]) -> None:
    """S56: a text that cannot be right is a UsageError and registers nothing."""
    with refused(UsageError, "index_plain::f", *words):
        register_index("index_plain::f", text)


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ("w(Tensor(a!) x) -> ()", RegistrationError),
        ("w(Tensor(a) x) -> Tensor(a)", RegistrationError),
        ("w(Tensor[] x) -> Tensor", UsageError),
        ("w(Tensor x) -> int", UsageError),
    ],
)
def test_other_operators(plain: Library, schema: str, error: Any) -> None:
    """S56: writes, views, lists and numbers are not described by axes."""
    plain.define(schema)
    with refused(error, "index_plain::w"):
        register_index("index_plain::w", "(n)->(n)")


# -- at the definition --------------------------------------------------------


def row_sums(x: Tensor, scale: float = 1.0) -> Tensor:
    return of_array(np.asarray(x.numpy().sum(-1) * scale))


def test_custom_op_takes_it() -> None:
    """S56: `custom_op(index=...)` registers it with the operator, and where it was written."""
    op = custom_op("index::row_sums", row_sums, mutates_args=(), index="(n)->()")
    found = index_of(op)
    assert found is not None
    assert (found.text, found.inputs, found.outputs) == ("(n)->()", (("n",),), ((),))
    assert "test_index_signature.py" in str(op._opoverload.rule_source("index"))
    assert tuple(faked(op, array(2, 3)).shape) == (2,)
    np.testing.assert_allclose(vmap(op)(of_array(array(4, 3))).numpy(), array(4, 3).sum(-1))


def test_a_definition_with_a_wrong_one_defines_nothing() -> None:
    """S56: a text that cannot be right refuses the definition, before anything is registered."""
    with refused(UsageError, "index::refused", "no argument says how large 'm' is", "'(n)->(m)'"):
        custom_op("index::refused", row_sums, mutates_args=(), index="(n)->(m)")
    assert "index::refused" not in DEFINITIONS


def test_a_definition_again_has_another() -> None:
    """S56, S44: defined again with another text, the operator has that one."""
    for text in ("(n)->()", "(m)->()"):
        op = custom_op("index::again", row_sums, mutates_args=(), index=text)
    found = index_of(op)
    assert found is not None and found.text == "(m)->()"


def test_shapes_of_a_call_by_hand() -> None:
    """S56: the signature itself gives the shapes for arguments, and asks for what is missing."""
    found = index_of(spread)
    assert found is not None
    assert found(of_array(array(2)), 5) == [(2, 5)]
    for args, missing in [((of_array(array(2)),), "count"), ((), "x")]:
        with pytest.raises(ArgumentError, match=f"argument '{missing}'.*\n.*\n.*\n.*\n.*nothing"):
            found(*args)


@pytest.mark.parametrize(
    ("signature", "given", "made", "words"),
    [
        ("(n)->(n)", (2, 3), (3,), "loop 0 missing"),
        ("(n)->(n)", (2, 3), (4, 3), "loop 0"),
        ("(n)->(n)", (2, 3), (2, 4), "axis n"),
        ("(n)->(n)", (2, 3), (2,), "axis n missing"),
        ("(n)->(n)", (2, 3), (), "loop 0 and axis n missing"),
        ("(n)->(n)", (2, 3), (2, 3, 5), "3 axes instead of 2 (loop 0, axis n)"),
        ("(n)->()", (3,), (3,), "1 axes instead of 0 (none)"),
        ("(m,n)->(n,m)", (5, 2, 3), (5, 2, 3), "axis n"),
    ],
)
def test_a_result_that_is_wrong_names_its_axis(
    signature: str, given: Any, made: Any, words: str
) -> None:
    """S56: the ReturnError says which axis or loop is wrong, and which are missing."""
    op = custom_op("index::named", row_sums, mutates_args=(), index=signature)
    op.register_fake(lambda x, scale=1.0: x.new_empty(made))
    with pytest.raises(ReturnError) as caught:
        faked(op, array(*given))
    assert caught.value.problem == f"result 0 of index::named does not fit {signature}: {words}"
