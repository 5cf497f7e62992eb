"""What Dynamo sees in the place of an operator's entry: a call of the operator in PyTorch.

An entry is written for speed and asks the context who acts; a compiler that reads Python could not
follow it, and needs not: in a compiled region nobody of ours acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import signature
from keyword import iskeyword
from typing import Any

import torch

from polyop.bridges import calls
from polyop.bridges.torch.arrays import torch_values
from polyop.bridges.torch.bridge import Bridge, bridge_of, bridges, cast_all, finished
from polyop.bridges.torch.caches import tag_caches
from polyop.bridges.torch.fake import Fake
from polyop.bridges.torch.hidden import hide_all, mark
from polyop.bridges.torch.kernel import Kernel
from polyop.bridges.torch.nodes import as_function, as_node, let_in_all
from polyop.bridges.torch.objects import Asked, tell
from polyop.bridges.torch.parts import Parts
from polyop.bridges.torch.schema import torch_dtype
from polyop.bridges.torch.watch import QUICK
from polyop.bridges.torch.written import is_writable
from polyop.dispatch.bind import bind
from polyop.dispatch.custom_op import CustomOpDef
from polyop.dispatch.entry import write_entry
from polyop.dispatch.namespaces import ops
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.own_call import first_call, forward_always
from polyop.dispatch.parts import PARTS
from polyop.errors import ArgumentError, AutogradError, PolyopError
from polyop.schema.model import MISSING

hide_all()
_untraced: Any = torch.compiler.disable
# Where Dynamo has given up on a call, Python runs it, and Dynamo looks at each function that is
# called then: NumPy kernels it would compile, and what is ours it cannot.
for _place, _name in (
    (calls, "call_foreign"),
    (Kernel, "__call__"),
    (Fake, "__call__"),
    (Parts, "__call__"),
):
    setattr(_place, _name, _untraced(getattr(_place, _name)))


@torch.compiler.substitute_in_graph(first_call, skip_signature_check=True)
def _known(caller: Any, base: type, op: OpOverload) -> Callable[..., Any]:
    """Make an operator known that a trace meets first; the object stays as it is."""
    _make_known(op)
    return op.entry


def tag() -> None:
    """Let PyTorch's caches on disk know the rules of all operators that it knows."""
    tag_caches([bridge.op for bridge in bridges()])


def substitute(op: OpOverload) -> None:
    """Let Dynamo put a call of PyTorch's operator in the place of an entry."""
    try:
        bridge = bridge_of(op)
    except PolyopError:
        return  # the entry raises it when it is called
    if "traced" in op.entry.__dict__:
        return  # an operator that was defined again
    op.entry.__dict__["traced"] = traced = _traced(bridge)
    if _is_quick(bridge):
        op.entry.__dict__["plain"] = _plain(bridge)
    torch.compiler.substitute_in_graph(op.entry, skip_signature_check=True)(traced)
    getattr(getattr(ops, op.namespace), op._schema.short_name)  # the first look-up takes a lock


def _now(op: OpOverload) -> bool:
    substitute(op)
    tag()
    return True


#: Runs while the graph is made, and is no part of it.
_constant: Any = torch.compiler.assume_constant_result
_make_known = _constant(_now)


def read(asked: Asked) -> Callable[..., Any]:
    """Give the function that Dynamo reads in the place of a call.

    Where PyTorch cannot have the operator, or the call is wrong, Python calls it; a graph that
    must be whole says why it is not.
    """
    if asked.one.namespace == "core":
        return as_node(asked.one)
    try:
        op = _chosen(asked)
        bridge_of(op)
        _now(op)
        _check(op, asked)
    except PolyopError as error:
        if isinstance(asked.one, OpOverload) and not asked.one.written:
            write_entry(asked.one)
        call = as_function(asked.one)
        mark(call.__code__)
        return _untraced(call, reason=str(error))  # type: ignore[no-any-return]
    known: dict[str, Callable[..., Any]] = op.entry.__dict__
    return known["plain"] if "plain" in known and _is_bare(op) else known["traced"]


def _chosen(asked: Asked) -> OpOverload:
    """Give the operator that a call reaches.

    Raises:
        ArgumentError: none takes these arguments.
        OperatorGoneError: it was removed.
    """
    one = asked.one
    found = [one] if isinstance(one, OpOverload) else one.op_overloads()
    if not found or not found[0].alive:
        one.gone()
    if len(found) > 1:
        args, kwargs = asked.values()
        for op in found:
            with suppress(ArgumentError):
                bind(op, args, kwargs)
                return op
        PARTS.call_packet(one, args, kwargs)
    return found[0]


