"""The laws of batching authors' operators (S155 to S159)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.layers.vmap.oracle import looped, patterns, put_batch

import polyop.assembly  # noqa: F401
from polyop.dispatch.context import word
from polyop.dispatch.library import Library
from polyop.dispatch.registry import find_operator
from polyop.dispatch.rules import register_fake, register_kernel, register_vmap
from polyop.errors import PerformanceWarning, VmapError
from polyop.layers.vmap import vmap
from polyop.ops.elementwise import add, multiply, sin
from polyop.ops.views import moveaxis
from polyop.tensor.tensor import Tensor, of_array


def tensor(*shape: int, start: float = 0.0) -> Tensor:
    return of_array(np.arange(start, start + np.prod(shape)).reshape(shape))


@pytest.fixture
def lib() -> Iterator[Library]:
    made = Library("vmaptest", "FRAGMENT")
    yield made
    made._destroy()


def operator(lib: Library, schema: str, kernel: Any) -> Any:
    lib.define(schema)
    name = "vmaptest::" + schema.partition("(")[0]
    register_kernel(name, "cpu", kernel, lib=lib)
    return find_operator(name)


def double(x: Tensor, k: float, *, y: Tensor) -> Tensor:
    return of_array(x.numpy() * k + y.numpy())


SCHEMA = "double(Tensor x, float k, *, Tensor y) -> Tensor"


@pytest.mark.parametrize("dims", patterns(2))
@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_no_rule_loops(lib: Library, dims: tuple[int | None, ...]) -> None:
    """S157: without a rule, the loop over samples, for any in_dims, keyword-only ones too."""
    op = operator(lib, SCHEMA, double)
    args = [put_batch(np.arange(6.0).reshape(2, 3), d, 4, i) for i, d in enumerate(dims)]

    def f(x: Tensor, y: Tensor) -> Tensor:
        return op(x, 3.0, y=y)

    np.testing.assert_array_equal(vmap(f, dims)(*args).numpy(), looped(f, dims, *args))


def test_the_loop_warns_once(lib: Library) -> None:
    """S157: one PerformanceWarning per operator, which says what to register."""
    op = operator(lib, "warns(Tensor x) -> Tensor", lambda x: of_array(x.numpy() + 1))
    with pytest.warns(PerformanceWarning, match=r"register_vmap\('vmaptest::warns'"):
        vmap(op)(tensor(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vmap(op)(tensor(3, 2))


def test_the_rule_gets_everything(lib: Library) -> None:
    """S155: a rule gets info, an in_dims entry per positional argument, and keywords by name."""
    op = operator(lib, SCHEMA, double)
    seen: list[Any] = []

    def rule(info: Any, in_dims: Any, x: Tensor, k: float, *, y: Tensor) -> Any:
        seen.append((info.batch_size, info.randomness, in_dims, dict(info.kwarg_dims)))
        y = moveaxis(y, info.kwarg_dims["y"], 0)
        return add(multiply(moveaxis(x, in_dims[0], 0), k), y), 0

    register_vmap(op, rule, lib=lib)
    x, y = tensor(3, 4), tensor(4, 3)
    got = vmap(lambda x, y: op(x, 2.0, y=y), (1, 0))(x, y)
    np.testing.assert_array_equal(got.numpy(), x.numpy().T * 2 + y.numpy())
    assert seen == [(4, "error", (1, None), {"y": 0})]


def test_in_dims_nest_in_lists(lib: Library) -> None:
    """S155: in_dims has a list where the schema has one."""
    op = operator(lib, "total(Tensor[] xs, Tensor? y=None) -> Tensor", lambda xs, y: xs[0])
    seen: list[Any] = []

    def rule(info: Any, in_dims: Any, xs: Any, y: Any) -> Any:
        seen.append(in_dims)
        return multiply(xs[0], 2.0), in_dims[0][0]

    register_vmap(op, rule, lib=lib)
    x = tensor(2, 3)
    got = vmap(lambda a, b: op([a, b, x]), (1, None))(x, x)
    assert seen == [([1, None, None], None)]
    np.testing.assert_array_equal(got.numpy(), x.numpy().T * 2)


def test_the_rule_runs_with_the_level_off(lib: Library) -> None:
    """S156: in a rule, only the levels around this one act."""
    op = operator(lib, "peek(Tensor x) -> Tensor", lambda x: of_array(x.numpy().copy()))
    depths: list[int] = []

    def rule(info: Any, in_dims: Any, x: Tensor) -> Any:
        depths.append(len(word().levels))
        return sin(x), in_dims[0]

    register_vmap(op, rule, lib=lib)
    x = tensor(2, 3)
    got = vmap(vmap(op))(x)
    assert depths == [1]  # the outer level then meets `sin`, not this operator
    np.testing.assert_array_equal(got.numpy(), np.sin(x.numpy()))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (lambda x: x, ("must return two values", "Tensor of shape")),
        (lambda x: (x, 7), ("an axis that result 0 does not have", "out_dims 7")),
        (lambda x: (x, 1), ("not the batch's size", "size 2", "size 3 at axis 1")),
        (lambda x: (x, [0, 0]), ("out_dims that do not fit", "[0, 0]")),
        (lambda x: (3, 0), ("a wrong type as result 0", "Tensor", "int 3")),
        (lambda x: (None, 0), ("a wrong type as result 0", "None")),
        (lambda x: ([x], 0), ("a wrong type as result 0", "list of 1 (Tensor)")),
    ],
)
def test_a_rules_results_are_checked(lib: Library, given: Any, parts: tuple[str, ...]) -> None:
    """S158: the error names operator, result, and where the rule was registered."""
    op = operator(lib, "checked(Tensor x) -> Tensor", lambda x: of_array(x.numpy().copy()))
    register_vmap(op, lambda info, in_dims, x: given(x), lib=lib)
    with pytest.raises(VmapError) as caught:
        vmap(op)(tensor(2, 3))
    for part in (*parts, "vmaptest::checked", __file__):
        assert part in str(caught.value)


@pytest.mark.parametrize("given", [(0, None), (1, 0), (2, [0])])
def test_one_of_several_results_of_a_wrong_type_is_named(lib: Library, given: Any) -> None:
    """S158, S48: number and type of results are the schema's, as those of a kernel are."""
    op = operator(
        lib, "triple(Tensor x) -> (Tensor, int, Tensor[])",
        lambda x: (of_array(x.numpy() + 1), 3, [of_array(x.numpy() - 1)]),
    )  # fmt: skip
    place, dim = given
    wrong = [None, sin(tensor(2, 3)), sin(tensor(2, 3))]

    def rule(info: Any, in_dims: Any, x: Tensor) -> Any:
        out, dims = [add(x, 1.0), 3, [sin(x)]], [0, None, 0]
        out[place], dims[place] = wrong[place], dim
        return tuple(out), tuple(dims)

    register_vmap(op, rule, lib=lib)
    with pytest.raises(VmapError, match=f"a wrong type as result {place}"):
        vmap(op)(tensor(2, 3))


