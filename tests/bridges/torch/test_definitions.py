"""An operator is defined in PyTorch once both are imported, and goes when it goes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from tests.bridges.torch.operators import mix
from tests.forked import DYNAMO, TORCH, run_forked

import polyop
from polyop.errors import ArgumentError, DuplicateRegistrationError, OperatorGoneError

Z = torch.ones(3, dtype=torch.float64)


def run(program: str, imported: str = "") -> str:
    if imported:
        done = run_forked(program, imported)
    else:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_and_defining_imports_no_framework() -> None:
    """S66: neither importing polyop nor defining an operator imports PyTorch, or its bridge."""
    program = """
import sys, polyop
@polyop.custom_op("early::twice", mutates_args=())
def twice(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 2)
assert twice(polyop.ones(2)).tolist() == [2, 2]
assert "torch" not in sys.modules and "polyop.bridges.torch.bridge" not in sys.modules
import torch
assert "torch._dynamo" not in sys.modules
print(twice(torch.ones(2)).tolist(), torch.ops.early.twice(torch.ones(2)).tolist())
graph = torch.compile(lambda x: twice(x), backend="eager")
print(graph(torch.ones(2)).tolist())
"""
    assert run(program).splitlines() == ["[2.0, 2.0] [2.0, 2.0]", "[2.0, 2.0]"]


def test_defining_again_before_a_compiler_is_loaded() -> None:
    """S44: an operator that is defined twice compiles, and so does one of an unusual name."""
    program = """
import torch, polyop
def plus(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() + 1)
for name in ("again::plus", "again::plus", "again::name"):
    op = polyop.custom_op(name, plus, mutates_args=())
    op.register_fake(lambda x: polyop.empty_like(x))
op = polyop.ops.again.plus
print(op(torch.ones(1)).tolist(), op.default(torch.ones(1)).tolist())
run = torch.compile(lambda x: op(x) + op.default(x), backend="eager", fullgraph=True)
print(run(torch.ones(1)).tolist())
"""
    assert run(program, TORCH).splitlines() == ["[2.0] [2.0]", "[4.0]"]


def test_the_schema_is_translated() -> None:
    """S14: PyTorch has the operator under its name, with types, defaults and writes."""
    assert str(torch.ops.bridge_tests.mix.default._schema) == (
        'bridge_tests::mix(Tensor[] xs, Tensor? w, float k=2., str mode="sum") '
        "-> (Tensor, Tensor[])"
    )
    assert "Tensor(a1!) output" in str(torch.ops.examples.sine.default._schema)
    assert mix._schema.arguments[0].name == "xs"


def test_a_destroyed_library_is_gone_from_pytorch() -> None:
    """S37: what a library defined goes from PyTorch with it, and may be defined anew."""
    for factor in (2, 3):
        lib = polyop.library.Library("bridge_gone", "DEF")
        lib.define("scale(Tensor x) -> Tensor")
        lib.impl("scale", lambda x, n=factor: x * n, "CompositeExplicitAutograd")
        scale = polyop.ops.bridge_gone.scale
        assert scale(Z).tolist() == [factor] * 3
        assert torch.ops.bridge_gone.scale(Z).tolist() == [factor] * 3
        lib._destroy()
        assert not hasattr(torch.ops.bridge_gone, "scale")
        with pytest.raises(OperatorGoneError, match="was removed"):
            scale(Z)


def define_shift(extra: bool) -> Any:
    if extra:

        @polyop.custom_op("bridge_tests::shift", mutates_args=(), replace=True)
        def shift(x: polyop.Tensor, by: int) -> polyop.Tensor:
            return polyop.from_numpy(x.numpy() + by)

        return shift

    @polyop.custom_op("bridge_tests::shift", mutates_args=(), replace=True)
    def shift_one(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() + 1)

    return shift_one


def test_a_cell_run_again() -> None:
    """S44: an operator that is defined anew, with another schema too, is the new one in PyTorch."""
    first = define_shift(extra=False)
    assert first(Z).tolist() == [2.0] * 3
    assert define_shift(extra=False)(Z).tolist() == [2.0] * 3
    assert define_shift(extra=True)(Z, 4).tolist() == [5.0] * 3
    assert torch.ops.bridge_tests.shift(Z, 5).tolist() == [6.0] * 3
    with pytest.raises(OperatorGoneError):
        first(Z)


def test_rules_that_come_later_count() -> None:
    """S46: a rule that is registered after the first call is used from then on."""
    op = define_shift(extra=False)
    op(Z)
    op.register_autograd(lambda ctx, grad: grad * 7)
    x = Z.clone().requires_grad_()
    op(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [7.0] * 3


@polyop.custom_op("bridge_tests::of_dict", mutates_args=())
def of_dict(xs: dict[str, polyop.Tensor]) -> polyop.Tensor:
    """An operator whose schema PyTorch cannot say."""
    return polyop.from_numpy(np.asarray(xs["a"].numpy() * 2))


def test_what_pytorch_cannot_say_is_named() -> None:
    """S8: a type that PyTorch lacks hinders no data, and is named where a gradient is asked."""
    assert of_dict({"a": Z}).tolist() == [2.0] * 3
    with pytest.raises(ArgumentError, match="'xs' is of the type Dict"):
        of_dict({"a": Z.clone().requires_grad_()})


def test_a_name_that_pytorch_has_is_refused_when_it_is_asked_for() -> None:
    """S34: another operator of the name in PyTorch stays, and ours says so where it is needed."""
    other: Any = torch.library.Library("bridge_taken", "DEF")
    other.define("f(Tensor x) -> Tensor")
    other.impl("f", lambda x: x * 10, "CompositeExplicitAutograd")

    @polyop.custom_op("bridge_taken::f", mutates_args=())
    def f(x: polyop.Tensor) -> polyop.Tensor:
        return polyop.from_numpy(x.numpy() * 2)

    assert f(Z).tolist() == [2.0] * 3
    assert torch.ops.bridge_taken.f(Z).tolist() == [10.0] * 3
    with pytest.raises(DuplicateRegistrationError, match="PyTorch does not take"):
        f(Z.clone().requires_grad_())
    other._destroy()


def test_errors_of_kernels_are_the_authors_own() -> None:
    """S2: what a kernel raises, and what our checks raise, arrives through PyTorch as it is."""

    @polyop.custom_op("bridge_tests::failing", mutates_args=())
    def failing(x: polyop.Tensor) -> polyop.Tensor:
        raise KeyError("boom")

    for x in (Z, Z.clone().requires_grad_()):
        with pytest.raises(KeyError, match="boom"):
            failing(x)
    with pytest.raises(ArgumentError, match="cannot take str as argument 'x'"):
        failing("text")


def test_operators_are_found_in_pytorch_before_their_first_call() -> None:
    """S66: an operator is in `torch.ops` from its definition on, whichever was imported first."""
    program = """
