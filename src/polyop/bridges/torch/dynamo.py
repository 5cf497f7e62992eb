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
from polyop.bridges.torch.bridge import Bridge, bridge_of, finished
from polyop.bridges.torch.fake import Fake
from polyop.bridges.torch.kernel import Kernel
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.own_call import forward_always, quicken
from polyop.errors import PolyopError
from polyop.schema.model import MISSING

forward_always()
_untraced: Any = torch.compiler.disable
# Where Dynamo has given up on a call, Python runs it, and Dynamo looks at each function that is
# called then: NumPy kernels it would compile, and what is ours it cannot.
for _place, _name in ((calls, "call_foreign"), (Kernel, "__call__"), (Fake, "__call__")):
    setattr(_place, _name, _untraced(getattr(_place, _name)))


@torch.compiler.substitute_in_graph(quicken, skip_signature_check=True)
def _stay(caller: Any, base: type, entry: Callable[..., Any]) -> None:
    """Leave an object as it is."""


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


def _traced(bridge: Bridge) -> Callable[..., Any]:
    """Write the function, with the arguments of the operator."""
    schema, scope = bridge.op._schema, {"run": _run, "bridge": bridge}
    words: list[str] = []
    for i, argument in enumerate(schema.arguments):
        if argument.kwarg_only and "*" not in words:
            words.append("*")
        has = argument.default_value is not MISSING
        scope[f"d{i}"] = argument.default_value
        words.append(f"{argument.name}=d{i}" if has else argument.name)
    names = "".join(f"{a.name}, " for a in schema.arguments)
    text = f"def traced({', '.join(words)}):\n    return run(bridge, ({names}))"
    exec(text, scope)  # noqa: S102 - names of a parsed schema
    made: Callable[..., Any] = scope["traced"]  # type: ignore[assignment]
    return made


def _run(bridge: Bridge, values: Sequence[Any]) -> Any:
    return finished(bridge, values, bridge.invoke(torch_values(bridge.plan, values)))
