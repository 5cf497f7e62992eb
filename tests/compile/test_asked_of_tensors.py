"""What compiled functions ask of tensors beside their data is asked of the caller's (SPEC S211)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.errors import CaptureError, UsageError
from polyop.export import export
from polyop.graph import make_fx


def leaf() -> Tensor:
    return polyop.tensor([1.0, 2.0], requires_grad=True)


def with_gradient() -> Tensor:
    x = leaf()
    (x * x).sum().backward()
    return x


def written() -> Tensor:
    return polyop.tensor([1.0, 2.0]).add_(0)


def computed() -> Tensor:
    return leaf() * 1


def view() -> Tensor:
    return polyop.tensor([1.0, 2.0, 3.0])[:2]


def step_of_closure(w: Tensor) -> Any:
    def step() -> None:
        with polyop.no_grad():
            w.sub_(0.1 * w.grad)

    return step, ()


def step_of_attribute(w: Tensor) -> Any:
    model = SimpleNamespace(w=w)

    def step() -> None:
        with polyop.no_grad():
            model.w.sub_(0.1 * model.w.grad)

    return step, ()


def step_of_list(w: Tensor) -> Any:
    parameters = [w]

    def step() -> None:
        with polyop.no_grad():
            for p in parameters:
                p.sub_(0.1 * p.grad)

    return step, ()


def step_of_argument(w: Tensor) -> Any:
    def step(w: Any) -> None:
        with polyop.no_grad():
            w.sub_(0.1 * w.grad)

    return step, (w,)


def trained(make: Any, compile_: Any) -> list[Any]:
    w = leaf()
    step, args = make(w)
    run = compile_(step)
    seen = []
    for i in range(4):
        w.grad = None
        ((w * w).sum() * (i + 1)).backward()
        run(*args)
        seen.append(w.detach().tolist())
    if run is not step:
        assert sum(map(len, run.programs.values())) == 1
    return seen


@pytest.mark.parametrize(
    "make", [step_of_closure, step_of_attribute, step_of_list, step_of_argument]
)
def test_a_step_reads_the_gradient_of_each_call(make: Any) -> None:
    """S211: one program serves all steps, and takes the gradient that is there."""
    eager = trained(make, lambda f: f)
    assert trained(make, lambda f: polyop.compile(f, fullgraph=True)) == eager
    assert trained(make, lambda f: polyop.compile(f, fullgraph=True, backend="c")) == eager


QUESTIONS = {
    "grad": lambda x: x.detach() * 2 if x.grad is None else x.grad * 3,
    "step": lambda x: x * 5 if x.grad is None else x - 0.1 * x.grad,
    "is_leaf": lambda x: x * 2 if x.is_leaf else x * 3,
    "grad_fn": lambda x: x * 2 if x.grad_fn is None else x * 3,
    "_base": lambda x: x * 2 if x._base is None else x * 3,
    "_version": lambda x: x * (x._version + 1),
}
GIVEN = (leaf, with_gradient, written, computed, view)


def answered(f: Any, make: Any) -> Any:
    try:
        result = f(make())
    except CaptureError as error:
        assert "the function reads ." in str(error)
        return "refused"
    return result.detach().tolist(), result.requires_grad


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_about_arguments(name: str) -> None:
    """S211, S212: each answer is that of the argument, or the capture is refused by name."""
    f = QUESTIONS[name]
    for first in GIVEN:
        compiled, whole = polyop.compile(f), polyop.compile(f, fullgraph=True)
        for make in (first, *GIVEN):
            eager = answered(f, make)
            assert answered(compiled, make) == eager
            assert answered(whole, make) in (eager, "refused")


def test_a_gradient_that_the_function_takes_away() -> None:
    """S211, S212: it is gone after each call, of an argument too; one graph there is none."""
    w = leaf()

    def of_closure() -> Any:
        w.grad = None
        return w * 1

    def of_argument(x: Any) -> Any:
        x.grad = None
        return x * 1

    for f, args in ((of_closure, ()), (of_argument, (w,))):
        compiled = polyop.compile(f)
        for _ in range(3):
            (w * w).sum().backward()
            compiled(*args)
            assert w.grad is None
        with pytest.raises(CaptureError, match=r"sets \.grad"):
            polyop.compile(f, fullgraph=True)(*args)


def test_gradients_of_what_reads_a_gradient() -> None:
    """S211: a gradient that is read and has a history itself passes gradients on."""

    def f(x: Any, w: Any) -> Any:
        return x * w.grad

    x, w = leaf(), leaf()
    w.grad = polyop.tensor([3.0, 4.0], requires_grad=True)
    y = polyop.compile(f, fullgraph=True)(x, w)
    grads = polyop.autograd.grad(y.sum(), [x, w.grad])
    assert [g.tolist() for g in grads] == [[3.0, 4.0], [1.0, 2.0]]


def test_a_second_gradient_after_the_gradient_is_another() -> None:
    """S211: a gradient of a gradient runs the function again, and never on another `.grad`."""
    x, w = leaf(), with_gradient()
    y = polyop.compile(lambda x: (x * x * w.grad).sum(), fullgraph=True)(x)
    w.grad = w.grad * 2
    with pytest.raises(polyop.errors.AutogradError, match="changed since"):
        polyop.autograd.grad(y, x, create_graph=True)


TRACES: dict[str, Any] = {
    "real": lambda f, x: make_fx(f)(x)(x),
    "fake": lambda f, x: make_fx(f, "fake")(x)(x),
    "symbolic": lambda f, x: make_fx(f, "symbolic")(x)(x),
    "export": lambda f, x: export(f, (x,)).module()(x),
}


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_in_traces(name: str, trace: str) -> None:
    """S209, S213: a trace has the answer of the tensor that it was given, or is refused."""
    f = QUESTIONS[name]
    for make in GIVEN:
        try:
            result = TRACES[trace](f, make())
        except (CaptureError, UsageError):  # the second: the program refuses to run on it
            continue
        assert result.detach().tolist() == f(make()).detach().tolist()


@pytest.mark.parametrize("trace", TRACES)
def test_traces_set_no_gradients(trace: str) -> None:
    """S209, S213: no program sets `.grad` of what it is given, so that is refused."""

    def f(x: Any) -> Any:
        x.grad = None
        return x * 2

    with pytest.raises(CaptureError, match=r"sets \.grad"):
        TRACES[trace](f, with_gradient())
