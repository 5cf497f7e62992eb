"""Random programs: traced on data, on fakes and with symbolic sizes, they equal eager ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import polyop.assembly  # noqa: F401
from polyop.dispatch.registry import find_operator
from polyop.layers.trace import make_fx
from polyop.ops.elementwise import add, multiply, negative, sin
from polyop.ops.reductions import sum as sum_
from polyop.ops.views import permute_dims, reshape
from polyop.tensor.tensor import Tensor, of_array

add_ = find_operator("core::add_").entry
CONSTANT = of_array(np.float64([[0.5, 2.0, -1.0]]).repeat(1, 0))

#: Steps that take the values so far, and two numbers that choose among them.
STEPS: list[Any] = [
    lambda v, i, j: add(v[i], v[j]),
    lambda v, i, j: multiply(v[i], v[j]),
    lambda v, i, j: sin(v[i]),
    lambda v, i, j: negative(v[i]),
    lambda v, i, j: add(v[i], j * 0.5),
    lambda v, i, j: multiply(v[i], CONSTANT),
    lambda v, i, j: add_(sin(v[i]), v[j]),
    lambda v, i, j: add(v[i], sum_(v[j], axis=[0], keepdims=True)),
    lambda v, i, j: reshape(reshape(v[i], [-1]), list(v[j].shape)),
    lambda v, i, j: permute_dims(reshape(v[i], list(v[i].shape)[::-1]), [1, 0]),
    lambda v, i, j: reshape(permute_dims(v[i], [1, 0]), [v[j].shape[0], v[i].shape[1]]),
]

programs = st.lists(
    st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=20,
)


def run(program: list[tuple[int, int, int]], x: Tensor, y: Tensor) -> list[Tensor]:
    values = [x, y]
    for step, i, j in program:
        values.append(STEPS[step](values, i % len(values), j % len(values)))
    return values[2:]


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    data = np.linspace(-1, 1, rows * 3).reshape(rows, 3)
    return of_array(data), of_array(np.cos(data))


@settings(max_examples=60, deadline=None)
@given(programs)
def test_programs_equal_eager(program: list[tuple[int, int, int]]) -> None:
    """S209, S205: in every tracing mode, the program gives what the calls give."""
    expected = run(program, *inputs(4))
    for mode in ("real", "fake", "symbolic"):
        module = make_fx(lambda x, y: run(program, x, y), mode)(*inputs(4))
        module.graph.lint(module)
        for a, b in zip(module(*inputs(4)), expected, strict=True):
            assert np.array_equal(a.numpy(), b.numpy())


@settings(max_examples=40, deadline=None)
@given(programs, st.sampled_from([2, 5, 7]))
def test_symbolic_programs_run_at_other_sizes(
    program: list[tuple[int, int, int]], rows: int
) -> None:
    """S150: where the guards hold, a symbolic program equals eager at other sizes."""
    module = make_fx(lambda x, y: run(program, x, y), "symbolic")(*inputs(4))
    env = module.shape_env
    sizes = {name: rows if name.endswith("[0]") else 3 for name in env.sources}
    assume(env.check_guards(env.bind(sizes)) is None)
    expected = run(program, *inputs(rows))
    for a, b in zip(module(*inputs(rows)), expected, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


def test_axes_of_one_ask_nothing_of_data_dependent_sizes() -> None:
    """S150: an axis of size one beside an unknown size is no question, in any layout."""

    def rows(x: Tensor) -> Tensor:
        found = polyop.argwhere(x > 0)[:, 0]  # every second element of what is found
        return found[None].reshape(1, found.shape[0])

    x = polyop.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    program = make_fx(rows, "symbolic")(x)
    for other in (x, x * 0, polyop.ones(4, 2)):
        assert program(other).tolist() == rows(other).tolist()
