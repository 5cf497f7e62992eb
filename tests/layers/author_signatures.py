"""Operators of every signature that authors may write, each beside plain code that does the same.

Arguments: all compute the sum of `(i + 1) * x_i ** 2` over the tensors inside.
Results: all give `x ** 2` and `2 * y ** 2`, in containers of all kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

import polyop
from polyop import Tensor
from polyop.library import custom_op


@dataclass
class Box:
    """A dataclass with an optional tensor and a number."""

    a: Tensor
    b: Tensor | None = None
    k: float = 2.0


class Pair(NamedTuple):
    """A NamedTuple."""

    a: Tensor
    b: Tensor | None = None


@dataclass
class Nest:
    """Records and lists inside a dataclass."""

    box: Box
    xs: list[Tensor]


class Typed(TypedDict):
    """A TypedDict."""

    a: Tensor
    b: Tensor


class Mode(Enum):
    """An Enum."""

    SUM = 1
    DIFF = 2


def kernel(parts: Sequence[Tensor | None]) -> Tensor:
    """Compute the sum."""
    found = [p.numpy() * 1.0 for p in parts if p is not None]
    numbers = [i + 1 for i, p in enumerate(parts) if p is not None]
    out: Any = sum(n * p * p for n, p in zip(numbers, found, strict=True))
    return polyop.from_numpy(np.array(out))


def plain(parts: Sequence[Tensor | None]) -> Tensor:
    """Compute the same with operators."""
    out: Any = None
    for i, p in enumerate(parts):
        if p is not None:
            term = p * p * float(i + 1)
            out = term if out is None else out + term
    return out


class Case(NamedTuple):
    """One signature.

    Attributes:
        name: of the operator.
        count: of tensors.
        call: calls a function with tensors in their places.
        parts: gives the tensors of the arguments.
        mirror: gives what backward returns, of one gradient per part.
        fn: the kernel.
    """

    name: str
    count: int
    call: Callable[..., Any]
    parts: Callable[..., list[Any]]
    mirror: Callable[[list[Any]], Any]
    fn: Callable[..., Any]


def keyword_only(x: Tensor, *, y: Tensor) -> Tensor:
    return kernel([x, y])


def optional(x: Tensor, y: Tensor | None = None) -> Tensor:
    return kernel([x, y])


def a_list(xs: list[Tensor]) -> Tensor:
    return kernel(xs)


def optional_list(x: Tensor, xs: list[Tensor] | None = None) -> Tensor:
    return kernel([x, *(xs or [])])


def list_of_optional(xs: list[Tensor | None]) -> Tensor:
    return kernel(xs)


def a_tuple(p: tuple[Tensor, float, Tensor]) -> Tensor:
    return kernel([p[0], p[2]])


def a_dict(d: dict[str, Tensor]) -> Tensor:
    return kernel([d["b"], d["a"]])


def a_dataclass(p: Box) -> Tensor:
    return kernel([p.a, p.b])


def a_named_tuple(p: Pair) -> Tensor:
    return kernel([p.a, p.b])


def a_typed_dict(p: Typed) -> Tensor:
    return kernel([p["a"], p["b"]])


def nested(n: Nest, *, pairs: list[Pair]) -> Tensor:
    return kernel([n.box.a, n.box.b, *n.xs, *[p.a for p in pairs]])


def list_of_lists(xs: list[list[Tensor]]) -> Tensor:
    return kernel([x for row in xs for x in row])


def dict_of_lists(d: dict[str, list[Tensor]]) -> Tensor:
    return kernel(d["a"])


def optional_dataclass(x: Tensor, p: Box | None = None) -> Tensor:
    return kernel([x, *([] if p is None else [p.a])])


def literal(x: Tensor, y: Tensor, mode: Literal["pos", "neg"] = "pos") -> Tensor:
    return kernel([x, y])


def an_enum(x: Tensor, y: Tensor, mode: Mode = Mode.SUM) -> Tensor:
    return kernel([x, y])


CASES = [
    Case("keyword_only", 2, lambda f, a, b: f(a, y=b), lambda x, y: [x, y], tuple, keyword_only),
    Case("optional", 2, lambda f, a, b: f(a, b), lambda x, y: [x, y], tuple, optional),
    Case("optional_none", 1, lambda f, a: f(a), lambda x, y=None: [x, y], tuple, optional),
    Case("a_list", 2, lambda f, a, b: f([a, b]), lambda xs: [*xs], list, a_list),
    Case(
        "optional_list", 2, lambda f, a, b: f(a, [b]), lambda x, xs=None: [x, *(xs or [])],
        lambda g: (g[0], g[1:] or None), optional_list,
    ),
    Case(
        "optional_list_none", 1, lambda f, a: f(a, None), lambda x, xs=None: [x],
        lambda g: (g[0], None), optional_list,
    ),
    Case(
        "list_of_optional", 2, lambda f, a, b: f([a, None, b]), lambda xs: [*xs],
        lambda g: [g[0], None, g[2]], list_of_optional,
    ),
    Case(
        "a_tuple", 2, lambda f, a, b: f((a, 2.0, b)), lambda p: [p[0], p[2]],
        lambda g: (g[0], None, g[1]), a_tuple,
    ),
    Case(
        "a_dict", 2, lambda f, a, b: f({"b": a, "a": b}), lambda d: [d["b"], d["a"]],
        lambda g: {"b": g[0], "a": g[1]}, a_dict,
    ),
    Case(
        "a_dataclass", 2, lambda f, a, b: f(Box(a, b)), lambda p: [p.a, p.b],
        lambda g: {"a": g[0], "b": g[1]}, a_dataclass,
    ),
    Case(
        "a_dataclass_none", 1, lambda f, a: f(Box(a)), lambda p: [p.a, p.b],
        lambda g: Box(g[0], g[1]), a_dataclass,
    ),
    Case(
        "a_named_tuple", 2, lambda f, a, b: f(Pair(a, b)), lambda p: [p.a, p.b],
        lambda g: Pair(*g), a_named_tuple,
    ),
    Case(
        "a_typed_dict", 2, lambda f, a, b: f({"a": a, "b": b}), lambda p: [p["a"], p["b"]],
        lambda g: {"a": g[0], "b": g[1]}, a_typed_dict,
    ),
    Case(
        "nested", 4, lambda f, a, b, c, d: f(Nest(Box(a, b), [c]), pairs=[Pair(d)]),
        lambda n, pairs: [n.box.a, n.box.b, *n.xs, *[p.a for p in pairs]],
        lambda g: ({"box": Box(g[0], g[1]), "xs": [g[2]]}, [Pair(g[3])]), nested,
    ),
    Case(
        "list_of_lists", 3, lambda f, a, b, c: f([[a, b], [c]]),
        lambda xs: [x for row in xs for x in row], lambda g: [[g[0], g[1]], [g[2]]],
        list_of_lists,
    ),
    Case(
        "dict_of_lists", 2, lambda f, a, b: f({"a": [a, b]}), lambda d: list(d["a"]),
        lambda g: {"a": g}, dict_of_lists,
    ),
    Case(
        "optional_dataclass", 2, lambda f, a, b: f(a, Box(b)),
        lambda x, p=None: [x, *([] if p is None else [p.a])],
        lambda g: (g[0], {"a": g[1]} if len(g) > 1 else None), optional_dataclass,
    ),
    Case(
        "literal", 2, lambda f, a, b: f(a, b, "neg"), lambda x, y, mode="pos": [x, y],
        lambda g: (*g, None), literal,
    ),
    Case(
        "an_enum", 2, lambda f, a, b: f(a, b, Mode.DIFF), lambda x, y, mode=Mode.SUM: [x, y],
        lambda g: (*g, None), an_enum,
    ),
]  # fmt: skip


class Made(NamedTuple):
    """An operator, called with tensors only, and plain code that does the same."""

    name: str
    count: int
    op: Any
    call: Callable[..., Any]
    plain: Callable[..., Any]
    bound: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


def made(case: Case, namespace: str) -> Made:
    """Define the operator of a case, with its fake and its gradient."""
    op = custom_op(f"{namespace}::{case.name}", case.fn, mutates_args=(), replace=True)
    parts = case.parts

    @op.register_fake
    def _(*args: Any, **kwargs: Any) -> Tensor:
        return next(p for p in parts(*args, **kwargs) if p is not None) * 1.0

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*parts(**vars(inputs.box)))

    def backward(ctx: Any, g: Tensor) -> Any:
        saved = enumerate(ctx.saved_tensors)
        return case.mirror([None if p is None else g * p * (2.0 * (i + 1)) for i, p in saved])

    op.register_autograd(backward, setup_context=setup)

    def bound(*tensors: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        found: tuple[tuple[Any, ...], dict[str, Any]] = case.call(lambda *a, **k: (a, k), *tensors)
        return found

    def reference(*tensors: Any) -> Tensor:
        args, kwargs = bound(*tensors)
        return plain(parts(*args, **kwargs))

    return Made(case.name, case.count, op, lambda *t: case.call(op, *t), reference, bound)


# -- results ------------------------------------------------------------------


class Named(NamedTuple):
    """Results with names."""

    u: Tensor
    v: Tensor


@dataclass
class Data:
    """The same as a dataclass."""

    u: Tensor
    v: Tensor


class Dict(TypedDict):
    """The same as a dict."""

    u: Tensor
    v: Tensor


class Result(NamedTuple):
    """One kind of result.

    Attributes:
        name: of the operator.
        annotation: of the results.
        build: makes the results of both tensors.
        take: gives both tensors back, or what stands in their places.
    """

    name: str
    annotation: Any
    build: Callable[[Any, Any], Any]
    take: Callable[[Any], tuple[Any, Any]]


RESULTS = [
    Result("r_tuple", tuple[Tensor, Tensor], lambda u, v: (u, v), tuple),
    Result("r_list", list[Tensor], lambda u, v: [u, v], tuple),
    Result("r_named", Named, Named, lambda r: (r.u, r.v)),
    Result("r_data", Data, Data, lambda r: (r.u, r.v)),
    Result("r_dict", Dict, lambda u, v: {"u": u, "v": v}, lambda r: (r["u"], r["v"])),
    Result(
        "r_list_and_one", tuple[list[Tensor], Tensor], lambda u, v: ([u], v),
        lambda r: (r[0][0], r[1]),
    ),
    Result("r_tuple_of_one", tuple[Tensor], lambda u, v: (u,), lambda r: (r[0], None)),
    Result("r_optional", Tensor | None, lambda u, v: u, lambda r: (r, None)),
    Result(
        "r_none", tuple[Tensor, Tensor | None], lambda u, v: (u, None), lambda r: (r[0], None)
    ),
    Result(
        "r_numbers", tuple[int, Tensor, float, Tensor], lambda u, v: (3, u, 1.5, v),
        lambda r: (r[1], r[3]),
    ),
    Result(
        "r_record_and_one", tuple[Data, Tensor], lambda u, v: (Data(u, v), u * 1.0),
        lambda r: (r[0].u, r[0].v),
    ),
]  # fmt: skip


def made_result(case: Result, namespace: str) -> Made:
    """Define the operator of a kind of result, with its fake and its gradient."""

    def fn(x: Tensor, y: Tensor) -> Any:
        square, double = np.square(x.numpy()), 2.0 * np.square(y.numpy())
        return case.build(polyop.from_numpy(square), polyop.from_numpy(double))

    fn.__annotations__["return"] = case.annotation
    op = custom_op(f"{namespace}::{case.name}", fn, mutates_args=(), replace=True)
    op.register_fake(lambda x, y: case.build(x * 1.0, y * 1.0))

    def backward(ctx: Any, *gs: Any) -> Any:
        x, y = ctx.saved_tensors
        u, v = case.take(gs if len(gs) > 1 else gs[0])
        if case.name == "r_record_and_one":
            u = u + gs[1]
        return (u * x * 2.0, None if v is None else v * y * 4.0)

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    op.register_autograd(backward, setup_context=setup)

    def joined(result: Any, y: Tensor) -> Tensor:
        u, v = case.take(result)
        if case.name == "r_record_and_one":
            u = u + result[1]
        out: Tensor = (u if v is None else u * v) + y * y
        return out

    def reference(x: Tensor, y: Tensor) -> Tensor:
        return joined(case.build(x * x, y * y * 2.0), y)

    return Made(
        case.name, 2, op, lambda x, y: joined(op(x, y), y), reference, lambda x, y: ((x, y), {})
    )


def tensors(count: int, *shape: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Draw tensors."""
    rng = np.random.default_rng(seed)
    return tuple(polyop.from_numpy(rng.random(shape) + 0.5) for _ in range(count))


def same(got: Any, wanted: Any) -> None:
    """Check that tensors, or tuples of them, are the same, shapes too."""
    if isinstance(wanted, (tuple, list)):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            same(a, b)
        return
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy())
