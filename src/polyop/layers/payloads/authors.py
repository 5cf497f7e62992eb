"""Operators of authors over other libraries' arrays, and arrays that callers give as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.bits import INFERENCE, INFERENCE_TENSOR
from polyop.dispatch.body import Form, result_forms
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import Way
from polyop.dispatch.table import Kernel
from polyop.errors import AliasError, ArgumentError, MutationError
from polyop.layers.payloads.answers import no_data
from polyop.layers.payloads.facts import library_in, tensors
from polyop.layers.payloads.handlers import put
from polyop.payloads.api import from_array, to_array
from polyop.payloads.exchange import from_numpy, to_numpy
from polyop.payloads.held import Held, Taken, of_held
from polyop.payloads.libraries import library_of
from polyop.payloads.library import Library
from polyop.payloads.refused import check_argument
from polyop.tensor.storage import bump, share
from polyop.tensor.tensor import Tensor, of_array

COMPOSITE = DispatchKey.CompositeImplicitAutograd


# -- kernels --------------------------------------------------------------------------------


def author_handler(way: Way, key: DispatchKey, kernel: Kernel, run: Handler) -> Handler:
    """Make the handler of an author's NumPy kernel for arrays of other libraries.

    A kernel that is made of operators, or for another device than the CPU, gets them as they are.
    """
    op = way.op
    if key is not DispatchKey.CPU or kernel is op.places.top(COMPOSITE):
        return run
    more = INFERENCE_TENSOR if way.code & INFERENCE else 0
    return partial(_run, op, run, result_forms(op._schema), more)


def _run(op: OpOverload, run: Handler, forms: Sequence[Form], more: int, *args: Any) -> Any:
    library, like = library_in(op, args)
    written = [a.is_write for a in op._schema.arguments]
    given = [_given(op, library, v, w) for v, w in zip(args, written, strict=True)]
    out = run(*given)
    for value, new, writes in zip(args, given, written, strict=True):
        if writes:
            _write_back(op, library, value, new)
    results = [out] if len(forms) == 1 else out or ()
    back = partial(_back, library, like, more)
    pairs = zip(forms, results, strict=True)
    done = [_returned(op, form, one, args, back) for form, one in pairs]
    return done[0] if len(done) == 1 else tuple(done) if done else None


def _given(op: OpOverload, library: Library, value: Any, written: bool) -> Any:
    """Give an argument with NumPy's arrays: what is written is a copy, written back after."""

    def one(t: Any) -> Any:
        if not isinstance(t, Tensor) or t.payload.__class__ is not Held:
            return t
        if not library.is_concrete(t.payload.array):
            no_data(op, library)
        found = to_numpy(t.payload.array)
        return of_array(found.copy() if written else found)

    return tree.map_leaves(one, value)


def _write_back(op: OpOverload, library: Library, value: Any, new: Any) -> None:
    for t, made in zip(tensors(value), tensors(new), strict=True):
        if t.payload.__class__ is Held:
            bump(t)
            put(op, t, from_numpy(library, made.payload, t.payload.array))


def _back(library: Library, like: Any, more: int, t: Any) -> Any:
    """Give a tensor that a kernel made as one over the library."""
    if not isinstance(t, Tensor) or t.payload.__class__ is not np.ndarray:
        return t
    made = of_held(Held(from_numpy(library, t.payload, like), library))
    made.keys |= more
    return made


def _returned(
    op: OpOverload, form: Form, value: Any, args: Sequence[Any], back: Callable[[Any], Any]
) -> Any:
    kind, i = form
    if kind == "argument":
        return args[i]
    if kind == "either":
        refuse_either(op)
    if kind == "view":
        return _linked(op, value, back(value), args, i, None)
    if kind == "views":
        return [_linked(op, t, back(t), args, i, n) for n, t in enumerate(value)]
    return tree.map_leaves(back, value)


def refuse_either(op: OpOverload) -> NoReturn:
    """Refuse a view of one of several arguments that are another library's arrays."""
    raise MutationError(
        f"{op.name()} gives one of several arguments, or a view of it, and of the arrays of "
        "another library nobody knows which",
        op=op._schema,
        source=op.source,
        fix="give the views of each argument by an operator of their own",
    )


def _linked(  # noqa: PLR0917 - what a view is
    op: OpOverload, given: Any, made: Any, args: Sequence[Any], i: int, which: int | None
) -> Any:
    """Tie a declared view to its base; one of other memory is taken again after a write."""
    if getattr(given, "view_of", None) is None or args[i].payload.__class__ is not Held:
        return made
    base: Tensor = args[i]
    held: Held = made.payload
    shown = held.library.view_like(base.payload.array, given.payload)
    made.payload = base.payload.view(
        held.array if shown is None else shown,
        None,
        Taken(base.payload, op, tuple(args), i, which),
    )
    made.version = share(base)
    statics = (*args[:i], *args[i + 1 :])
    made.view_of = (base, op, statics if which is None else (*statics, which))
    return made


# -- arrays as they are -----------------------------------------------------------------------


def call_held(op: OpOverload, values: Sequence[Any]) -> Any:
    """Call an operator with arrays of other libraries; the answer is in kind.

    Raises:
        AliasError: a view is declared that an array of the library cannot be.
        ArgumentError: an array of an unknown library, or one that is written and never can be.
    """
    leaves = tree.leaves(list(values))
    in_kind = not any(isinstance(leaf, Tensor) for leaf in leaves)
    names = [a.name for a in op._schema.arguments]
    given = [
        tree.map_leaves(partial(_taken, op, a), value)
        for a, value in zip(op._schema.arguments, values, strict=True)
    ]
    n = len(op._schema.positional)
    result = op.entry(*given[:n], **dict(zip(names[n:], given[n:], strict=True)))
    return tree.map_leaves(partial(_bare, op), result) if in_kind else result


def _taken(op: OpOverload, argument: Any, value: Any) -> Any:
    if not PARTS.is_array(value):
        return value
    library = library_of(value)
    if library is None and not isinstance(value, np.ndarray):
        raise ArgumentError(
            f"{op.name()} cannot take an array of {type(value).__module__.partition('.')[0]}",
            op=op._schema,
            argument=argument.name,
            seen=type(value).__name__,
            fix="convert it with numpy.asarray or polyop.from_dlpack",
        )
    if argument.is_write and library is not None and not library.writes:
        raise ArgumentError(
            f"{op.name()} writes its argument {argument.name!r}, and arrays of {library.name} "
            "are never written",
            op=op._schema,
            argument=argument.name,
            seen=type(value).__name__,
            fix="wrap it: t = polyop.from_array(x); after the call polyop.to_array(t) is the new "
            "array",
        )
    if library is not None:
        check_argument(op, argument.name, library, value)
    return from_array(value)


def _bare(op: OpOverload, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    held = value.payload
    copied = held.__class__ is Held and held.taken is not None and held.library.writes
    if copied and not op.is_builtin:
        _refuse_copy(op, held.library)
    return to_array(value)


def _refuse_copy(op: OpOverload, library: Library) -> NoReturn:
    raise AliasError(
        f"{op.name()} gives a view that no array of {library.name} is: its memory is another's",
        op=op._schema,
        declared="a view in the memory of the argument",
        seen="strides below zero, another dtype, or an argument that is conjugated when it is read",
        source=op.source,
        fix="wrap the argument with polyop.from_array: its views are taken again after a write",
    )
