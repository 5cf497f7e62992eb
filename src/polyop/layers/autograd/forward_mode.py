"""Forward mode: `func.jvp` and `func.linearize`, and `Function` under them.

Each running `jvp` is a level, whose tensors carry a tangent (`duals.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from polyop import tree
from polyop.dispatch.context import set_word, word
from polyop.errors import AutogradError, MissingGradientError, UsageError, UsageTypeError
from polyop.layers.autograd.author import whole
from polyop.layers.autograd.author_tangents import Author, ForwardContext, laid_beside, needs
from polyop.layers.autograd.dirty import Places, follow_at_level, given_back, marked, places
from polyop.layers.autograd.duals import Dual, JvpLevel, RecordedLevel
from polyop.layers.autograd.function import APPLY, Function, traits_of
from polyop.layers.autograd.loans import lending
from polyop.layers.autograd.tangents import leaves_beside, pushed
from polyop.layers.autograd.transforms import with_aux
from polyop.layers.autograd.transpose import Called, TapeLevel, at_a_level
from polyop.layers.levels import enter_level
from polyop.layers.rule_notes import note_rule
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, is_differentiable

Fn = Callable[..., Any]


# -- Function -----------------------------------------------------------------


def _apply_at_jvp(level: JvpLevel, cls: type[Function], args: Sequence[Any]) -> Any:
    """Apply a `Function` below a level, and its `jvp`, or its transposed backward, here."""
    tangents = [level.tangent(a) for a in args]
    values = [level.peel(a) for a in args]
    outer = word()
    try:
        set_word(level.below())
        if all(t is None for t in tangents):
            return given_back(args, values, cls.apply(*values), level.wrap_all)
        out, slopes, written = _pushed_through(cls, values, tangents)
        results = level.wrap_with(out, slopes)
    finally:
        set_word(outer)
    return follow_at_level(traits_of(cls), level, args, written, results)


def _pushed_through(
    cls: type[Function], values: Sequence[Any], tangents: Sequence[Any]
) -> tuple[Any, Sequence[Any], Places]:
    """Give the results, their tangents, and which arguments were written."""
    traits, jvp = traits_of(cls), getattr(cls, "jvp", None)
    if jvp is None:
        fix = "define the static method jvp(ctx, *tangents)"
        if cls.backward is Function.backward:
            raise MissingGradientError(
                f"{cls.__name__} has neither a jvp nor a backward",
                op=cls.__name__, source=traits.source, fix=fix,
            )  # fmt: skip
        who = Called(cls.__name__, cls.__name__, traits.source, fix)
        written: Places = []

        def call(*given: Any) -> Any:
            out = cls.apply(*given)
            written[:] = places(given, out)  # others come back as tensors of their own
            return out

        return *pushed(who, call, values, tangents), written
    out = cls.apply(*values)
    ctx = ForwardContext()
    ctx.needs_input_grad = tuple(map(needs, values, tangents))
    assert traits.setup is not None
    running = "setup_context"
    try:
        traits.setup(ctx, tuple(values), out)
        if ctx._dirty:
            tangents = [_own(ctx, v, t) for v, t in zip(values, tangents, strict=True)]
        if ctx._materialize:
            tangents = [_materialized(v, t) for v, t in zip(values, tangents, strict=True)]
        running = "jvp"
        given = whole(traits, "jvp", ctx, jvp(ctx, *tangents))
    except Exception as error:
        note_rule(error, traits, running)
        raise
    slopes = laid_beside(Author(cls.__name__, traits.source), ctx, out, given)
    return out, slopes, places(values, out, marked(traits, ctx, values, out))


def _own(ctx: ForwardContext, value: Any, tangent: Any) -> Any:
    """Give the tangents of what is dirty as copies: `jvp` may write them, and others share them."""
    if tangent is None:
        return None
    leaves, spec = tree.flatten(value)
    pairs = zip(leaves, leaves_beside(value, tangent), strict=True)
    clone = ON_TENSORS["clone"]
    found = [t if t is None or id(x) not in ctx._dirty else clone(t) for x, t in pairs]
    return tree.unflatten(spec, found)


def _materialized(value: Any, tangent: Any) -> Any:
    fits = isinstance(value, Tensor) and is_differentiable(value.dtype)
    return ON_TENSORS["zeros_like"](value) if tangent is None and fits else tangent


APPLY[JvpLevel] = _apply_at_jvp


# -- the transforms -----------------------------------------------------------


def jvp(
    func: Fn, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> Any:
    """Give the result of a function, and its derivative along tangents, in one run.

    Args:
        func: of tensors, or trees of them; returns a tree of tensors.
        primals: the tuple of its arguments.
        tangents: the same, with a tensor of the same shape and dtype for each.
        strict: whether a result that no input reaches is an error; else its tangent is zero.
        has_aux: whether it returns `(result, aux)`.

    Returns:
        `(result, tangent)`, or `(result, tangent, aux)`.

    Raises:
        AutogradError: with `strict`, a result does not depend on the inputs.
        UsageTypeError: an input, or a result, is no tensor, or an input not floating.
        UsageError: the tangents do not fit the primals.
        MissingGradientError: an operator has no derivative.

    Example:
        >>> import polyop
        >>> polyop.func.jvp(lambda x: x * x, (polyop.ones(2),), (polyop.ones(2),))
        (tensor([1., 1.]), tensor([2., 2.]))
    """
    alike = _beside(primals, tangents)
    leaves, given, build = (primals, tangents, tuple) if alike else paired(primals, tangents)
    level = JvpLevel()
    out = _run(level, func, leaves, given, build)
    aux = None
    if has_aux:
        out, aux = with_aux(out)
    if strict:
        _refuse_constants(level, out)
    value, slope = _taken_apart(level, leaves, given, out)
    return (value, slope, level.peel(aux)) if has_aux else (value, slope)


def _refuse_constants(level: JvpLevel, out: Any) -> None:
    """Refuse results that do not move with the inputs."""
    leaves = tree.leaves(out)
    for path, leaf in zip(tree.paths(out), leaves, strict=True):
        record = leaf.payload if isinstance(leaf, Tensor) else None
        if not (isinstance(record, Dual) and record.level is level) or record.tangent is None:
            raise AutogradError(
                "a result does not depend on the inputs, and strict=True refuses that",
                op="jvp",
                argument=f"result{path}",
                seen=f"{leaf!r:.80}",
                fix="leave strict out for a tangent of zeros, or return what depends on an input",
            )


def _taken_apart(level: JvpLevel, primals: Row, given: Row, out: Any) -> tuple[Any, Any]:
    """Give the values and the tangents of results, as two trees."""
    record = out.payload if out.__class__ is Tensor else None
    if record.__class__ is Dual and record.level is level:
        value, slope = record.value, record.tangent
        if slope is None:
            return value, level.slope(out)
        if _is_fresh(slope, given) and _is_fresh(slope, (*primals, value)):
            return value, slope
        return value, own_tangents(primals, given, [value], [slope])[0]
    results, spec = tree.flatten(out)
    check_results(results)
    values, slopes = [*map(level.peel, results)], [*map(level.slope, results)]
    slopes = own_tangents(primals, given, values, slopes)
    return tree.unflatten(spec, values), tree.unflatten(spec, slopes)


Row = Sequence[Tensor]


def own_tangents(primals: Row, given: Row, values: Row, slopes: Row) -> list[Tensor]:
    """Give tangents that share memory only as their values do: any of them may be written.

    Inside, the tangent of `x + 1` is that of `x`, which costs nothing.
    """
    seen: dict[int, Any] = {_memory(t): primals[i] for i, t in enumerate(given)}
    # An author's `jvp` may give what it kept: the memory of an argument, or of a result.
    seen |= dict.fromkeys(map(_memory, (*primals, *values)))
    found = []
    for i, slope in enumerate(slopes):
        memory, value = _memory(slope), values[i]
        beside = seen.setdefault(memory, value)
        alike = beside is value or (beside is not None and _memory(beside) == _memory(value))
        found.append(slope if alike else ON_TENSORS["clone"](slope))
    return found


def _is_fresh(slope: Tensor, given: Row) -> bool:
    """Tell by a few looks whether an array is none of some others, nor of their memory."""
    array = slope.payload
    if array.__class__ is not np.ndarray:
        return False
    base = array.base
    for t in given:
        other = t.payload
        if other is array or other.__class__ is not np.ndarray:
            return False
        if base is not None and (other is base or other.base is base):
            return False
    return True


def _memory(tensor: Tensor) -> int:
    """Give a number that tensors share whose memory is one."""
    array = tensor.payload
    if array.__class__ is np.ndarray:
        return id(array if array.base is None else array.base)
    # Without data, sharing is what was declared: one version for all aliases. Equal fakes are
    # one payload.
    version = tensor.version
    return id(tensor if version.__class__ is int else version)


def paired(primals: Any, tangents: Any) -> tuple[Row, Row, Callable[[Row], Any]]:
    """Lay tangents beside primals: the leaves of both, and what builds their structure."""
    for name, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, tuple) or (name == "primals" and not value):
            seen = "an empty tuple" if isinstance(value, tuple) else type(value).__name__
            raise UsageTypeError(
                f"{name} of func.jvp is a tuple, one for each argument",
                argument=name, seen=seen, fix=f"write ({name[:-1]},)",
            )  # fmt: skip
    leaves, spec = tree.flatten(primals)
    given, given_spec = tree.flatten(tangents)
    if given_spec != spec:
        raise UsageError(
            "tangents have another structure than primals", argument="tangents",
            declared=tree.outline(primals), seen=tree.outline(tangents),
        )  # fmt: skip
    for i, pair in enumerate(zip(leaves, given, strict=True)):
        _check_pair(i, *pair)
    return leaves, given, partial(tree.unflatten, spec)


#: The numbers of the dtypes of tangents.
_MOVING = frozenset(np.dtype(c).num for c in "efdgFDG")


def _beside(primals: Any, tangents: Any) -> bool:
    """Tell by a few looks whether both are tuples of arrays, each beside one of its kind."""
    if not primals.__class__ is tangents.__class__ is tuple:
        return False
    if not len(primals) == len(tangents) > 0:
        return False
    for i, x in enumerate(primals):
        t = tangents[i]
        if not x.__class__ is t.__class__ is Tensor:
            return False
        a, b = x.payload, t.payload
        if not a.__class__ is b.__class__ is np.ndarray:
            return False
        dtype = a.dtype
        if dtype is not b.dtype or dtype.num not in _MOVING or a.shape != b.shape:
            return False
    return True


def _check_pair(i: int, primal: Any, tangent: Any) -> None:
    if not isinstance(primal, Tensor) or not is_differentiable(primal.dtype):
        raise UsageTypeError(
            f"input {i} of a forward derivative is no floating-point or complex Tensor",
            seen=str(primal.dtype) if isinstance(primal, Tensor) else type(primal).__name__,
            fix="differentiate with respect to floating-point tensors only; close over the others",
        )
    fits = isinstance(tangent, Tensor) and tangent.dtype == primal.dtype
    if fits and tuple(tangent.shape) == tuple(primal.shape):
        return
    facts = f"{primal.dtype}{tuple(primal.shape)}"
    seen = type(tangent).__name__
    if isinstance(tangent, Tensor):
        seen = f"{tangent.dtype}{tuple(tangent.shape)}"
    raise UsageError(
        f"the tangent of input {i} does not fit it", declared=facts, seen=seen,
        fix="give a tensor of the input's shape and dtype",
    )  # fmt: skip


def check_results(results: Sequence[Any]) -> None:
    """Refuse results that are no tensors."""
    for i, result in enumerate(results):
        if not isinstance(result, Tensor):
            raise UsageTypeError(
                f"result {i} of a differentiated function is no Tensor",
                seen=type(result).__name__, fix="return it as aux, with has_aux=True",
            )  # fmt: skip


def linearize(func: Fn, *primals: Any) -> tuple[Any, Fn]:
    """Give the result of a function, and its derivative as a function of tangents.

    The function runs once, and so do the `jvp` rules that it meets; its
    derivative then costs one run of what was recorded of the tangents.

    Args:
        func: of tensors, or trees of them.
        primals: its arguments.

    Returns:
        `(result, jvp_fn)`; `jvp_fn` takes one tangent per argument.

    Raises:
        UsageTypeError: an input, or a result, is no tensor, or an input not floating.
        MissingGradientError: an operator has no derivative, or one that cannot be recorded.
    """
    leaves, _, build = paired(primals, primals)
    who = Called("the function", "func.linearize", None, "give its operators a jvp")
    tape = TapeLevel(writable=False)
    moves = [tape.watched(ON_TENSORS["ones_like"](x)) for x in leaves]
    with enter_level(tape):
        level = RecordedLevel(tape)
        out = _run(level, func, leaves, moves, build)
    results, out_spec = tree.flatten(out)
    check_results(results)
    slopes = [level.tangent(r) for r in results]
    pairs = [(None, None) if t is None else (tape.node_of(t), tape.peel(t)) for t in slopes]
    linear = at_a_level(who, pairs, [t.grad_node for t in moves])
    values = [*map(level.peel, results)]

    def push(*tangents: Any) -> Any:
        given = paired(primals, tangents)[1]
        found = linear(given, retain=True)
        filled = [
            ON_TENSORS["zeros_like"](r) if d is None else d
            for d, r in zip(found, values, strict=True)
        ]
        return tree.unflatten(out_spec, own_tangents(leaves, given, values, filled))

    return tree.unflatten(out_spec, values), push


def _run(level: JvpLevel, func: Fn, leaves: Row, moves: Row, build: Callable[[Row], Any]) -> Any:
    """Run a function at a level, on inputs with tangents."""
    level.inputs = tuple(map(level.wrap, leaves, moves))
    # As `enter_level` does it, whose block costs a third of what else a small call does.
    outer = word()
    try:
        set_word(level.inner_word())
        return lending(level, func, *build(level.inputs))
    finally:
        set_word(outer)
        level.end()
