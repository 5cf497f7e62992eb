"""Kernels of authors above the trace: a program does what they do once, as an eager call does."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import polyop
from polyop import Tensor
from polyop.autograd import Function
from polyop.dispatch.keyset import after_autograd_keys, after_view_keys
from polyop.dispatch.library import Library
from polyop.errors import CaptureError, MissingGradientError, PerformanceWarning
from polyop.extend import DispatchKey, DispatchKeySet, DispatchMode, exclude_keys
from polyop.graph import GraphModule, make_fx

Fn = Callable[..., Any]
KEYS = ["Autograd", "AutogradCPU", "ADInplaceOrView"]


def exported(f: Fn, x: Tensor) -> Any:
    """Export a function, save the program and load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        polyop.export.save(polyop.export.export(f, (x,)), path)
        return polyop.export.load(path).module()


TRACES: dict[str, Callable[[Fn, Tensor], Any]] = {
    "real": lambda f, x: make_fx(f)(x),
    "symbolic": lambda f, x: make_fx(f, "symbolic")(x),
    "before dispatch": lambda f, x: make_fx(f, pre_dispatch=True)(x),
    "compile": lambda f, _: polyop.compile(f),
    "export": lambda f, x: polyop.export.export(f, (x,)).module(),
    "file": exported,
}
TRACED = pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)


@pytest.fixture
def lib() -> Iterator[Library]:
    """A library with an operator that squares."""
    made = Library("author_kernels", "DEF")
    made.define("f(Tensor x) -> Tensor")
    made.impl("f", lambda x: polyop.tensor(x.numpy() ** 2), "CPU")
    polyop.library.register_fake("author_kernels::f", lambda x: x.new_empty(x.shape), lib=made)
    yield made
    made.destroy()


def op() -> Any:
    return polyop.ops.author_kernels.f.default


def f(x: Tensor) -> Any:
    return op()(x) + x


def below(key: str) -> DispatchKeySet:
    return after_view_keys if key == "ADInplaceOrView" else after_autograd_keys


def guard(key: str) -> Any:
    views = ["ADInplaceOrView"] if key == "ADInplaceOrView" else []
    return exclude_keys(DispatchKeySet("Autograd", *views))


def told(lib: Library, key: str) -> None:
    """Go on with the keys that are told."""
    lib.impl("f", lambda keys, x: op().redispatch(keys & below(key), x) * 2, key, with_keyset=True)


def guarded(lib: Library, key: str) -> None:
    """Go on under a guard."""

    def kernel(x: Tensor) -> Any:
        with guard(key):
            return op()(x) * 2

    lib.impl("f", kernel, key)


def at_backend(lib: Library, key: str) -> None:
    """Go on at the backend."""
    lib.impl("f", lambda x: op().redispatch(DispatchKeySet("CPU"), x) * 2, key)


def by_py_impl(lib: Library, key: str) -> None:
    """The same as a rule of the operator."""

    def kernel(x: Tensor) -> Any:
        with guard(key):
            return op()(x) * 2

    op().py_impl(DispatchKey[key])(kernel)


WAYS = pytest.mark.parametrize("way", [told, guarded, at_backend, by_py_impl])


@TRACED
@WAYS
@pytest.mark.parametrize("key", KEYS)
def test_a_kernel_acts_once(lib: Library, key: str, way: Any, trace: Any) -> None:
    """S103, S209, S211, S213: what a kernel does before it goes on is in a program once."""
    way(lib, key)
    x = polyop.tensor([1.0, 2.0])
    assert f(x).tolist() == [3, 10]
    program = trace(f, polyop.ones(2))
    assert program(x).tolist() == [3, 10]


@TRACED
def test_a_batch(lib: Library, trace: Any) -> None:
    """S157, S209: a program is batched as its function is."""
    told(lib, "AutogradCPU")
    rows = polyop.tensor([[1.0, 2.0], [3.0, 0.0]])
    program = trace(f, polyop.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerformanceWarning)  # a loop over the batch
        found, wanted = polyop.vmap(program)(rows), polyop.vmap(f)(rows)
    assert found.tolist() == wanted.tolist() == [[3, 10], [21, 0]]


class Cubed(Function):
    """The operator, with the gradient of a third power, and something saved on the way."""

    @staticmethod
    def forward(x: Tensor, keys: DispatchKeySet) -> Any:
        out = op().redispatch(keys & after_autograd_keys, x)
        return out, out * 3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> Any:
        return g * ctx.saved_tensors[0], None


