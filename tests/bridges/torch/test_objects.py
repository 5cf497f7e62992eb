"""Dynamo sees an operator object as one thing: what it reads is right, and all that it guards."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from tests.bridges.torch.operators import sin
from tests.forked import DYNAMO, TORCH, run_forked

import polyop
from polyop.bridges.torch import dynamo, watch
from polyop.dispatch.own_call import QUICK
from polyop.errors import ArgumentError, MissingGradientError, OperatorGoneError

#: PyTorch compiles with what it has deprecated itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
Z = torch.linspace(0.1, 1.5, 4, dtype=torch.float64)
Unsupported: Any = torch._dynamo.exc.Unsupported
forward_ad: Any = torch.autograd.forward_ad
#: Libraries that stay.
KEPT: list[Any] = []


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(f: Callable[..., Any], backend: Any = "aot_eager", **more: Any) -> Any:
    return torch.compile(f, backend=backend, **({"fullgraph": True} | more))


def scaled(name: str, factor: float = 2.0) -> Any:
    """Define an operator that multiplies, with a gradient."""

    @polyop.custom_op(f"bridge_objects::{name}", mutates_args=(), replace=True)
    def scale(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() * factor)

    scale.register_fake(lambda x: polyop.empty_like(x))
    scale.register_autograd(lambda ctx, grad: grad * factor)
    return scale


def gradient(run: Callable[..., Any]) -> list[float]:
    x = torch.ones(2, requires_grad=True)
    run(x).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


def run_program(program: str, imported: str = DYNAMO) -> str:
    if imported:
        done = run_forked(program, imported)
    else:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_object_is_guarded_by_its_class_alone() -> None:
    """S117: of an operator object, a compiled program looks at one thing in each call."""
    assert dynamo.hindrance == ""
    found: list[str] = []
    torch._dynamo.reset()

    def program(x: Any) -> Any:
        return sin(x) + 1

    def keep(guards: Any) -> list[bool]:
        found.extend(f"{g.guard_type} {g.name}" for g in guards)
        return [True] * len(guards)

    torch.compile(program, backend="eager", options={"guard_filter_fn": keep})(Z)
    ours = [g for g in found if "sin" in g or "polyop" in g or "bridge" in g]
    assert ours == ["TYPE_MATCH G['sin']"], ours


def test_a_rule_that_changes() -> None:
    """S46: a compiled program has the rules that an operator has now."""
    op = scaled("ruled")
    counts = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    run = compiled(lambda x: op(x) + 1, counts)
    assert gradient(run) == [2, 2] and gradient(run) == [2, 2] and counts.frame_count == 1
    op.register_autograd(lambda ctx, grad: grad * 7)
    assert gradient(run) == [7, 7] and gradient(run) == [7, 7] and counts.frame_count == 2
    with op.set_kernel_enabled("cpu", True):  # a kernel is chosen in each call
        assert gradient(run) == [7, 7] and counts.frame_count == 2


def test_a_cell_run_again() -> None:
    """S44: a program that finds an operator by its name calls the one that is there now."""
    scope: dict[str, Any] = {"scale": scaled("cell")}
    run = compiled(lambda x: scope["scale"](x))
    assert run(Z).tolist() == (Z * 2).tolist()
    scope["scale"] = scaled("cell", 3.0)
    assert run(Z).tolist() == (Z * 3).tolist() and gradient(run) == [3, 3]


def test_an_operator_that_is_removed() -> None:
    """S37: a compiled program does not go on with an operator that is gone, and says so."""
    lib = polyop.library.Library("bridge_objects_gone", "DEF")
    lib.define("twice(Tensor x) -> Tensor")
    lib.impl("twice", lambda x: polyop.from_numpy(x.numpy() * 2), "CompositeExplicitAutograd")
    polyop.library.register_fake("bridge_objects_gone::twice", lambda x: polyop.empty_like(x))
    op = polyop.ops.bridge_objects_gone.twice.default
    packet = polyop.ops.bridge_objects_gone.twice
    runs = [(compiled(lambda x: op(x)), False), (compiled(lambda x: packet(x)), False)]
    runs += [(compiled(lambda x: op(x), fullgraph=False), True)]
    for run, _ in runs:
        assert run(Z).tolist() == (Z * 2).tolist()
    lib._destroy()
    for run, eager in runs:
        with pytest.raises(OperatorGoneError if eager else Unsupported, match="was removed"):
            run(Z)


def test_versions_side_by_side() -> None:
    """S29: versions of an operator are operators of their own in one program."""

    def first(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() + 1)

    def second(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() + 2)

    both = [
        polyop.custom_op("bridge_objects::versioned", fn, mutates_args=(), version=v)
        for v, fn in ((1, first), (2, second))
    ]
    for op in both:
        op.register_fake(lambda x: polyop.empty_like(x))
    torch.testing.assert_close(compiled(lambda x: both[0](x) * both[1](x))(Z), (Z + 1) * (Z + 2))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_forward_mode_beside_a_plain_call(backend: str) -> None:
    """S132: in one program, calls before and after a transform do not decide for those inside."""
    func: Any = torch.func

    def tangent(x: Any) -> Any:
        return func.jvp(sin, (x,), (x,))[1]

    for f in (lambda x: sin(x) + tangent(x) * 10, lambda x: tangent(x) * 10 + sin(x)):
        run = compiled(f, backend, fullgraph=False)
        torch.testing.assert_close(run(Z), Z.sin() + 10 * Z.cos() * Z)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_tangents_from_outside(backend: str) -> None:
    """S132: a dual that comes from outside has its tangent, or is refused; never a silent zero."""
    run = compiled(lambda x: sin(x), backend, fullgraph=False)
    whole = compiled(lambda x: sin(x), backend)
    for _ in range(2):
        torch.testing.assert_close(run(Z), Z.sin())
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(Z, Z)
            found = forward_ad.unpack_dual(run(dual))
            with pytest.raises(Unsupported, match="compiled where dual numbers exist"):
                whole(dual)
        torch.testing.assert_close(found.tangent, Z.cos() * Z)
    torch.testing.assert_close(torch.func.jvp(run, (Z,), (Z,))[1], Z.cos() * Z)


def test_a_dual_while_the_bridge_is_read() -> None:
    """S132: a dual number elsewhere in the process does not hide quick questions."""
    with forward_ad.dual_level():
        assert watch._chosen().reason == ""


def test_overloads_are_chosen() -> None:
    """S62: in a whole graph, a name with several overloads calls the one that fits."""
    space = "bridge_objects_overloads"
    KEPT.append(lib := polyop.library.Library(space, "DEF"))
    for schema in ("f(Tensor x) -> Tensor", "f.by(Tensor x, int n) -> Tensor"):
        lib.define(schema)
    lib.impl("f", lambda x: polyop.from_numpy(x.numpy() * 2), "CompositeExplicitAutograd")
    lib.impl("f.by", lambda x, n: polyop.from_numpy(x.numpy() * n), "CompositeExplicitAutograd")
    for name in ("f", "f.by"):
        polyop.library.register_fake(f"{space}::{name}", lambda x, n=2: polyop.empty_like(x))
    f = getattr(polyop.ops, space).f
    torch.testing.assert_close(compiled(lambda x: f(x) + f(x, 5) + f.by(x, n=7))(Z), Z * 14)
    run = compiled(lambda x: f(x, [x]))
    with pytest.raises(Unsupported, match=f"no overload of {space}::f fits"):
        run(Z)
    lib.define("f.more(Tensor x, Tensor[] ys) -> Tensor")
    lib.impl("f.more", lambda x, ys: polyop.from_numpy(x.numpy() * 9), "CompositeExplicitAutograd")
    polyop.library.register_fake(f"{space}::f.more", lambda x, ys: polyop.empty_like(x))
    torch.testing.assert_close(run(Z), Z * 9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: sin(x, x), "bridge_tests::sin got too many arguments"),
        (lambda x: sin(), "bridge_tests::sin misses argument 'x'"),
        (lambda x: sin(y=x), "bridge_tests::sin has no argument 'y'"),
    ],
)
def test_arguments_that_do_not_fit(call: Any, says: str) -> None:
    """S63: a whole graph is refused with the words of the operator's own error."""
    with pytest.raises(Unsupported, match=says):
        compiled(call)(Z)
    with pytest.raises(ArgumentError, match=says):
        compiled(call, fullgraph=False)(Z)


