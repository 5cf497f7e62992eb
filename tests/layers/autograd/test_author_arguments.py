"""Custom operators of every signature stand equal in gradients, traces, programs and laws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.layers.author_signatures import (
    CASES,
    RESULTS,
    Box,
    Made,
    made,
    made_result,
    same,
    tensors,
)

import polyop
from polyop import Tensor, autograd, func
from polyop.errors import AutogradError, InferenceError, ProgramFileError
from polyop.graph import make_fx
from polyop.library import custom_op, opcheck

pytestmark = pytest.mark.filterwarnings("ignore::polyop.errors.PerformanceWarning")

SIGNATURES = [made(case, "argtest") for case in CASES]
ALL = SIGNATURES + [made_result(case, "argtest") for case in RESULTS]
#: A graph takes these apart, or puts them together, with functions that no file holds.
DATACLASSES = (
    "a_dataclass", "a_dataclass_none", "nested", "optional_dataclass", "r_data", "r_record_and_one",
)  # fmt: skip


def leaves(one: Made) -> list[Tensor]:
    """Give arguments that require grad."""
    return [x.requires_grad_() for x in tensors(one.count, 3)]


def total(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Sum what a function gives."""
    return lambda *args: f(*args).sum()


def gradients(f: Callable[..., Tensor], one: Made) -> Any:
    """Give gradients by `func.grad`."""
    return func.grad(total(f), tuple(range(one.count)))(*tensors(one.count, 3))


def eager(one: Made, f: Callable[..., Tensor]) -> Any:
    """Give the result and the gradients of a plain call."""
    args = leaves(one)
    out = f(*args)
    return (out, *autograd.grad(out.sum(), args))


def second(one: Made, f: Callable[..., Tensor]) -> Any:
    """Give second gradients of a plain call."""
    args = leaves(one)
    firsts = autograd.grad(f(*args).sum(), args, create_graph=True)
    return autograd.grad(sum((g * g).sum() for g in firsts), args)


def second_func(one: Made, f: Callable[..., Tensor]) -> Any:
    """Give second gradients by transforms."""
    places = tuple(range(one.count))
    inner = func.grad(total(f), places)
    return func.grad(lambda *args: sum((g * g).sum() for g in inner(*args)), places)(
        *tensors(one.count, 3)
    )


def jvp(one: Made, f: Callable[..., Tensor]) -> Any:
    """Give the tangent, by the transposed backward or the author's rule."""
    return func.jvp(f, tensors(one.count, 3), tensors(one.count, 3, seed=1))


def partial_jvp(one: Made, f: Callable[..., Tensor]) -> Any:
    """Give the tangent where only the first argument moves."""
    first, *rest = tensors(one.count, 3)
    return func.jvp(lambda x: f(x, *rest), (first,), tensors(1, 3, seed=1))


def traced(mode: str) -> Callable[[Made, Callable[..., Tensor]], Any]:
    """Run the trace of a call."""
    return lambda one, f: make_fx(f, tracing_mode=mode)(*tensors(one.count, 3))(
        *tensors(one.count, 3)
    )


def traced_gradient(one: Made, f: Callable[..., Tensor]) -> Any:
    """Run the trace of a gradient."""
    grad = func.grad(total(f), tuple(range(one.count)))
    return make_fx(grad)(*tensors(one.count, 3))(*tensors(one.count, 3))


def functionalized(one: Made, f: Callable[..., Tensor]) -> Any:
    """Run it functionalized."""
    return func.functionalize(f)(*tensors(one.count, 3))


def compiled(one: Made, f: Callable[..., Tensor]) -> Any:
    """Run it compiled, with its gradients."""
    return eager(one, polyop.compile(f, fullgraph=True))


