"""Forward mode on plain arrays: the steps that tangents are made of give what operators give."""

from __future__ import annotations

import gc
import linecache
import re
import warnings
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import polyop
from polyop.assembly import __doc__ as _assembled  # noqa: F401
from polyop.autograd import no_grad
from polyop.dispatch.bind import dispatch
from polyop.dispatch.context import FIELDS, PLAIN, set_word, word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS
from polyop.errors import AutogradError
from polyop.extend import DispatchMode
from polyop.func import grad, jvp, vmap
from polyop.layers.autograd.duals import JvpLevel
from polyop.layers.autograd.steps import Places, steps_of
from polyop.layers.autograd.tangents import TextTangents, tangent_rule
from polyop.ops.select import LARGE, cleared, kept
from polyop.schema.tags import Tag
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor, of_array

#: Functions leave their domains here, and PyTorch's own jvp brings in what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
]
RNG = np.random.default_rng(0)
RULES = {
    d.op.name(): tangent_rule(d.op)
    for d in DEFINITIONS.values()
    if d.op.is_builtin and not d.op._schema.is_mutable and d.op.rule("formula") is not None
}
TEXTS = {
    name: rule
    for name, rule in RULES.items()
    if isinstance(rule, TextTangents) and Tag.pointwise in rule.op.tags
}
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "in C order": lambda a: a,
    "in Fortran order": np.asfortranarray,
    "with gaps": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "of one element": lambda a: a[:1, :1],
    "without axes": lambda a: np.asarray(a[0, 0]),
    "without elements": lambda a: a[:0],
}
NUMBERS = {"Scalar": 2, "int": 1, "float": 1.5}


def arguments(op: OpOverload, kind: str, layout: str) -> tuple[list[Any], list[Any]]:
    """Give arguments of one layout, and tangents of another where that can be."""
    values: list[Any] = []
    tangents: list[Any] = []
    for argument in op._schema.arguments:
        if leaf_kind(argument.type).startswith("tensor"):
            array, slope = RNG.uniform(0.1, 0.9, (3, 4)), RNG.normal(size=(3, 4))
            values.append(of_array(LAYOUTS[layout](array.astype(kind))))
            tangents.append(of_array(LAYOUTS[layout](slope.astype(kind))))
            continue
        given = argument.has_default_value()
        text = str(argument.type).removesuffix("?")
        numbers = NUMBERS | {"ScalarType": np.dtype(kind)}
        values.append(argument.default_value if given else numbers[text])
        tangents.append(None)
    return values, tangents


def both(rule: TextTangents, values: list[Any], tangents: list[Any]) -> tuple[Any, Any]:
    """Give the tangent by steps on arrays, and by operators on tensors."""

    def call(*given: Any) -> Any:
        return dispatch(rule.op, given)

    # Powers have a way of their own before the steps: see test_powers.py.
    return TextTangents.at_once(rule, call, values, tangents)[1][0], rule(values, tangents)[1][0]


def same(steps: Tensor, operators: Tensor) -> None:
    """Hold every number, the dtype and the layout of two tangents to each other."""
    a, b = steps.numpy(), operators.numpy()
    np.testing.assert_array_equal(a, b)
    assert (a.dtype, a.strides) == (b.dtype, b.strides)


# -- what steps give ----------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["f8", "f4", "f2"])
@pytest.mark.parametrize("name", TEXTS)
def test_steps_give_what_operators_give(name: str, kind: str, layout: str) -> None:
    """S134: on plain arrays a tangent is to the last bit that of the operators of its text."""
    rule = TEXTS[name]
    values, tangents = arguments(rule.op, kind, layout)
    kept = [t.numpy().copy() for t in [*values, *tangents] if isinstance(t, Tensor)]
    moving = [i for i, t in enumerate(tangents) if t is not None]
    for chosen in [moving, *([i] for i in moving)]:
        given = [t if i in chosen else None for i, t in enumerate(tangents)]
        steps, operators = both(rule, values, given)
        if operators is None:
            assert steps is None
        else:
            same(steps, operators)
    after = [t.numpy() for t in [*values, *tangents] if isinstance(t, Tensor)]
    for a, b in zip(after, kept, strict=True):
        np.testing.assert_array_equal(a, b)


