"""The function that callers reach, written once from the schema.

An entry binds the arguments, ORs their codes with the context's, and then
either runs the kernel itself (one plain backend, nothing active) or calls the
handler that is remembered for the code. Anything rare goes to `bind.slow`:
keywords for positional arguments, other arrays, numbers, and every error.

When rules change, the entry is rewritten in place: its code is swapped, so
that references which callers hold stay good. The kernel is a constant of the
code, so a call that is under way keeps the kernel that it began with, however
often rules change meanwhile. (As a global it could be gone when it is read.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import CodeType, FunctionType
from typing import Any, NoReturn

from polyop.dispatch.bind import convert_argument, keys_in, payloads_in, refuse_beyond_dtype, slow
from polyop.dispatch.bits import (
    BELOW,
    GRAD,
    INFERENCE,
    INFERENCE_TENSOR,
    LEVELS,
    NO_GRAD,
    NUMPY,
    OTHER,
    SUBCLASS,
    TENSOR_BITS,
    WRAPPED,
)
from polyop.dispatch.body import payload_body, result_forms, tensor_body
from polyop.dispatch.by_name import by_name_text
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.lock import LOCK
from polyop.dispatch.objects import object_code
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.parts import PARTS
from polyop.dispatch.resolve import DENSE, Way, resolve, way_of
from polyop.dispatch.results import answer_of, results, step_results, tensors_in
from polyop.dispatch.table import Kernel
from polyop.dispatch.trees import class_of, copies_text, readers_of, reads_text
from polyop.dispatch.write import (
    BUILTINS,
    KERNEL,
    PLAIN,
    Shape,
    base_scope,
    call_text,
    checks_text,
    indent,
    keys_text,
    make_function,
    renamed,
    shape_of,
    spelled_tuple,
)
from polyop.errors import MissingKernelError
from polyop.records import NamedTuple
from polyop.schema.model import MISSING, Argument


def make_entry(op: OpOverload) -> Handler:
    """Make the entry of an operator; its code is written when it is first called.

    Compiling takes longer than all else that a definition does, and most
    operators of a library are never called in a process.
    """
    name, form = op._opname, _form(op)
    scope = {"__builtins__": BUILTINS, "first": _first, "op": op}
    code = form.code.replace(co_name=name, co_qualname=name)
    fn = FunctionType(code, scope, name, form.defaults)
    if form.keyword_defaults:
        fn.__kwdefaults__ = {**form.keyword_defaults}
    fn.__module__ = op.__module__
    fn.__dict__["op"] = op
    _tell(op, fn)
    return fn


#: Who is told of each entry that gets code.
WRITTEN: list[Callable[[OpOverload, Any], None]] = []


def _tell(op: OpOverload, entry: Any) -> None:
    for tell in WRITTEN:
        tell(op, entry)


class Form(NamedTuple):
    """What the first entries of all operators with the same arguments have in common."""

    arguments: tuple[Argument, ...]
    code: CodeType
    defaults: tuple[Any, ...]
    keyword_defaults: dict[str, Any]


#: Of built-in operators, by identity of the arguments, which most of them share: comparing them
#: takes longer than this saves. Under the lock.
_FORMS: dict[int, Form] = {}


def _form(op: OpOverload) -> Form:
    if not op.is_builtin:  # it may go, and nothing of it is to stay
        return _make_form(op)
    key = id(op._schema.arguments)
    found = _FORMS.get(key)
    if found is None:
        found = _FORMS[key] = _make_form(op)
    return found


def _make_form(op: OpOverload) -> Form:
    arguments, n = op._schema.arguments, len(op._schema.positional)
    given = [f"a{i}" for i in range(len(arguments))]
    text = (
        f"def f({_parameters(op, given, n)}): "
        f"return first(op, {spelled_tuple(given[:n])}, {spelled_tuple(given[n:])}{_surplus(op)})"
    )
    names = [a.name for a in arguments]
    values = [a.default_value for a in arguments]  # `MISSING` where there is none
    if not op.is_builtin:  # the entry tells what was not given from what is the default
        values[:n] = [MISSING] * n
    code = renamed(text, "f", names)
    return Form(arguments, code, tuple(values[:n]), dict(zip(names[n:], values[n:], strict=True)))


def _first(
    op: OpOverload, args: Any, keyword_only: Any, rest: Any = (), named: Any = MISSING
) -> Any:
    """Write the code of an entry that is called for the first time, and call it again."""
    write_entry(op)
    keywords = [a.name for a in op._schema.keyword_only]
    if named is MISSING:
        return op.entry(*args, **dict(zip(keywords, keyword_only, strict=True)))
    # Arguments that were left out, or given by name, still have `MISSING` in their place.
    while args and args[-1] is MISSING:
        args = args[:-1]
    given = dict(zip(keywords, keyword_only, strict=True)) | named
    return op.entry(*args, *rest, **{k: v for k, v in given.items() if v is not MISSING})


def write_entry(op: OpOverload) -> None:
    """Write the code of an entry, be it called or not."""
    with LOCK:
        op.entry.__globals__.update(scope_of(op))
        op.written = True
        rewrite_entry(op, op.entry)


def _surplus(op: OpOverload) -> str:
    return "" if op.is_builtin else ", _rest, _named"


def rewrite_entry(op: OpOverload, entry: Any) -> None:
    """Write the entry anew, in place, if it was ever called."""
    if not op.written:
        return
    text, constants = _text(op, shape_of(op._schema))
    names = [a.name for a in op._schema.arguments]
    entry.__code__ = renamed(text, entry.__name__, names, constants)
    _tell(op, entry)


#: Codes on which nobody may act, besides 1: no grad mode, values inside a transform, a
#: mode's handler.
CANDIDATES = (
    NUMPY | NO_GRAD, NUMPY | GRAD | NO_GRAD, NUMPY | LEVELS, NUMPY | LEVELS | NO_GRAD,
    NUMPY | GRAD | LEVELS | NO_GRAD, NUMPY | BELOW,
)  # fmt: skip


def plain_codes(op: OpOverload, kernel: Kernel) -> frozenset[int]:
    """Give the codes, besides 1, of calls that the entry does itself: the kernel acts first."""
    return frozenset(code for code in CANDIDATES if first_kernel(op, code) is kernel)


def first_kernel(op: OpOverload, code: int) -> Kernel | None:
    """Give the kernel of a call on which no layer acts, else None."""
    way = way_of(op, code)
    for i, (_, step) in enumerate(way.steps):
        if isinstance(step, Kernel):
            return step
        if step.handler(Way(op, code, way.keys, way.steps[i + 1 :])) is not None:
            return None
    return None


def scope_of(op: OpOverload, **more: Any) -> dict[str, Any]:
    """Give the globals of an operator's generated functions."""
    return base_scope(
        op,
        memo=op.memo,
        notes=op.notes,
        resolve=resolve,
        slow=slow,
        beyond=refuse_beyond_dtype,
        convert=convert_argument,
        results=results,
        keys_in=keys_in,
        payloads_in=payloads_in,
        object_code=object_code,
        wrap=wrap,
        wrap_views=wrap_views,
        **readers_of(op._schema),
        **{f"record{i}": class_of(r.type) for i, r in enumerate(op._schema.returns)},
        **more,
    )