def _check(op: OpOverload, asked: Asked) -> None:
    """Refuse arguments that do not fit, and tangents that Dynamo does not see."""
    try:
        signature(op.entry.__dict__["traced"]).bind(*asked.args, **asked.kwargs)
    except TypeError:
        bind(op, *asked.values())
    if _has_keywords(op):  # the function takes any names
        bind(op, *asked.values())
    if asked.outside:
        raise AutogradError(
            f"{op.name()} is compiled where dual numbers exist, and their tangents are not seen",
            op=op._schema,
            fix="compile without fullgraph, or compute tangents outside of what is compiled",
        )


def _traced(bridge: Bridge) -> Callable[..., Any]:
    """Write the function, with the arguments of the operator."""
    # Names that no argument has.
    scope = {"__run": _run, "__bridge": bridge, "__target": bridge.target}
    scope |= {"__levels": QUICK.levels, "__bare": _constant(lambda: _is_bare(bridge.op))}
    head, names = _head(bridge, scope)
    # What is read is guarded, but once in a program, where transforms begin and end.
    plain = f"if __levels._current_level < 0 and __bare(): return __target({names})"
    lines = [head, *([plain] if _is_quick(bridge) else []), f"return __run(__bridge, ({names}))"]
    exec("\n    ".join(lines), scope)  # noqa: S102 - names of a parsed schema
    made: Callable[..., Any] = scope["traced"]
    return made


def _plain(bridge: Bridge) -> Callable[..., Any]:
    """Write the function for where it is PyTorch's operator: nothing that it reads is guarded."""
    scope: dict[str, Any] = {}
    head, names = _head(bridge, scope)
    lines = ["def make(__target):", f"    {head} return __target({names})", "    return traced"]
    exec("\n".join(lines), scope)  # noqa: S102 - names of a parsed schema
    made: Callable[..., Any] = scope["make"](bridge.target)
    return made


def _head(bridge: Bridge, scope: dict[str, Any]) -> tuple[str, str]:
    """Give the first line of the function, and its arguments; defaults go into the scope."""
    words: list[str] = []
    values: list[str] = []
    for i, argument in enumerate(bridge.op._schema.arguments):
        name, default = argument.name, f"d{i}"
        has = argument.default_value is not MISSING
        scope[default] = argument.default_value
        if iskeyword(name) and argument.kwarg_only:  # Python has no parameter of this name
            values.append(f"__more.get({name!r}, {default})" if has else f"__more[{name!r}]")
            continue
        if argument.kwarg_only and "*" not in words:
            words.append("*")
        word = f"{name}_" if iskeyword(name) else name
        words.append(f"{word}={default}" if has else word)
        values.append(f"__more.get({name!r}, {word})" if iskeyword(name) else name)
    words += ["**__more"] if _has_keywords(bridge.op) else []
    return f"def traced({', '.join(words)}):", "".join(f"{value}, " for value in values)


def _has_keywords(op: OpOverload) -> bool:
    """Tell whether an argument has a name that Python keeps for itself."""
    return any(iskeyword(a.name) for a in op._schema.arguments)


def _is_quick(bridge: Bridge) -> bool:
    """Tell whether a call is one of PyTorch's operator as it stands, if it is bare."""
    same = all(p.given is None for p in bridge.plan.places)
    written = bridge.op._schema.is_mutable or not is_writable(bridge.plan)
    return same and not written and QUICK.levels is not None


def _is_bare(op: OpOverload) -> bool:
    """Tell whether no dual exists, and autocast leaves an operator alone."""
    return QUICK.levels._current_level < 0 and not any(s.startswith("autocast") for s in op.slots())


def _run(bridge: Bridge, values: Sequence[Any]) -> Any:
    given = torch_values(bridge.plan, values)
    for kind, dtype in _casts(bridge):
        if torch.is_autocast_enabled(kind):
            given = cast_all(bridge.plan, dtype, kind, given)
    return finished(bridge, given, bridge.invoke(given))


@_constant  # type: ignore[untyped-decorator]
def _casts(bridge: Bridge) -> tuple[tuple[str, torch.dtype], ...]:
    """Give the author's autocast rules, by kinds of devices."""
    rules = [(kind, bridge.op.rule(f"autocast:{kind}")) for kind in ("cpu", "cuda")]
    return tuple((kind, torch_dtype(rule)) for kind, rule in rules if rule is not None)


let_in_all()
#: Why objects of operators forward from now on; nothing if Dynamo knows them.
hindrance = tell(read)
if hindrance:
    forward_always()
else:
    for _cls in (CustomOpDef, OpOverload, OpOverloadPacket):
        mark(_cls.__call__.__code__)