WRITTEN = """
    abs add cos divide exp hypot log multiply relu rsqrt sigmoid sin sqrt square subtract tanh
"""


@pytest.mark.parametrize("name", WRITTEN.split())
def test_what_is_common_is_done_in_steps(name: str) -> None:
    """S134: the tangents of common operators are steps, so the law above is one about steps."""
    rule = TEXTS[f"core::{name}"]
    values, tangents = arguments(rule.op, "f8", "in C order")
    both(rule, values, tangents)
    assert None not in [steps for steps, _ in rule.steps.values()]


@pytest.mark.parametrize("name", ["multiply", "add", "divide", "subtract", "hypot", "copysign"])
def test_layouts_that_differ(name: str) -> None:
    """S134: where arrays differ in layout, shape or dtype the tangent is laid out as ever."""
    rule = TEXTS[f"core::{name}"]
    c, f = RNG.uniform(1.0, 2.0, (3, 4)), np.asfortranarray(RNG.uniform(1.0, 2.0, (3, 4)))
    for a, b in [(c, f), (f, c), (c, c[:1]), (c[0], c), (c, c.astype("f4")), (c.astype("f4"), f)]:
        values, (t, u) = [of_array(a), of_array(b)], (of_array(a * 2), of_array(b + 1))
        for tangents in ([t, u], [t, None], [None, u]):
            same(*both(rule, values, tangents))


@pytest.mark.parametrize("name", ["sqrt", "sin", "tanh", "relu", "abs", "reciprocal"])
def test_a_tangent_of_another_layout(name: str) -> None:
    """S134: a tangent that is laid out otherwise than its value is not written over."""
    rule = TEXTS[f"core::{name}"]
    x = RNG.uniform(1.0, 2.0, (3, 4))
    for value, tangent in [(x, np.asfortranarray(x)), (np.asfortranarray(x), x), (x, x[:, ::-1])]:
        same(*both(rule, [of_array(value)], [of_array(tangent)]))


PROGRAM = st.lists(st.sampled_from("sin tanh sqrt exp relu negative abs".split()), max_size=5)


