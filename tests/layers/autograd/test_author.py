"""Gradients that authors register: ctx, forms, checks, and what is missing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.dispatch.custom_op import custom_op
from polyop.dispatch.rules import register_autograd
from polyop.errors import (
    AutogradError,
    MissingGradientError,
    PolyopWarning,
    RegistrationError,
    UsageError,
    UsageTypeError,
)
from polyop.layers.autograd import (
    grad,
    gradcheck,
    gradgradcheck,
    no_grad,
    set_autograd_fallback,
)
from polyop.ops.define import ON_TENSORS as OPS
from polyop.tensor.tensor import Tensor, of_array

mul, cos, total = OPS["multiply"], OPS["cos"], OPS["sum"]


def leaf(data: Any, dtype: Any = float) -> Tensor:
    """Make a leaf."""
    return of_array(np.array(data, dtype)).requires_grad_()


@custom_op("tgrad::sin", mutates_args=())
def sin(x: Tensor, scale: float = 1.0) -> Tensor:
    """Sine, times a number."""
    return of_array(np.sin(x.numpy()) * scale)


def sin_setup(ctx: Any, inputs: Any, output: Any) -> None:
    """Keep the input and the number."""
    (x, scale) = inputs
    ctx.save_for_backward(x)
    ctx.scale = scale


def sin_backward(ctx: Any, g: Tensor) -> Any:
    """Give the gradient."""
    (x,) = ctx.saved_tensors
    return mul(mul(g, cos(x)), ctx.scale), None


register_autograd(sin, sin_backward, setup_context=sin_setup)


@custom_op("tgrad::mixed", mutates_args=())
def mixed(x: Tensor, ys: list[Tensor], n: int = 2, *, w: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `x * n` and `sum(ys) * w`."""
    return of_array(x.numpy() * n), of_array(sum(y.numpy() for y in ys) * w.numpy())


@pytest.fixture
def rule() -> Iterator[Any]:
    """Register a gradient of `mixed`."""

    def register(backward: Any, setup_context: Any = None) -> None:
        register_autograd(mixed, backward, setup_context=setup_context)

    yield register
    register_autograd(mixed, None)


def inputs() -> tuple[Tensor, list[Tensor], Tensor]:
    """Give inputs of `mixed`."""
    return leaf([1.0, 2.0]), [leaf([3.0, 4.0]), leaf([5.0, 6.0])], leaf([7.0, 8.0])


def test_a_registered_gradient() -> None:
    """S124: first and second gradients of a custom operator equal finite differences."""
    x = leaf([0.3, 0.4])
    gradcheck(lambda x: sin(x, 2.0), (x,))
    gradgradcheck(lambda x: sin(x, 2.0), (x,))


def test_setup_context_runs_only_if_needed(rule: Any) -> None:
    """S126: without an input that requires grad, or without grad mode, it is not called."""
    calls = []
    rule(lambda ctx, a, b: None, lambda ctx, inputs, output: calls.append(1))
    x, ys, w = inputs()
    mixed(x.detach(), [y.detach() for y in ys], w=w.detach())
    with no_grad():
        mixed(x, ys, w=w)
    assert not calls
    mixed(x.detach(), ys, w=w.detach())
    assert calls == [1]


def test_what_setup_context_gets(rule: Any) -> None:
    """S124: positional arguments in a row, all by name in `box`; keyword-only ones as a fourth."""
    seen: dict[str, Any] = {}

    def three(ctx: Any, inputs: Any, output: Any) -> None:
        seen["three"] = (len(inputs), inputs.box.n, inputs.box.w, ctx.needs_input_grad, output)

    def four(ctx: Any, inputs: Any, keyword_only_inputs: Any, output: Any) -> None:
        seen["four"] = (len(inputs), list(keyword_only_inputs), output)

    def named(output: Any, inputs: Any, ctx: Any) -> None:
        seen["named"] = (len(inputs), len(output), type(ctx).__name__)

    def placed(c: Any, i: Any, o: Any) -> None:
        seen["placed"] = (len(i), len(o))

    x, ys, w = inputs()
    for setup in (three, four, named, placed):
        rule(lambda ctx, a, b: None, setup)
        mixed(x, [ys[0], ys[1].detach()], w=w.detach())
    count, n, kept_w, needs, _ = seen["three"]
    assert (count, n, kept_w.tolist()) == (3, 2, [7, 8])
    assert needs == (True, [True, False], False, False)
    assert seen["four"][:2] == (3, ["w"])
    assert seen["named"] == (3, 2, "Context")
    assert seen["placed"] == (3, 2)


