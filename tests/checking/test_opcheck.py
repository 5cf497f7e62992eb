"""`opcheck`: what it takes, what it gives, and that it leaves inputs alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import polyop.assembly  # noqa: F401
from polyop.checking.law import LAWS
from polyop.checking.run import PYTORCH_LAWS, opcheck
from polyop.dispatch.custom_op import CustomOpDef, custom_op
from polyop.dispatch.library import Library
from polyop.dispatch.registry import PACKETS, find_operator
from polyop.errors import (
    MissingFakeError,
    MutationError,
    OpCheckError,
    ReturnError,
    UsageError,
    UsageTypeError,
)
from polyop.layers.fake import get_ctx
from polyop.ops.elementwise import add
from polyop.schema.tags import Tag
from polyop.tensor.tensor import Tensor, of_array


def values(*shape: int) -> Tensor:
    return of_array(np.linspace(0.5, 2.0, int(np.prod(shape))).reshape(shape))


def make(name: str, kernel: Any, **options: Any) -> CustomOpDef:
    made: CustomOpDef = custom_op(
        f"opcheck_tests::{name}", kernel, mutates_args=options.pop("mutates_args", ()), **options
    )
    return made


def double(x: Tensor) -> Tensor:
    return of_array(x.numpy() * 2)


def same_fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@pytest.fixture
def good() -> CustomOpDef:
    op = make("good", double)
    op.register_fake(same_fake)
    return op


def test_each_law_is_a_success_for_a_right_operator(good: CustomOpDef) -> None:
    """S200: the result has each law's name, in order, with SUCCESS."""
    assert opcheck(good, (values(2, 3),)) == dict.fromkeys(LAWS, "SUCCESS")


def test_all_of_pytorchs_laws_are_there() -> None:
    """S200: the laws have PyTorch's names, so that calls written for it run."""
    assert set(PYTORCH_LAWS) | {"test_aot_dispatch_static"} <= set(LAWS)


def test_laws_have_a_sentence_each() -> None:
    """A law is one sentence."""
    for law in LAWS.values():
        assert law.sentence.endswith(".") and law.sentence[0].isupper()


@pytest.mark.parametrize("form", ["definition", "overload", "packet"])
def test_an_operator_is_taken_in_every_form(good: CustomOpDef, form: str) -> None:
    """S200: a `CustomOpDef`, an overload, a packet of one overload."""
    op = good._opoverload
    given = {"definition": good, "overload": op, "packet": op.overloadpacket}[form]
    assert opcheck(given, (values(2),), test_utils="test_schema") == {"test_schema": "SUCCESS"}


def test_built_in_operators_hold_the_laws() -> None:
    """The laws are tried on polyop's own operators too."""
    told = opcheck(add.op, (values(2, 3), values(2, 3).numpy().copy()))  # type: ignore[attr-defined]
    assert set(told.values()) == {"SUCCESS"}


def test_arguments_by_name(good: CustomOpDef) -> None:
    """S200: `kwargs` are arguments by name."""
    assert opcheck(good, (), {"x": values(2)}, test_utils=("test_schema",))


def test_an_unknown_law_is_refused_with_the_nearest(good: CustomOpDef) -> None:
    """S201: an unknown law gives a UsageError that names the nearest."""
    with pytest.raises(UsageError, match=r"no law 'test_shema'; did you mean 'test_schema'\?"):
        opcheck(good, (values(2),), test_utils="test_shema")


@pytest.mark.parametrize("given", [double, 3, "opcheck_tests::good"])
def test_no_operator_is_refused(given: Any) -> None:
    """S201: what is no operator gives a UsageError."""
    with pytest.raises(UsageError):
        opcheck(given, ())


def test_a_packet_of_several_overloads_is_refused() -> None:
    """S201: a packet of several overloads gives a UsageError that names one."""
    lib = Library("opcheck_several", "DEF")
    lib.define("f(Tensor x) -> Tensor")
    lib.define("f.out(Tensor x, Tensor y) -> Tensor")
    try:
        from_packet = lib  # keeps the operators alive
        assert from_packet
        op = add.op.overloadpacket  # type: ignore[attr-defined]
        with pytest.raises(UsageTypeError, match="several overloads"):
            opcheck(op, (values(2), values(2)))
    finally:
        lib.destroy()


@pytest.mark.parametrize("given", [{"atol": 0.0}, {"rtol": 0.0}])
def test_one_tolerance_alone_is_refused(good: CustomOpDef, given: Any) -> None:
    """S201: one of rtol and atol without the other gives a UsageError."""
    with pytest.raises(UsageError, match="rtol and atol belong together"):
        opcheck(good, (values(2),), **given)


