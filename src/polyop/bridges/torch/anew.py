"""What PyTorch has compiled is compiled anew after a rule of one of its operators has changed.

NOTE [Emptied while others call]
PyTorch's reset takes compiled code away under the feet of threads that are about to run it, and
the process with it. So code is marked as not valid any more, as PyTorch does where an object is
gone that the code relies on, and passed over from then on; it is taken away only where nobody is
in compiled code. The names of all this are not promised; where one is gone, all is reset if
nobody runs compiled code, and else the user is told to.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch

from polyop.bridges.anew import Compiled, is_anyone_in, paths
from polyop.bridges.torch import caches
from polyop.bridges.torch.agreed import traced
from polyop.dispatch.operator import OpOverload
from polyop.errors import PolyopWarning
from polyop.lazy import load
from polyop.warn import warn_once

#: The compilations that each operator was part of.
_COMPILATIONS: WeakKeyDictionary[OpOverload, set[Any]] = WeakKeyDictionary()
#: What runs while PyTorch compiles, and while compiled code is looked up or runs.
_COMPILING = ("torch/_dynamo/convert_frame.py",)
_RUNNING = paths(("torch/_dynamo/eval_frame.py",))
_REASON = "a rule of an operator has changed"
_compilation: Callable[[], Any] = getattr(
    getattr(getattr(torch, "_guards", None), "CompileContext", None),
    "current_compile_id",
    lambda: None,
)


def met(op: OpOverload) -> None:
    """Say that PyTorch asks an operator's fake rule."""
    traced(op)
    compilation = _compilation()
    if compilation is not None:
        _COMPILATIONS.setdefault(op, set()).add(compilation)
        COMPILED.holds(op)


class Names:
    """Names of Dynamo that it does not promise."""

    def __init__(self) -> None:
        inner = "torch._C._dynamo.eval_frame"
        self.codes: Any = load("torch._dynamo.convert_frame:input_codes")
        self.entries: Any = load(f"{inner}:_debug_get_cache_entry_list")
        self.take_away: Any = load(f"{inner}:reset_code")
        self.invalid: Any = load("torch._dynamo.guards:DeletedGuardManagerWrapper")

    def valid(self) -> Iterator[tuple[Any, Any]]:
        """Give all compiled code that may run, each with the code that it was made of."""
        for code in self.known():
            for entry in self.entries(code):
                if not isinstance(entry.guard_manager, self.invalid):
                    yield code, entry

    def known(self) -> list[Any]:
        """Give all code that was compiled."""
        found = [reference() for reference in list(self.codes.seen)]
        return [code for code in found if code is not None]

    def mark(self, entry: Any) -> None:
        """Let compiled code not run any more."""
        guards = self.invalid(_REASON)
        # Made for an object that is no argument of any call, it does not count for the limit of
        # compilations of one function.
        guards.id_matched_objs = {"": weakref.ref(Names)}
        entry.guard_manager.extra_state.invalidate(entry, guards)


def _empty(op: OpOverload) -> None:
    caches.renew(op)
    gone = _COMPILATIONS.get(op, set())
    marked = {}
    try:
        names = Names()
        for code, entry in list(names.valid()):
            if entry.compile_id in gone:
                names.mark(entry)
                marked[id(code)] = code
    except (AttributeError, ImportError, TypeError):
        _reset(op)
        return
    for code in marked.values():
        if not is_anyone_in(_RUNNING):
            names.take_away(code)


def _reset(op: OpOverload) -> None:
    if not is_anyone_in(_RUNNING + paths(_COMPILING)):
        torch.compiler.reset()
        return
    warn_once(
        PolyopWarning,
        f"a rule of {op.name()} has changed, and what PyTorch compiled holds the former one; "
        "call torch.compiler.reset() when no compiled code runs",
        key="torch reset",
    )


COMPILED = Compiled("PyTorch", _empty, _COMPILING)