def test_lists_and_keyword_only_gradients(rule: Any) -> None:
    """S127, S49: lists are mirrored, keyword-only arguments come last."""

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs.box.ys, inputs.box.w)

    def backward(ctx: Any, a: Tensor, b: Tensor) -> Any:
        y0, y1, w = ctx.saved_tensors
        g = mul(b, w)
        return mul(a, 2.0), [g, g], None, mul(b, OPS["add"](y0, y1))

    rule(backward, setup)
    x, ys, w = inputs()
    gradcheck(lambda x, y0, y1, w: mixed(x, [y0, y1], w=w), (x, *ys, w))
    gradgradcheck(lambda x, y0, y1, w: mixed(x, [y0, y1], w=w), (x, *ys, w))


def test_gradients_by_name(rule: Any) -> None:
    """S127: a dict gives gradients by argument name, others have none."""
    rule(lambda ctx, a, b: {"ys": [b, None], "x": a})
    x, ys, w = inputs()
    a, b = mixed(x, ys, w=w)
    total(mul(a, b)).backward()
    assert x.grad is not None
    assert ys[0].grad is not None
    assert (ys[1].grad, w.grad) == (None, None)


@pytest.mark.parametrize(
    ("given", "declared", "seen"),
    [
        (lambda a, b: (a, [b, b]), "4 (x, ys, n, w)", "tuple of 2"),
        (lambda a, b: (a, [b], None, b), "a list of 2", "list of 1"),
        (lambda a, b: (a, b, None, b), "a list of 2", "Tensor of shape (2,)"),
        (lambda a, b: (a, [b, b], a, b), "None", "Tensor of shape (2,)"),
        (lambda a, b: (total(a), [b, b], None, b), "shape (2,)", "shape ()"),
        (lambda a, b: (1.0, [b, b], None, b), "a Tensor of shape (2,)", "float 1.0"),
        (lambda a, b: {"q": a}, "x, ys, n, w", "dict with q"),
    ],
)
def test_wrong_gradients(rule: Any, given: Any, declared: str, seen: str) -> None:
    """S127, S128: a gradient that does not fit tells what was expected and what was seen."""
    rule(lambda ctx, a, b: given(a, b))
    x, ys, w = inputs()
    a, b = mixed(x, ys, w=w)
    with pytest.raises(AutogradError) as caught:
        total(mul(a, b)).backward()
    assert declared in caught.value.declared
    assert seen in caught.value.seen
    assert "tgrad::mixed" in caught.value.op
    assert "test_author.py" in caught.value.source


def test_a_wrong_dtype_is_cast() -> None:
    """S128: a gradient of another dtype is cast to the argument's."""

    @custom_op("tgrad::same", mutates_args=(), replace=True)
    def same(x: Tensor) -> Tensor:
        return x.clone()

    register_autograd(same, lambda ctx, g: of_array(g.numpy().astype("f8")))
    x = leaf([1.0], "f4")
    total(same(x)).backward()
    assert x.grad.dtype == np.float32


def test_absent_gradients(rule: Any) -> None:
    """S125: absent gradients come as zeros, or as None if the author asks."""
    seen = []

    def backward(ctx: Any, a: Any, b: Any) -> Any:
        seen.append(b if b is None else b.tolist())
        return a, None, None, None

    x, ys, w = inputs()
    rule(backward)
    total(mixed(x, ys, w=w)[0]).backward()
    rule(backward, lambda ctx, inputs, output: ctx.set_materialize_grads(False))
    total(mixed(x, ys, w=w)[0]).backward()
    assert seen == [[0, 0], None]


def test_non_differentiable_results(rule: Any) -> None:
    """S125: marked results do not require grad."""

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output[1])

    rule(lambda ctx, a, b: (a, None, None, None), setup)
    x, ys, w = inputs()
    a, b = mixed(x, ys, w=w)
    assert (a.requires_grad, b.requires_grad) == (True, False)


def test_saving_what_is_no_tensor() -> None:
    """S125: save_for_backward takes tensors only."""

    @custom_op("tgrad::bad_save", mutates_args=(), replace=True)
    def bad_save(x: Tensor) -> Tensor:
        return x.clone()

    register_autograd(
        bad_save,
        lambda ctx, g: g,
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(1.0),
    )
    with pytest.raises(UsageTypeError, match="float"):
        bad_save(leaf(1.0))


@pytest.mark.parametrize("through_view", [False, True])
def test_stale_saved_tensors(through_view: bool) -> None:
    """S125: a saved tensor that was written since is named, with both versions."""
    x = mul(leaf([1.0, 2.0]), 1.0)
    out = total(sin(x))
    with no_grad():
        OPS["add_"](OPS["select"](x, 0, 1) if through_view else x, of_array(np.array(1.0)))
    with pytest.raises(AutogradError, match="'x'") as caught:
        out.backward()
    assert "version 0" in caught.value.declared
    assert "version 1" in caught.value.seen