COLUMNS: dict[str, Callable[[Made, Callable[..., Tensor]], Any]] = {
    "eager": eager,
    "func.grad": lambda one, f: gradients(f, one),
    "second": second,
    "second func": second_func,
    "jvp": jvp,
    "partial jvp": partial_jvp,
    "make_fx": traced("real"),
    "make_fx symbolic": traced("symbolic"),
    "make_fx of the gradient": traced_gradient,
    "functionalize": functionalized,
    "compile": compiled,
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_signature_everywhere(one: Made, column: str) -> None:
    """S124, S127, S132, S134: each signature gives what plain code gives, in each transform."""
    same(COLUMNS[column](one, one.call), COLUMNS[column](one, one.plain))


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_signature_keeps_the_laws(one: Made) -> None:
    """S200: opcheck has nothing to say against any of them."""
    args, kwargs = one.bound(*leaves(one))
    found = opcheck(one.op, args, kwargs, raise_exception=False)
    assert {law: str(said) for law, said in found.items() if said != "SUCCESS"} == {}


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_signature_has_second_gradients(one: Made) -> None:
    """S139: gradgradcheck agrees."""
    assert autograd.gradgradcheck(one.call, tuple(leaves(one)))


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_signature_in_a_file(one: Made, tmp_path: Path) -> None:
    """S214: a saved program gives the same, or is refused by name before a file is written."""
    args = tensors(one.count, 3)
    program = polyop.export.export(one.call, args)
    path = tmp_path / "program.poly"
    try:
        polyop.export.save(program, path)
    except ProgramFileError:
        assert one.name in DATACLASSES
        assert not path.exists()
        return
    same(polyop.export.load(path).module()(*args), one.plain(*args))


# -- the author's jvp ---------------------------------------------------------


def mirrored(case: Any) -> Callable[..., Any]:
    """Make a jvp that gives the tangents of a kind of result in its own containers."""

    def rule(ctx: Any, tx: Tensor | None, ty: Tensor | None) -> Any:
        x, y = ctx.saved_tensors
        u = polyop.zeros_like(x) if tx is None else tx * x * 2.0
        v = polyop.zeros_like(y) if ty is None else ty * y * 4.0
        given = case.build(u, v)
        return (
            tuple(None if isinstance(t, (int, float)) else t for t in given)
            if (given.__class__ is tuple)
            else given
        )

    return rule


@pytest.mark.parametrize("case", RESULTS, ids=lambda case: case.name)
def test_tangents_of_every_result(case: Any) -> None:
    """S132: an author's jvp gives tangents in the containers that the results have."""
    one = made_result(case, "argjvp")
    one.op.register_jvp(mirrored(case))
    for column in (jvp, partial_jvp):
        same(column(one, one.call), column(one, one.plain))


@pytest.mark.parametrize(
    ("name", "given", "declared"),
    [
        ("r_named", (1, 2, 3), "a dict with u, v"),
        ("r_named", {"w": None}, "a dict with u, v"),
        ("r_data", 1.0, "a dict with u, v"),
        ("r_list_and_one", (None,), "2, one per result"),
        ("r_list_and_one", ([None, None], None), "a list of 1"),
        ("r_none", (None, 1.0), "None, as the result is"),
    ],
)
def test_tangents_that_do_not_fit(name: str, given: Any, declared: str) -> None:
    """S132: tangents of another structure are refused; the error shows what was expected."""
    case = next(case for case in RESULTS if case.name == name)
    one = made_result(case, "argwrong")
    one.op.register_jvp(lambda ctx, *tangents: given)
    with pytest.raises(AutogradError, match="jvp returned tangents") as caught:
        jvp(one, one.call)
    assert declared in caught.value.declared


# -- backward's mistakes ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "declared"),
    [
        ("a_named_tuple", lambda g: {"c": g}, "a dict with a, b"),
        ("a_named_tuple", lambda g: g, "a dict with a, b"),
        ("a_dict", lambda g: {"a": g, "b": g, "c": g}, "a dict with b, a"),
        ("a_tuple", lambda g: (g, g), "a list of 3"),
        ("a_tuple", lambda g: (g, g, g), "None"),
        ("nested", lambda g: (None, [{"a": g}, None]), "a list of 1"),
        ("list_of_lists", lambda g: [[g], [g]], "a list of 2"),
    ],
)
def test_gradients_that_do_not_fit(name: str, given: Any, declared: str) -> None:
    """S127: a gradient that does not mirror its argument names the place in it."""
    case = next(case for case in CASES if case.name == name)
    one = made(case, "argmistake")
    one.op.register_autograd(lambda ctx, g: given(g))
    with pytest.raises(AutogradError) as caught:
        eager(one, one.call)
    assert caught.value.declared == declared


def test_absent_gradients_inside_records() -> None:
    """S125: a part of a record that nobody used has a gradient of zeros, or None on demand."""
    case = next(case for case in RESULTS if case.name == "r_data")
    one = made_result(case, "argabsent")
    seen: list[Any] = []

    def backward(ctx: Any, g: Any) -> Any:
        seen.append((type(g).__name__, g.v if g.v is None else g.v.tolist()))
        return g.u, None

    x, y = leaves(one)
    one.op.register_autograd(backward)
    one.op(x, y).u.sum().backward()
    one.op.register_autograd(
        backward, setup_context=lambda ctx, inputs, output: ctx.set_materialize_grads(False)
    )
    one.op(x, y).u.sum().backward()
    assert seen == [("Data", [0.0, 0.0, 0.0]), ("Data", None)]


def test_setup_context_with_defaults_of_its_own() -> None:
    """S124: parameters with a default are the author's; they do not change what is given."""
    case = CASES[0]
    one = made(case, "argdefaults")
    seen: list[Any] = []

    def setup(ctx: Any, inputs: Any, output: Any, note: str = "mine", *, more: int = 1) -> None:
        seen.append((len(inputs), output.shape, note, more))

    one.op.register_autograd(lambda ctx, g: (g, g), setup_context=setup)
    one.call(*leaves(one))
    assert seen == [(1, (3,), "mine", 1)]


# -- views, returned inputs and writes ----------------------------------------


