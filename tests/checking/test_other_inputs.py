"""Rules that are right for the sample alone: other values, sizes, lists, layouts and precisions.

Each fault is beside the same operator without it, so that the law is shown to see the fault and
nothing else (S202 to S206).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.checking.law import LAWS, Case, Verdict, judge
from polyop.checking.run import opcheck
from polyop.checking.sample import sample_of
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.errors import OpCheckError
from polyop.tensor.tensor import of_array

NUMBERS = count()
#: Law, and what makes the operator and its sample, with the fault or without.
FAULTS: dict[str, tuple[str, Callable[[bool], tuple[CustomOpDef, Any]]]] = {}


def fault(law: str) -> Callable[[Any], Any]:
    def register(make: Any) -> Any:
        FAULTS[make.__name__] = (law, make)
        return make

    return register


def define(kernel: Any, fake: Any = None, **options: Any) -> CustomOpDef:
    op: CustomOpDef = custom_op(f"other::f{next(NUMBERS)}", kernel, mutates_args=(), **options)
    op.register_fake(fake or (lambda x, *_: polyop.empty_like(x)))
    return op


def values(*shape: int) -> Tensor:
    return of_array(np.linspace(0.5, 2.0, int(np.prod(shape))).reshape(shape))


def verdict(law: str, op: CustomOpDef, *args: Any) -> Verdict:
    found = op._opoverload
    return judge(LAWS[law], Case(found, sample_of(found, args, {})))


def cube(x: Tensor) -> Tensor:
    return of_array(x.numpy() ** 3)


# -- fakes ------------------------------------------------------------------------


@fault("test_faketensor")
def one_size_for_two(fault: bool) -> Any:
    def fake(x: Tensor) -> Tensor:
        size = polyop.library.get_ctx().new_dynamic_size()
        return x.new_empty([size, size if fault else x.ndim], dtype=np.dtype("int64"))

    def places(x: Tensor) -> Tensor:
        return of_array(np.stack(np.nonzero(x.numpy()), 1))

    return define(places, fake), [of_array(np.array([[1.0, 0, 2], [0, 3, 0]]))]


@fault("test_faketensor")
def always_two_results(fault: bool) -> Any:
    def doubled(xs: list[Tensor]) -> list[Tensor]:
        return [of_array(x.numpy() * 2) for x in xs]

    def fake(xs: list[Tensor]) -> list[Tensor]:
        return [polyop.empty_like(x) for x in ([xs[0], xs[-1]] if fault else xs)]

    return define(doubled, fake), [[values(2, 3), values(2, 3)]]


@fault("test_faketensor")
def view_in_one_layout(fault: bool) -> Any:
    def rest(x: Tensor) -> Tensor:
        return x[..., 1:].clone() if fault and not x.is_contiguous() else x[..., 1:]

    op = define(rest, lambda x: x[..., 1:], schema="(Tensor(a) x) -> Tensor(a)")
    return op, [values(2, 3)]


class Affine(NamedTuple):
    """A slope, and perhaps a second one."""

    first: Tensor
    second: Tensor | None = None


@fault("test_none_patterns")
def field_left_out(fault: bool) -> Any:
    def kernel(x: Tensor, by: Affine) -> Tensor:
        parts = [x.numpy() * t.numpy() for t in by if t is not None]
        return of_array(np.stack(parts))

    def fake(x: Tensor, by: Affine) -> Tensor:
        return x.new_empty((2 if fault or by.second is not None else 1, *x.shape))

    return define(kernel, fake), [values(2, 3), Affine(values(3), values(3))]


@fault("test_dtypes")
def other_values_in_single_precision(fault: bool) -> Any:
    def kernel(x: Tensor) -> Tensor:
        by = 3 if fault and x.dtype == np.float32 else 2
        return of_array(x.numpy() * x.dtype.type(by))

    return define(kernel), [values(3, 4)]


# -- batches ----------------------------------------------------------------------


def power(x: Tensor, p: float = 2.0, flag: bool = False) -> Tensor:
    return of_array(x.numpy() ** p * (2 if flag else 1))


@fault("test_vmap")
def batch_without_a_number(fault: bool) -> Any:
    op = define(power)
    op.register_vmap(lambda info, dims, x, p=2.0, flag=False: (
        op(x, 2.0 if fault else p, flag), dims[0]
    ))  # fmt: skip
    return op, [values(2, 3)]


@fault("test_vmap")
def batch_without_a_flag(fault: bool) -> Any:
    op = define(power)
    op.register_vmap(lambda info, dims, x, p=2.0, flag=False: (
        op(x, p, flag and not fault), dims[0]
    ))  # fmt: skip
    return op, [values(2, 3)]


@fault("test_vmap")
def batch_without_a_choice(fault: bool) -> Any:
    def kernel(x: Tensor, how: Literal["up", "down"] = "up") -> Tensor:
        return of_array(np.ceil(x.numpy()) if how == "up" else np.floor(x.numpy()))

    op = define(kernel)
    op.register_vmap(lambda info, dims, x, how="up": (op(x, "up" if fault else how), dims[0]))
    return op, [values(2, 3)]


@fault("test_vmap")
def batch_with_a_negative_axis(fault: bool) -> Any:
    def kernel(x: Tensor, axis: int) -> Tensor:
        return of_array(np.cumsum(x.numpy(), axis=axis))

    def rule(info: Any, dims: Any, x: Tensor, axis: int) -> Any:
        return op(x.movedim(dims[0], 0), axis + 1 if fault or axis >= 0 else axis), 0

    op = define(kernel)
    op.register_vmap(rule)
    return op, [values(2, 3), 1]


@fault("test_vmap")
def batch_of_none(fault: bool) -> Any:
    def rule(info: Any, dims: Any, x: Tensor) -> Any:
        x = x.movedim(dims[0], 0)
        return (x[..., :1] if fault and info.batch_size == 0 else op(x)), 0

    op = define(cube)
    op.register_vmap(rule)
    return op, [values(2, 3)]


# -- decompositions ---------------------------------------------------------------


def product(x: Tensor, y: Tensor) -> Tensor:
    return of_array(x.numpy() * y.numpy())


PARTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "values_of_one_sign": lambda x, y: x.abs() * y,
    "written_argument": lambda x, y: x.mul_(y),
    "lost_gradient": lambda x, y: x.detach() * y,
    "double_for_single": lambda x, y: x * y * polyop.tensor(np.array(1.0)),
    "another_size_for_none": lambda x, y: x * y if x.numel() else polyop.zeros(1),
}


def composed(name: str) -> None:
    def make(fault: bool) -> Any:
        op = define(product, lambda x, y: x * y)
        op.register_autograd(
            lambda ctx, g: (g * ctx.saved_tensors[1], g * ctx.saved_tensors[0]),
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
        )
        op.register_decomposition(PARTS[name] if fault else lambda x, y: x * y)
        return op, [values(2, 3), values(2, 3) + 1]

    FAULTS[name] = ("test_decomposition", make)


for each in PARTS:
    composed(each)


@fault("test_decomposition")
def decomposition_without_a_number(fault: bool) -> Any:
    op = define(power)
    op.register_decomposition(
        lambda x, p=2.0, flag=False: x ** (2.0 if fault else p) * (2 if flag else 1)
    )
    return op, [values(2, 3)]


# -- memory -----------------------------------------------------------------------


@fault("test_determinism")
def last_element_never_written(fault: bool) -> Any:
    def kernel(x: Tensor) -> Tensor:
        made = np.empty(x.shape, x.dtype)
        end = -1 if fault else None
        made.flat[:end] = np.sin(x.numpy()).flat[:end]
        return of_array(made)

    return define(kernel), [values(3, 4)]


# -- the laws ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_beside_the_sample_is_found(name: str) -> None:
    """S202 to S206: a fault that the sample does not show breaks its law."""
    law, make = FAULTS[name]
    op, args = make(True)
    told = opcheck(op, args, raise_exception=False)
    assert isinstance(told[law], OpCheckError), told
    assert op._opoverload.name() in str(told[law])


@pytest.mark.parametrize("name", FAULTS)
def test_the_same_without_the_fault_is_right(name: str) -> None:
    """S200 to S206: the same operator without its fault breaks no law."""
    op, args = FAULTS[name][1](False)
    told = opcheck(op, args, raise_exception=False)
    assert {law: str(error) for law, error in told.items() if error != "SUCCESS"} == {}


# -- notes ------------------------------------------------------------------------


def root(x: Tensor) -> Tensor:
    return of_array(np.sqrt(x.numpy()))


def doubled(x: Tensor) -> Tensor:
    return of_array(x.numpy() * 2)


@pytest.mark.parametrize(
    ("law", "kernel", "fake", "right", "said"),
    [
        ("test_dtypes", root, polyop.empty_like, lambda x: polyop.sqrt(x),
         "at dtype int64; dtype int64 (the fake rule), dtype float64 (the kernel)"),
        ("test_faketensor", doubled, lambda x: x.new_empty(x.shape), lambda x: x * 2,
         "strides of the result at transposed arguments; strides [3, 1] (the fake rule)"),
        ("test_aot_dispatch_dynamic", root, lambda x: x.new_empty([int(n) for n in x.shape]),
         polyop.empty_like, "does not run at size 2 -> 5, 3 -> 8: its trace relied on"),
    ],
)  # fmt: skip
def test_what_the_author_may_not_have_meant_is_a_note(
    law: str, kernel: Any, fake: Any, right: Any, said: str
) -> None:
    """S204 to S206: ints for a float operator, other layouts and fixed sizes are told in a note."""
    told = verdict(law, define(kernel, fake), values(2, 3))
    assert told.kind == "holds" and said in told.reason, told
    assert verdict(law, define(kernel, right), values(2, 3)) == Verdict("holds")


def test_ints_in_a_decomposition_are_a_note() -> None:
    """S206: a decomposition that gives floats for ints, unlike the kernel, is told in a note."""
    whole = lambda x, y: x * y  # noqa: E731
    for parts, said in ((lambda x, y: x * y * 1.0, "float64[2, 3] instead of int64"), (whole, "")):
        op = define(product, lambda x, y: x * y)
        op.register_decomposition(parts)
        told = verdict("test_decomposition", op, values(2, 3), values(2, 3))
        assert told.kind == "holds" and said in told.reason and bool(said) == bool(told.reason)


# -- opcheck itself ---------------------------------------------------------------


def test_a_fake_that_raises_without_words_breaks_the_law() -> None:
    """S204: an error without a message is told by its class."""

    def fake(x: Tensor) -> Tensor:
        assert x.shape == (2, 3)
        return polyop.empty_like(x)

    told = verdict("test_faketensor", define(doubled, fake), values(2, 3))
    assert told.error is not None and "raised AssertionError" in str(told.error.seen)


def test_a_group_without_axes_beside_a_named_one_is_right() -> None:
    """S56: a scalar beside a named axis is tried on stacks, and a right kernel holds."""

    def scale(a: Tensor, b: Tensor) -> Tensor:
        return of_array(a.numpy()[..., None] * b.numpy())

    op = custom_op("other::scale", scale, mutates_args=(), index="(),(n)->(n)")
    assert set(opcheck(op).values()) == {"SUCCESS"}
    summed = custom_op(
        "other::summed", lambda a, b: of_array(a.numpy().sum() * b.numpy()),
        schema="(Tensor a, Tensor b) -> Tensor", mutates_args=(), index="(),(n)->(n)",
    )  # fmt: skip
    assert isinstance(opcheck(summed, raise_exception=False)["test_index"], OpCheckError)


# -- libraries --------------------------------------------------------------------


def test_kernels_of_other_libraries_are_held_to_numpy_or_said_not_to_be() -> None:
    """S206: a kernel for PyTorch's arrays gives what NumPy's gives; one for a device is a note."""
    pytest.importorskip("torch")
    for by, kind in ((2, "holds"), (3, "broken")):
        op = define(doubled)
        op.register_kernel(None, lambda x, by=by: x * by, library="torch")
        op.register_kernel("cuda", lambda x: x, library="torch")
        told = verdict("test_layouts", op, values(2, 3))
        assert told.kind == kind
        assert "was not tried: it is for cuda" in told.reason or told.broken