def test_arguments_may_have_any_name() -> None:
    """S8: no name of an argument is one that the compiler's text uses."""
    names = ("target", "run", "bridge", "levels", "bare", "make", "traced")

    def first(*tensors: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(tensors[0].numpy() * 2 + tensors[-1].numpy())

    schema = f"({', '.join(f'Tensor {name}' for name in names)}) -> Tensor"
    op = polyop.custom_op("bridge_objects::names", first, schema=schema, mutates_args=())
    op.register_fake(lambda *tensors: polyop.empty_like(tensors[0]))
    given = [Z] * len(names)
    for call in (op, op._opoverload.entry):
        torch.testing.assert_close(compiled(lambda *xs, call=call: call(*xs))(*given), Z * 3)


def test_what_pytorch_cannot_say_runs_between_graphs() -> None:
    """S8: an operator without a word in PyTorch ends a graph, and a whole graph names it."""

    @polyop.custom_op("bridge_objects::of_dict", mutates_args=())
    def of_dict(xs: dict[str, polyop.Tensor]) -> polyop.Tensor:
        return polyop.from_numpy(np.asarray(xs["a"].numpy() * 2))

    assert compiled(lambda x: of_dict({"a": x + 1}) + 1, fullgraph=False)(Z[:1]).tolist() == [3.2]
    with pytest.raises(Unsupported, match="'xs' is of the type Dict"):
        compiled(lambda x: of_dict({"a": x}))(Z)


def test_autocast_rules_act_in_compiled_programs() -> None:
    """S180: an author's autocast rule casts in a compiled program as it does outside of one."""
    op = scaled("casting")
    x = torch.ones(2)
    run = compiled(lambda x: op(x) + 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(x).dtype == op(x).dtype == torch.float32
    op.register_autocast("cpu", polyop.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(x).dtype == op(x).dtype == torch.float16
    assert run(x).dtype == op(x).dtype == torch.float32


def test_a_gradient_that_is_missing_is_named() -> None:
    """S118: what forward mode needs and finds not is named where tangents are computed."""
    op = polyop.custom_op(
        "bridge_objects::ruleless", lambda x: polyop.from_numpy(x.numpy() * 2), mutates_args=(),
        schema="(Tensor x) -> Tensor",
    )  # fmt: skip
    op.register_fake(lambda x: polyop.empty_like(x))
    run = compiled(lambda x: op(x), fullgraph=False)
    with forward_ad.dual_level(), pytest.raises(MissingGradientError, match="no backward rule"):
        run(forward_ad.make_dual(Z, Z))


def class_of_a_compiled_object() -> Any:
    op = scaled("short")
    run = compiled(lambda x: op(x))
    assert run(Z).tolist() == op(Z).tolist() and op in QUICK
    return ref(type(op))


def test_objects_stay_quick_and_are_forgotten() -> None:
    """S66: a compiler costs calls of objects nothing; it holds no object that is gone."""
    found = class_of_a_compiled_object()
    torch._dynamo.reset()
    gc.collect()
    assert found() is None


def test_without_the_names_objects_forward() -> None:
    """S66: a compiler whose unpromised names are gone follows objects, with the same results."""
    program = """
import torch, torch._dynamo, polyop
from polyop.bridges.torch import objects
from polyop.dispatch.own_call import QUICK
def gone():
    raise AttributeError("no tables")
objects._found = gone
@polyop.custom_op("gone::twice", mutates_args=())
def twice(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 2)
twice.register_fake(lambda x: polyop.empty_like(x))
twice.register_autograd(lambda ctx, grad: grad * 2)
x = torch.ones(1)
twice(x)
run = torch.compile(lambda x: twice(x) + polyop.ops.gone.twice(x), fullgraph=True,
                    backend="aot_eager")
tangent = lambda x: torch.func.jvp(twice, (x,), (x,))[1]
both = torch.compile(lambda x: twice(x) + tangent(x) * 10, backend="aot_eager")
y = torch.ones(1, requires_grad=True)
run(y).backward()
print(run(x).tolist(), y.grad.tolist(), both(x).tolist(), twice in QUICK)
print(torch.compile(lambda x: polyop.add(x, x), fullgraph=True, backend="aot_eager")(x).tolist())
from polyop.bridges.torch import dynamo
print(dynamo.hindrance)
"""
    assert run_program(program).splitlines() == [
        "[4.0] [4.0] [22.0] False", "[2.0]", "AttributeError: no tables",
    ]  # fmt: skip


BUILTINS = """
import polyop, torch
from polyop import ops
x = torch.ones(2, 3, requires_grad=True)
def f(x):
    y = polyop.add(x, x) * ops.core.sin(x) + ops.core.add.default(x, 2)
    z = polyop.concat([y, polyop.reshape(y, (y.shape[1], y.shape[0])).T])
    return ops.core.sum(z)
f(x).backward()
want, x.grad = x.grad, None
for backend in ("eager", "aot_eager"):
    for dynamic in (False, True):
        torch.compile(f, backend=backend, fullgraph=True, dynamic=dynamic)(x).backward()
        print(torch.allclose(x.grad, want))
        x.grad = None
"""


@pytest.mark.parametrize("imported", ["", TORCH, DYNAMO], ids=lambda text: text or "nothing")
def test_built_in_operators_alone(imported: str) -> None:
    """S66: built-in operators compile in a whole graph where no author has defined any."""
    assert run_program(BUILTINS, imported).split() == ["True"] * 4


def test_what_a_graph_cannot_hold_of_built_in_operators() -> None:
    """S144: a built-in operator whose size depends on data is refused by name in a whole graph."""
    with pytest.raises(Unsupported, match="core::argwhere has no kernel for what torch traces"):
        compiled(lambda x: polyop.nonzero(x)[0])(Z)
