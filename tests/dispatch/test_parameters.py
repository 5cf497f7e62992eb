"""Rules whose parameters are not those of their operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import pytest

import polyop
from polyop import library
from polyop.errors import OpCheckError, UsageTypeError
from polyop.extend import DispatchMode
from polyop.fake import FakeTensorMode

SCHEMA = "(Tensor x, *, float scale) -> Tensor"


@pytest.fixture
def op() -> Iterator[Any]:
    """An operator with a kernel and a fake rule that fit."""
    with library.scoped_library("params", "DEF") as lib:
        lib.define(f"f{SCHEMA}")
        lib.impl("f", lambda x, *, scale: x * scale, "CPU")
        found = polyop.ops.params.f.default
        library.register_fake(found, lambda x, *, scale: polyop.empty_like(x), lib=lib)
        yield found


class Passes(DispatchMode):
    """Sees calls, and makes them."""

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return op(*args, **(kwargs or {}))


def plain(op: Any) -> Any:
    return op(polyop.ones(3), scale=2.0)


def faked(op: Any) -> Any:
    with FakeTensorMode() as mode:
        return op(mode.from_tensor(polyop.ones(3)), scale=2.0)


def backward(op: Any) -> Any:
    return op(polyop.ones(3).requires_grad_(), scale=2.0).sum().backward()


def batched(op: Any) -> Any:
    return polyop.vmap(partial(op, scale=2.0))(polyop.ones((2, 3)))


def pushed(op: Any) -> Any:
    return polyop.func.jvp(partial(op, scale=2.0), (polyop.ones(3),), (polyop.ones(3),))


def seen(op: Any) -> Any:
    with Passes():
        return plain(op)


def register_setup(op: Any, fn: Any) -> None:
    library.register_autograd(op, lambda ctx, grad: grad, setup_context=fn)


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "kernel": (lambda op, fn: library.register_kernel(op, "cpu", fn), plain, "(x, *, scale)"),
    "fake rule": (library.register_fake, faked, "(x, *, scale)"),
    "backward": (library.register_autograd, backward, "(ctx, grad)"),
    "setup_context": (register_setup, backward, "(ctx, inputs, output)"),
    "vmap rule": (library.register_vmap, batched, "(info, in_dims, x, *, scale)"),
    "jvp rule": (library.register_jvp, pushed, "(ctx, d_x, d_scale)"),
    "dispatch rule": (
        lambda op, fn: library.register_dispatch(op, Passes, fn),
        seen,
        "(mode_or_class, op, types, args, kwargs)",
    ),
}


def odd(one: Any, *, two: Any) -> Any:
    """No rule of any kind."""
    raise AssertionError("it cannot be called")


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_with_other_parameters_is_told_so(op: Any, rule: str) -> None:
    """S1: the call that meets it names the rule, what it is given, what it takes, and where."""
    register, call, given = CASES[rule]
    register(op, odd)
    with pytest.raises(UsageTypeError, match=f"the {rule} of params::f") as told:
        call(op)
    error = told.value
    assert error.op == f"params::f{SCHEMA}"
    assert error.declared == f"{rule}{given}"
    assert error.seen == "odd(one: 'Any', *, two: 'Any') -> 'Any'"
    assert error.source == f"{__file__}:{odd.__code__.co_firstlineno}"
    assert given in error.fix
    assert isinstance(error.__cause__, TypeError)


@pytest.mark.parametrize("rule", ["kernel", "fake rule"])
def test_opcheck_tells_it_too(op: Any, rule: str) -> None:
    """S1: the law's text holds that of the rule."""
    CASES[rule][0](op, odd)
    with pytest.raises(OpCheckError, match=f"the {rule} of params::f does not take"):
        library.opcheck(op, (polyop.ones(3),), {"scale": 2.0})


def test_a_kernel_may_come_before_its_schema() -> None:
    """S39: what it takes is looked at when it is known what it is given."""
    with library.scoped_library("params_later", "FRAGMENT") as lib:
        lib.impl("f", odd, "CPU")
        lib.define(f"f{SCHEMA}")
        with pytest.raises(UsageTypeError, match="the kernel of params_later::f"):
            plain(polyop.ops.params_later.f.default)
        lib.impl("g", lambda x, *, scale: x, "CPU", with_keyset=True)
        lib.define(f"g{SCHEMA}")
        with pytest.raises(UsageTypeError, match="does not take") as told:
            plain(polyop.ops.params_later.g.default)
        assert told.value.declared == "kernel(keyset, x, *, scale)"


def test_an_author_s_own_errors_stay(op: Any) -> None:
    """S1: only the failed call is told; what a function raises itself is left as it is."""

    def inside(x: Any, *, scale: float) -> Any:
        return len(scale)  # type: ignore[arg-type]

    library.register_fake(op, inside)
    with pytest.raises(TypeError, match="has no len") as told:
        faked(op)
    assert not isinstance(told.value, UsageTypeError)


def doubled(x: Any) -> Any:
    return x * 2


def test_a_signature_that_is_not_true_refuses_nothing(op: Any) -> None:
    """S1: a decorator may keep another function's signature, and take what it likes."""

    @wraps(doubled)
    def kernel(x: Any, scale: float) -> Any:
        return doubled(x if scale else len(scale))  # type: ignore[arg-type]

    library.register_kernel(op, "cpu", kernel)
    assert plain(op).tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(TypeError, match="has no len") as told:
        op(polyop.ones(3), scale=0.0)
    assert not isinstance(told.value, UsageTypeError)


def test_a_decorated_rule_is_told_so(op: Any) -> None:
    """S1: so is a function that a decorator calls with all that it is given."""

    @wraps(doubled)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        return doubled(*args, **kwargs)

    library.register_kernel(op, "cpu", kernel)
    with pytest.raises(UsageTypeError, match="the kernel of params::f") as told:
        plain(op)
    assert told.value.seen == "doubled(x: 'Any') -> 'Any'"
