"""Views inside `func.grad` and `func.jvp`, and writes that reach all who share the memory.

Nothing is written at such a level: the written wrapper gets a new value. So
do its base, by the inverse of each view on the way, and then every living
view of the base, which is taken again. All of it is operators at the level
itself, so gradients and tangents follow a write without a rule of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from weakref import ref

from polyop.dispatch.bits import GRAD
from polyop.dispatch.body import Number, result_forms
from polyop.dispatch.context import word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.results import tensors_in
from polyop.dispatch.write import shape_of
from polyop.errors import ArgumentError, AutogradError, MutationError, PolyopError
from polyop.layers.autograd.loans import borrow
from polyop.layers.layouts import laid_out, layout_of
from polyop.layers.levels import Level
from polyop.lazy import load
from polyop.ops.define import ON_TENSORS
from polyop.ops.inplace import INPLACE_TWINS, can_write
from polyop.ops.views import VIEW_INVERSES
from polyop.schema.tags import Tag
from polyop.tensor.retaken import retaken
from polyop.tensor.storage import bump, share
from polyop.tensor.tensor import Tensor

#: A result that is a view: its place among several, or None, whether it is a list of views, of
#: which argument it is one, and whether it may share no memory after all.
Viewed = tuple[int | None, bool, int, bool]
#: Views without a derivative: what is written through them, their base would not know of.
_CUTS = {"core::detach"}


class Views:
    """The living views of a base, in the order in which they were taken."""

    __slots__ = ("limit", "refs")

    def __init__(self) -> None:
        self.refs: list[ref[Tensor]] = []
        self.limit = 16

    def add(self, view: Tensor) -> None:
        """Add a view; the places of dead ones are given up now and then."""
        self.refs.append(ref(view))
        if len(self.refs) > self.limit:
            self.refs = [r for r in self.refs if r() is not None]
            self.limit = max(16, 2 * len(self.refs))

    def living(self) -> list[Tensor]:
        """List those that somebody has."""
        return [view for r in self.refs if (view := r()) is not None]


def note_views(level: Level, op: OpOverload, args: Sequence[Any], out: Any, results: Any) -> None:
    """Note which results of a call are views of arguments of the level.

    Args:
        level: that the call ran at.
        op: the operator.
        args: its arguments, wrapped.
        out: what the call gave below the level.
        results: the same, wrapped.
    """
    try:
        forms = op.notes["viewed"]
    except KeyError:
        forms = op.note("viewed", _viewed)
    for place, several, position, maybe in forms:
        below, view = (out, results) if place is None else (out[place], results[place])
        if maybe and getattr(below, "view_of", None) is None:
            continue  # memory was not shared after all
        which = () if place is None else (Number(place),)
        base, statics = args[position], (*args[:position], *args[position + 1 :], *which)
        if not several:
            _join(level, base, view, (op, statics))
            continue
        for i, item in enumerate(view):
            _join(level, base, item, (op, (*statics, i)))


def _viewed(op: OpOverload) -> tuple[Viewed, ...]:
    """Give the results that are views of tensors; those into containers nobody may write."""
    forms, maybe = result_forms(op._schema), Tag.maybe_aliasing_or_mutating in op.tags
    kinds = shape_of(op._schema).kinds
    return tuple(
        (i if len(op._schema.returns) > 1 else None, kind == "views", position, maybe)
        for i, (kind, position) in enumerate(forms)
        if kind in {"view", "views"} and kinds[position] in {"tensor", "tensor?"}
    )


def _join(level: Level, base: Tensor, view: Tensor, step: tuple[OpOverload, Any]) -> None:
    view.version = share(base)
    view.view_of = (base, *step)
    root = root_of(level, base)
    if owned(level, root):
        if root.payload.views is None:
            root.payload.views = Views()
        root.payload.views.add(view)


def owned(level: Level, value: Any) -> bool:
    """Tell whether a value is a tensor of a level."""
    return isinstance(value, Tensor) and getattr(value.payload, "level", None) is level


def root_of(level: Level, tensor: Tensor) -> Tensor:
    """Give the tensor that owns the memory, as far as the level sees it."""
    while owned(level, tensor) and getattr(tensor, "view_of", None) is not None:
        tensor = tensor.view_of[0]
    return tensor


# -- writes -------------------------------------------------------------------


def write(
    level: Any, op: OpOverload, args: Sequence[Any], is_input: Callable[[Tensor], bool]
) -> Any:
    """Replace the values of what is written, and of all that share its memory.

    Args:
        level: that the call runs at.
        op: the operator; one with a functional twin that is built in writes its first argument.
        args: all its arguments.
        is_input: whether a tensor is an input of the transform.

    Raises:
        AutogradError: the level follows an argument, and the operator has no derivative.
        MutationError: something is written that the level cannot replace; before any change.
        ArgumentError: the result does not fit what is written.
    """
    twin = INPLACE_TWINS.get(op.name())
    if twin is None:
        return _write_unfollowed(level, op, args, is_input)
    target = args[0]
    way = _ready(level, op, target, is_input)
    _put(level, target, way, _fitting(op, target, level.run(twin, args)))
    return target


def _write_unfollowed(
    level: Any, op: OpOverload, args: Sequence[Any], is_input: Callable[[Tensor], bool]
) -> Any:
    """Write with an operator without derivative, where there is none to follow."""
    given = list(tensors_in(tuple(args)))
    if any(map(level.follows, given)):
        _refuse(
            op, f"writes a tensor under {level.kind} that its gradient cannot follow", AutogradError
        )
    forms = result_forms(op._schema)
    if any(kind in {"view", "views", "either"} for kind, _ in forms):
        _refuse(op, f"gives a view under {level.kind} while it writes, which cannot be followed")
    pairs = zip(op._schema.arguments, args, strict=True)
    targets = [t for a, value in pairs if a.is_write for t in tensors_in((value,))]
    ways = [_ready(level, op, target, is_input) for target in targets]
    roots = [id(root_of(level, t)) for t in given]
    if any(roots.count(id(root_of(level, t))) > 1 for t in targets):
        _refuse(op, f"writes memory under {level.kind} that two of its arguments share")
    out = level.run(op.functional, args)
    found = list(out) if len(op.functional._schema.returns) > 1 else [out]
    fresh = iter(found)
    results = [args[i] if kind == "argument" else next(fresh) for kind, i in forms]
    for target, way, new in zip(targets, ways, tensors_in(tuple(fresh)), strict=True):
        _put(level, target, way, _fitting(op, target, new))
    return results[0] if len(results) == 1 else tuple(results) or None


def _ready(
    level: Level, op: OpOverload, target: Tensor, is_input: Callable[[Tensor], bool]
) -> list[Tensor]:
    """Make sure that a tensor can be written, and give the way from it to its base."""
    if not owned(level, target) and not _taken_over(level, target):
        _refuse(op, f"writes a tensor under {level.kind} that its derivative cannot follow")
    root, way = root_of(level, target), _way(target)
    if not owned(level, root):
        _refuse(op, f"writes a view of a tensor from outside of {level.kind}")
    if is_input(root):
        what = "an input" if root is target else "a view of an input"
        _refuse(op, f"writes {what} of {level.kind}")
    for view in way:
        _check_way(level, op, view)
    return way


def _put(level: Level, target: Tensor, way: Sequence[Tensor], new: Tensor) -> None:
    """Give a tensor a new value, and so its base and all living views of it."""
    root = root_of(level, target)
    for view in way:
        base, by, statics = view.view_of
        new = VIEW_INVERSES[by.name()](base, new, *statics)
    _replace(root, laid_out(new, layout_of(root)))
    for view in root.payload.views.living() if root.payload.views else ():
        base, *step = view.view_of
        _replace(view, retaken((step[0], step[1]), base))
    bump(target)


def _taken_over(level: Level, target: Tensor) -> bool:
    """Make a tensor from outside one of the level, with its views."""
    family = borrow(level, target)
    for view in family[1:]:
        _join(level, view.view_of[0], view, view.view_of[1:])
    return bool(family)


def _way(target: Tensor) -> list[Tensor]:
    """Give the views from a tensor to its base, itself first."""
    found = []
    while getattr(target, "view_of", None) is not None:
        found.append(target)
        target = target.view_of[0]
    return found


def _check_way(level: Level, op: OpOverload, view: Tensor) -> None:
    base, by, _ = view.view_of
    if by.name() not in VIEW_INVERSES or by.name() in _CUTS:
        _refuse(op, f"writes through {by.name()} under {level.kind}, which cannot be followed")
    if word().grad and base.keys & GRAD and not view.keys & GRAD:
        _refuse(op, f"writes a view under {level.kind} that was taken under no_grad")


def _fitting(op: OpOverload, target: Tensor, new: Tensor) -> Tensor:
    """Give the new value in the dtype of the written tensor."""
    fits = tuple(new.shape) == tuple(target.shape)
    if not fits or not can_write(new.dtype, target.dtype):
        raise ArgumentError(
            f"the result of {op.name()} cannot be written to its argument",
            op=op._schema, declared=f"{target.dtype}{tuple(target.shape)}",
            seen=f"{new.dtype}{tuple(new.shape)}",
            fix="use the operator that returns a new tensor",
        )  # fmt: skip
    if new.dtype == target.dtype:
        return new
    cast: Tensor = ON_TENSORS["astype"](new, target.dtype)
    return cast


def _replace(tensor: Tensor, new: Tensor) -> None:
    """Give a wrapper the value, and the history, of another one."""
    new.payload.views = tensor.payload.views
    if not word().grad:
        # The history stays what it was, as for a write under no_grad anywhere: below too.
        keep = load("polyop.layers.functionalize.histories:keep")
        below = keep(tensor.payload.value, new.payload.value, tangent=False)
        new.payload.value, tensor.payload = below, new.payload
        return
    tensor.payload = new.payload
    tensor.keys = new.keys
    if new.keys & GRAD:
        tensor.grad_node = new.grad_node


def _refuse(op: OpOverload, problem: str, error: type[PolyopError] = MutationError) -> NoReturn:
    raise error(
        f"{op.name()} {problem}", op=op._schema, source=op.source,
        fix="use the operator that returns a new tensor, or write a copy (.clone())",
    )  # fmt: skip
