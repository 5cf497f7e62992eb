"""Tensor subclasses: who answers a call, and what every layer makes of their tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_map

import polyop
from polyop import tree
from polyop.dispatch.bits import SUBCLASS
from polyop.dispatch.context import word
from polyop.dispatch.guards import excluded_keys
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import scoped_library
from polyop.dispatch.modes import DispatchMode, dispatch_mode_stack
from polyop.dispatch.namespaces import ops
from polyop.dispatch.python_key import disabled_dispatch
from polyop.dispatch.resolve import tensor_keys
from polyop.dispatch.rules import register_dispatch
from polyop.errors import (
    AutogradError,
    CaptureError,
    FakeError,
    MissingKernelError,
    UnhandledDispatchError,
    UsageError,
    UsageTypeError,
)
from polyop.fake import FakeTensorMode
from polyop.layers.autograd.engine import meets_subclass
from polyop.layers.trace.make_fx import make_fx
from polyop.tensor.subclass import (
    is_traceable_wrapper_subclass,
    make_subclass,
    make_wrapper_subclass,
    map_inner,
    no_dispatch,
    return_and_correct_aliasing,
)
from polyop.tensor.tensor import Tensor, of_array


def tensor(values: Any, dtype: str = "float64") -> Tensor:
    return of_array(np.asarray(values, dtype))


class Wrap(Tensor):
    """A traceable wrapper that computes inside, and notes the calls."""

    inner: Tensor
    log: list[str]

    def __new__(
        cls, inner: Tensor, log: list[str] | None = None, requires_grad: bool = False
    ) -> Any:
        made = make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            device=inner.device,
            requires_grad=requires_grad,
        )
        made.inner = inner
        made.log = [] if log is None else log
        return made

    def __tensor_flatten__(self) -> Any:
        return ["inner"], self.log

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, log: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["inner"], log)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        log = next(x.log for x in tree.leaves((args, kwargs)) if isinstance(x, Wrap))
        log.append(op.name())
        given, named = tree.map_leaves(lambda x: getattr(x, "inner", x), (args, kwargs))
        out = op(*given, **named)
        wrapped = tree.map_leaves(lambda x: cls(x, log) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(op, args, kwargs, wrapped)


class Shares(Tensor):
    """A subclass on another tensor's payload."""

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with no_dispatch():
            out = op(*args, **(kwargs or {}))
        wrap = lambda x: make_subclass(cls, x) if isinstance(x, Tensor) else x  # noqa: E731
        return return_and_correct_aliasing(op, args, kwargs, tree.map_leaves(wrap, out))


def value(t: Any) -> Any:
    return (t.inner if isinstance(t, Wrap) else t).detach().numpy()


# -- making ------------------------------------------------------------------------------------


def test_a_wrapper_shows_what_it_was_given() -> None:
    """S163: a wrapper has the shape, strides, dtype and device that it was given, and no data."""
    t = make_wrapper_subclass(Wrap, [2, 3], strides=(1, 2), dtype="float32", device="cuda:1")
    assert (t.shape, t.stride(), t.ndim, t.numel()) == ((2, 3), (1, 2), 2, 6)
    assert (t.dtype, str(t.device), t.is_contiguous()) == (np.dtype("float32"), "cuda:1", False)
    assert type(t) is Wrap and not t.requires_grad and "size=(2, 3)" in repr(t)
    keys = tensor_keys(t.keys)
    assert all(keys.has(k) for k in ("Python", "PythonTLSSnapshot", "CUDA", "AutogradCUDA"))
    for look in (t.numpy, t.item, t.tolist, lambda: bool(t), lambda: np.asarray(t)):
        with pytest.raises(UsageTypeError, match="Wrap, which has none of its own"):
            look()