def wrap(payload: Any, keys: int) -> Any:
    """Make a tensor of a bare array; a meta becomes a tensor on the device `meta`."""
    if payload.__class__ is PARTS.Meta:
        made = PARTS.of_meta(payload)
        made.keys |= keys & INFERENCE_TENSOR
        return made
    t = PARTS.Tensor()
    t.payload = payload if payload.__class__ is PARTS.ndarray else PARTS.asarray(payload)
    t.keys = keys
    t.version = 0
    return t


def wrap_views(base: Any, payloads: Any, keys: int, op: OpOverload, statics: Any) -> list[Any]:
    """Make tensors of several views of one base."""
    made = []
    for i, payload in enumerate(payloads):
        t = wrap(payload, keys)
        t.version = PARTS.share(base)
        t.view_of = (base, op, (*statics, i))
        made.append(t)
    return made


# -- the text -----------------------------------------------------------------


def _text(op: OpOverload, shape: Shape) -> tuple[str, dict[str, Any]]:
    """Give an entry's text, and its constants: the kernel that it runs itself, and when."""
    kernel = fused_kernel(op, trees=True) if op.alive else None
    lines = [] if kernel is None else [f"kernel = {KERNEL!r}", *_body(op, shape, kernel, 1)]
    # Without grad mode nothing is recorded either, whatever requires grad.
    body = [f"if _k == 1 or _k in {PLAIN!r}:", *indent(lines)] if lines else []
    given = spelled_tuple(shape.names)
    rest, named = ("()", "{}") if op.is_builtin else ("_rest", "_named")
    by_name, constants = ([], {}) if op.is_builtin else by_name_text(op, given)
    # What goes wrong later is raised outside of any `except`, so that a user's
    # traceback does not begin with how the entry found out.
    found = [
        *checks_text(shape, read=True),
        *body,
        "try: _h = memo[_k]",
        "except KeyError: _h = None",
        "if _h is None: _h = resolve(op, _k)",
        f"return _h({', '.join(shape.names)})",
    ]
    # A tensor and a number: an AttributeError takes longer than all else of such a call.
    mixed = op.is_builtin and shape.kinds == ("tensor", "tensor")
    lines = [
        *by_name,
        *(["if a0.__class__ is not a1.__class__:", *indent(_noted_text(shape))] if mixed else []),
        "try:",
        *indent([*copies_text(shape), *reads_text(shape), *keys_text(shape)]),
        *[f"    _k |= object_code(a{i})" for i in op.objects],
        "except (AttributeError, TypeError): pass",
        "else:",
        *indent(found),
        *_noted_text(shape),
        f"return slow(op, {given}, {rest}, {named})",
    ]
    if kernel is not None:
        constants |= {KERNEL: kernel.fn, PLAIN: plain_codes(op, kernel)}
    head = f"def f({_parameters(op, shape.names, shape.positional)}):"
    return "\n".join([head, *indent(lines)]), constants


