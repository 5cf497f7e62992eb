"""The tag `pointwise` is a promise, and it is held by the law of its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop
from polyop import Tag, Tensor
from polyop.checking.run import check_operator
from polyop.checking.sample import sample_of
from polyop.errors import OpCheckError
from polyop.library import custom_op, opcheck


def made(name: str, kernel: Any, count: int = 1) -> Any:
    """Define an operator that is tagged, of one or two tensors."""
    if count == 1:

        def one(x: Tensor) -> Tensor:
            return polyop.from_numpy(kernel(x.numpy()))

        op = custom_op(f"pointed::{name}", one, mutates_args=(), tags=(Tag.pointwise,))
        op.register_fake(lambda x: x.new_empty(kernel(np.ones(x.shape)).shape))
        return op

    def two(x: Tensor, y: Tensor) -> Tensor:
        return polyop.from_numpy(kernel(x.numpy(), y.numpy()))

    op = custom_op(f"pointed::{name}", two, mutates_args=(), tags=(Tag.pointwise,))
    op.register_fake(lambda x, y: x + y)
    return op


X = polyop.from_numpy(np.linspace(0.1, 1.0, 12).reshape(3, 4))
ROW, COLUMN = X[0].clone(), X[:, :1].clone()


def tried(op: Any, *args: Any) -> Any:
    return opcheck(op, args, test_utils="test_pointwise")


def test_right_ones() -> None:
    """S207: elements alone, repeated rows and columns, and NaN keep the promise."""
    odd = X.numpy().copy()
    odd[1, 2] = np.nan
    assert tried(made("sine", np.sin), X) == {"test_pointwise": "SUCCESS"}
    assert tried(made("sine2", np.sin), polyop.from_numpy(odd)) == {"test_pointwise": "SUCCESS"}
    product = made("product", np.multiply, 2)
    for pair in ((X, X), (X, ROW), (COLUMN, X), (ROW, COLUMN)):
        assert tried(product, *pair) == {"test_pointwise": "SUCCESS"}


WRONG = {
    "its neighbour": lambda x: np.roll(x, 1, axis=-1),
    "all": lambda x: x - x.max(),
    "a row": lambda x: x / x.sum(-1, keepdims=True),
    "the last alone": lambda x: x + (np.arange(12).reshape(3, 4) == 0) * x[-1, -1],
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_ones(case: str) -> None:
    """S207: an element that is made of others is found, and the two places are named."""
    op = made("wrong", WRONG[case])
    with pytest.raises(OpCheckError, match=r"at \[\d, \d\] depends on x\[\d, \d\]") as caught:
        tried(op, X)
    assert "take Tag.pointwise off the operator" in str(caught.value)


def test_shapes() -> None:
    """S207: a result has the shape that the arguments broadcast to."""
    with pytest.raises(OpCheckError, match="has another shape than its arguments broadcast to"):
        tried(made("sums", lambda x: x.sum(-1)), X)
    with pytest.raises(OpCheckError, match=r"declared: shape \(3, 4\)"):
        tried(made("outer", lambda x, y: x[0] * y[0], 2), X, X)


def test_others_are_not_asked() -> None:
    """S207: without the tag the law says nothing, and says so."""

    @custom_op("pointed::plain", mutates_args=())
    def plain(x: Tensor) -> Tensor:
        return polyop.from_numpy(np.cumsum(x.numpy()))

    sample = sample_of(plain._opoverload, (X,), {})
    findings = check_operator(plain._opoverload, [sample]).findings
    (verdict,) = [f.verdict for f in findings if f.law == "test_pointwise"]
    assert (verdict.kind, verdict.reason) == (
        "does not apply", "the operator is not tagged pointwise",
    )  # fmt: skip