@pytest.mark.parametrize(
    ("cls", "shape", "options", "error", "text"),
    [
        (Tensor, (2,), {}, UsageTypeError, "not a subclass"),
        (int, (2,), {}, UsageTypeError, "not a subclass"),
        (type("Bare", (Tensor,), {}), (2,), {}, UsageTypeError, "no classmethod __dispatch__"),
        (
            type("Method", (Tensor,), {"__dispatch__": lambda *a: None}),
            (2,),
            {},
            UsageTypeError,
            "no classmethod __dispatch__",
        ),
        (Wrap, (-1,), {}, UsageError, "negative"),
        (Wrap, (2.0,), {}, UsageTypeError, "sizes are integers"),
        (Wrap, (True,), {}, UsageTypeError, "sizes are integers"),
        (Wrap, (2, 2), {"strides": (1,)}, UsageError, "one stride per axis"),
    ],
)
def test_bad_wrappers(cls: Any, shape: Any, options: Any, error: Any, text: str) -> None:
    """S163: a class without a classmethod `__dispatch__`, or sizes that are none, are refused."""
    with pytest.raises(error, match=text):
        make_wrapper_subclass(cls, shape, dtype="float32", device="cpu", **options)


def test_an_integer_wrapper_requires_no_grad() -> None:
    """S163: `requires_grad` of a dtype without gradients is refused, as for any tensor."""
    with pytest.raises(AutogradError):
        make_wrapper_subclass(Wrap, (2,), dtype="int64", device="cpu", requires_grad=True)


def test_make_subclass_shares() -> None:
    """S163: `make_subclass` shares the tensor's memory and its count of writes."""
    x = tensor([1.0, 2.0])
    t = make_subclass(Shares, x)
    t.add_(1)
    assert type(t) is Shares and np.array_equal(x.numpy(), [2, 3])
    assert x._version == t._version > 0
    with pytest.raises(UsageTypeError, match="made of a tensor"):
        make_subclass(Shares, [1.0])  # type: ignore[arg-type]


def test_a_subclass_without_dispatch_is_a_plain_tensor() -> None:
    """S163, S166: without `__dispatch__`, or with `disabled_dispatch`, nobody is asked."""

    class Bare(Tensor):
        pass

    class Disabled(Tensor):
        __dispatch__ = disabled_dispatch

    for cls in (Bare, Disabled):
        t = make_subclass(cls, tensor([1.0]))
        assert not t.keys & SUBCLASS and type(t + 1) is Tensor
        assert make_fx(lambda x: x + 1)(t)(tensor([2.0])).item() == 3
    t = make_wrapper_subclass(Disabled, (1,), dtype="float64", device="cpu")
    with pytest.raises(MissingKernelError):
        t + 1


# -- who is asked ------------------------------------------------------------------------------


