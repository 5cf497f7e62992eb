"""The text of an index signature: `(m,n),(n,k)->(m,k)`, read against an operator's schema (S56)."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from polyop.errors import RegistrationError, UsageError
from polyop.schema.model import Argument, FunctionSchema

Group = tuple[str, ...]

_GROUP = r"\(\s*(?:\w+\s*(?:,\s*\w+\s*)*)?\)"
_SIDE = rf"\s*{_GROUP}\s*(?:,\s*{_GROUP}\s*)*"
_WHOLE = re.compile(rf"{_SIDE}->{_SIDE}")


def read_index(
    schema: FunctionSchema, source: object, text: Any
) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """Read the groups of an index signature: one per Tensor argument, one per result.

    Raises:
        UsageError: the text has another form, number of groups, or unknown names.
        RegistrationError: the operator writes its arguments or gives views of them.
    """
    if not isinstance(text, str) or not _WHOLE.fullmatch(text):
        _misused(schema, source, "an index signature is written otherwise", text)
    _check_schema(schema, source, text)
    inputs, outputs = (_groups(side) for side in text.split("->"))
    tensors = sum(map(is_tensor, schema.arguments))
    if (len(inputs), len(outputs)) != (tensors, len(schema.returns)):
        problem = f"there are {tensors} Tensor arguments and {len(schema.returns)} results"
        _misused(schema, source, problem, text)
    known = {name for group in inputs for name in group}
    known |= {a.name for a in schema.arguments if is_size(a)}
    unknown = [n for group in outputs for n in group if n not in known and not n.isdigit()]
    if unknown:
        _misused(schema, source, f"no argument says how large {unknown[0]!r} is", text)
    return inputs, outputs


def is_tensor(argument: Argument) -> bool:
    """Tell whether an argument is one Tensor."""
    return str(argument.type) == "Tensor"


def is_size(argument: Argument) -> bool:
    """Tell whether an argument is one int, which may be a size."""
    return str(argument.type) in {"int", "SymInt"}


def _groups(side: str) -> tuple[Group, ...]:
    return tuple(tuple(re.findall(r"\w+", group)) for group in re.findall(_GROUP, side))


def _check_schema(schema: FunctionSchema, source: object, text: Any) -> None:
    if schema.is_mutable or any(r.alias_info is not None for r in schema.returns):
        raise RegistrationError(
            f"{schema.qualified_name} writes its arguments or gives views, "
            "so axes alone do not describe it",
            op=schema,
            source=source,
            fix="register the rules themselves: register_fake, register_vmap",
        )
    if not _single(schema):
        _misused(schema, source, "an index signature describes single Tensors only", text)


def _single(schema: FunctionSchema) -> bool:
    """Tell whether each argument with Tensors is one Tensor, and each result too."""
    given = [a for a in schema.arguments if "Tensor" in str(a.type)]
    return all(map(is_tensor, [*given, *schema.returns]))


def _misused(schema: FunctionSchema, source: object, problem: str, text: Any) -> NoReturn:
    example = example_of(schema)
    fix = f"write one group per Tensor argument and result, as in {example!r}"
    raise UsageError(
        problem,
        op=schema,
        seen=f"{text!r:.120}",
        source=source,
        fix=fix if example else "register the rules themselves: register_fake, register_vmap",
    )


def example_of(schema: FunctionSchema) -> str:
    """Write a signature with as many groups as an operator needs; nothing if it can have none."""
    tensors = sum(map(is_tensor, schema.arguments))
    if not tensors or not schema.returns or schema.is_mutable or not _single(schema):
        return ""
    return f"{','.join(['(k)'] * tensors)}->{','.join(['()'] * len(schema.returns))}"