def _noted_text(shape: Shape) -> list[str]:
    """Lines that make the call as it is noted for values of these classes."""
    classes = spelled_tuple([f"{a}.__class__" for a in shape.names])
    return [f"_h = notes.get({classes})", f"if _h is not None: return _h({', '.join(shape.names)})"]


def _parameters(op: OpOverload, names: Sequence[str], n: int) -> str:
    """Spell the parameters, the first `n` of them positional.

    An author's operator takes whatever comes, so that each mistake gets an
    error of ours; the built-in functions are plain Python functions.
    """
    before, after = names[:n], names[n:]
    if op.is_builtin:
        return ", ".join([*before, *(["*", *after] if after else [])])
    mark = ["/"] if before else []
    return ", ".join([*before, *mark, "*_rest", *after, "**_named"])


def fused_kernel(op: OpOverload, *, trees: bool = False) -> Kernel | None:
    """Give the kernel of a plain call, if nobody else acts on it.

    Calls without tensors always take the way of the memo, and so do those whose
    tensors hide in trees, unless `trees` says that these are read.
    """
    kinds = shape_of(op._schema).kinds
    if not any(kind.startswith("tensor") or (trees and kind == "tree") for kind in kinds):
        return None
    kernel = first_kernel(op, NUMPY)
    if kernel is None or kernel.fn is None or kernel.with_keyset or kernel.takes_op:
        return None
    return kernel


def _body(
    op: OpOverload, shape: Shape, kernel: Kernel, keys: int, *, guarded: bool = False
) -> list[str]:
    forms = result_forms(op._schema)
    if kernel.payload:
        return payload_body(shape, forms, op.tags, keys)
    return tensor_body(shape, forms, guarded=guarded)


# -- handlers of kernels ------------------------------------------------------


def kernel_handler(way: Way, key: DispatchKey, kernel: Kernel) -> Handler:
    """Make the handler that runs a kernel."""
    op, shape = way.op, shape_of(way.op._schema)
    scope = scope_of(op, kernel=kernel.fn, checked=answer_of if kernel.takes_op else step_results)
    names = [a.name for a in op._schema.arguments]
    if kernel.with_keyset or kernel.takes_op:
        scope["kernel"] = _with_first(kernel, way)
    if key not in BACKEND_KEYS and not kernel.payload:
        lines = [
            f"return checked(op, {call_text(shape, payloads=False)}, {spelled_tuple(shape.names)})"
        ]
    elif kernel.payload and not _is_numpy(way.code) and not _exchanges(way):
        refuse: Handler = PARTS.no_backend(op, way.code)
        return refuse
    else:
        keys = NUMPY | (INFERENCE_TENSOR if way.code & INFERENCE else 0)
        guarded = bool(way.acted or way.code & GRAD)
        lines = [*reads_text(shape), *_body(op, shape, kernel, keys, guarded=guarded)]
    text = "\n".join([f"def f({', '.join(shape.names)}):", *indent(lines)])
    made = make_function(text, scope, op._opname, names)
    composite = kernel is op.places.top(DispatchKey.CompositeImplicitAutograd)
    bits = OTHER | WRAPPED if composite else OTHER if key in BACKEND_KEYS else 0
    if way.code & bits and not kernel.takes_op:
        made = PARTS.author_handler(way, key, kernel, made)
    return _on_arrays(way, made) if kernel.payload and way.code & SUBCLASS else made


def _on_arrays(way: Way, run: Handler) -> Handler:
    """Refuse wrappers, which have no data; other tensors of subclasses do."""

    def checked(*values: Any) -> Any:
        for t in tensors_in(values):
            if t.payload.__class__ is not PARTS.ndarray:
                _no_data(way.op, t)
        return run(*values)

    return checked


def _no_data(op: OpOverload, tensor: Any) -> NoReturn:
    raise MissingKernelError(
        f"{op.name()} reached its kernel with a {type(tensor).__name__}, which has no data",
        op=op._schema,
        seen=repr(tensor),
        source=op.source,
        fix="call it on the tensors inside, or outside of no_dispatch()",
    )


def _is_numpy(code: int) -> bool:
    return not code & TENSOR_BITS & ~(NUMPY | GRAD | INFERENCE_TENSOR | SUBCLASS)


def _exchanges(way: Way) -> bool:
    """Tell whether an author's kernel gets other libraries' arrays as NumPy's."""
    return bool(way.code & OTHER) and not way.op.is_builtin


def _with_first(kernel: Kernel, way: Way) -> Handler:
    """Give a kernel the key set, and the operator, that it asked for."""
    fn = kernel.fn
    assert fn is not None
    first = (way.keys,) if kernel.with_keyset else ()
    return partial(fn, *first, *((way.op,) if kernel.takes_op else ()))


#: Where a kernel computes; elsewhere it is a step on the way.
BACKEND_KEYS = frozenset(DENSE) | {DispatchKey.Undefined}

PARTS.make_entry = make_entry
PARTS.rewrite_entry = rewrite_entry
PARTS.kernel_handler = kernel_handler
__all__: Sequence[str] = ["fused_kernel", "make_entry", "rewrite_entry", "scope_of"]