import sys, polyop
def twice(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 2)
polyop.custom_op("found::before", twice, mutates_args=())
import torch
polyop.custom_op("found::after", twice, mutates_args=())
assert "polyop.bridges.torch.bridge" not in sys.modules
print([getattr(torch.ops.found, n)(torch.ones(1)).tolist() for n in ("before", "after")])
print(hasattr(torch.ops.found, "never"), torch.ops.found.after.default)
"""
    assert run(program).splitlines() == ["[[2.0], [2.0]]", "False found.after.default"]


def test_a_compiler_that_forgets_is_told_again() -> None:
    """S66: what was never called is known to a compiler, also after its reset."""
    program = """
import torch, torch._dynamo, polyop
from polyop.dispatch.own_call import QUICK
def twice(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 2)
first = polyop.custom_op("reset::first", twice, mutates_args=())
first(polyop.ones(1))
print(first in QUICK)  # a compiler that is only loaded costs nothing
torch._dynamo.reset()
for name in ("second", "third"):
    op = polyop.custom_op(f"reset::{name}", twice, mutates_args=())
    op.register_fake(lambda x: polyop.empty_like(x))
    run = torch.compile(lambda x: op(x) + 1, backend="eager", fullgraph=True)
    print(run(torch.ones(1)).tolist())
print(first(polyop.ones(1)).tolist(), first in QUICK)
"""
    assert run(program, DYNAMO).splitlines() == ["True", "[3.0]", "[3.0]", "[2.0] True"]


def test_a_name_that_pytorch_defines_itself_is_its_own() -> None:
    """S66: an operator of ours that nobody looked for leaves its name to PyTorch's definition."""
    program = """
import torch, polyop
@polyop.custom_op("both::twin", mutates_args=())
def ours(x: polyop.Tensor) -> polyop.Tensor:
    return polyop.from_numpy(x.numpy() * 2)
@torch.library.custom_op("both::twin", mutates_args=())
def theirs(x: torch.Tensor) -> torch.Tensor:
    return x * 3
print(torch.ops.both.twin(torch.ones(1)).tolist(), theirs(torch.ones(1)).tolist())
print(ours(polyop.ones(1)).tolist())
try:
    ours(torch.ones(1).requires_grad_())
except polyop.errors.DuplicateRegistrationError as error:
    print(str(error).splitlines()[0])
"""
    assert run(program, TORCH).splitlines() == [
        "[3.0] [3.0]", "[2.0]", "PyTorch does not take the operator both::twin",
    ]  # fmt: skip


def test_a_compiler_before_the_first_operator() -> None:
    """S66: the bridges are read in any order; built-in operators are the same after a compiler."""
    program = """
import torch, torch.export._trace, polyop
from polyop import ops
run = torch.compile(lambda x: ops.core.sin.default(x) * 0, backend="eager")
print(run(torch.ones(1)).tolist())
op = polyop.custom_op("late::op", lambda x: polyop.from_numpy(x.numpy() * 2),
                      schema="(Tensor x) -> Tensor", mutates_args=())
op.register_fake(lambda x: polyop.empty_like(x))
print(torch.compile(lambda x: op(x), backend="eager", fullgraph=True)(torch.ones(1)).tolist())
"""
    done = run_forked(program)
    assert done.stdout.splitlines() == ["[0.0]", "[2.0]"], done.stderr
