"""Containers of classes that no schema names: their tensors are seen like those of lists."""

from __future__ import annotations

from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pytest

import polyop
from polyop import Tensor
from polyop.func import grad, jvp, vmap
from polyop.graph import make_fx

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")


class Typed(TypedDict):
    """The fields of a dict."""

    w: Tensor


class Named(NamedTuple):
    """A record that is a tuple."""

    w: Tensor


class NamedToo(Named):
    """The same, of a class of its own."""


@dataclass
class Record:
    """A record."""

    w: Tensor


@dataclass
class Wider(Record):
    """A record with one field more than the schema says."""

    scale: float = 2.0


class Same(Record):
    """A record's class with nothing of its own."""


class Dict(dict[str, Any]):
    """A dict."""


class List(list[Any]):
    """A list."""


class Tuple(tuple[Any, ...]):
    """A tuple."""


MAPPINGS: list[Callable[[Any], Any]] = [
    dict, OrderedDict, Dict, UserDict, MappingProxyType, lambda v: defaultdict(list, v),
]  # fmt: skip
SEQUENCES: list[Callable[[Any], Any]] = [list, tuple, List, Tuple, UserList, deque]


class Form(NamedTuple):
    """An operator with a container, and how its one tensor is put in and found."""

    type: Any
    get: Callable[[Any], Any]
    gradient: Callable[[Any], Any]
    make: Callable[[Callable[..., Any], Any], Any]
    classes: list[Any]


def _item(p: Any) -> Any:
    return p["w"]


def _field(p: Any) -> Any:
    return p.w


def _first(p: Any) -> Any:
    return p[0]


def _named(d: Any) -> Any:
    return {"w": d}


FORMS = {
    "typed": Form(Typed, _item, _named, lambda c, x: c({"w": x}), MAPPINGS),
    "dict": Form(dict[str, Tensor], _item, _named, lambda c, x: c({"w": x}), MAPPINGS),
    "record": Form(Record, _field, _named, lambda c, x: c(x), [Record, Wider, Same]),
    "named": Form(Named, _field, _named, lambda c, x: c(x), [Named, NamedToo]),
    "list": Form(list[Tensor], _first, lambda d: [d], lambda c, x: c([x]), SEQUENCES),
    "optional": Form(list[Tensor] | None, _first, lambda d: [d], lambda c, x: c([x]), SEQUENCES),
    "dict of lists": Form(
        dict[str, list[Tensor]],
        lambda p: p["w"][0],
        lambda d: {"w": [d]},
        lambda c, x: {"w": c([x])},
        SEQUENCES,
    ),
    "dicts of lists": Form(
        dict[str, list[Tensor]],
        lambda p: p["w"][0],
        lambda d: {"w": [d]},
        lambda c, x: c({"w": [x]}),
        MAPPINGS,
    ),
}


def doubled(form: Form, name: str) -> Any:
    """Define an operator that doubles the tensor in its container."""

    def fn(p: Any) -> Any:
        return form.get(p) * 2.0

    fn.__annotations__ = {"p": form.type, "return": Tensor}
    op: Any = polyop.custom_op(f"odd_containers::{name.replace(' ', '_')}", fn, mutates_args=())
    op.register_fake(lambda p: polyop.empty_like(form.get(p)))
    op.register_autograd(lambda ctx, g: form.gradient(g * 2.0))
    return op


OPERATORS = {name: doubled(form, name) for name, form in FORMS.items()}
CASES = [
    pytest.param(name, lambda x, f=form, c=cls: f.make(c, x), id=f"{name}-{i}")
    for name, form in FORMS.items()
    for i, cls in enumerate(form.classes)
]
Make = Callable[[Any], Any]


@pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")  # for vmap runs a loop
@pytest.mark.parametrize(("name", "make"), CASES)
def test_tensors_are_seen(name: str, make: Make) -> None:
    """S64, S134: gradients, tangents, batches and traces go through a container of any class."""
    op, x = OPERATORS[name], polyop.from_numpy(np.arange(3.0))
    assert op(make(x)).tolist() == [0.0, 2.0, 4.0]
    mine = x.clone().requires_grad_()
    out = op(make(mine))
    assert out.requires_grad
    (found,) = polyop.autograd.grad(out, mine, grad_outputs=x)
    assert found is not None
    assert found.tolist() == [0.0, 2.0, 4.0]
    assert grad(lambda x: polyop.sum(op(make(x)) * x))(x).tolist() == [0.0, 4.0, 8.0]
    assert jvp(lambda x: op(make(x)), (x,), (x,))[1].tolist() == [0.0, 2.0, 4.0]
    rows = polyop.reshape(polyop.arange(6.0, dtype=polyop.float64), (2, 3))
    np.testing.assert_array_equal(vmap(lambda x: op(make(x)))(rows).numpy(), rows.numpy() * 2.0)
    traced = make_fx(lambda x: op(make(x)))(x)
    assert traced(x + 1.0).tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_arrays_are_answered_in_kind(name: str, make: Make) -> None:
    """S66: arrays of NumPy and JAX in a container of any class are seen as arrays."""
    op = OPERATORS[name]
    found = op(make(np.arange(3.0)))
    assert type(found) is np.ndarray
    assert found.tolist() == [0.0, 2.0, 4.0]
    x = jax.numpy.arange(3.0)
    assert jax.grad(lambda x: (op(make(x)) * x).sum())(x).tolist() == [0.0, 4.0, 8.0]
    assert jax.jit(lambda x: op(make(x)))(x).tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("name", "make"), [c for c in CASES if c.values[0] in {"list", "optional"}]
)
def test_tensors_of_pytorch(name: str, make: Make) -> None:
    """S66: PyTorch records calls with any sequence of its tensors."""
    op, x = OPERATORS[name], torch.arange(3.0, requires_grad=True)
    (found,) = torch.autograd.grad((op(make(x)) * x.detach()).sum(), x)
    assert found.tolist() == [0.0, 2.0, 4.0]
    assert torch.func.grad(lambda x: (op(make(x)) * x).sum())(x.detach()).tolist() == [0, 4, 8]


def test_a_record_with_more_fields_keeps_them() -> None:
    """S64: a kernel gets the caller's own record, as it came."""
    seen = []

    def fn(p: Record) -> Tensor:
        seen.append(p)
        out: Tensor = polyop.add(p.w, 1.0)
        return out

    keeps: Any = polyop.custom_op("odd_containers::keeps", fn, mutates_args=())
    given = Wider(polyop.ones(2), 3.0)
    keeps(given)
    assert seen[-1] is given
