"""Results of authors' kernels: number, type, sharing."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
import pytest
from tests.dispatch.registry_state import refused

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.guards import include_keys
from polyop.dispatch.library import Library
from polyop.dispatch.namespaces import ops
from polyop.errors import AliasError, ReturnError
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array

LIB = Library("results", "FRAGMENT")
ANSWER: list[Any] = [None]


def x(*values: float) -> Tensor:
    return of_array(np.array(values or (1.0, 2.0, 3.0)))


def op(schema: str) -> Any:
    """An operator that returns what `ANSWER` holds, or what it makes of the arguments."""
    name = f"f{len(list(ops.results))}"
    LIB.define(name + schema)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        answer = ANSWER[0]
        return answer(*args, **kwargs) if callable(answer) else answer

    LIB.impl(name, kernel, "CompositeExplicitAutograd")
    return getattr(ops.results, name).default


class Two(NamedTuple):
    a: Tensor
    b: int


T = x(9.0)
WRONG = [
    ("Tensor", None, "NoneType"),
    ("Tensor", 1, "int 1"),
    ("Tensor", (T,), "tuple of 1 (Tensor)"),
    ("Tensor", [T], "list of 1 (Tensor)"),
    ("Tensor", np.ones(1), "ndarray"),
    ("Tensor", np.float64(1), "float64"),
    ("int", True, "bool True"),
    ("int", T, "Tensor of shape (1,) and dtype float64"),
    ("int", 1.0, "float 1.0"),
    ("int", 2**64, "int"),
    ("SymInt", False, "bool"),
    ("float", True, "bool"),
    ("float", T, "Tensor"),
    ("bool", 1, "int 1"),
    ("bool", None, "NoneType"),
    ("str", 1, "int 1"),
    ("Scalar", T, "Tensor"),
    ("Tensor[]", T, "Tensor"),
    ("Tensor[]", [T, 1], "list of 2 (Tensor, int)"),
    ("Tensor[]", None, "NoneType"),
    ("Tensor?", 1, "int"),
    ("(Tensor, Tensor)", (T,), "tuple of 1"),
    ("(Tensor, Tensor)", T, "Tensor"),
    ("(Tensor, Tensor)", (T, None), "NoneType"),
    ("(Tensor, Tensor)", None, "NoneType"),
    ("(Tensor, int)", (T, True), "bool"),
    ("(Tensor, int)", (T, 1, 2), "tuple of 3"),
    ("()", T, "Tensor"),
    ("()", 0, "int 0"),
    ("()", (), "tuple of 0"),
    ("()", False, "bool"),
]


@pytest.mark.parametrize(("declared", "value", "seen"), WRONG)
@pytest.mark.parametrize("layers", [False, True])
def test_wrong_results(declared: str, value: Any, seen: str, layers: bool) -> None:
    """S48: number and type of results must be the schema's; the error shows both and the kernel."""
    f = op(f"(Tensor t) -> {declared}")
    ANSWER[0] = value
    with refused(ReturnError, f.name(), "kernel", seen, f"{__file__}:", "fix:"):
        if layers:
            with include_keys(["Negative"]):
                f(x())
        else:
            f(x())


@pytest.mark.parametrize(
    ("declared", "value", "wanted"),
    [
        ("int", np.int32(3), 3),
        ("float", 2, 2.0),
        ("float", np.float32(0.5), 0.5),
        ("bool", np.True_, True),
        ("str", "a", "a"),
        ("Tensor?", None, None),
        ("Tensor[]", (), []),
        ("(int, float)", [np.int8(1), 2], (1, 2.0)),
        ("()", None, None),
    ],
)
def test_results_convert(declared: str, value: Any, wanted: Any) -> None:
    """S48: NumPy scalars and integers convert."""
    ANSWER[0] = value
    got = op(f"(Tensor t) -> {declared}")(x())
    assert got == wanted and type(got) is type(wanted)


def test_results_of_several() -> None:
    """S48: a list or a tuple of results gives a tuple; a list of tensors a list."""
    ANSWER[0] = lambda t: [of_array(t.numpy() + 1), of_array(t.numpy() + 2)]
    assert type(op("(Tensor t) -> (Tensor, Tensor)")(x())) is tuple
    assert type(op("(Tensor t) -> Tensor[]")(x())) is list


def test_records_come_back() -> None:
    """S48: a record declared as result is given as the author's class."""

    def record(t: Tensor) -> Two:
        return Two(of_array(t.numpy() + 1), 3)

    made = custom_op("results_rec::f", record, mutates_args=())(x(1.0))
    assert isinstance(made, Two) and made.a.item() == 2 and made.b == 3


# -- sharing ------------------------------------------------------------------

SHARES = {
    "itself": lambda t: t,
    "a view": lambda t: of_array(t.numpy()[1:]),
    "another handle": lambda t: of_array(t.numpy()),
    "a reversed view": lambda t: of_array(t.numpy()[::-1]),
    "a reshaped view": lambda t: of_array(t.numpy().reshape(3, 1)),
}


@pytest.mark.parametrize("how", SHARES)
@pytest.mark.parametrize("own", [True, False])
def test_undeclared_sharing(how: str, own: bool) -> None:
    """S47: a result on an argument's storage is an error naming both and the kernel."""
    ANSWER[0] = SHARES[how]
    t = x() if own else of_array(np.arange(8.0)[2:5])
    words = ("the result", "argument 't'", "same memory", f"{__file__}:", "clone")
    f = op("(Tensor t) -> Tensor")
    with refused(AliasError, *words):
        f(t)


