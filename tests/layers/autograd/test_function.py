"""`Function`, `gradcheck`, and the grad modes."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.errors import (
    AutogradError,
    GradcheckError,
    MissingGradientError,
    MutationError,
    PolyopWarning,
    UsageError,
)
from polyop.layers.autograd import (
    Function,
    enable_grad,
    gradcheck,
    gradgradcheck,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from polyop.layers.autograd.transforms import grad as func_grad
from polyop.ops.define import ON_TENSORS as OPS
from polyop.tensor.tensor import Tensor, of_array

mul, exp, total = OPS["multiply"], OPS["exp"], OPS["sum"]


def leaf(data: Any, dtype: Any = float) -> Tensor:
    """Make a leaf."""
    return of_array(np.array(data, dtype)).requires_grad_()


class Exp(Function):
    """Exponential that saves its result."""

    @staticmethod
    def forward(x: Tensor, scale: float) -> Tensor:
        """Compute."""
        return mul(exp(x), scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the result."""
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Give the gradient."""
        return mul(g, ctx.saved_tensors[0]), None


class Old(Function):
    """The form in which forward takes ctx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Any:
        """Compute, and keep the inputs."""
        ctx.save_for_backward(x, y)
        return mul(x, y), x

    @staticmethod
    def backward(ctx: Any, g: Tensor, h: Tensor) -> Any:
        """Give the gradients."""
        x, y = ctx.saved_tensors
        return OPS["add"](mul(g, y), h), mul(g, x)


def test_functions_are_differentiated() -> None:
    """S137: both forms give first and second gradients."""
    gradcheck(lambda x: Exp.apply(x, 2.0), (leaf([0.1, 0.2]),))
    gradgradcheck(lambda x: Exp.apply(x, 2.0), (leaf([0.1, 0.2]),))
    inputs = (leaf([1.0, 2.0]), leaf([3.0, 4.0]))
    gradcheck(Old.apply, inputs)
    gradgradcheck(Old.apply, inputs)


def test_functions_under_levels() -> None:
    """S137: with setup_context it works under func.grad; without, it says what to write."""
    x = np.array([0.3, 0.4])
    first = lambda v: total(func_grad(lambda u: total(mul(Exp.apply(u, 1.0), u)))(v))  # noqa: E731
    np.testing.assert_allclose(func_grad(first)(of_array(x)).numpy(), np.exp(x) * (2 + x))
    with pytest.raises(AutogradError, match="setup_context") as caught:
        func_grad(lambda u: total(Old.apply(u, u)[0]))(of_array(x))
    assert "Old" in str(caught.value)


def test_a_returned_input_is_another_tensor() -> None:
    """S137: an input that forward returns comes out with a history of its own."""
    x = leaf([1.0])
    _, same = Old.apply(x, leaf([2.0]))
    assert same is not x
    total(same).backward()
    assert x.grad.tolist() == [1]


class Double(Function):
    """Writes its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Double in place."""
        ctx.mark_dirty(x)
        return OPS["multiply_"](x, 2.0)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Give the gradient."""
        return mul(g, 2.0)


def test_mark_dirty() -> None:
    """S137: a written input gets the new history; a leaf is refused."""
    x = leaf([1.0, 2.0])
    y = mul(x, 3.0)
    assert Double.apply(y) is y
    total(y).backward()
    assert x.grad.tolist() == [6, 6]
    with pytest.raises(MutationError, match="leaf"):
        Double.apply(x)


class Wrong(Function):
    """Returns too many gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Copy."""
        return OPS["clone"](x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Give too many."""
        return g, g


def test_wrong_functions() -> None:
    """S137: a wrong number of gradients, or no backward, is told by the class's name."""
    with pytest.raises(AutogradError, match="Wrong") as caught:
        total(Wrong.apply(leaf(1.0))).backward()
    assert (caught.value.declared, caught.value.seen.startswith("tuple of 2")) == ("1", True)
    nothing = type("Nothing", (Function,), {"forward": staticmethod(lambda ctx, x: exp(x))})
    with pytest.raises(MissingGradientError, match="Nothing"):
        nothing.apply(leaf(1.0)).backward()