def test_arguments_that_do_not_fit_are_refused(good: CustomOpDef) -> None:
    """A sample that does not fit the schema is the caller's mistake, not a broken law."""
    with pytest.raises(UsageError, match="a sample does not fit"):
        opcheck(good, ("text",), raise_exception=False)


def test_zero_tolerances_are_exact() -> None:
    """S201: `rtol=0, atol=0` compares exactly."""

    def drifting(x: Tensor) -> Tensor:
        data = x.numpy()
        off = 0.0 if data.flags.c_contiguous else 1e-9
        return of_array(np.array(data * 2 + off, order="C"))

    op = make("drifting", drifting)
    op.register_fake(lambda x: x * 2)
    given = (values(2, 3),)
    op_name = "test_layouts"
    assert opcheck(op, given, test_utils=op_name) == {op_name: "SUCCESS"}
    told = opcheck(op, given, test_utils=op_name, rtol=0.0, atol=0.0, raise_exception=False)
    assert isinstance(told[op_name], OpCheckError)


def test_the_first_broken_law_raises() -> None:
    """S200: with `raise_exception` the first broken law raises an OpCheckError."""
    op = make("no_fake", double)
    with pytest.raises(OpCheckError, match="test_faketensor: .* has no fake rule") as caught:
        opcheck(op, (values(2),))
    assert isinstance(caught.value.__cause__, MissingFakeError)
    assert "register_fake('opcheck_tests::no_fake'" in str(caught.value)


def test_exceptions_are_given_back() -> None:
    """S200: without `raise_exception` each law has its exception, and the others run."""
    op = make("no_fake", double)
    told = opcheck(op, (values(2),), raise_exception=False)
    assert isinstance(told["test_faketensor"], OpCheckError)
    assert told["test_schema"] == told["test_layouts"] == "SUCCESS"


def test_inputs_are_left_as_they_were() -> None:
    """S201: tensors in lists, beside None, and the memory around views stay bit for bit."""

    def scribble(xs: list[Tensor | None], y: Tensor) -> Tensor:
        for x in xs:
            if x is not None:
                x.numpy()[...] = np.nan
        y.numpy()[...] = -1
        return of_array(y.numpy().copy())

    op = make("scribble", scribble)
    base = np.linspace(0.0, 1.0, 12)
    base[3] = np.nan
    before = base.tobytes()
    view = of_array(base[2:8].reshape(2, 3)[:, ::2])
    leaf = of_array(base[9:]).requires_grad_()
    told = opcheck(op, ([view, None, leaf], view), raise_exception=False)
    assert isinstance(told["test_schema"].__cause__, MutationError)
    assert base.tobytes() == before
    assert leaf.requires_grad and leaf.grad is None and leaf._version == 0


def test_undeclared_writes_are_found_in_every_leaf() -> None:
    """S202: a write to one tensor of a list is found, with its place in the list."""

    def write_second(xs: list[Tensor]) -> Tensor:
        xs[1].numpy().flat[0] = 7.0
        return of_array(xs[0].numpy() + xs[1].numpy())

    op = make("write_second", write_second)
    with pytest.raises(OpCheckError, match=r"writes its argument 'xs\[1\]'.*") as caught:
        opcheck(op, ([values(2), values(2)],), test_utils="test_schema")
    assert "mutates_args=('xs',)" in str(caught.value)


def test_a_changed_nan_is_a_write() -> None:
    """S202: writes are compared bit for bit, so another nan is found."""

    def other_nan(x: Tensor) -> Tensor:
        x.numpy().view(np.uint64)[0] ^= 1
        return of_array(x.numpy().copy())

    op = make("other_nan", other_nan)
    with pytest.raises(OpCheckError, match="writes its argument 'x'"):
        opcheck(op, (of_array(np.full(2, np.nan)),), test_utils="test_schema")


def test_a_write_beside_a_view_is_found() -> None:
    """S202: memory that an argument is a view of is looked at too."""

    def beside(x: Tensor) -> Tensor:
        base = x.numpy().base
        if base is not None:
            base[-1:] = 0
        return of_array(x.numpy().copy())

    op = make("beside", beside)
    with pytest.raises(OpCheckError, match="writes memory beside its argument 'x'"):
        opcheck(op, (of_array(np.linspace(1, 2, 9)[:4]),), test_utils="test_schema")


def test_an_argument_of_an_earlier_call_is_watched() -> None:
    """S202: a kernel that keeps an argument and writes it later is found."""
    kept: list[Any] = []

    def later(x: Tensor) -> Tensor:
        if kept:
            kept.pop()[...] = 0
        kept.append(x.numpy())
        return of_array(x.numpy() * 2)

    op = make("later", later)
    with pytest.raises(OpCheckError, match="writes argument 'x' of an earlier call"):
        opcheck(op, (values(3),), test_utils="test_schema")


