"""Faults that show at another flag, number, choice, sign or dtype: the laws change each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from tests.checking.test_hostile import ONE, case_of, define, differentiable, values

import polyop
from polyop.checking.choices import choices
from polyop.checking.law import LAWS, Verdict, judge
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.tensor.tensor import Tensor, of_array


def verdict(law: str, op: CustomOpDef, *given: Any) -> Verdict:
    return judge(LAWS[law], case_of(op, *given))


# -- what is written, and shared ----------------------------------------------------


def cleared(x: Tensor) -> Tensor:
    x.numpy()[...] = 0
    return x.clone()


def same(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("fault", [cleared, same, Tensor.clone])
@pytest.mark.parametrize(
    ("schema", "picked", "given"),
    [
        ("(Tensor x, bool training=True) -> Tensor", lambda x, flag: not flag, ()),
        ("(Tensor x, int n=2) -> Tensor", lambda x, n: n == 1, ()),
        ("(Tensor x, int n=5) -> Tensor", lambda x, n: n == 1, ()),
        ("(Tensor x, Tensor? y=None) -> Tensor", lambda x, y: y is None, (values(2),)),
        ('(Tensor x, Literal("a", "b") mode="a") -> Tensor', lambda x, mode: mode == "b", ()),
        (ONE, lambda x: bool((x.numpy() < 0).any()), ()),
        (ONE, lambda x: bool((x.numpy() == 0).any()), ()),
    ],
)
def test_the_schema_is_tried_at_other_arguments(
    fault: Any, schema: str, picked: Any, given: tuple[Any, ...]
) -> None:
    """S202: a write, or an alias, that one value of an argument brings is told."""

    def kernel(x: Tensor, *rest: Any) -> Tensor:
        found: Tensor = fault(x) if picked(x, *rest) else of_array(x.numpy() * 2)
        return found

    told = verdict("test_schema", define(schema, kernel), values(2, 3), *given)
    words = {cleared: "writes its argument 'x'", same: "shares storage with argument 'x'"}
    assert told.broken == (fault in words)
    assert words.get(fault, "") in told.reason


# -- fakes ------------------------------------------------------------------------


def convolved(x: Tensor, mode: Literal["full", "valid", "same"] = "full") -> Tensor:
    return of_array(np.convolve(x.numpy(), np.ones(3), mode))


def convolved_fake(x: Tensor, mode: str) -> Tensor:
    return x.new_empty((x.shape[0] + {"full": 2, "valid": -2, "same": 0}[mode],))


LITERAL = '(Tensor x, Literal("full", "valid", "same") mode="full") -> Tensor'
SCALED, TYPED = "(Tensor x, float scale=2.0) -> Tensor", "(Tensor x, ScalarType dtype) -> Tensor"
Fake = Callable[..., Tensor]


@pytest.mark.parametrize(
    ("schema", "kernel", "wrong", "right", "given"),
    [
        (LITERAL, convolved, lambda x, mode: x.new_empty(x.shape[0] + 2), convolved_fake, ()),
        (SCALED, lambda x, scale: of_array(np.resize(x.numpy(), int(x.shape[0] * scale))),
         lambda x, scale: x.new_empty(x.shape[0] * 2),
         lambda x, scale: x.new_empty(int(x.shape[0] * scale)), ()),
        (TYPED, lambda x, dtype: of_array(x.numpy().astype(dtype)),
         lambda x, dtype: x.new_empty(x.shape, dtype=polyop.float32),
         lambda x, dtype: x.new_empty(x.shape, dtype=dtype), (polyop.float32,)),
        (ONE, lambda x: of_array(x.numpy()[x.numpy() > 0].copy()),
         lambda x: x.new_empty(x.shape),
         lambda x: x.new_empty(polyop.library.get_ctx().new_dynamic_size()), ()),
        (ONE, lambda x: of_array(np.unique(x.numpy())),
         lambda x: x.new_empty(x.shape),
         lambda x: x.new_empty(polyop.library.get_ctx().new_dynamic_size()), ()),
    ],
    ids=["literal", "fraction", "dtype", "picked", "unique"],
)  # fmt: skip
def test_a_fake_that_ignores_an_argument_or_values_is_told(
    schema: str, kernel: Any, wrong: Fake, right: Fake, given: tuple[Any, ...]
) -> None:
    """S204: flags, fractions, literals, dtypes and values are others, and the fake agrees still."""
    found = verdict("test_faketensor", define(schema, kernel, wrong), values(4), *given)
    assert found.broken and "the fake rule of" in found.reason
    found = verdict("test_faketensor", define(schema, kernel, right), values(4), *given)
    assert not found.broken, found


def test_a_factory_that_remembers_its_size_is_told() -> None:
    """S204: a rule that is right at no integer but the sample's is wrong; at some, it is a note."""
    made, schema = (lambda n: of_array(np.zeros(n))), "(int n) -> Tensor"
    wrong = define(schema, made, lambda n: polyop.empty(4, dtype=polyop.float64))
    assert "at n=5" in verdict("test_faketensor", wrong, 4).reason
    assert verdict("test_faketensor", wrong, 4).broken
    right = define(schema, made, lambda n: polyop.empty(n, dtype=polyop.float64))
    assert not verdict("test_faketensor", right, 4).broken


