"""Errors say what is wrong where it is wrong, and what they advise works (S1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyop
from polyop.errors import (
    AmbiguousKernelError,
    ArgumentError,
    CaptureError,
    DataDependentOutputError,
    DelegateError,
    IntegerRangeError,
    MissingKernelError,
    OperatorGoneError,
    PolyopError,
    SchemaSyntaxError,
    UsageError,
    UsageTypeError,
)
from polyop.extend import resolve_key

X = polyop.ones(3)
W = polyop.ones(3, requires_grad=True)


class Pair(NamedTuple):
    w: polyop.Tensor
    n: int


@pytest.fixture
def lib() -> Any:
    with polyop.scoped_library("words", "DEF") as made:
        yield made


def test_data_outside_of_a_rule() -> None:
    """S1: a look at data where no fake rule runs is not told of what only rules may call."""
    for look in (
        lambda: polyop.fake.FakeTensorMode().from_tensor(X).sum().item(),
        lambda: polyop.empty(3, device="meta").tolist(),
    ):
        with pytest.raises(DataDependentOutputError, match=r"polyop\.custom_op") as caught:
            look()
        assert "get_ctx" not in str(caught.value)


def test_data_inside_a_rule(lib: Any) -> None:
    """S177: inside a fake rule it is."""
    lib.define("f(Tensor x) -> Tensor")
    polyop.library.register_fake("words::f", lambda x: x.new_empty([int(x.sum())]), lib=lib)
    with pytest.raises(DataDependentOutputError, match=r"get_ctx\(\)\.new_dynamic_size"):
        polyop.ops.words.f(polyop.empty(3, device="meta"))


def test_gone_operators() -> None:
    """S43: what was removed is looked up again if there is another, else defined again."""
    with polyop.scoped_library("words_gone", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        packet = polyop.ops.words_gone.f
        old = packet.default
    for handle in (packet, old):
        with pytest.raises(OperatorGoneError, match="define it again"):
            handle(X)
    with polyop.scoped_library("words_gone", "DEF") as lib:
        lib.define("f(Tensor x) -> Tensor")
        for handle in (packet, old):
            with pytest.raises(OperatorGoneError, match=r"again: polyop\.ops\.words_gone\.f"):
                handle(X)


def test_a_generator_in_a_program() -> None:
    """S1, S211: who makes a generator is not told of a method that it does not call."""
    with pytest.raises(CaptureError, match="makes a generator of random") as caught:
        polyop.compile(lambda x: x + polyop.Generator(3).initial_seed(), fullgraph=True)(X)
    assert "manual_seed" not in str(caught.value)


def test_no_returns(lib: Any) -> None:
    """S5: `-> None` is told what stands for no returns, and that is accepted."""
    with pytest.raises(SchemaSyntaxError, match=r"write '-> \(\)'"):
        lib.define("n(Tensor x) -> None")
    lib.define("n(Tensor x) -> ()")


def test_two_claims(lib: Any) -> None:
    """S87: whoever asks which kernel acts hears where both were registered."""
    lib.define("f(Tensor x) -> Tensor")
    lib.impl("f", lambda x: x, "FPGA")
    lib.impl("f", lambda x: x, "CompositeImplicitAutograd")
    with pytest.raises(AmbiguousKernelError) as caught:
        resolve_key(polyop.ops.words.f.default, "AutogradOther")
    assert caught.value.source.count(__file__) == 2


def test_a_lowered_module_of_nothing() -> None:
    """S216: what lacks is named, not the backend in its place."""
    with pytest.raises(DelegateError, match="module of x has neither") as caught:
        polyop.export.LoweredModule(None, "x")
    assert caught.value.argument == "original_module, payload"


def test_fields_of_records(lib: Any) -> None:
    """S8: the field of a record that does not fit is named, with its type and what came."""

    def scaled(a: Pair) -> polyop.Tensor:
        return a.w * a.n

    op = polyop.custom_op("words::scaled", scaled, mutates_args=())
    assert polyop.array_equal(op(Pair(X, 2)), X * 2)
    with pytest.raises(ArgumentError, match="its field 'w' is Tensor, and got str"):
        op(Pair("a", 3))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="its field 'n' is SymInt, and got float"):
        op(Pair(X, 2.5))  # type: ignore[arg-type]
    with pytest.raises(IntegerRangeError, match="field 'n'.*outside 64 bits"):
        op(Pair(X, 1 << 80))


def test_a_number_that_is_traced(lib: Any) -> None:
    """S63: a number that `jax.jit` traces is told to be static, and then is taken."""

    def times(x: polyop.Tensor, k: int = 2) -> polyop.Tensor:
        return x * k

    op = polyop.custom_op("words::times", times, mutates_args=())
    op.register_fake(lambda x, k=2: polyop.empty_like(x))
    with pytest.raises(ArgumentError, match=r"type int; .*static_argnames='k'"):
        jax.jit(op)(jnp.ones(3), 2)
    done = jax.jit(op, static_argnames="k")(jnp.ones(3), k=2)
    assert np.array_equal(done, [2.0, 2.0, 2.0])
    with pytest.raises(ArgumentError, match="type int$"):
        op(X, polyop.ones(2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: polyop.library.opcheck(3, (X,)), "an int is no operator"),
        (
            lambda: polyop.library.register_autograd(polyop.ops.core.sin, 3),
            "an autograd rule is a function",
        ),
        (lambda: polyop.autograd.grad(3, W), "not a Tensor(?s:.*)seen: +int 3"),
        (lambda: polyop.autograd.grad(W.sum(), 3), "not a Tensor(?s:.*)seen: +int 3"),
        (
            lambda: polyop.export.export(lambda x: x * 2, (X,)).run_decompositions(3),
            "function by operator(?s:.*)give {op: fn}",
        ),
        (
            lambda: polyop.compile(lambda x: x * 2, backend=lambda graph, given: None)(X),
            "makes no function(?s:.*)test_words_of_errors.py",
        ),
    ],
)
def test_values_of_a_wrong_kind(call: Any, words: str) -> None:
    """S1: what is of a wrong type gives an error of ours, which says what was seen."""
    with pytest.raises(UsageTypeError, match=words):
        call()


def test_a_backend_that_gives_its_graph() -> None:
    """S212: what the error about backends advises works."""
    same = polyop.compile(lambda x: x * 2, backend=lambda graph, given: graph)
    assert polyop.array_equal(same(X), X * 2)


def test_a_function_without_forward() -> None:
    """S137: the class and the method that it lacks are named."""

    class Bare(polyop.autograd.Function):
        """Defines nothing."""

    with pytest.raises(MissingKernelError, match=r"(?s)Bare defines no forward.*forward\(ctx"):
        Bare.apply(X)


@pytest.mark.parametrize("given", [("a {}",), ("a {b}",), ("a {0} {", 1), ("{:d}", "x")])
def test_texts_whose_places_stay_empty(given: Any) -> None:
    """S190: a text that the values do not fill is an error of ours."""
    with pytest.raises(UsageError, match="do not fill the places") as caught:
        polyop.hop.print(*given)
    assert isinstance(caught.value, PolyopError)