def test_declared_writes_are_right_and_unseen_ones_a_note() -> None:
    """S202: a declared write that the sample does not show does not break the law."""

    def idle(x: Tensor) -> None:
        return None

    op = make("idle", idle, mutates_args=("x",))
    assert opcheck(op, (values(2),), test_utils="test_schema") == {"test_schema": "SUCCESS"}


def test_wrong_results_are_told_with_the_law() -> None:
    """S202: a result of another type breaks the schema's law."""

    def texts(x: Tensor) -> Tensor:
        return "text"  # type: ignore[return-value]

    op = make("texts", texts)
    with pytest.raises(OpCheckError, match="test_schema: ") as caught:
        opcheck(op, (values(2),))
    assert isinstance(caught.value.__cause__, ReturnError)


def test_an_exception_of_the_kernel_is_told_with_its_line() -> None:
    """A kernel that raises on the sample breaks the law that met it, at the raising line."""

    def fails(x: Tensor) -> Tensor:
        raise KeyError("lost")

    op = make("fails", fails)
    with pytest.raises(OpCheckError, match="raised KeyError: 'lost'") as caught:
        opcheck(op, (values(2),))
    assert f"test_opcheck.py:{fails.__code__.co_firstlineno + 1}" in caught.value.source
    assert isinstance(caught.value.__cause__, KeyError)


def test_random_operators_that_say_so_are_right() -> None:
    """A tag for randomness takes the laws that compare values out."""

    def noise(x: Tensor) -> Tensor:
        return of_array(x.numpy() * np.random.default_rng().normal(size=x.shape).astype(x.dtype))

    op = make("noise", noise, tags=(Tag.nondeterministic_seeded,))
    op.register_fake(lambda x: x * 1.0)
    assert set(opcheck(op, (values(2, 3),)).values()) == {"SUCCESS"}


def test_a_result_whose_size_depends_on_data() -> None:
    """S204: a dynamic size must lie in its bounds."""

    def positive(x: Tensor) -> Tensor:
        data = x.numpy()
        return of_array(data[data > 0])

    def fake(x: Tensor) -> Tensor:
        return x.new_empty((get_ctx().new_dynamic_size(),))

    op = make("positive", positive)
    op.register_fake(fake)
    given = (of_array(np.array([1.0, -1.0, 2.0])),)
    assert opcheck(op, given, test_utils="test_faketensor") == {"test_faketensor": "SUCCESS"}

    op.register_fake(lambda x: x.new_empty((get_ctx().new_dynamic_size(max=1),)))
    with pytest.raises(OpCheckError, match="wrong about the range of a size of the result"):
        opcheck(op, given, test_utils="test_faketensor")


def test_a_gradient_that_the_author_denies_is_not_asked_for() -> None:
    """`register_autograd(op, None)` says that there is no gradient."""
    op = make("denied", double)
    op.register_fake(same_fake)
    op.register_autograd(None)
    told = opcheck(op, (values(2).requires_grad_(),), test_utils=["test_gradient"])
    assert told == {"test_gradient": "SUCCESS"}


def test_a_gradient_at_a_kink_is_not_compared() -> None:
    """A sample on a kink of the function does not break the law of gradients."""
    op = make("ramp", lambda x: of_array(np.maximum(x.numpy(), 0)), schema="(Tensor x) -> Tensor")
    op.register_fake(same_fake)

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * of_array((x.numpy(force=True) > 0).astype(float))

    op.register_autograd(backward, setup_context=setup)
    given = (of_array(np.array([-1.0, 0.0, 1.0])),)
    assert opcheck(op, given, test_utils="test_gradient") == {"test_gradient": "SUCCESS"}


@pytest.mark.parametrize("name", ["max", "sort", "inv", "topk", "index_put", "det", "acosh"])
def test_made_inputs_do_not_accuse_right_gradients(name: str) -> None:
    """Ties, singular matrices, repeated indices and nan at made inputs break no law."""
    rng = np.random.default_rng(11)
    square, tall = of_array(rng.uniform(0.1, 1, (3, 3))), of_array(rng.uniform(0.1, 1, (2, 3)))
    one = of_array(np.array([1.0, 1.0, 2.0]))
    given: tuple[Any, ...] = {
        "max": (one,), "sort": (tall,), "inv": (square,), "topk": (tall, 2),
        "index_put": (tall, [of_array(np.array([0, 1]))], tall), "det": (square,),
        "acosh": (tall,),
    }[name]  # fmt: skip
    op = next(o for o in PACKETS[f"core::{name}"].op_overloads() if not o._schema.overload_name)
    laws = ("test_gradient", "test_second_order")
    assert set(opcheck(op, given, test_utils=laws).values()) == {"SUCCESS"}