def differentiable(lib: Library) -> None:
    lib.impl("f", lambda keys, x: Cubed.apply(x, keys)[0] * 2, "AutogradCPU", with_keyset=True)


def of_whole(lib: Library) -> None:
    polyop.library.register_autograd("author_kernels::f", lambda _, g: g * 100, lib=lib)
    told(lib, "ADInplaceOrView")


def value_and_gradient(fn: Fn) -> Any:
    x = polyop.tensor([1.0, 2.0], requires_grad=True)
    out = fn(x)
    out.sum().backward()
    assert x.grad is not None
    return out.tolist(), x.grad.tolist()


@TRACED
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("way", [differentiable, of_whole])
def test_the_gradient_of_a_program(lib: Library, way: Any, trace: Any, requires_grad: bool) -> None:
    """S129, S209, S211, S213: a program has the gradient that the kernel records."""
    way(lib)
    program = trace(f, polyop.ones(2, requires_grad=requires_grad))
    assert value_and_gradient(program) == value_and_gradient(f)


@pytest.mark.parametrize("trace", [TRACES["real"], TRACES["symbolic"], TRACES["compile"]])
def test_a_gradient_inside(lib: Library, trace: Any) -> None:
    """S209, S211: where a gradient in the function reads what the kernel computed, this stays."""
    differentiable(lib)

    def step(x: Tensor) -> Any:
        x = x.detach().clone().requires_grad_()
        return polyop.autograd.grad(f(x).sum(), [x])[0]

    x = polyop.tensor([1.0, 2.0])
    assert trace(step, polyop.ones(2))(x).tolist() == step(x).tolist() == [7, 25]