def test_a_declared_view_of_an_argument() -> None:
    """S131, S136: a view that the schema declares has a gradient, and shares writes."""

    @custom_op("argtest::row", mutates_args=(), schema="(Tensor(a) x, int i) -> Tensor(a)")
    def row(x: Tensor, i: int) -> Tensor:
        return x[i]

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rows = inputs[0].shape[0]
        ctx.i = inputs[1] % ctx.rows

    def backward(ctx: Any, g: Tensor) -> Any:
        chosen = polyop.arange(ctx.rows) == ctx.i
        return polyop.expand_dims(chosen, 1) * g, None

    row.register_autograd(backward, setup_context=setup)
    row.register_fake(lambda x, i: x[i])
    row.register_vmap(lambda info, dims, x, i: (polyop.moveaxis(x, dims[0], 0)[:, i], 0))
    x = tensors(1, 2, 3)[0].requires_grad_()
    same(autograd.grad((row(x, 1) * 3.0).sum(), x)[0], polyop.stack([x[0] * 0, x[1] * 0 + 3.0]))
    y = x * 1.0
    row(y, 1).mul_(5.0)
    same(autograd.grad(y.sum(), x)[0], polyop.stack([x[0] * 0 + 1.0, x[1] * 0 + 5.0]))
    (batch,) = tensors(1, 4, 2, 3)
    same(func.vmap(lambda x: row(x, 1) * 2.0)(batch), batch[:, 1] * 2.0)
    same(polyop.compile(lambda x: row(x, 0) * 2.0, fullgraph=True)(x.detach()), x.detach()[0] * 2.0)
    opcheck(row, (x, 1))


def test_an_argument_that_is_written_and_returned() -> None:
    """S25, S159: `Tensor(a!) -> Tensor(a!)` gives the argument itself, batched and captured too."""

    @custom_op("argtest::add_one", mutates_args={"x"}, schema="(Tensor(a!) x) -> Tensor(a!)")
    def add_one(x: Tensor) -> Tensor:
        return x.add_(1.0)

    (x,) = tensors(1, 2, 3)
    before = x.clone()
    assert add_one(x) is x
    same(x, before + 1.0)

    def twice(x: Tensor) -> Tensor:
        y = x * 1.0
        return add_one(add_one(y)) * 2.0

    same(func.vmap(twice)(x), (x + 2.0) * 2.0)
    same(func.functionalize(twice)(x), (x + 2.0) * 2.0)
    same(polyop.compile(twice, fullgraph=True)(x), (x + 2.0) * 2.0)


def test_a_written_optional() -> None:
    """S159, S174: an optional argument that is written may be absent, in every transform."""

    @custom_op("argtest::count", mutates_args={"seen"})
    def count(x: Tensor, seen: Tensor | None = None) -> Tensor:
        if seen is not None:
            seen.add_(x)
        return x.clone()

    count.register_fake(lambda x, seen=None: polyop.empty_like(x))

    def both(x: Tensor) -> Tensor:
        seen = x * 0.0
        return count(x, seen) + count(x) + seen * 10.0

    (x,) = tensors(1, 2, 3)
    same(both(x), x * 12.0)
    same(func.vmap(both)(x), x * 12.0)
    same(func.functionalize(both)(x), x * 12.0)
    same(make_fx(both)(x)(x), x * 12.0)
    same(polyop.compile(both, fullgraph=True)(x), x * 12.0)


def scale(p: Box, k: float) -> None:
    """Write to a field."""
    p.a.mul_(k)


def test_a_written_field_of_a_record() -> None:
    """S24: a path into a record is no argument, and is refused; the record itself is named."""
    with pytest.raises(InferenceError, match="no argument"):
        custom_op("argtest::scale", scale, mutates_args={"p.a"})
    op = custom_op("argtest::scale", scale, mutates_args={"p"})
    (x,) = tensors(1, 3)
    before = x.clone()
    op(Box(x), 2.0)
    same(x, before * 2.0)


def test_a_part_that_has_its_argument_s_name() -> None:
    """S127: the mirror of a lone container is seen as one, also where it looks like its holder."""
    kept: list[Any] = [None]

    def of_dict(w: dict[str, Tensor]) -> Tensor:
        return polyop.from_numpy(w["w"].numpy() * 2.0)

    def of_tuple(p: tuple[dict[str, Tensor]]) -> Tensor:
        return polyop.from_numpy(p[0]["a"].numpy() * 2.0)

    one: Any = polyop.custom_op("lone::of_dict", of_dict, mutates_args=())
    two: Any = polyop.custom_op("lone::of_tuple", of_tuple, mutates_args=())
    for op in (one, two):
        op.register_autograd(lambda ctx, g: kept[0](g * 2.0))
    forms = [
        (one, lambda x: {"w": x}, lambda d: {"w": d}),
        (one, lambda x: {"w": x}, lambda d: {"w": {"w": d}}),
        (one, lambda x: {"w": x}, lambda d: ({"w": d},)),
        (two, lambda x: ({"a": x},), lambda d: ({"a": d},)),
        (two, lambda x: ({"a": x},), lambda d: (({"a": d},),)),
        (two, lambda x: ({"a": x},), lambda d: {"p": ({"a": d},)}),
    ]
    for op, make, mirror in forms:
        kept[0] = mirror
        x = polyop.ones(2).requires_grad_()
        op(make(x)).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [2.0, 2.0]