def test_a_freed_graph_names_its_function() -> None:
    """S137, S138: the error of a second backward says which class it is about."""
    out = Exp.apply(leaf(1.0), 2.0)
    out.backward()
    with pytest.raises(AutogradError, match="freed") as caught:
        out.backward()
    assert caught.value.op == "Exp"


# -- gradcheck ----------------------------------------------------------------


class Bad(Exp):
    """A gradient that is wrong."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Forget what was saved."""
        return g, None


def test_gradcheck_finds_a_wrong_gradient() -> None:
    """S139: a mismatch shows result, input and both Jacobians, or gives False."""
    inputs = (of_array(np.zeros(1)), leaf([1.0, 2.0]))
    run = lambda a, x: Bad.apply(x, 1.0)  # noqa: E731
    with pytest.raises(GradcheckError, match=r"result 0 .* input 0") as caught:
        gradcheck(run, inputs)
    assert "2.718" in caught.value.declared
    assert "1." in caught.value.seen
    assert not gradcheck(run, inputs, raise_exception=False)


def test_gradcheck_of_complex_numbers() -> None:
    """S139: complex inputs and results are checked as pairs of real numbers."""
    z, x = leaf([0.3 + 0.4j, 1 - 1j], complex), leaf([0.5, 0.6])
    gradcheck(lambda z, x: (exp(mul(z, x)), OPS["abs"](z)), (z, x))
    gradgradcheck(lambda z, x: exp(mul(z, x)), (z, x))


def test_gradcheck_mistakes() -> None:
    """S139: no input that requires grad is a mistake, and float32 a warning."""
    with pytest.raises(UsageError, match="requires grad"):
        gradcheck(exp, (of_array(np.ones(2)),))
    with pytest.warns(PolyopWarning, match="float64"):
        gradcheck(exp, (leaf([0.1], "f4"),), raise_exception=False)


# -- modes --------------------------------------------------------------------


def test_modes_as_blocks_and_decorators() -> None:
    """S140: each mode is a context manager and a decorator, and puts back what was before."""
    x = leaf(1.0)
    with no_grad():
        assert not exp(x).requires_grad
        with enable_grad():
            assert exp(x).requires_grad
        with set_grad_enabled(True):
            assert is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()
    assert not no_grad()(exp)(x).requires_grad
    assert not set_grad_enabled(False)(exp)(x).requires_grad
    assert is_grad_enabled()
    with inference_mode():
        assert is_inference_mode_enabled()
        assert not exp(x).requires_grad
    assert exp(x).requires_grad


def test_set_grad_enabled_acts_at_once() -> None:
    """S140: a plain call of set_grad_enabled holds from there on."""

    def work() -> None:
        set_grad_enabled(False)
        found.append(is_grad_enabled())

    found: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (found, is_grad_enabled()) == ([False], True)


def test_errors_leave_the_mode() -> None:
    """S140: a mode is left when its block raises."""
    with pytest.raises(ValueError, match="x"), no_grad():
        raise ValueError("x")
    assert is_grad_enabled()


def test_inference_tensors_are_not_saved() -> None:
    """S140: a tensor made under inference mode cannot be saved for backward."""
    with inference_mode():
        y = exp(of_array(np.ones(2)))
    with pytest.raises(AutogradError, match="inference_mode"):
        mul(leaf([1.0, 2.0]), y)
    with pytest.raises(AutogradError, match="inference_mode"):
        y.requires_grad_()


def test_a_function_class_is_not_kept() -> None:
    """S137: a class that nobody holds is gone, whatever applied it; a derived one has its own."""

    def local(x: Tensor) -> weakref.ref[type]:
        class Local(Function):
            @staticmethod
            def forward(x: Any) -> Any:
                return x * 2

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                pass

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                return grads[0] * 2

        class Derived(Local):
            @staticmethod
            def forward(x: Any) -> Any:
                return x * 3

        assert total(Local.apply(x)).tolist() == 4 and total(Derived.apply(x)).tolist() == 6
        assert func_grad(lambda t: total(Local.apply(t)))(x.detach()).tolist() == [2, 2]
        with pytest.raises(MissingGradientError, match="Derived"):
            Derived.backward = Function.backward  # type: ignore[method-assign]
            total(Derived.apply(x)).backward()
        return weakref.ref(Local)

    found = local(leaf([1, 1]))
    gc.collect()
    assert found() is None
