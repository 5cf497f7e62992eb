"""Operators that write and have no gradient: all that they give or write says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.autograd import Function, grad, set_autograd_fallback
from polyop.errors import AutogradError, MissingGradientError, MutationError
from polyop.extend import DispatchMode
from polyop.library import Library, register_autograd, register_fake, register_kernel

NS = "writesnoformula"


@pytest.fixture
def lib() -> Iterator[Library]:
    made = Library(NS, "FRAGMENT")
    yield made
    made._destroy()


def define(lib: Library, schema: str) -> Any:
    """Define an operator that adds one to what it writes, and gives each result as told."""
    name = schema.partition("(")[0]
    lib.define(schema)
    results = schema.partition("-> ")[2]
    new = {"Tensor": lambda x: polyop.from_numpy(x.numpy() * 2)}
    new["Tensor[]"] = lambda x: [new["Tensor"](x), new["Tensor"](x)]

    def kernel(x: Tensor, *written: Any) -> Any:
        for t in written:
            for one in t if isinstance(t, list) else [t]:
                one.numpy()[...] += 1
        made = tuple(new[text](x) for text in results.strip("()").split(", ") if text)
        return made[0] if len(made) == 1 else made or None

    register_kernel(f"{NS}::{name}", "cpu", kernel, lib=lib)
    register_fake(f"{NS}::{name}", kernel_like(results), lib=lib)
    return getattr(getattr(polyop.ops, NS), name)


def kernel_like(results: str) -> Any:
    def fake(x: Tensor, *written: Any) -> Any:
        new = {"Tensor": polyop.empty_like(x), "Tensor[]": [polyop.empty_like(x) for _ in "ab"]}
        made = tuple(new[text] for text in results.strip("()").split(", ") if text)
        return made[0] if len(made) == 1 else made or None

    return fake


def leaf(*shape: int) -> Tensor:
    return polyop.ones(shape).requires_grad_()


FORMS = [
    ("one(Tensor x, Tensor(a!) b) -> Tensor", lambda: [polyop.zeros(3)]),
    ("two(Tensor x, Tensor(a!) b) -> (Tensor, Tensor)", lambda: [polyop.zeros(3)]),
    ("many(Tensor x, Tensor(a!) b) -> Tensor[]", lambda: [polyop.zeros(3)]),
    ("more(Tensor x, Tensor(a!) b, Tensor(c!) d) -> Tensor", lambda: [*map(polyop.zeros, (3, 3))]),
    ("rows(Tensor x, Tensor(a!)[] b) -> Tensor", lambda: [[polyop.zeros(3) for _ in "ab"]]),
    ("none(Tensor x, Tensor(a!)[] b) -> Tensor", lambda: [[]]),
]  # fmt: skip


def _name(given: Any) -> str:
    """Name a case by its schema."""
    return given.partition("(")[0] if isinstance(given, str) else "written"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("schema", "written"), FORMS, ids=_name)
def test_fresh_results_require_grad(
    lib: Library, schema: str, written: Any, compiled: bool
) -> None:
    """S129: fresh results of an operator that writes require grad, and backward raises."""
    op = define(lib, schema)
    x = leaf(3)

    def call() -> Any:
        out = op(x, *written())
        return out if isinstance(out, Tensor) else out[1]

    out = (polyop.compile(call) if compiled else call)()
    assert out.requires_grad
    np.testing.assert_array_equal(out.numpy(force=True), [2.0] * 3)
    for total in (out.sum(), (out * x).sum()):
        with pytest.raises(MissingGradientError, match=schema.partition("(")[0]):
            grad(total, x, retain_graph=True, allow_unused=True)


def test_a_fresh_result_owns_its_history(lib: Library) -> None:
    """S129: writing to a fresh result does not take the missing gradient away."""
    lib.define("part(Tensor x, Tensor(a!) b) -> (Tensor(a!), Tensor)")
    lib.impl("part", lambda x, b: (b, (x * 2)[:2]), "CPU")
    x = leaf(3)
    _, out = polyop.ops.writesnoformula.part(x, polyop.zeros(3))
    out.mul_(2.0)
    with pytest.raises(MissingGradientError) as caught:
        grad(out.sum(), x, allow_unused=True)
    assert caught.value.fix.startswith("call an operator that gives the new value")  # S131


def test_an_answer_of_a_mode_keeps_its_history(lib: Library) -> None:
    """S129: a tensor that a mode gives as a fresh result is not written over by the record."""
    op = define(lib, FORMS[0][0])
    x = leaf(3)
    kept = x * 3

    class Answering(DispatchMode):
        def __dispatch__(self, called: Any, types: Any, args: Any, kwargs: Any) -> Any:
            return kept if called is op.default else called(*args, **(kwargs or {}))

    with Answering():
        out = op(x, polyop.zeros(3))
    assert grad(kept.sum(), x)[0].tolist() == [3.0] * 3
    with pytest.raises(MissingGradientError):
        grad(out.sum(), x)


def test_nothing_said_of_gradients(lib: Library) -> None:
    """S129: where no gradient is to be noticed, fresh results do not require grad."""
    op = define(lib, FORMS[0][0])
    set_autograd_fallback("nothing")
    try:
        assert not op(leaf(3), polyop.zeros(3)).requires_grad
    finally:
        set_autograd_fallback("backward")


# -- several written tensors ----------------------------------------------------------------------

WRITES = [
    ("pair(Tensor x, Tensor(a!) b, Tensor(c!) d) -> ()", lambda z: [z[0], polyop.zeros(3)]),
    ("list(Tensor x, Tensor(a!)[] b) -> ()", lambda z: [[z[0], z[1]]]),
    ("both(Tensor x, Tensor(a!) b, Tensor(c!) d) -> ()", lambda z: [z[0], z]),
    ("gives(Tensor x, Tensor(a!) b) -> Tensor", lambda z: [z[0]]),
]


@pytest.mark.parametrize(("schema", "parts"), WRITES, ids=_name)
@pytest.mark.parametrize("constant", [False, True])
def test_writes_through_views_reach_the_base(
    lib: Library, schema: str, parts: Any, constant: bool
) -> None:
    """S136: a base and its older views know that a part was written without a gradient."""
    op = define(lib, schema)
    x = leaf(3)
    z = polyop.ones(2, 3) if constant else polyop.ones(2, 3) * x
    older = z[0]
    op(x if constant else polyop.zeros(3), *parts(z))
    assert z.requires_grad
    assert older.requires_grad
    assert older.tolist() == z[0].tolist() != [1.0] * 3
    for seen in (z, older):
        with pytest.raises(MissingGradientError, match=schema.partition("(")[0]):
            grad(seen.sum(), x, retain_graph=True, allow_unused=True)


# -- no gradient, by the author's word ------------------------------------------------------------


@pytest.mark.parametrize("part", [False, True])
def test_history_ends_at_a_write_that_has_no_gradient(lib: Library, part: bool) -> None:
    """S129: with `register_autograd(op, None)` what is written has none, as by `fill_`."""
    op = define(lib, "cut(Tensor x, Tensor(a!) b) -> Tensor")
    register_autograd(f"{NS}::cut", None, lib=lib)
    x = leaf(3)
    z, w = x * 1, x * 1
    out = op(x, z[:1] if part else z)
    (w[:1] if part else w).fill_(2.0)
    assert not out.requires_grad
    np.testing.assert_array_equal(z.numpy(force=True), w.numpy(force=True))
    expected, got = (grad(t.sum(), x, materialize_grads=True)[0] for t in (w, z))
    np.testing.assert_array_equal(got.numpy(), expected.numpy())
    if not part:
        with pytest.raises(AutogradError, match="not reached"):
            grad(z.sum(), x)


def test_an_authors_gradient_reads_what_was_written_over() -> None:
    """S135: a gradient that an author gave a built-in operator sees the values before the write."""

    def keep(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, g: Tensor) -> Any:
        return g * (ctx.saved_tensors[0] * 2 + 0.5)

    x = polyop.full((2,), 3.0).requires_grad_()
    (x + 0).square_()  # what is known of the write is found anew
    made = Library("core", "FRAGMENT")
    try:
        register_autograd("core::square", backward, setup_context=keep, lib=made)
        y = x + 0
        y.square_()
        assert grad(y.sum(), x)[0].tolist() == [6.5, 6.5]
    finally:
        made._destroy()
    y = x + 0
    y.square_()
    assert grad(y.sum(), x)[0].tolist() == [6.0, 6.0]


# -- views that nobody can take again -------------------------------------------------------------


def test_a_view_by_an_operator_that_writes(lib: Library) -> None:
    """S136: it is not taken again after a write, which would write once more, and says so."""
    lib.define("seen(Tensor(a!) x, Tensor(b) y) -> Tensor(b)")
    lib.impl("seen", lambda x, y: (x.numpy().__iadd__(1), y[:2])[1], "CPU")
    x, count = leaf(3), polyop.zeros(1)
    y = x * 1
    view = polyop.ops.writesnoformula.seen(count, y)
    with pytest.raises(MutationError, match=r"a view that writesnoformula::seen gave"):
        view.mul_(2.0)
    y.mul_(2.0)
    assert count.tolist() == [1.0]
    with pytest.raises(MutationError, match=r"what writesnoformula::seen gave is a view"):
        grad(view.sum(), x, allow_unused=True)


def test_a_lost_gradient_is_never_none() -> None:
    """S131: the gradient of a Function's view of what was written since is not merely absent."""

    class Seen(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x[...]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return grads[0] * 3

    x = leaf(3)
    y = x * 1
    view = Seen.apply(y)
    y.mul_(2.0)
    with pytest.raises(MutationError, match="written since"):
        grad(view.sum(), x, allow_unused=True)