class Plus(DispatchMode):
    """A mode that adds one to what the operator gives."""

    def __dispatch__(self, target: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = target(*args, **(kwargs or {}))
        return out + 1 if target is op() else out


def in_mode(x: Tensor) -> Any:
    with Plus():
        return f(x)


def in_guard(x: Tensor) -> Any:
    with exclude_keys(DispatchKeySet("Autograd")):
        return f(x) + f(x * 2)


def in_inference(x: Tensor) -> Any:
    with polyop.inference_mode():
        return f(x)


@pytest.mark.parametrize(
    ("fn", "trace"),
    [
        (fn, trace)
        for fn in (in_mode, in_guard, in_inference)
        for name, trace in TRACES.items()
        if fn is not in_mode or name != "before dispatch"  # which is before modes too
    ],
)
def test_what_is_around_a_call(lib: Library, fn: Fn, trace: Any) -> None:
    """S99, S209: a kernel acts in a program as it did at the capture, or not at all."""
    told(lib, "AutogradCPU")
    x = polyop.tensor([1.0, 2.0])
    assert trace(fn, polyop.ones(2))(x).tolist() == fn(x).tolist()


def program_below(lib: Library) -> GraphModule:
    told(lib, "AutogradCPU")
    return make_fx(in_guard)(polyop.ones(2))


def test_the_text_of_a_call_below(lib: Library) -> None:
    """S208, S209: a call below a kernel is printed as such, and runs as printed."""
    program = program_below(lib)
    assert "f: f32[2] = author_kernels.f.below_autograd(x)" in str(program.graph)
    program.graph.lint(program)
    scope = program.namespace
    exec(program.code, scope)  # noqa: S102 - the text is the program
    x = polyop.tensor([1.0, 2.0])
    assert scope["forward"](program, x).tolist() == in_guard(x).tolist()


AGAIN: dict[str, Callable[[GraphModule], Fn]] = {
    "traced": lambda m: make_fx(m, "symbolic")(polyop.ones(2)),
    "compiled": polyop.compile,
    "functionalized": polyop.func.functionalize,
    "pickled": lambda m: pickle.loads(pickle.dumps(m)),  # noqa: S301 - our own bytes
    "with a table": lambda m: make_fx(m, decomposition_table={op(): lambda x: x * x})(
        polyop.ones(2)
    ),
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_a_call_below_goes_through(lib: Library, again: Any) -> None:
    """S209: a node below a kernel is an operator to all that read or run the graph."""
    x = polyop.tensor([1.0, 2.0])
    assert again(program_below(lib))(x).tolist() == in_guard(x).tolist()


def test_a_call_below_has_no_gradient(lib: Library) -> None:
    """S129: the gradient stands with the kernel, which is not in the program: no silent zero."""
    program = program_below(lib)
    with pytest.raises(MissingGradientError, match="recorded below its kernel for autograd"):
        program(polyop.ones(2, requires_grad=True)).sum().backward()


def test_a_new_registration_is_seen_below(lib: Library) -> None:
    """S107: a call below forgets what was decided when the operator changes."""
    program = program_below(lib)
    x = polyop.tensor([1.0, 2.0])
    assert program(x).tolist() == in_guard(x).tolist()
    lib.impl("f", lambda x: polyop.tensor(x.numpy() ** 3), "CPU")
    assert program(x).tolist() == in_guard(x).tolist()
    lib.destroy()
    with pytest.raises(polyop.errors.OperatorGoneError):
        program(x)


def test_a_kernel_that_goes_nowhere_stays_as_recorded(lib: Library) -> None:
    """S209: a kernel that does not go on with its operator is what it calls."""
    lib.impl("f", lambda x: x * x, "Autograd")
    assert [str(n.target) for n in make_fx(op())(polyop.ones(2)).graph.nodes][1:-1] == [
        "core.multiply.default"
    ]


def test_sizes_of_a_result_stay_with_it(lib: Library) -> None:
    """S153, S209: what is asserted of the size of a result is asserted of the whole call."""
    lib.define("some(Tensor x) -> Tensor")
    some = polyop.ops.author_kernels.some.default
    lib.impl("some", lambda x: polyop.tensor(x.numpy()[x.numpy() > 1].copy()), "CPU")
    lib.impl("some", lambda keys, x: some.redispatch(keys & after_autograd_keys, x), "Autograd",
             with_keyset=True)  # fmt: skip

    @polyop.library.register_fake("author_kernels::some", lib=lib)
    def fake(x: Tensor) -> Tensor:
        return x.new_empty((polyop.library.get_ctx().new_dynamic_size(),))

    program = make_fx(lambda x: some(x) * some(x).shape[0], "symbolic")(polyop.ones(3))
    program.graph.lint(program)
    assert "below" not in str(program.graph)
    assert program(polyop.tensor([1.0, 2.0, 3.0])).tolist() == [4, 6]


def test_what_no_program_can_say_is_refused(lib: Library) -> None:
    """S209: a kernel that keeps one tensor, and gives another that it did not compute."""
    given, kept = polyop.ones(2), []

    def kernel(x: Tensor) -> Tensor:
        kept.append(x * 3)
        return given

    lib.impl("f", kernel, "Autograd")
    with pytest.raises(CaptureError, match="a kernel of author_kernels::f computed is read"):
        make_fx(lambda x: op()(x) + kept[-1])(polyop.ones(2))
    assert make_fx(f)(polyop.zeros(2))(polyop.tensor([1.0, 2.0])).tolist() == [2, 3]


def test_a_call_below_in_pytorch(lib: Library) -> None:
    """S209: PyTorch knows a call below as another operator than the whole one."""
    torch = pytest.importorskip("torch")
    program = program_below(lib)
    x = torch.tensor([1.0, 2.0])
    assert program(x).tolist() == [8, 26]
    assert op()(x).tolist() == [2, 8]


@pytest.mark.parametrize("key", ["AutogradCPU", "ADInplaceOrView"])
@TRACED
def test_a_kernel_that_writes(lib: Library, key: str, trace: Any) -> None:
    """S209, S211, S213: writes of a kernel, and of its operator, happen once and in order."""
    lib.define("add_(Tensor(a!) x) -> ()")
    add_ = polyop.ops.author_kernels.add_.default

    def dense(x: Tensor) -> None:
        x.numpy()[...] += 1

    def kernel(keys: DispatchKeySet, x: Tensor) -> None:
        add_.redispatch(keys & below(key), x)
        x.mul_(10)

    lib.impl("add_", dense, "CPU")
    lib.impl("add_", kernel, key, with_keyset=True)
    polyop.library.register_fake("author_kernels::add_", lambda x: None, lib=lib)

    def fn(x: Tensor) -> Any:
        y = x + 0
        add_(x)
        add_(y)
        return y * 2 + x

    program = trace(fn, polyop.ones(2))
    x = polyop.tensor([1.0, 2.0])
    assert program(x).tolist() == [60, 90]
    assert x.tolist() == [20, 30]