@settings(max_examples=60, deadline=None)
@given(PROGRAM, st.sampled_from(["x * y", "x / y", "x - y", "x * x", "y - 2.0 * x"]))
def test_a_mode_changes_nothing(names: list[str], last: str) -> None:
    """S134: a jvp whose calls a mode sees, by operators alone, is that which nobody sees."""

    class Watching(DispatchMode):
        seen = 0

        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen += 1
            return op(*args, **(kwargs or {}))

    def f(x: Tensor, y: Tensor) -> Tensor:
        for name in names:
            x = getattr(polyop, name)(polyop.abs(x) + 0.5)
        return eval(last, {"x": x, "y": y})  # type: ignore[no-any-return]  # noqa: S307 - from a list above

    x, y, t, u = (of_array(RNG.uniform(0.5, 1.0, 5)) for _ in range(4))
    quiet = jvp(f, (x, y), (t, u))
    with Watching() as mode:
        watched = jvp(f, (x, y), (t, u))
    assert mode.seen >= len(names) + 2
    for a, b in zip(quiet, watched, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# -- whose memory -------------------------------------------------------------


def test_one_tensor_twice() -> None:
    """S134: `x * x` computes one product of its tangent; two tangents of one tensor stay two."""
    x, t, u = (of_array(RNG.normal(size=7)) for _ in range(3))
    a, b, c = x.numpy(), t.numpy(), u.numpy()
    np.testing.assert_array_equal(jvp(lambda x: x * x, (x,), (t,))[1].numpy(), 2 * a * b)
    np.testing.assert_array_equal(jvp(polyop.multiply, (x, x), (t, u))[1].numpy(), b * a + c * a)
    np.testing.assert_array_equal(jvp(polyop.subtract, (x, x), (t, u))[1].numpy(), b - c)
    np.testing.assert_array_equal(jvp(lambda x: x - x, (x,), (t,))[1].numpy(), 0 * b)


@pytest.mark.parametrize("name", TEXTS)
def test_tangents_have_memory_of_their_own(name: str) -> None:
    """S134: a tangent that was computed shares no memory with values, results or tangents."""
    rule = TEXTS[name]
    values, tangents = arguments(rule.op, "f8", "in C order")
    out, slopes = rule.at_once(lambda *given: dispatch(rule.op, given), values, tangents)
    d = slopes[0]
    if d is None or any(d is t for t in tangents):
        return
    for other in [out, *values, *tangents]:
        if isinstance(other, Tensor):
            assert not np.shares_memory(d.numpy(), other.numpy())


# -- zeros in the place of what is blocked ------------------------------------


@pytest.mark.parametrize("times", [1, LARGE])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e300, 1.0])
def test_blocked_elements_have_no_tangent(bad: float, times: int) -> None:
    """S134: where `relu` is flat, its tangent is zero, for tangents without bounds too."""
    x = np.array([-1.0, 0.0, 2.0, np.nan, -3.0] * times)
    t = np.array([bad, bad, bad, 1.0, -1.0] * times)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, d = jvp(polyop.relu, (of_array(x),), (of_array(t),))
    _, slope = torch.func.jvp(torch.relu, (torch.tensor(x),), (torch.tensor(t),))
    np.testing.assert_array_equal(d.numpy(), slope.numpy())


@pytest.mark.parametrize("columns", [4, LARGE])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cleared_is_where(layout: str, columns: int) -> None:
    """S134: a product with a mask gives what `where` gives, and leaves the mask alone."""
    array = LAYOUTS[layout](RNG.normal(size=(3, columns)))
    mask = array > 0.2
    kept = mask.copy() if mask.shape else mask
    np.testing.assert_array_equal(cleared(mask, array), np.where(mask, 0, array))
    np.testing.assert_array_equal(mask, kept)


# -- texts of other forms -----------------------------------------------------

UNFIT = ["g if x else g", "unknown(g)", "g % 2", "x.shape", "2", "x == 1", "(x == 1) * g", "-1"]


@pytest.mark.parametrize("text", UNFIT)
def test_texts_that_are_no_steps(text: str) -> None:
    """S134: a text of another form is left to operators; none is half understood."""
    assert steps_of({0: text}, Places(["x"], [0], (0,))) is None


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("g * sin(x) + g * sin(x)", ["sin", "multiply", "add"]),
        ("g * sin(x) - sin(x)", ["sin", "multiply", "subtract"]),
        ("sin(x) * g / (sin(x) * g + sin(x))", ["sin", "multiply", "add", "divide"]),
        ("-g * -x", ["multiply"]),
        ("g * 2 - -x", ["multiply", "add"]),
        ("-x - g", ["add", "negative"]),
        ("where(x <= 0, 0, g)", ["less_equal", "cleared"]),
        ("where(x <= 0, -g, 1)", ["less_equal", "negative", "where"]),
        ("conj(g)", []),
    ],
)
def test_how_many_steps_a_text_takes(text: str, calls: list[str]) -> None:
    """S134: signs cost a step only at the end, and what is computed twice is computed once."""
    steps = steps_of({0: text}, Places(["x"], [0], (0,)))
    assert steps is not None
    lines = linecache.getlines(steps.__code__.co_filename)
    assert re.findall(r"v\d+ = (\w+)", "".join(lines)) == calls
    x, g = RNG.normal(size=4), RNG.normal(size=4)
    want = eval(text, {"x": x, "g": g, "sin": np.sin, "where": np.where, "conj": np.conj})  # noqa: S307 - from the list above
    made = steps([of_array(x)], of_array(x), [of_array(g)])
    assert made is not None
    np.testing.assert_array_equal(made.numpy(), want)


