"""Built-in operators in PyTorch's graphs: nodes that call them, and what they call below.

A built-in operator is made of functions of the arrays' own library, so there is nothing to define
in PyTorch: Dynamo keeps the call as it stands, and the compilers behind it look into the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import optree
import torch
from torch.fx.immutable_collections import immutable_list

from polyop.bridges.torch.hidden import mark
from polyop.dispatch.entry import WRITTEN
from polyop.dispatch.lock import LOCK
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.dispatch.own_call import CHANGED
from polyop.dispatch.registry import DEFINITIONS
from polyop.tree.containers import NAMESPACE

_in_graph: Any = torch.compiler.allow_in_graph
_register: Any = optree.register_pytree_node
#: By packet: a function that calls it.
_CALLS: WeakKeyDictionary[Any, Callable[..., Any]] = WeakKeyDictionary()


def as_node(one: OpOverload | OpOverloadPacket) -> Callable[..., Any]:
    """Give a function that calls an operator, and that Dynamo keeps as it stands."""
    return _in_graph(as_function(one))  # type: ignore[no-any-return]


def as_function(one: OpOverload | OpOverloadPacket) -> Callable[..., Any]:
    """Give a function that calls an operator, the same one each time."""
    if isinstance(one, OpOverload):
        return one.entry
    if one not in _CALLS:
        back = ref(one)

        def call(*args: Any, **kwargs: Any) -> Any:
            return back()(*args, **kwargs)  # type: ignore[misc]

        call.__name__ = call.__qualname__ = one.__name__
        _CALLS[one] = call
    return _CALLS[one]


def _let_in(one: Any) -> None:
    if isinstance(one, OpOverload) and one.is_builtin and one._entry is not None:
        _in_graph(one._entry)


def _pass_over(op: OpOverload, entry: Any) -> None:
    """Keep Dynamo out of an entry that Python calls: guards on what it looks up would not hold."""
    if op.is_builtin:
        mark(entry.__code__)


def let_in_all() -> None:
    """Let Dynamo keep the functions of built-in operators, those also that are made later."""
    with LOCK:
        CHANGED.append(_let_in)
        WRITTEN.append(_pass_over)
        for definition in list(DEFINITIONS.values()):
            _let_in(definition.op)
            if definition.op._entry is not None:
                _pass_over(definition.op, definition.op._entry)


def _rebuilt(_: Any, items: Sequence[Any]) -> list[Any]:
    return list(items)


# The lists in a graph are of a class of its own.
_register(immutable_list, lambda items: (tuple(items), None), _rebuilt, namespace=NAMESPACE)