def test_optional_arguments_are_left_out() -> None:
    """S206: a fake rule that is wrong without an optional argument is found."""

    def summed(x: Tensor, y: Tensor | None = None) -> Tensor:
        return of_array(x.numpy().copy() if y is None else x.numpy() + y.numpy())

    op = make("summed", summed)
    op.register_fake(lambda x, y=None: x.new_empty((1,)) if y is None else x * y)
    with pytest.raises(OpCheckError, match=r"wrong about the shape of the result at y=None"):
        opcheck(op, (values(2), values(2)), test_utils="test_none_patterns")


def test_another_dtype_is_tried() -> None:
    """S206: a fake rule that remembers the sample's dtype is found."""
    op = make("typed", double)
    op.register_fake(_as_float64)
    with pytest.raises(OpCheckError, match=r"wrong about the dtype of the result at dtype float32"):
        opcheck(op, (values(2),), test_utils="test_dtypes")


def _as_float64(x: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=np.dtype("float64"))


lib = Library("opcheck_kinds", "DEF")
lib.define("head(Tensor(a) x) -> Tensor(a)")
lib.impl("head", lambda x: x[0], "CompositeExplicitAutograd")
lib.define("composed(Tensor x, Tensor y) -> Tensor")
lib.impl("composed", lambda x, y: x * y + x.sum(), "CompositeImplicitAutograd")


def split_rows(x: Tensor) -> list[Tensor]:
    return [of_array(row.copy()) for row in x.numpy()]


def described(x: Tensor) -> tuple[Tensor, int, float]:
    return of_array(x.numpy().sum(0)), x.shape[0], 0.5


def added(x: Tensor, out: Tensor) -> None:
    out.numpy()[...] += x.numpy()


def looked_up(table: dict[str, Tensor], sizes: list[int]) -> Tensor:
    return of_array(table["a"].numpy() * 2)


def single_only(x: Tensor) -> Tensor:
    if x.dtype != np.float32:
        raise TypeError("single precision only")
    return of_array(x.numpy() ** 2)


def squared(x: Tensor) -> Tensor:
    return of_array(np.asarray(x.numpy() ** 2))


def with_gradient(op: CustomOpDef) -> CustomOpDef:
    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    op.register_autograd(lambda ctx, g: g * 2 * ctx.saved_tensors[0], setup_context=setup)
    return op


def kinds() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    x, z = values(3, 4), of_array(np.linspace(0.1, 1, 6, dtype="float32"))
    ops = {f: make(f.__name__, f) for f in (split_rows, described, looked_up)}
    ops[split_rows].register_fake(lambda x: [x.new_empty(x.shape[1:])] * int(x.shape[0]))
    ops[described].register_fake(lambda x: (x.new_empty(x.shape[1:]), x.shape[0], 0.5))
    ops[looked_up].register_fake(lambda table, sizes: table["a"] * 2)
    add_to = make("added", added, mutates_args=("out",))
    add_to.register_fake(lambda x, out: None)
    single = with_gradient(make("single_only", single_only))
    single.register_fake(same_fake)
    square = with_gradient(make("squared", squared))
    square.register_fake(same_fake)
    return {
        "list of results": (ops[split_rows], (x,)),
        "plain results": (ops[described], (x,)),
        "dict of tensors": (ops[looked_up], ({"a": x, "b": x}, [1, 2])),
        "view": (find_operator("opcheck_kinds::head"), (x,)),
        "composite": (find_operator("opcheck_kinds::composed"), (x, values(3, 4))),
        "one tensor twice": (find_operator("opcheck_kinds::composed"), (x, x)),
        "write": (add_to, (x, values(3, 4))),
        "write to what is read": (add_to, (x, x)),
        "single precision": (single, (z,)),
        "no axes": (square, (of_array(np.array(0.5)),)),
        "no elements": (square, (of_array(np.ones((0, 3))),)),
        "view of a sample": (square, (of_array(np.ones((4, 6))[::2, ::-3]),)),
        "broadcast": (square, (of_array(np.broadcast_to(np.linspace(0, 1, 3), (2, 3))),)),
    }


@pytest.mark.parametrize("kind", kinds())
def test_right_operators_of_every_kind_hold_the_laws(kind: str) -> None:
    """S200: no law accuses a right operator, whatever its arguments and results are."""
    op, given = kinds()[kind]
    told = opcheck(op, given, raise_exception=False)
    assert {name: str(error) for name, error in told.items() if error != "SUCCESS"} == {}
