"""What is called in a wrong way says so at once, by name (S1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import polyop
from polyop import Tensor, errors
from polyop.export import call_custom_autograd_function, export, partition, to_backend
from polyop.extend import HopSchemaGenerator
from polyop.fake import FakeTensorMode
from polyop.symbolic import ShapeEnv


def program() -> Any:
    return export(lambda x: x + 1, (polyop.ones(2),))


@polyop.custom_op("misuse_of_tools::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "to_backend": (lambda: to_backend(program(), 3), errors.UsageTypeError, "a backend has"),
    "partition": (lambda: partition(program(), [3]), errors.UsageTypeError, "a backend has"),
    "function by name": (
        lambda: call_custom_autograd_function(3, polyop.ones(2)),
        errors.UsageTypeError,
        "module and class",
    ),
    "laws": (
        lambda: polyop.library.opcheck(twice, (polyop.ones(2),), test_utils=3),
        errors.UsageError,
        "test_utils",
    ),
    "atol": (
        lambda: polyop.library.opcheck(twice, (polyop.ones(2),), atol=-1, rtol=0),
        errors.UsageError,
        "not negative",
    ),
    "compile": (lambda: polyop.compile(3), errors.UsageTypeError, "a function for f"),
    "dynamic": (lambda: polyop.compile(abs, dynamic="s"), errors.UsageTypeError, "for dynamic"),
    "fullgraph": (lambda: polyop.compile(abs, fullgraph="s"), errors.UsageTypeError, "fullgraph"),
    "backend": (lambda: polyop.compile(abs, backend=3), errors.UsageTypeError, "for backend"),
    "size": (lambda: ShapeEnv().create_unbacked(min=None), errors.UsageError, "plain int"),
    "block": (lambda: polyop.no_grad(3), errors.UsageTypeError, "decorates a function"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    """S1, S143, S195, S201, S211, S216: an error of ours, before anything is done."""
    call, error, text = WRONG[name]
    with pytest.raises(error, match=text):
        call()


def test_an_argument_is_added_once() -> None:
    """S177: a schema has each name once."""
    made = HopSchemaGenerator("misuse")
    made.add_arg("x", polyop.ones(2))
    with pytest.raises(errors.SubgraphError, match="there already"):
        made.add_arg("x", 3)


def test_a_list_of_gradients_is_no_tuple() -> None:
    """S127, S137: the error shows that a tuple is expected, as PyTorch does."""

    class Pair(polyop.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
            return x * y

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return [g, g]

    x = polyop.ones(2, requires_grad=True)
    with pytest.raises(errors.AutogradError, match="wrong number") as caught:
        Pair.apply(x, x).sum().backward()
    assert "a tuple of 2" in str(caught.value.declared) and "list of 2" in str(caught.value.seen)


def test_grad_modes_decorate_without_parentheses() -> None:
    """S140: as they do with them."""
    x = polyop.ones(2, requires_grad=True)
    double = lambda t: t * 2  # noqa: E731
    with polyop.no_grad():
        assert polyop.enable_grad(double)(x).requires_grad
    for mode in (polyop.no_grad, polyop.inference_mode):
        assert not mode(double)(x).requires_grad
        assert not mode()(double)(x).requires_grad
    with polyop.inference_mode(False):
        assert double(x).requires_grad


def test_a_fake_mode_is_an_infra_mode() -> None:
    """S162: it has a slot behind all user modes."""
    assert FakeTensorMode.is_infra_mode() and FakeTensorMode().is_infra_mode()


def test_a_dynamic_size_out_of_its_range_is_shown_with_it() -> None:
    """S204, S153: what is wrong may be the range that the fake rule gave."""

    @polyop.custom_op("misuse_of_tools::flat", mutates_args=())
    def flat(x: Tensor) -> Tensor:
        return x.reshape([-1]) * 1

    @flat.register_fake
    def _(x: Tensor) -> Tensor:
        size = polyop.library.get_ctx().new_dynamic_size(min=2, max=4)
        return polyop.empty((size,), dtype=x.dtype)

    with pytest.raises(errors.OpCheckError) as caught:
        polyop.library.opcheck(flat, (polyop.ones(6),), test_utils="test_faketensor")
    assert "within (2, 4)" in str(caught.value)
