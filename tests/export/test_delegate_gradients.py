"""Gradients of delegates: each path once, of every order, in every transform (SPEC S193)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor, autograd, errors, func
from polyop.export import LoweredModule, call_delegate, export, register_backend, to_backend

Scalar = Callable[[Tensor], Tensor]


def leaf(*values: float) -> Any:
    return polyop.tensor(list(values), dtype=polyop.float64, requires_grad=True)


def plain(*values: float) -> Tensor:
    return leaf(*values).detach()


def bell(x: Tensor) -> tuple[Tensor]:
    return ((x * x / 2).exp(),)


def product(a: Tensor, b: Tensor) -> tuple[Tensor]:
    return (a * b * b,)


class Own:
    """A backend with a backward of its own, which reads the results."""

    backend_id = "gradients_own"
    runs = 0

    def takes(self, node: Any) -> bool:
        return True

    def lower(self, program: Any, compile_specs: Any) -> bytes:
        return b"own"

    def executor(self, lowered: LoweredModule) -> Any:
        def run(x: Tensor) -> tuple[Tensor]:
            Own.runs += 1
            return bell(x)

        return run

    def backward(self, lowered: LoweredModule) -> Any:
        return lambda inputs, results, grads: [grads[0] * results[0] * inputs[0]]


class Counted:
    """A backend whose backward gives what it is told to."""

    backend_id = "gradients_counted"
    given: Any = ()

    def takes(self, node: Any) -> bool:
        return True

    def lower(self, program: Any, compile_specs: Any) -> bytes:
        return b"counted"

    def executor(self, lowered: LoweredModule) -> Any:
        return product

    def backward(self, lowered: LoweredModule) -> Any:
        return lambda inputs, results, grads: self.given


COUNTED = Counted()
register_backend(Own())
register_backend(COUNTED)
BELL = export(bell, (leaf(1.0, 2.0),))
PRODUCT = export(product, (leaf(1.0, 2.0), leaf(1.0, 2.0)))
DELEGATES = {
    "program": LoweredModule(BELL, "none"),
    "own": LoweredModule(BELL, "gradients_own", b"own"),
    "own alone": LoweredModule(None, "gradients_own", b"own"),
}


def orders(fn: Callable[[Any], Tensor]) -> list[list[float]]:
    """Give gradients of three orders."""
    x = leaf(0.5, 0.9)
    out = fn(x).sum()
    found = [autograd.grad(out, x, retain_graph=True)[0].tolist()]
    for _ in range(3):
        (g,) = autograd.grad(out, x, create_graph=True)
        found.append(g.tolist())
        out = (g * g).sum()
    return found


def close(ours: Any, eager: Any) -> bool:
    return all(a == pytest.approx(b, rel=1e-12) for a, b in zip(ours, eager, strict=True))


def test_arguments_that_are_computed_from_each_other() -> None:
    """S193: the way from one argument to another counts once, in every order."""
    lowered = LoweredModule(PRODUCT, "none")
    parts = to_backend(PRODUCT, "onnx").module()
    eager = orders(lambda x: product(x, x * x)[0])
    assert close(orders(lambda x: call_delegate(lowered, x, x * x)[0]), eager)
    assert close(orders(lambda x: parts(x, x * x)[0]), eager)


def test_parameters_that_arguments_are_computed_from() -> None:
    """S193: a parameter and an argument that is computed from it have each its own gradient."""
    w = leaf(0.5, 0.9)
    lowered = LoweredModule(export(lambda x: (x * w * w,), (leaf(1.0, 2.0),)), "none")
    for record in (False, True):
        (g,) = autograd.grad(call_delegate(lowered, w * w)[0].sum(), w, create_graph=record)
        assert close([g.tolist()], [(4 * w * w * w).tolist()])


@pytest.mark.parametrize("record", [False, True])
def test_hooks_of_arguments_run_once(record: bool) -> None:
    """S193: a hook of an argument sees its gradient once."""
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: g * 2)
    call_delegate(LoweredModule(PRODUCT, "none"), x, x)[0].sum().backward(create_graph=record)
    assert x.grad.tolist() == [6, 24]


@pytest.mark.parametrize("kind", DELEGATES)
def test_gradients_of_every_order(kind: str) -> None:
    """S193: the results that a backward gets have a history, so its own gradient is whole."""
    run = lambda x: call_delegate(DELEGATES[kind], x)[0]  # noqa: E731
    eager = orders(lambda x: bell(x)[0])
    assert close(orders(run), eager)
    assert close(orders(lambda x: polyop.hop.checkpoint(run, x)), eager)
    if kind != "own alone":
        assert close(orders(polyop.compile(run, fullgraph=True)), eager)


TRANSFORMS: dict[str, Callable[[Scalar], Any]] = {
    "grad": lambda f: func.grad(f)(plain(0.5, 1.0)),
    "grad of leaf": lambda f: func.grad(f)(leaf(0.5, 1.0)),
    "second": lambda f: func.grad(lambda x: func.grad(f)(x).sum())(plain(0.5, 1.0)),
    "jvp": lambda f: func.jvp(f, (plain(0.5, 1.0),), (plain(2.0, 3.0),))[1],
    "jvp of grad": lambda f: func.jvp(func.grad(f), (plain(0.5, 1.0),), (plain(2.0, 3.0),))[1],
    "hessian": lambda f: func.hessian(f)(plain(0.5, 1.0)),
    "vmap of grad": lambda f: polyop.vmap(func.grad(f))(plain(0.5, 1.0, 2.0, 0.1).reshape(2, 2)),
    "grad of vmap": lambda f: func.grad(lambda x: polyop.vmap(f)(x).sum())(
        plain(0.5, 1.0, 2.0, 0.1).reshape(2, 2)
    ),
}


@pytest.mark.parametrize("kind", DELEGATES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str, kind: str) -> None:
    """S193: in transforms too the backward is the delegate's own, or its program's."""
    ours = TRANSFORMS[name](lambda x: call_delegate(DELEGATES[kind], x)[0].sum())
    eager = TRANSFORMS[name](lambda x: bell(x)[0].sum())
    assert polyop.allclose(ours, eager, rtol=1e-12)
    assert ours.requires_grad == eager.requires_grad


@pytest.mark.parametrize("kind", ["own", "own alone"])
@pytest.mark.parametrize("name", ["grad", "jvp"])
def test_transforms_run_the_executor(name: str, kind: str) -> None:
    """S191, S193: what a transform differentiates is the call of the backend."""
    before = Own.runs
    TRANSFORMS[name](lambda x: call_delegate(DELEGATES[kind], x)[0].sum())
    assert Own.runs > before


def test_parameters_inside_transforms_keep_their_gradients() -> None:
    """S193: a call inside of func.grad is no detached one for what is outside."""
    w, y = leaf(3.0, 4.0), plain(1.0, 2.0)
    lowered = LoweredModule(export(lambda x: (x * w * w,), (leaf(1.0, 2.0),)), "none")
    for given in (lambda x: x, lambda x: y):
        out = func.grad(lambda x, of=given: (x * call_delegate(lowered, of(x))[0]).sum())(y)
        eager = func.grad(lambda x, of=given: (x * of(x) * w * w).sum())(y)
        assert close(*[[g.tolist() for g in autograd.grad(o.sum(), w)] for o in (out, eager)])


@pytest.mark.parametrize("needs", [True, False])
def test_parameters_inside_compiled_functions_keep_their_gradients(needs: bool) -> None:
    """S193: what the program of a captured call closes over has its gradient too."""
    w = leaf(3.0, 4.0)
    lowered = LoweredModule(export(lambda x: (x * w * w,), (leaf(1.0, 2.0),)), "none")
    f = polyop.compile(lambda x: call_delegate(lowered, x)[0], fullgraph=True)
    out = f(leaf(1.0, 2.0) if needs else plain(1.0, 2.0))
    (g,) = autograd.grad(out.sum(), w, create_graph=True)
    assert g.tolist() == [6, 16]
    assert autograd.grad(g.sum(), w)[0].tolist() == [2, 4]


@pytest.mark.parametrize("given", [[1], [], [1, 1, 1], 1, None])
def test_a_backward_gives_one_gradient_per_argument(given: Any) -> None:
    """S193, S127: too few gradients are an error as too many are; a tensor is one value."""
    one = polyop.ones(2, dtype=polyop.float64)
    COUNTED.given = [one for _ in given] if isinstance(given, list) else given and one
    x, y = leaf(1.0, 2.0), leaf(1.0, 3.0)
    out = call_delegate(LoweredModule(PRODUCT, "gradients_counted", b"c"), x, y)[0]
    with pytest.raises(errors.AutogradError, match="wrong number of gradients") as caught:
        autograd.grad(out.sum(), [x, y], allow_unused=True)
    assert caught.value.declared == "2, one per argument"


def test_results_that_are_detached_stay_so() -> None:
    """S193: a result requires grad if that of the program does, for the same arguments."""
    w = leaf(3.0, 4.0)

    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x.detach().sin(), x * 2, y + 0, x.sum() > 0, x.detach() * w

    program = export(fn, (leaf(1.0, 2.0), leaf(1.0, 2.0)))
    x, y = leaf(1.0, 2.0), plain(3.0, 4.0)
    for module in (LoweredModule(program, "none"), None):
        run = to_backend(program, "onnx").module() if module is None else module.original
        for args in ((x, y), (y, x), (y, y)):
            found = run(*args) if module is None else call_delegate(module, *args)
            assert [r.requires_grad for r in found] == [r.requires_grad for r in fn(*args)]


def test_a_program_that_would_draw_again_has_no_gradient() -> None:
    """S193: a gradient of other random numbers than those of the call is refused."""
    program = export(lambda x: (x * polyop.rand(2),), (polyop.ones(2).requires_grad_(),))
    x = polyop.ones(2).requires_grad_()
    out = call_delegate(LoweredModule(program, "none"), x)[0]
    with pytest.raises(errors.AutogradError, match="other random numbers"):
        out.sum().backward()


def test_constants_that_were_written_since() -> None:
    """S193: a gradient of other constants than those of the call is refused."""
    b = plain(2.0, 3.0)
    program = export(lambda x: (x * b,), (leaf(1.0, 2.0),))
    out = call_delegate(LoweredModule(program, "none"), leaf(1.0, 2.0))[0]
    (constant,) = (t for t in program.state.values() if isinstance(t, Tensor))
    constant.mul_(5)
    with pytest.raises(errors.AutogradError, match="was written after it was saved"):
        out.sum().backward()