def exp_op(name: str) -> Any:
    """Define an operator that saves its result."""

    @custom_op(name, mutates_args=(), replace=True)
    def exp(x: Tensor) -> Tensor:
        return of_array(np.exp(x.numpy()))

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    def backward(ctx: Any, g: Tensor) -> Any:
        return mul(g, ctx.saved_tensors[0])

    register_autograd(exp, backward, setup_context=setup)
    return exp


def test_saved_results() -> None:
    """S125, S133: a saved result is differentiated again, is checked, and makes no cycle."""
    exp = exp_op("tgrad::exp")
    gradgradcheck(exp, (leaf([0.1, 0.2]),))
    out = exp(leaf([1.0]))
    last = total(out)
    with no_grad():
        OPS["add_"](out, of_array(np.array(1.0)))
    with pytest.raises(AutogradError, match="written"):
        last.backward()
    gc.disable()
    try:
        out = exp(leaf([1.0]))
        ref = weakref.ref(out)
        del out
        assert ref() is None
    finally:
        gc.enable()


def test_a_stale_result_of_a_built_in() -> None:
    """A built-in's result that its gradient needs is checked too."""
    out = OPS["exp"](leaf([1.0]))
    last = total(out)
    with no_grad():
        OPS["add_"](out, of_array(np.array(1.0)))
    with pytest.raises(AutogradError, match="version 1"):
        last.backward()


@pytest.fixture
def bare() -> Any:
    """Define an operator without a gradient."""

    @custom_op("tgrad::bare", mutates_args=(), replace=True)
    def bare(x: Tensor) -> Tensor:
        return x.clone()

    return bare


def test_a_missing_gradient(bare: Any) -> None:
    """S129: results require grad, and backward names the operator and what to write."""
    out = bare(leaf(1.0))
    assert out.requires_grad
    with pytest.raises(MissingGradientError, match=r"tgrad::bare has no backward rule") as caught:
        out.backward()
    assert "register_autograd('tgrad::bare'" in caught.value.fix


def test_a_second_gradient_that_is_missing(bare: Any) -> None:
    """S133: the error names the operator whose backward called the one without a gradient."""

    @custom_op("tgrad::outer", mutates_args=(), replace=True)
    def outer(x: Tensor) -> Tensor:
        return x.clone()

    register_autograd(
        outer,
        lambda ctx, g: bare(mul(g, ctx.saved_tensors[0])),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    x = leaf(2.0)
    (g,) = grad(outer(x), [x], create_graph=True)
    with pytest.raises(MissingGradientError, match=r"bare.*backward of tgrad::outer called it"):
        grad(g, [x])


def test_no_gradient_on_purpose(bare: Any) -> None:
    """S129: register_autograd(op, None) makes results not require grad."""
    register_autograd(bare, None)
    assert not bare(leaf(1.0)).requires_grad


def test_the_fallback(bare: Any) -> None:
    """S129: the fallback warns, raises in forward, or gives results without gradients."""
    x = leaf(1.0)
    try:
        set_autograd_fallback("warn")
        with pytest.warns(PolyopWarning, match="tgrad::bare"):
            bare(x)
        set_autograd_fallback("error")
        with pytest.raises(MissingGradientError):
            bare(x)
        set_autograd_fallback("nothing")
        assert not bare(x).requires_grad
        with pytest.raises(UsageError, match="did you mean 'warn'"):
            set_autograd_fallback("warm")
    finally:
        set_autograd_fallback("backward")


def test_operators_that_write_have_no_gradient() -> None:
    """S131: a gradient for an operator that writes is refused."""

    @custom_op("tgrad::writes", mutates_args=("x",), replace=True)
    def writes(x: Tensor) -> None:
        OPS["add_"](x, x)

    with pytest.raises(RegistrationError, match="writes x"):
        register_autograd(writes, lambda ctx: None)
    y = mul(leaf([1.0, 2.0]), 1.0)
    writes(y)
    with pytest.raises(MissingGradientError, match="tgrad::writes"):
        total(y).backward()


def test_kernels_run_below_autograd() -> None:
    """S126, S130: what a kernel does is not recorded, and it sees plain data."""
    seen = []

    @custom_op("tgrad::look", mutates_args=(), replace=True)
    def look(x: Tensor) -> Tensor:
        y = mul(x, x)
        seen.append(y.requires_grad)
        return y

    look(leaf([1.0]))
    assert seen == [False]


def test_integer_results_do_not_require_grad() -> None:
    """S129: only floating and complex results require grad."""

    @custom_op("tgrad::pair", mutates_args=(), replace=True)
    def pair(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.clone(), of_array(np.arange(2))

    register_autograd(pair, lambda ctx, a, b: a)
    a, b = pair(leaf([1.0, 2.0]))
    assert (a.requires_grad, b.requires_grad) == (True, False)
    total(a).backward()
    assert not OPS["greater"](leaf(1.0), leaf(2.0)).requires_grad
    assert not OPS["argmax"](leaf([1.0])).requires_grad