def test_sharing_through_an_owner() -> None:
    """S47: a result on the array that the argument is a part of shares storage too."""
    whole = np.arange(8.0)
    ANSWER[0] = lambda t: of_array(whole)
    f = op("(Tensor t) -> Tensor")
    with refused(AliasError):
        f(of_array(whole[2:5]))
    assert f(x()).payload is whole


@pytest.mark.parametrize(
    ("schema", "arguments", "who"),
    [
        ("(Tensor[] ts) -> Tensor", lambda t: ([x(), t],), "'ts'"),
        ("(Tensor? a, Tensor? b) -> Tensor", lambda t: (None, t), "'b'"),
        ("(int n, *, Tensor k) -> Tensor", None, "'k'"),
    ],
)
def test_sharing_in_lists_and_keywords(schema: str, arguments: Any, who: str) -> None:
    """S47: arguments in lists, optional ones and keyword-only ones are looked at."""
    t = x()
    ANSWER[0] = lambda *a, **k: of_array(t.payload[1:])
    f = op(schema)
    with refused(AliasError, who):
        f(*arguments(t)) if arguments else f(1, k=t)


def test_results_that_share_with_each_other() -> None:
    """S47: two results on one storage name each other."""
    ANSWER[0] = lambda t: (lambda a: (of_array(a), of_array(a[:1])))(t.numpy() + 1)
    f = op("(Tensor t) -> (Tensor, Tensor)")
    with refused(AliasError, "result 1", "result 0"):
        f(x())


def test_a_fresh_result_is_given_as_it_is() -> None:
    """S47: what the kernel made is the result, not a copy."""
    made = x()
    ANSWER[0] = made
    assert op("(Tensor t) -> Tensor")(x()) is made


# -- declared sharing ---------------------------------------------------------


def test_a_declared_view() -> None:
    """S47: a declared view is tied to its base: it counts the base's writes, and knows it."""
    f = op("(Tensor(a) t, int n) -> Tensor(a)")
    ANSWER[0] = lambda t, n: of_array(t.numpy()[n:])
    t = x()
    view = f(t, 1)
    assert view._base is t and view.payload.base is t.payload
    writes = op("(Tensor(a!) t) -> ()")
    ANSWER[0] = None
    writes(view)
    assert t._version == view._version == 1


def test_a_view_that_is_the_argument() -> None:
    """S47: a view operator that returns its argument gives another handle of it."""
    ANSWER[0] = lambda t: t
    t = x()
    view = op("(Tensor(a) t) -> Tensor(a)")(t)
    assert view is not t and view._base is t and view.payload is t.payload


def test_a_view_of_another_argument() -> None:
    """S47: a view may share with the argument that the schema names, and no other."""
    f = op("(Tensor(a) t, Tensor u) -> Tensor(a)")
    ANSWER[0] = lambda t, u: of_array(u.numpy()[:])
    with refused(AliasError, "'u'"):
        f(x(), x())


def test_several_views() -> None:
    """S47: views in a list are tied to their base one by one, and may overlap."""
    f = op("(Tensor(a) t) -> Tensor(a)[]")
    ANSWER[0] = lambda t: [of_array(t.numpy()[:2]), of_array(t.numpy()[1:])]
    t = x()
    assert [v._base is t for v in f(t)] == [True, True]


@pytest.mark.parametrize("answer", ["itself", "copy", "none", "handle"])
def test_inplace_gives_back_the_first(answer: str) -> None:
    """S47: `Tag.inplace` gives back the first argument itself, else it is an error."""

    def write(t: Tensor, n: int) -> Tensor:
        t.numpy()[...] = n
        answers = {"itself": t, "copy": of_array(t.numpy() + 0), "none": None,
                   "handle": of_array(t.numpy())}  # fmt: skip
        return answers[answer]  # type: ignore[return-value]

    f = custom_op(f"results_in::{answer}_", write, mutates_args={"t"}, tags=Tag.inplace)
    t = x()
    if answer == "itself":
        assert f(t, 5) is t and t.payload.tolist() == [5, 5, 5] and t._version == 1
    else:
        with refused(ReturnError, "must return its argument 't' itself", __file__):
            f(t, 5)


def test_out_gives_back_the_outs() -> None:
    """S47: `Tag.out` gives back the outs, in order, else it is an error."""

    def write(t: Tensor, *, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a.numpy()[...] = 1
        b.numpy()[...] = 2
        return (b, a) if t.item() else (a, b)

    f = custom_op("results_out::f.out", write, mutates_args={"a", "b"}, tags=Tag.out)
    a, b = x(), x()
    got = f(x(0.0), a=a, b=b)
    assert got[0] is a and got[1] is b
    with refused(ReturnError, "must return its argument 'a' itself"):
        f(x(1.0), a=a, b=b)


def test_a_kernels_own_tensor_keeps_its_gradient() -> None:
    """S47: a kept tensor that requires grad is given as another handle, and stays as it is."""
    kept = x()
    kept.keys |= 2  # requires grad
    ANSWER[0] = kept
    got = op("(Tensor t) -> Tensor")(x())
    assert not got.requires_grad and kept.requires_grad and got.payload is kept.payload


def test_none_beside_tensors() -> None:
    """S48: an optional result may be None beside others."""

    def both(t: Tensor, more: bool) -> tuple[Tensor, Optional[Tensor]]:  # noqa: UP045
        return of_array(t.numpy() + 1), of_array(t.numpy() + 2) if more else None

    f = custom_op("results_opt::f", both, mutates_args=())
    assert f(x(), False)[1] is None and f(x(1.0), True)[1].item() == 3
