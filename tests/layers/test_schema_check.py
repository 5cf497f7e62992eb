"""`SchemaCheckMode`: a call that does what its schema does not declare raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import polyop
from polyop.dispatch.library import Library, scoped_library
from polyop.dispatch.modes import DispatchMode
from polyop.dispatch.namespaces import ops
from polyop.dispatch.pre_dispatch import pop_mode_pre_dispatch, set_mode_pre_dispatch
from polyop.errors import AliasError, MutationError
from polyop.fake import FakeTensorMode
from polyop.layers.schema_check import SchemaCheckMode
from polyop.tensor.tensor import Tensor, of_array


def x(values: Any = (1.0, 2.0, 3.0)) -> Tensor:
    return of_array(np.asarray(values))


@pytest.fixture(name="lib")
def _lib() -> Iterator[Library]:
    with scoped_library("checked", "DEF") as lib:
        yield lib


def _writes(x: Tensor) -> Tensor:
    x.numpy()[0] = 7
    return x.clone()


def test_an_undeclared_write(lib: Library) -> None:
    """S167: a write that the schema does not declare raises, naming the argument."""
    lib.define("f(Tensor a, Tensor b) -> Tensor")
    lib.impl("f", lambda a, b: _writes(b), "CPU")
    with SchemaCheckMode(), pytest.raises(MutationError, match=r"writes its argument 'b'") as error:
        ops.checked.f(x(), x())
    assert "mutates_args=('b',)" in str(error.value) and __file__ in str(error.value)


def test_a_write_that_changes_nothing(lib: Library) -> None:
    """S167: elements are compared bit for bit: a write of a nan over a nan is none."""
    lib.define("g(Tensor a) -> Tensor")
    lib.impl("g", lambda a: a.clone(), "CPU")
    with SchemaCheckMode() as mode:
        ops.checked.g(x([np.nan, -0.0]))
    assert mode.checked == 1


def test_declared_writes_and_views_are_fine(lib: Library) -> None:
    """S167: declared writes pass, also where another argument is a view of what is written."""
    lib.define("h(Tensor(a!) a, Tensor b) -> ()")
    lib.impl("h", lambda a, b: a.numpy().fill(0), "CPU")
    base = x()
    with SchemaCheckMode() as mode:
        ops.checked.h(base, base[1:])
    assert mode.checked == 2 and base.numpy().any() == False  # noqa: E712


class Answers(DispatchMode):
    """Answers calls by a function of the arguments, whatever the schema says."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.answer(*args)


BASE = x((1.0, 2.0, 3.0, 4.0))


@pytest.mark.parametrize(
    ("schema", "answer", "text"),
    [
        ("f(Tensor a) -> Tensor", lambda a: of_array(a.payload[1:]), "with argument 'a'"),
        ("f(Tensor a) -> Tensor", lambda a: a, "shares storage with argument 'a'"),
        ("f(Tensor a) -> Tensor[]", lambda a: [of_array(a.payload[1:])], "with argument 'a'"),
        ("f(Tensor a) -> (Tensor, Tensor)", lambda a: (BASE, BASE), "1 of .* with result 0"),
        ("f(Tensor a) -> Tensor[]", lambda a: [BASE, of_array(BASE.payload[1:])], "with result 0"),
        ("f(Tensor(a!) a) -> Tensor(a!)", lambda a: x(), "is not its argument 'a'"),
        ("f(Tensor(q) a, Tensor b) -> Tensor(q)", lambda a, b: b, "with argument 'b'"),
    ],
)
def test_undeclared_sharing(
    lib: Library, schema: str, answer: Callable[..., Any], text: str
) -> None:
    """S167: a result that shares memory undeclared raises, whoever gave it."""
    lib.define(schema)
    given = [x() for _ in ops.checked.f.default._schema.arguments]
    with Answers(answer), SchemaCheckMode() as mode:
        with pytest.raises(AliasError, match=text):
            ops.checked.f(*given)
    assert mode.checked == 0


def test_declared_sharing(lib: Library) -> None:
    """S167: a declared view may share with its argument, and with what shares memory with that."""
    lib.define("f(Tensor(q) a, Tensor b) -> Tensor(q)")
    with Answers(lambda a, b: of_array(a.payload[1:])), SchemaCheckMode() as mode:
        ops.checked.f(BASE, x())
        ops.checked.f(BASE, of_array(BASE.payload[2:]))
    assert mode.checked == 2


def test_before_dispatch(lib: Library) -> None:
    """S114, S167: on the pre-dispatch stack it checks calls as they are written."""
    lib.define("f(Tensor a) -> Tensor")
    lib.impl("f", lambda a: polyop.sin(_writes(a)), "CompositeImplicitAutograd")
    mode = SchemaCheckMode()
    set_mode_pre_dispatch(mode)
    try:
        polyop.sin(x().requires_grad_())
        with pytest.raises(MutationError, match="checked::f writes its argument 'a'"):
            ops.checked.f(x())
    finally:
        assert pop_mode_pre_dispatch() is mode
    assert mode.checked == 1


def test_the_built_in_operators_keep_their_schemas() -> None:
    """S167: built-in operators pass, with gradients and fakes, and each call is checked."""

    def program(t: Tensor) -> Tensor:
        y = polyop.exp(t) @ polyop.permute_dims(t, (1, 0))
        y[0].mul_(2)
        z = polyop.concat([y, y * 2], axis=1)[:, ::2]
        return polyop.sum(polyop.where(z > 1, z, polyop.zeros_like(z)))

    t = x(np.arange(6.0).reshape(2, 3) / 7).requires_grad_()
    with SchemaCheckMode() as mode:
        program(t).backward()
        program(FakeTensorMode().from_tensor(t.detach()))
    assert mode.checked > 20
    p = x(np.arange(6.0).reshape(2, 3) / 7).requires_grad_()
    program(p).backward()
    assert np.array_equal(t.grad.numpy(), p.grad.numpy())