def asked_classes(log: list[Any]) -> dict[str, Any]:
    """Make classes A, B(A), C, D(C) that note who was asked, and decline."""

    def dispatch(cls: Any, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        log.append((cls.__name__, tuple(t.__name__ for t in types)))
        return NotImplemented

    body = {"__dispatch__": classmethod(dispatch)}
    a = type("A", (Tensor,), body)
    c = type("C", (Tensor,), body)
    return {"A": a, "B": type("B", (a,), {}), "C": c, "D": type("D", (c,), {})}


class TorchBase(torch.Tensor):
    """The oracle's side of `asked_classes`."""


def torch_classes(log: list[Any]) -> dict[str, Any]:
    def dispatch(cls: Any, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        log.append((cls.__name__, tuple(t.__name__ for t in types)))
        return NotImplemented

    body = {"__torch_dispatch__": classmethod(dispatch)}
    a = type("A", (torch.Tensor,), body)
    c = type("C", (torch.Tensor,), body)
    return {"A": a, "B": type("B", (a,), {}), "C": c, "D": type("D", (c,), {})}


@settings(deadline=None)
@given(st.lists(st.sampled_from("ABCD."), min_size=1, max_size=5).filter(lambda x: set(x) != {"."}))
def test_precedence_is_pytorchs(names: list[str]) -> None:
    """S113, S164: a derived class goes before its base, else the left argument first; each class is
    asked once, `types` has them all; PyTorch asks the same in the same order."""
    ours: list[Any] = []
    theirs: list[Any] = []
    classes, oracle = asked_classes(ours), torch_classes(theirs)
    tensors = [
        make_wrapper_subclass(classes[n], (2,), dtype="float32", device="cpu")
        if n in classes
        else polyop.ones(2)
        for n in names
    ]
    with pytest.raises(UnhandledDispatchError) as caught:
        polyop.stack(tensors)
    wrapped = [
        torch.Tensor._make_wrapper_subclass(oracle[n], (2,)) if n in oracle else torch.ones(2)
        for n in names
    ]
    with pytest.raises(TypeError):
        torch.stack(wrapped)
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert all(set(types) == {n for n in names if n != "."} for _, types in ours)
    assert all(name in str(caught.value) for name, _ in ours)


def test_modes_go_before_subclasses() -> None:
    """S113, S161: modes are asked before subclasses, and see `types`; declining goes on to them."""
    seen: list[Any] = []

    class Look(DispatchMode):
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append((op.name(), types))
            return op(*args, **(kwargs or {})) if self.answer is None else self.answer

    t = Wrap(tensor([1.0]))
    with Look(None):
        out = polyop.sin(t)
    assert value(out)[0] == np.sin(1.0)
    assert seen == [("core::sin", (Wrap,))]
    seen.clear()
    with Look(NotImplemented), pytest.raises(UnhandledDispatchError, match="Look"):
        polyop.sin(t)  # the subclass answers, and the mode meets and declines the call inside
    assert [types for _, types in seen] == [(Wrap,), ()]


def test_what_a_subclass_runs_under() -> None:
    """S99: while a subclass's handler runs, every key above Python is excluded."""
    seen: list[Any] = []

    class Look(Wrap):
        @classmethod
        def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append((excluded_keys().has(DispatchKey.AutogradCPU), dispatch_mode_stack()))
            return super().__dispatch__(op, types, args, kwargs)

    t = Look(tensor([1.0]))
    t.requires_grad_()
    y = polyop.exp(t)
    assert seen == [(True, ())] and y.requires_grad and not y.inner.requires_grad


def test_rules_of_an_operator_go_before_dispatch() -> None:
    """S54, S109, S113: a `register_dispatch` rule, and before it a `py_impl` rule, for a subclass
    goes before its `__dispatch__`; `NotImplemented` from it goes on."""
    with scoped_library("sub_rules", "DEF") as lib:
        lib.define("f(Tensor x, int n=2) -> Tensor")
        lib.impl("f", lambda x, n: of_array(x.numpy() * n), "CPU")
        f = ops.sub_rules.f.default
        t = Wrap(tensor([3.0]))
        assert value(f(t))[0] == 6
        seen: list[Any] = []

        def rule(*given: Any) -> Any:
            seen.append(given)
            return t

        def own(x: Any, n: int = 2) -> Any:
            seen.append(("own", x, n))
            return NotImplemented if n == 4 else t

        register_dispatch(f, Wrap, rule)
        assert f(t) is t and seen == [(Wrap, f, (Wrap,), (t,), {})]
        f.py_impl(Wrap)(own)
        assert f(t, 3) is t and seen[1:] == [("own", t, 3)]
        with pytest.raises(UnhandledDispatchError, match="Wrap"):
            f(t, 4)


def test_bad_arguments_never_reach_a_subclass() -> None:
    """S63: arguments are bound and converted before a subclass sees them."""
    t = Wrap(tensor([1.0]))
    with pytest.raises(polyop.errors.ArgumentError):
        polyop.ops.core.sum.default(t, axis="no")
    assert t.log == []


def test_no_dispatch() -> None:
    """S166: inside `no_dispatch()` neither modes nor subclasses are asked."""
    seen: list[str] = []

    class Look(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(op.name())
            return op(*args, **(kwargs or {}))

    t = make_subclass(Shares, tensor([1.0, 4.0]))
    before = word()
    with Look(), no_dispatch():
        out = polyop.sqrt(t)
        assert type(out) is Tensor and np.array_equal(out.numpy(), [1, 2])
        with pytest.raises(MissingKernelError, match=r"with a Wrap, which has no data(.|\n)*fix"):
            polyop.sqrt(Wrap(tensor([1.0])))
    assert seen == [] and word() is before


# -- aliasing ----------------------------------------------------------------------------------


def test_writes_return_the_wrapper_itself() -> None:
    """S166: `return_and_correct_aliasing` gives the written argument itself; the write counts."""
    t = Wrap(tensor([1.0, 2.0]))
    out = t.add_(1)
    assert out is t and np.array_equal(value(t), [2, 3]) and t._version == 1


def test_views_share_their_count_of_writes() -> None:
    """S166: the result of a view is tied to its base, so each counts the other's writes."""
    t = Wrap(tensor([[1.0, 2.0], [3.0, 4.0]]))
    row = t[0]
    row.mul_(10)
    assert row._base is t and np.array_equal(value(t), [[10, 20], [3, 4]])
    assert t._version == row._version == 1
    parts = polyop.unstack(t)
    assert all(p._base is t for p in parts) and len(parts) == 2


def test_gradients_flow_through_writes_to_views() -> None:
    """S136, S166: a write through a view of a wrapper is seen by the gradient of its base."""

    def f(x: Any) -> Any:
        y = x * 2
        y[0].mul_(3)
        return polyop.sum(y * y)

    x = Wrap(tensor([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    p = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad_()
    f(x).backward()
    f(p).backward()
    assert np.allclose(value(x.grad), p.grad.numpy())


def test_a_write_of_a_wrapper_keeps_the_old_value_as_one() -> None:
    """S136, S163: a gradient that reads the value before a write reads it as a wrapper."""
    x = Wrap(tensor([1.0, 2.0]), requires_grad=True)
    y = Wrap(tensor([3.0, 4.0]))
    y.mul_(x)
    y.sum().backward()
    assert isinstance(x.grad, Wrap) and np.array_equal(value(x.grad), [3, 4])


def test_a_function_may_unwrap() -> None:
    """S137, S163: a `Function` from a wrapper to a plain result has wrappers as gradients."""

    class Unwraps(polyop.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x.inner * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return Wrap(grads[0] * 2)

    x = Wrap(tensor([1.0, 2.0]), requires_grad=True)
    Unwraps.apply(x).sum().backward()
    assert isinstance(x.grad, Wrap) and np.array_equal(value(x.grad), [2, 2])


def test_a_write_after_saving_is_an_error() -> None:
    """S135: a wrapper that was written after autograd saved it raises in backward."""
    x = Wrap(tensor([1.0, 2.0]), requires_grad=True)
    y = polyop.exp(x)
    z = y * y
    y.detach().add_(1)
    with pytest.raises(AutogradError, match="was written after it was saved"):
        polyop.sum(z).backward()


# -- layers ------------------------------------------------------------------------------------


def composition(x: Any) -> Any:
    """A bit of everything: elementwise, reductions, broadcasting, views, linear algebra."""
    y = polyop.exp(x) * 2 + x
    z = y @ y.T
    w = polyop.concat([z, y], axis=1)[:, 1:]
    return polyop.sum(polyop.tanh(w), axis=0) * polyop.mean(x)


X = np.asarray([[0.1, 0.2], [0.3, -0.4]])


@pytest.mark.parametrize("make", [Wrap, lambda x: make_subclass(Shares, x)], ids=["Wrap", "Shares"])
def test_values_and_gradients_are_those_of_plain_tensors(make: Callable[[Tensor], Any]) -> None:
    """S163: values and gradients through a subclass equal those of plain tensors, and both are of
    the subclass."""
    t, p = make(tensor(X)).requires_grad_(), tensor(X).requires_grad_()
    ours, plain = composition(t), composition(p)
    assert type(ours) is type(t) and np.array_equal(value(ours), value(plain))
    polyop.sum(ours).backward()
    polyop.sum(plain).backward()
    assert type(t.grad) is type(t) and np.allclose(value(t.grad), value(p.grad))


def test_second_derivatives() -> None:
    """S163: gradients of gradients go through a subclass."""
    t, p = Wrap(tensor(X), requires_grad=True), tensor(X).requires_grad_()

    def second(x: Any) -> Any:
        (g,) = polyop.autograd.grad(polyop.sum(polyop.exp(x) * x), [x], create_graph=True)
        return polyop.autograd.grad(polyop.sum(g * g), [x])[0]

    assert np.allclose(value(second(t)), value(second(p)))


def test_wrappers_beside_plain_tensors_that_require_grad() -> None:
    """S163: a plain leaf beside a wrapper gets its gradient, of whatever type that is."""
    w = Wrap(tensor(X))
    p, q = tensor(X).requires_grad_(), tensor(X).requires_grad_()
    polyop.sum(polyop.sin(p) * w).backward()
    polyop.sum(polyop.sin(q) * tensor(X)).backward()
    assert np.allclose(value(p.grad), value(q.grad))


class Loses(Wrap):
    """A wrapper whose sums are plain tensors."""

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__dispatch__(op, types, args, kwargs)
        return out.inner if op.name() == "core::sum" else out


def test_a_plain_result_of_a_wrapper() -> None:
    """S163: gradients flow from plain tensors back into wrappers, and on into plain leaves; a graph
    without wrappers is still walked on bare arrays."""
    w = Loses(tensor(X), requires_grad=True)
    p = tensor(X).requires_grad_()
    loss = polyop.sum(polyop.sin(p * 2) * w) * 3
    assert type(loss) is Tensor and meets_subclass([loss.grad_node])
    loss.backward()
    assert np.allclose(value(w.grad), 3 * np.sin(2 * X))
    assert np.allclose(value(p.grad), 6 * np.cos(2 * X) * X)
    q = tensor(X).requires_grad_()
    assert not meets_subclass([polyop.sum(q * q).grad_node])


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: polyop.vmap(f),
        lambda f: polyop.vmap(lambda x: f(x) * x, in_dims=1, out_dims=1),
        lambda f: polyop.func.grad(lambda x: polyop.sum(f(x))),
        lambda f: polyop.vmap(polyop.func.grad(lambda x: polyop.sum(f(x)))),
        lambda f: polyop.func.functionalize(f),
    ],
    ids=["vmap", "vmap1", "grad", "vmap of grad", "functionalize"],
)
def test_transforms_of_wrappers(transform: Callable[[Any], Any]) -> None:
    """S163: transforms of functions of wrappers give what they give for plain tensors."""

    def f(x: Any) -> Any:
        y = polyop.exp(x) * x
        y.add_(1)
        return y + polyop.sum(y)

    ours, plain = transform(f)(Wrap(tensor(X))), transform(f)(tensor(X))
    assert isinstance(ours, Wrap) and np.allclose(value(ours), value(plain))


# -- traceable wrappers ------------------------------------------------------------------------


class Pair(Tensor):
    """A wrapper of two tensors, which may be wrappers themselves, that stands for their sum."""

    def __new__(cls, a: Tensor, b: Tensor, note: str = "") -> Any:
        made = make_wrapper_subclass(cls, a.shape, dtype=a.dtype, device=a.device)
        made.a, made.b, made.note = a, b, note  # type: ignore[attr-defined]
        return made

    def __tensor_flatten__(self) -> Any:
        return ["a", "b"], self.note  # type: ignore[attr-defined]

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, note: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["a"], inner["b"], note)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = [x.a + x.b if isinstance(x, Pair) else x for x in args]  # type: ignore[attr-defined]
        out = op(*args, **(kwargs or {}))
        return cls(out, out * 0, "computed")


def test_traceable_or_not() -> None:
    """S165: a wrapper with `__tensor_flatten__` and `__tensor_unflatten__` is traceable."""
    assert is_traceable_wrapper_subclass(Wrap(tensor([1.0])))
    assert not is_traceable_wrapper_subclass(make_subclass(Shares, tensor([1.0])))
    assert not is_traceable_wrapper_subclass(tensor([1.0])) and not is_traceable_wrapper_subclass(1)


def test_map_inner() -> None:
    """S165: a wrapper of wrappers is rebuilt around new tensors, with its context."""
    t = Pair(Wrap(tensor([1.0])), tensor([2.0]), "note")
    made = map_inner(t, lambda x: x + 10)
    assert (type(made), type(made.a), made.note) == (Pair, Wrap, "note")
    assert (made.a.inner.item(), made.b.item()) == (11, 12)


def test_a_wrong_flatten() -> None:
    """S165: names that are no tensors, and a rebuilt thing of another class, are named errors."""

    class Bad(Wrap):
        def __tensor_flatten__(self) -> Any:
            return ["log"], None

    class Odd(Wrap):
        @classmethod
        def __tensor_unflatten__(cls, inner: Any, log: Any, shape: Any, strides: Any) -> Any:
            return 7

    with pytest.raises(UsageTypeError, match="names 'log', which is no tensor"):
        map_inner(Bad(tensor([1.0])), lambda x: x)
    with pytest.raises(UsageTypeError, match="gives no Odd"):
        map_inner(Odd(tensor([1.0])), lambda x: x)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_trace_works_on_the_tensors_inside(mode: str) -> None:
    """S165: `make_fx` over traceable wrappers has the inner tensors as inputs and results."""
    a, b, c = tensor([1.0, 2.0]), tensor([3.0, 4.0]), tensor([5.0, 6.0])
    t = Pair(Wrap(a), b)
    module = make_fx(lambda t, c: (polyop.sin(t) * c, c), mode)(t, c)
    module.graph.lint()
    assert len(module.graph.placeholders if hasattr(module.graph, "placeholders") else [0] * 3) == 3
    assert {n.target.namespace for n in module.graph.nodes if n.op == "call_function"} == {"core"}
    (inner, zero), same = module(a * 2, b, c)
    expected = np.sin(np.asarray([5.0, 8.0])) * np.asarray([5.0, 6.0])
    assert np.allclose(value(inner[0] if isinstance(inner, list) else inner), expected)
    assert same is c or np.array_equal(same.numpy(), c.numpy())


def test_a_trace_of_a_gradient() -> None:
    """S165: the gradient of a function of a wrapper is traced on the tensors inside."""
    t = Wrap(tensor([0.5, 1.5]), requires_grad=True)

    def g(t: Any) -> Any:
        return polyop.autograd.grad(polyop.sum(polyop.exp(t) * t), [t])[0]

    module = make_fx(g, "fake")(t)
    x = np.asarray([0.2, 0.3])
    assert np.allclose(module(tensor(x))[0].numpy(), np.exp(x) * (1 + x))


def test_what_a_trace_refuses() -> None:
    """S165: a subclass that cannot be taken apart is refused, as an input and as a result."""
    t = make_subclass(Shares, tensor([1.0]))
    with pytest.raises(UsageTypeError, match="Shares is an input or result"):
        make_fx(lambda x: x + 1)(t)
    with pytest.raises(UsageTypeError, match="Shares is an input or result"):
        make_fx(lambda x: t)(tensor([1.0]))


def test_fakes_of_wrappers() -> None:
    """S147, S165: the fake of a traceable wrapper is a wrapper of fakes; another has none."""
    mode = FakeTensorMode()
    t = Wrap(tensor(X), requires_grad=True)
    fake = mode.from_tensor(t)
    assert isinstance(fake, Wrap) and fake.inner.is_fake and fake.requires_grad
    assert mode.from_tensor(t) is fake
    out = composition(fake)
    assert isinstance(out, Wrap) and out.inner.is_fake and out.shape == composition(t).shape
    with pytest.raises(FakeError, match="Shares has no fake"):
        mode.from_tensor(make_subclass(Shares, tensor([1.0])))


def test_compiled_functions_of_wrappers() -> None:
    """S165: a compiled function of wrappers gives what the eager one gives, gradients too."""
    f = polyop.compile(composition)
    for data in (X, X + 1, X):
        t, p = Wrap(tensor(data), requires_grad=True), tensor(data).requires_grad_()
        ours, plain = f(t), composition(p)
        assert isinstance(ours, Wrap) and np.allclose(value(ours), value(plain))
        polyop.sum(ours).backward()
        polyop.sum(plain).backward()
        assert np.allclose(value(t.grad), value(p.grad))


class Counts(Tensor):
    """A traceable wrapper with a context that changes from call to call."""

    asked = 0

    def __new__(cls, inner: Tensor, steps: int = 0) -> Any:
        made = make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)
        made.inner, made.steps = inner, steps  # type: ignore[attr-defined]
        return made

    def __tensor_flatten__(self) -> Any:
        return ["inner"], self.steps  # type: ignore[attr-defined]

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, steps: Any, shape: Any, strides: Any) -> Any:
        return cls(inner["inner"], steps)

    @classmethod
    def __dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Counts.asked += 1
        steps = max(x.steps for x in args if isinstance(x, cls))  # type: ignore[attr-defined]
        given = [getattr(x, "inner", x) for x in args]
        out = cls(op(*given, **(kwargs or {})), steps + 1)
        return return_and_correct_aliasing(op, args, kwargs, out)


def test_a_compiled_program_is_one_of_the_tensors_inside() -> None:
    """S165: once captured, the subclass is not asked again; results have the class and context of
    the eager call's, an argument that is returned is itself, and other shapes are captured anew."""

    @polyop.compile(fullgraph=True)
    def f(t: Any, c: Any) -> Any:
        return {"sum": polyop.exp(t) * c + 1, "plain": c * 2, "same": t}

    for n in (3, 3, 4, 3):
        t, c = Counts(tensor(np.arange(n))), tensor(np.ones(n))
        before = Counts.asked
        out = f(t, c)
        first = before == 0 or (n == 4)
        assert Counts.asked == before + (3 if first else 0)
        assert isinstance(out["sum"], Counts) and out["sum"].steps == 3  # type: ignore[attr-defined]
        assert np.allclose(out["sum"].inner.numpy(), np.exp(np.arange(n)) + 1)  # type: ignore[attr-defined]
        assert out["same"] is t and np.array_equal(out["plain"].numpy(), np.full(n, 2.0))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_trace_before_dispatch_records_what_the_class_does(mode: str) -> None:
    """S114, S165, S209: before dispatch too, a graph is of the tensors inside; what is plain is
    recorded as written, gradients and grad mode with it."""

    def f(t: Any, x: Any) -> Any:
        y = t * x.exp()
        with polyop.no_grad():
            z = y + 1
        (g,) = polyop.autograd.grad([y.sin()], [t], [z])
        return y, z.inner * x, g

    t, x = Wrap(tensor(X)).requires_grad_(), tensor(X)
    module = make_fx(f, mode, pre_dispatch=True)(t, x)
    found = module(t.inner, x)
    for one, wanted in zip(found, f(t, x), strict=True):
        assert np.allclose(value(one[0] if isinstance(one, list) else one), value(wanted))
    assert "core.exp(x)" in str(module.graph) and "set_grad_mode" in str(module.graph)


def test_fullgraph_refuses_tensors_inside_that_require_grad() -> None:
    """S165, S212: what is not captured is an error under `fullgraph=True`, and names the class."""
    f = polyop.compile(composition, fullgraph=True)
    assert f(Wrap(tensor(X), requires_grad=True)).requires_grad
    with pytest.raises(CaptureError, match="wrapper subclass cannot be captured") as caught:
        f(Wrap(tensor(X).requires_grad_()))
    assert caught.value.seen == "Wrap"
    assert "no_grad" in caught.value.fix
    with polyop.no_grad():
        assert isinstance(f(Wrap(tensor(X), requires_grad=True)), Wrap)


def test_a_compiled_program_writes_the_tensors_inside() -> None:
    """S165, S211: a compiled write to a wrapper writes the tensor inside it."""

    @polyop.compile
    def f(t: Any) -> Any:
        t.add_(1)
        return t * 2

    for _ in range(2):
        t = Counts(tensor([1.0, 2.0]))
        assert np.array_equal(f(t).inner.numpy(), [4, 6])
        assert np.array_equal(t.inner.numpy(), [2, 3])  # type: ignore[attr-defined]


# -- against PyTorch ---------------------------------------------------------------------------


class TorchWrap(torch.Tensor):
    """The oracle's `Wrap`."""

    @staticmethod
    def __new__(cls: Any, inner: Any, log: Any, requires_grad: bool = False) -> Any:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, requires_grad=requires_grad
        )
        made.inner, made.log = inner, log
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found: list[Any] = []
        tree_map(lambda x: found.append(x) if isinstance(x, TorchWrap) else None, (args, kwargs))
        found[0].log.append(op._schema.name.split("::")[1])
        peel = lambda x: x.inner if isinstance(x, TorchWrap) else x  # noqa: E731
        out = op(*tree_map(peel, args), **tree_map(peel, kwargs or {}))
        return tree_map(lambda x: cls(x, found[0].log) if isinstance(x, torch.Tensor) else x, out)


def test_the_calls_that_arrive_are_pytorchs() -> None:
    """S163: forward calls arrive one by one, below autograd, as PyTorch's do."""
    ours: list[str] = []
    theirs: list[str] = []
    t = Wrap(tensor([0.5]), ours, requires_grad=True)
    q = TorchWrap(torch.tensor([0.5], dtype=torch.float64), theirs, requires_grad=True)
    polyop.exp(polyop.sin(t) + t)
    torch.exp(torch.sin(q) + q)
    # PyTorch detaches what it saves, which is a call there.
    theirs = [name for name in theirs if name != "detach"]
    assert [name.split("::")[1] for name in ours] == theirs == ["sin", "add", "exp"]