def summed(x: Tensor, dim: int) -> Tensor:
    return of_array(np.asarray(x.numpy().sum(dim)))


def without(x: Tensor, dim: int) -> Tensor:
    sizes = [*x.shape]
    del sizes[dim]
    return x.new_empty(sizes)


def spread(ctx: Any, g: Tensor) -> Any:
    x, dim = ctx.inputs
    return g.unsqueeze(dim).expand(x.shape), None


def spread_from_the_front(ctx: Any, g: Tensor) -> Any:
    x, dim = ctx.inputs
    return (spread(ctx, g)[0] if dim >= 0 else polyop.zeros_like(x)), None


AXIS = "(Tensor x, int dim) -> Tensor"


def test_an_axis_counts_from_the_end_too() -> None:
    """S204, S206: a fake, or a gradient, that is wrong for dim=-1 is told."""
    sliced = lambda x, d: x.new_empty([*x.shape[:d], *x.shape[d + 1 :]])  # noqa: E731
    told = verdict("test_faketensor", define(AXIS, summed, sliced), values(2, 3), 1)
    assert told.broken and "at dim=-1" in told.reason
    op = differentiable(define(AXIS, summed, without), spread_from_the_front)
    assert verdict("test_gradient", op, values(2, 3).requires_grad_(), 1).broken
    right = differentiable(define(AXIS, summed, without), spread)
    for law in ("test_faketensor", "test_gradient"):
        assert not verdict(law, right, values(2, 3).requires_grad_(), 1).broken


def test_a_number_that_is_no_axis_is_a_note_below_zero() -> None:
    """S204: what a kernel does with a count below zero may be an accident."""
    schema = "(Tensor x, int k=1) -> Tensor"
    op = define(schema, lambda x, k: of_array(x.numpy()[:k].copy()),
                lambda x, k: x.new_empty(k if k > 0 else 0))  # fmt: skip
    told = verdict("test_faketensor", op, values(4), 0)
    assert told.kind == "holds" and "takes numbers for which the fake rule is wrong" in told.reason


def test_more_axes_are_a_note() -> None:
    """S204: a kernel that takes more axes than its rule counts is told in a note."""
    kernel = lambda x: of_array(np.asarray(x.numpy().sum(-1)))  # noqa: E731
    op = define(ONE, kernel, lambda x: x.new_empty(x.shape[:1]))
    assert "at one more axis" in verdict("test_faketensor", op, values(2, 3)).reason
    op = define(ONE, kernel, lambda x: x.new_empty(x.shape[:-1]))
    assert not verdict("test_faketensor", op, values(2, 3)).reason


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_integers_have_their_own_dtypes(dtype: str) -> None:
    """S204: a fake that names the integers of the sample is told."""
    x = of_array(np.arange(6, dtype=dtype))
    fixed = define(ONE, np_double, lambda x: x.new_empty(x.shape, dtype=np.dtype(dtype)))
    assert "at another width" in verdict("test_dtypes", fixed, x).reason
    assert verdict("test_dtypes", define(ONE, np_double), x) == Verdict("holds")


def np_double(x: Tensor) -> Tensor:
    return of_array(x.numpy() * 2)


def floating(x: Tensor) -> Tensor:
    if x.dtype.kind not in "fV":
        raise TypeError("floating")
    return np_double(x)


def test_bfloat16_is_tried() -> None:
    """S204: a fake that is wrong for bfloat16 alone is told in a note."""

    def fake(x: Tensor) -> Tensor:
        wide = x.dtype == polyop.bfloat16
        return x.new_empty(x.shape, dtype=polyop.float32 if wide else x.dtype)

    told = verdict("test_dtypes", define(ONE, floating, fake), values(3))
    assert told.kind == "holds" and "at dtype bfloat16" in told.reason
    assert verdict("test_dtypes", define(ONE, floating), values(3)) == Verdict("holds")


def test_every_plain_argument_is_changed() -> None:
    """S200: flags, fractions, literals, dtypes and integers, an axis from its other end too."""

    def kernel(
        x: Tensor, flag: bool, p: float, n: int, axes: list[int], mode: Literal["a", "b"]
    ) -> Tensor:
        return x.clone()

    op = custom_op("plain::every", kernel, mutates_args=())
    case = case_of(op, values(2, 3), True, 2.0, 7, [1], "a")
    assert {name for name, _ in choices(case.sample)} == {
        *("flag=False", "p=2.5", "n=8", "n=6", "n=1", "axes[0]=2", "axes[0]=-1", "mode='b'")
    }