def test_a_rule_of_an_operator_without_results_gives_none(lib: Library) -> None:
    """S158, S48: anything but None is refused."""
    op = operator(lib, "nothing(Tensor x) -> ()", lambda x: None)
    register_vmap(op, lambda info, in_dims, x: (x, 0), lib=lib)
    with pytest.raises(VmapError, match="must give no result"):
        vmap(op)(tensor(2, 3))
    register_vmap(op, lambda info, in_dims, x: (None, None), lib=lib)
    assert vmap(lambda x: (op(x), x)[1])(tensor(2, 3)).shape == (2, 3)


def test_several_results_want_several_out_dims(lib: Library) -> None:
    """S158: out_dims fits the structure of the results; one number serves all."""
    op = operator(
        lib, "pair(Tensor x) -> (Tensor, Tensor)",
        lambda x: (of_array(x.numpy() + 1), of_array(x.numpy() - 1)),
    )  # fmt: skip
    for dims, good in ((0, True), ((0, 0), True), ((0,), False), ((0, 0, 0), False)):
        register_vmap(op, lambda i, d, x, dims=dims: ((add(x, 1.0), sin(x)), dims), lib=lib)
        if good:
            a, b = vmap(op)(tensor(2, 3))
            np.testing.assert_array_equal(b.numpy(), np.sin(tensor(2, 3).numpy()))
        else:
            with pytest.raises(VmapError, match="must give 2 out_dims"):
                vmap(op)(tensor(2, 3))


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_results_that_are_no_tensors(lib: Library) -> None:
    """S157: numbers must be equal for all samples."""
    op = operator(lib, "first(Tensor x) -> float", lambda x: float(x.numpy()[0]))
    same = of_array(np.ones((2, 3)))
    assert vmap(op, out_dims=None)(same) == 1.0
    with pytest.raises(VmapError, match="differs from sample to sample"):
        vmap(op, out_dims=None)(tensor(2, 3))


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_lists_and_several_results_loop(lib: Library) -> None:
    """S157: the loop stacks each tensor of several results, and of lists."""

    def kernel(x: Tensor, n: int) -> Any:
        return [of_array(x.numpy() + i) for i in range(n)], of_array(x.numpy().sum(keepdims=True))

    op = operator(lib, "many(Tensor x, int n) -> (Tensor[], Tensor)", kernel)
    x = tensor(3, 2)
    items, total = vmap(lambda a: op(a, 2))(x)
    np.testing.assert_array_equal(items[1].numpy(), x.numpy() + 1)
    np.testing.assert_array_equal(total.numpy(), x.numpy().sum(1, keepdims=True))


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
def test_no_samples_go_by_the_fake(lib: Library) -> None:
    """S157: with batch size 0 the shapes come from the fake, and no kernel runs."""

    def never(x: Tensor) -> Tensor:
        raise AssertionError

    op = operator(lib, "never(Tensor x) -> Tensor", never)
    register_fake(op, lambda x: sin(x), lib=lib)
    got = vmap(op)(tensor(0, 2, 3))
    assert got.shape == (0, 2, 3)


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")
@pytest.mark.parametrize("axis", [0, 1])
def test_writes_reach_the_callers_memory(lib: Library, axis: int) -> None:
    """S159: a writing operator without a rule writes each sample of the caller's tensor."""

    def bump(x: Tensor, by: Tensor) -> None:
        x.numpy()[...] += by.numpy()

    op = operator(lib, "bump(Tensor(a!) x, Tensor by) -> ()", bump)
    x, by = tensor(2, 2), of_array(np.array([10.0, 20.0]))
    want = x.numpy() + (by.numpy()[:, None] if axis == 0 else by.numpy())
    version = x._version
    vmap(lambda a, b: op(a, b), (axis, 0), None)(x, by)
    np.testing.assert_array_equal(x.numpy(), want)
    assert x._version > version
    with pytest.raises(VmapError, match="writes argument 'x'"):
        vmap(lambda b: op(x, b), out_dims=None)(by)
    np.testing.assert_array_equal(x.numpy(), want)


def test_compositions_run_on_batches(lib: Library) -> None:
    """S157: a CompositeImplicitAutograd kernel is batched by what it calls."""
    lib.define("comp(Tensor x, *, float k=2.0) -> Tensor")
    lib.impl("comp", lambda x, *, k: multiply(sin(x), k), "CompositeImplicitAutograd")
    op = find_operator("vmaptest::comp")
    x = tensor(2, 3)
    np.testing.assert_array_equal(vmap(lambda a: op(a, k=3.0))(x).numpy(), np.sin(x.numpy()) * 3)


def test_registering_a_rule_is_seen_at_once(lib: Library) -> None:
    """S46: a rule registered after the first call is used by the next."""
    op = operator(lib, "late(Tensor x) -> Tensor", lambda x: of_array(x.numpy() + 0))
    with pytest.warns(PerformanceWarning):
        vmap(op)(tensor(2, 3))
    register_vmap(op, lambda info, d, x: (multiply(x, 5.0), d[0]), lib=lib)
    np.testing.assert_array_equal(vmap(op)(tensor(2, 3)).numpy(), tensor(2, 3).numpy() * 5)
