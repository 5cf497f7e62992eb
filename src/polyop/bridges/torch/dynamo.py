"""What Dynamo sees in the place of an operator's entry: a call of the operator in PyTorch.

An entry is written for speed and asks the context who acts; a compiler that reads Python could not
follow it, and needs not: in a compiled region nobody of ours acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from polyop.bridges import calls
from polyop.bridges.torch.arrays import torch_values
from polyop.bridges.torch.bridge import Bridge, bridge_of, bridges, finished
from polyop.bridges.torch.caches import tag_caches
from polyop.bridges.torch.fake import Fake
from polyop.bridges.torch.hidden import hide_all
from polyop.bridges.torch.kernel import Kernel
from polyop.bridges.torch.watch import QUICK
from polyop.bridges.torch.written import is_writable
from polyop.dispatch.namespaces import ops
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.own_call import first_call, forward_always
from polyop.errors import PolyopError
from polyop.schema.model import MISSING

forward_always()
hide_all()
_untraced: Any = torch.compiler.disable
# Where Dynamo has given up on a call, Python runs it, and Dynamo looks at each function that is
# called then: NumPy kernels it would compile, and what is ours it cannot.
for _place, _name in ((calls, "call_foreign"), (Kernel, "__call__"), (Fake, "__call__")):
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
    torch.compiler.substitute_in_graph(op.entry, skip_signature_check=True)(traced)
    getattr(getattr(ops, op.namespace), op._schema.short_name)  # the first look-up takes a lock


def _now(op: OpOverload) -> bool:
    substitute(op)
    tag()
    return True


#: Runs while the graph is made, and is no part of it.
_constant: Any = torch.compiler.assume_constant_result
_make_known = _constant(_now)


def _traced(bridge: Bridge) -> Callable[..., Any]:
    """Write the function, with the arguments of the operator."""
    schema = bridge.op._schema
    scope = {"run": _run, "bridge": bridge, "target": bridge.target, "levels": QUICK.levels}
    words: list[str] = []
    for i, argument in enumerate(schema.arguments):
        if argument.kwarg_only and "*" not in words:
            words.append("*")
        has = argument.default_value is not MISSING
        scope[f"d{i}"] = argument.default_value
        words.append(f"{argument.name}=d{i}" if has else argument.name)
    names = "".join(f"{a.name}, " for a in schema.arguments)
    plain = [f"if levels._current_level < 0: return target({names})"] if _is_quick(bridge) else []
    lines = [f"def traced({', '.join(words)}):", *plain, f"return run(bridge, ({names}))"]
    text = "\n    ".join(lines)
    exec(text, scope)  # noqa: S102 - names of a parsed schema
    made: Callable[..., Any] = scope["traced"]
    return made


def _is_quick(bridge: Bridge) -> bool:
    """Tell whether a call is one of PyTorch's operator as it stands, where no dual exists.

    Each thing that is looked at is looked at again whenever the compiled code is called.
    """
    same = all(p.given is None for p in bridge.plan.places)
    written = bridge.op._schema.is_mutable or not is_writable(bridge.plan)
    return same and not written and QUICK.levels is not None


def _run(bridge: Bridge, values: Sequence[Any]) -> Any:
    return finished(bridge, values, bridge.invoke(torch_values(bridge.plan, values)))
