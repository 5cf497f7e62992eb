"""Kernels are held to their fake rules once PyTorch has traced them, and at no cost before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from tests.bridges.marks import COMPILES

import polyop
from polyop.bridges.torch.agreed import TRACED
from polyop.errors import MetadataMismatchError

pytestmark = [*COMPILES, pytest.mark.usefixtures("forgotten")]
wrap = polyop.from_numpy
BACKENDS = ["eager", "aot_eager", "inductor"]
#: What a kernel does with what it should return.
FORMS: dict[str, Callable[[Any], Any]] = {
    "right": lambda a: a,
    "shape": lambda a: a[:1].copy(),
    "dtype": lambda a: a.astype(np.float64),
    "axes": lambda a: a[None].copy(),
}
FORM = ["right"]


def doubled(x: Any, *_: Any) -> Any:
    """A kernel that is right or wrong, as `FORM` says."""
    return wrap(FORMS[FORM[0]](x.numpy() * 2))


def like(x: Any, *_: Any) -> Any:
    return polyop.empty_like(x)


def plain(x: Any) -> Any:
    return wrap(x.numpy() * 1)


def made(name: str, kernel: Any, schema: str = "(Tensor x) -> Tensor", fake: Any = like) -> Any:
    op = polyop.custom_op(f"agreed::{name}", kernel, mutates_args=(), schema=schema, replace=True)
    op.register_fake(fake)
    return op


def of_torch(x: Any) -> Any:
    return torch.from_numpy(doubled(wrap(x.numpy())).numpy())


def with_own() -> Any:
    op = made("own", doubled)
    op.register_kernel("cpu", of_torch, library="torch")
    return op


#: By what they return and take: each has one result that may be wrong.
OPERATORS: dict[str, Callable[[], Any]] = {
    "one": lambda: made("one", doubled),
    "two": lambda: made(
        "two", lambda x: (plain(x), doubled(x)), "(Tensor x) -> (Tensor, Tensor)",
        lambda x: (like(x), like(x)),
    ),
    "list": lambda: made(
        "list", lambda x: [doubled(x), plain(x)], "(Tensor x) -> Tensor[]",
        lambda x: [like(x), like(x)],
    ),
    "values": lambda: made(
        "values", doubled, "(Tensor x, int k=1, float f=1.0, int[] l=[1, 2]) -> Tensor"
    ),
    "absent": lambda: made("absent", doubled, "(Tensor x, Tensor? y=None) -> Tensor"),
    "many": lambda: made(
        "many", lambda xs: doubled(xs[0]), "(Tensor[] xs) -> Tensor", lambda xs: like(xs[0])
    ),
    "PyTorch's": with_own,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _right() -> Any:
    FORM[0] = "right"
    yield
    FORM[0] = "right"


def call_of(name: str) -> Callable[[Any, Any], Any]:
    return (lambda op, x: op([x])) if name == "many" else (lambda op, x: op(x))


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_kernel_that_changes_its_mind_is_stopped(name: str, backend: str) -> None:
    """S66: after many right results, one of another shape, dtype or rank never goes on."""
    op, call, x = OPERATORS[name](), call_of(name), torch.ones(3)
    run = torch.compile(lambda x: call(op, x), backend=backend, fullgraph=True)
    for _ in range(4):
        run(x)
    for form in ("shape", "dtype", "axes"):
        FORM[0] = form
        with pytest.raises(
            MetadataMismatchError, match=f"agreed::{op._opoverload._opname}"
        ) as error:
            run(x)
        assert "is not what its fake rule says" in str(error.value)
        assert "declared" in str(error.value) and "fix" in str(error.value)
        FORM[0] = "right"
        run(x)


def test_a_kernel_that_changes_its_mind_under_inductor() -> None:
    """S66: there the error is the same one."""
    op, x = OPERATORS["one"](), torch.ones(3)
    run = torch.compile(lambda x: op(x), backend="inductor", fullgraph=True)
    run(x)
    FORM[0] = "axes"
    with pytest.raises(MetadataMismatchError, match="the shape of result 0 of agreed::one"):
        run(x)


def test_each_size_is_compared_with_what_the_rule_says_of_it() -> None:
    """S66: with sizes that vary, a rule that is right for one and wrong for another is stopped."""
    op = made("halves", lambda x: wrap(x.numpy()[::2].copy()), fake=lambda x: x.new_empty(
        [x.shape[0] // 2]
    ))  # fmt: skip
    run = torch.compile(lambda x: op(x), backend="aot_eager", fullgraph=True, dynamic=True)
    assert run(torch.ones(4)).shape == (2,) and run(torch.ones(8)).shape == (4,)
    with pytest.raises(MetadataMismatchError, match="agreed::halves"):
        run(torch.ones(5))


def test_the_number_of_results_is_compared() -> None:
    """S66: a list with another number of tensors than the rule gives is stopped."""
    count = [2]
    op = made(
        "number",
        lambda x: [plain(x) for _ in range(count[0])],
        "(Tensor x) -> Tensor[]",
        lambda x: [like(x), like(x)],
    )
    x = torch.ones(2)
    run = torch.compile(lambda x: op(x)[0], backend="aot_eager", fullgraph=True)
    run(x)
    count[0] = 3
    with pytest.raises(MetadataMismatchError, match="the number of tensors in result 0"):
        run(x)


def test_sizes_that_depend_on_data_are_free() -> None:
    """S144: where the rule makes a size, the kernel decides; dtype and rank are compared."""
    op = made("free", doubled, fake=lambda x: x.new_empty(
        [polyop.library.get_ctx().new_dynamic_size()]
    ))  # fmt: skip
    run = torch.compile(lambda x: op(x), backend="aot_eager", fullgraph=True)
    x = torch.ones(3)
    assert run(x).shape == (3,)
    FORM[0] = "shape"
    assert run(x).shape == (1,)
    for form in ("axes", "dtype"):
        FORM[0] = form
        with pytest.raises(MetadataMismatchError, match="agreed::free"):
            run(x)


def test_what_nobody_has_traced_is_not_compared() -> None:
    """S66: eager calls are what the kernel gives, and ask no fake rule; from a trace on they do."""
    asked: list[Any] = []
    op = made("untraced", doubled, fake=lambda x: (asked.append(x), like(x))[1])
    x = torch.ones(3)
    FORM[0] = "shape"
    for _ in range(3):
        assert op(x).shape == (1,)
    assert not asked and op._opoverload not in TRACED
    FORM[0] = "right"
    torch.compile(lambda x: op(x), backend="eager", fullgraph=True)(x)
    FORM[0] = "shape"
    for _ in range(3):
        with pytest.raises(MetadataMismatchError, match="agreed::untraced"):
            op(x)


def test_repeated_calls_ask_the_rule_once() -> None:
    """S66: what the rule says of the same shapes and values is remembered, until it changes."""
    asked: list[Any] = []
    fake = lambda x, *_: (asked.append(x), like(x))[1]  # noqa: E731
    op = made("asked", doubled, "(Tensor x, float k=1.0) -> Tensor", fake)
    run = torch.compile(lambda x: op(x), backend="eager", fullgraph=True)
    x = torch.ones(3)
    run(x)
    asked.clear()
    for _ in range(50):
        run(x)
        op(x, 1.0)
    assert len(asked) <= 1
    op.register_kernel("cpu", lambda x, k: wrap(x.numpy() * 3))
    asked.clear()
    for _ in range(50):
        np.testing.assert_array_equal(run(x), 3.0)
    assert 1 <= len(asked) <= 3


def test_gradients_and_saved_tensors_are_as_before() -> None:
    """S128: a kernel that is compared hands its own tensors to `setup_context` all the same."""
    op = made("saved", doubled)
    op.register_autograd(
        lambda ctx, g: g * ctx.saved_tensors[0], setup_context=lambda ctx, inputs, output:
        ctx.save_for_backward(output)
    )  # fmt: skip
    run = torch.compile(lambda x: op(x).sum(), backend="aot_eager", fullgraph=True)
    for f in (run, op, op, lambda x: op(x)):
        x = torch.full((3,), 3.0, requires_grad=True)
        f(x).sum().backward()
        np.testing.assert_array_equal(x.grad, 6.0)