# -- the level ----------------------------------------------------------------


@pytest.mark.parametrize("where", ["plain", "no_grad", "vmap", "a mode", "jvp"])
def test_the_word_inside_is_made_of_the_word_outside(where: str) -> None:
    """S134: the word that a level makes in one go is the one that changes give, field by field."""
    outer: list[Any] = []
    before = word()

    def note(x: Tensor) -> Tensor:
        outer.append(word())
        return x

    class Passing(DispatchMode):
        def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return op(*args, **(kwargs or {}))

    x = of_array(RNG.normal(size=3))
    if where == "vmap":
        vmap(note)(x)
    elif where == "jvp":
        jvp(note, (x,), (x,))
    else:
        with {"plain": no_grad, "no_grad": no_grad, "a mode": Passing}[where]():
            note(x)
    now = PLAIN if where == "plain" else outer[0]
    token = set_word(now)
    try:
        level = JvpLevel()
    finally:
        token.var.reset(token)
    want = now.but(levels=(*now.levels, level), below=False, exclude=level.inner_word().exclude)
    made = level.inner_word()
    assert int(made) == int(want)
    assert [getattr(made, name) for name in FIELDS] == [getattr(want, name) for name in FIELDS]
    assert word() is before


@pytest.mark.parametrize("fails", [False, True])
def test_a_jvp_keeps_nothing(fails: bool) -> None:
    """S134: what a jvp was given is let go with its caller's names, without a collection."""

    def f(x: Tensor) -> Tensor:
        if fails:
            raise ValueError
        return polyop.sin(x) * x

    gc.collect()
    gc.disable()
    try:
        x, t = of_array(RNG.normal(size=3)), of_array(RNG.normal(size=3))
        refs = weakref.ref(x), weakref.ref(t)
        with nullcontext() if not fails else pytest.raises(ValueError):  # noqa: PT011, PT012 - ours
            jvp(f, (x,), (t,))
        del x, t
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_levels_of_both_kinds_and_the_end() -> None:
    """S134: plain values beside those of other levels, and of ended ones, go the general way."""
    before = word()
    x, t = of_array(RNG.normal(size=3)), of_array(RNG.normal(size=3))
    a, b = x.numpy(), t.numpy()
    inner = lambda y: jvp(lambda z: z * y * z, (x,), (t,))[1].sum()  # noqa: E731
    np.testing.assert_allclose(grad(inner)(x).numpy(), 2 * a * b)
    _, d = jvp(lambda y: grad(lambda z: (z * z * y).sum())(y), (x,), (t,))
    np.testing.assert_allclose(d.numpy(), 4 * a * b)
    with no_grad():
        np.testing.assert_array_equal(jvp(polyop.sin, (x,), (t,))[1].numpy(), b * np.cos(a))
    kept: list[Tensor] = []
    jvp(lambda y: kept.append(y) or y, (x,), (t,))  # type: ignore[func-returns-value]
    with pytest.raises(AutogradError, match="after func.jvp has ended"):
        jvp(lambda y: y * kept[0], (x,), (t,))
    assert word() is before


def test_bools_of_other_bytes() -> None:
    """S134: a mask whose true elements are other bytes than 1, as in files, chooses as NumPy's."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=4099)
    mask = np.frombuffer(rng.choice([0, 1, 2, 255], array.size).astype("u1").tobytes(), bool)
    np.testing.assert_array_equal(kept(mask, array), np.where(mask, array, 0))
    np.testing.assert_array_equal(cleared(mask, array), np.where(mask, 0, array))
    over = array.copy()
    assert np.shares_memory(cleared(mask, array, over), over)
    np.testing.assert_array_equal(over, np.where(mask, 0, array))
