"""Results of custom operators in compiled code are checked for undeclared aliasing (S175).

An eager call raises. A program that runs for the hundredth time rather warns,
once, and gives back a copy, which is what the schema declares; an option makes
it raise as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import UsageTypeError
from polyop.graph import GraphModule

CHECK, RAISE = "check_custom_op_aliasing", "error_on_custom_op_aliasing"
#: The options of `compile`, with what holds without them.
OPTIONS = {CHECK: True, RAISE: False}


def policy_of(options: dict[str, Any]) -> str:
    """Give what becomes of undeclared aliasing: `"refuse"`, `"copy"` or `"ignore"`.

    Raises:
        UsageTypeError: an option is no bool.
    """
    found = {name: options.get(name, default) for name, default in OPTIONS.items()}
    for name, value in found.items():
        if not isinstance(value, bool):
            raise UsageTypeError(f"the option {name!r} is True or False", seen=repr(value))
    if found[RAISE]:
        return "refuse"
    return "copy" if found[CHECK] else "ignore"


def checked(module: GraphModule, run: Callable[..., Any], policy: str) -> Callable[..., Any]:
    """Let the program of a graph run under a policy, if it calls operators that need one."""
    if policy == "refuse" or not any(_is_custom(node.target) for node in module.graph.nodes):
        return run

    def under(*inputs: Any) -> Any:
        return run_under(word().with_aliasing(policy), run, *inputs)

    return under


def _is_custom(target: Any) -> bool:
    return isinstance(target, OpOverload) and not target.is_builtin
