"""Typed stubs of operators: what type checkers and editors may know of `polyop.ops`.

`polyop.ops` finds operators when the program runs, so that nothing can be known of their arguments
before. A stub says it: one file for each namespace, written from the schemas. It belongs to a
module of that name which hands the operators on, and which is written beside it.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from polyop.checking.find import is_twin
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import DEFINITIONS, PACKETS
from polyop.errors import UsageError
from polyop.schema.model import Argument, FunctionSchema
from polyop.schema.types import (
    ClassType,
    DictType,
    ListType,
    LiteralType,
    OptionalType,
    TupleType,
    Type,
    UnionType,
    holds_tensor,
)

TENSOR = "polyop.Tensor"
#: What type checkers call the types with a name of their own; arguments, then results.
BASES: dict[str, tuple[str, str]] = {
    "Tensor": (TENSOR, TENSOR),
    "int": ("int", "int"),
    "SymInt": ("int | SymInt", "int"),
    "float": ("float", "float"),
    "SymFloat": ("float | SymFloat", "float"),
    "bool": ("bool", "bool"),
    "SymBool": ("bool | SymBool", "bool"),
    "complex": ("complex", "complex"),
    "str": ("str", "str"),
    "Scalar": ("complex", "complex"),  # to type checkers an int and a float are one too
    "ScalarType": ("polyop.dtype | str", "polyop.dtype"),
    "Device": ("polyop.device | str", "polyop.device"),
    "Generator": ("polyop.Generator", "polyop.Generator"),
}
WRITTEN = "written by `polyop stubs"
HEAD = '''\
"""The operators of the namespace `{ns}`; written by `polyop stubs {sources}`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, overload

import polyop
from polyop.dispatch.operator import OpOverload, OpOverloadPacket
from polyop.symbolic import SymBool, SymFloat, SymInt

class _Array(Protocol):
    """An array of any library; the answer is in kind."""

    @property
    def shape(self) -> Any: ...
    @property
    def dtype(self) -> Any: ...
'''
MODULE = '''\
"""The operators of the namespace `{ns}`; written by `polyop stubs {sources}`."""

{imports}

def __getattr__(name: str) -> Any:
    """Give an operator."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(polyop.ops.{ns}, name)
'''


def write_stubs(
    operators: Iterable[OpOverload], folder: Path, sources: Sequence[str]
) -> list[Path]:
    """Write a stub, and the module that it is of, for each namespace.

    Args:
        operators: that decide which namespaces; a stub holds all operators of its own.
        folder: where the files go; it is made if it is not there.
        sources: what the command was given; dotted names are imported by the modules.

    Returns:
        The files.

    Raises:
        UsageError: an operator has a name that no Python module can have, or a file is there
            that no stub command wrote; nothing is written then.
    """
    made = []
    namespaces = sorted({op.namespace for op in operators})
    texts = {ns: (stub(ns, sources), module(ns, sources)) for ns in namespaces}
    for ns in namespaces:
        _check_free(folder / f"{ns}.pyi", folder / f"{ns}.py")
    folder.mkdir(parents=True, exist_ok=True)
    for ns, (said, runs) in texts.items():
        for path, text in ((folder / f"{ns}.pyi", said), (folder / f"{ns}.py", runs)):
            path.write_text(text, "utf-8")
            made.append(path)
    return made


def _check_free(*paths: Path) -> None:
    for path in paths:
        if path.exists() and WRITTEN not in path.read_text("utf-8"):
            raise UsageError(
                f"{path} is there, and was not written by polyop stubs",
                fix="choose another folder: --output FOLDER",
            )


def module(ns: str, sources: Sequence[str]) -> str:
    """Write the module that hands the operators of a namespace on."""
    names = [s for s in sources if all(map(str.isidentifier, s.split(".")))]
    lines = ["from importlib import import_module"] if names else []
    lines += ["from typing import Any", "", "import polyop", ""]
    lines += [f'import_module("{name}")  # defines them' for name in names]
    imports = "\n".join(lines) + "\n" * bool(names)
    return MODULE.format(ns=ns, sources=" ".join(sources), imports=imports)


def stub(ns: str, sources: Sequence[str] = ()) -> str:
    """Write the stub of a namespace.

    Raises:
        UsageError: an operator has a name that no Python module can have.
    """
    parts = [HEAD.format(ns=ns, sources=" ".join(sources))]
    names = sorted({d.op._schema.name for d in DEFINITIONS.values() if d.op.namespace == ns})
    for name in names:
        short = name.partition("::")[2]
        if not short.isidentifier() or keyword.iskeyword(short):
            raise UsageError(f"{name} is no name of Python, so that no stub can hold it", op=name)
        overloads = [op for op in PACKETS[name].op_overloads() if not is_twin(op)]
        parts.append(_class_of(short, overloads))
    names = [n.partition("::")[2] for n in names]
    parts.append("\n".join(f"{n}: _{n}" for n in names) + "\n")
    return "\n".join(parts)


def _class_of(short: str, overloads: Sequence[OpOverload]) -> str:
    calls: list[str] = []
    for op in overloads:
        calls.append(call_text(op._schema, TENSOR))
        if any(holds_tensor(a.type) for a in op._schema.arguments):
            calls.append(call_text(op._schema, "_Array"))
    calls = list(dict.fromkeys(calls))
    mark = "    @overload\n" if len(calls) > 1 else ""
    said = _first_line(overloads[0])
    lines = [f"class _{short}(OpOverloadPacket):"]
    lines.append(f'    """{said or overloads[0]._schema}"""\n')
    lines += [f"    {op._overloadname}: OpOverload" for op in overloads]
    lines += [f"{mark}    {call}" for call in calls]
    return "\n".join(lines) + "\n"


def _first_line(op: OpOverload) -> str:
    kernels: list[Any] = [k.fn for k in op.kernels().values()]
    for fn in kernels:
        doc = getattr(fn, "__doc__", None)
        if isinstance(doc, str) and doc.strip():
            said = doc.strip().splitlines()[0]
            return said.replace("\\", "\\\\").replace('"""', "'''").rstrip('"')
    return ""


# -- one call ---------------------------------------------------------------------------------


def call_text(schema: FunctionSchema, tensor: str) -> str:
    """Write the `__call__` of a schema.

    Args:
        schema: of the operator.
        tensor: what tensors are called: with others than our own the result is in kind.
    """
    words = ["self"]
    words += [_argument(a, tensor) for a in schema.positional]
    words += ["*", *(_argument(a, tensor) for a in schema.keyword_only)] * bool(schema.keyword_only)
    result = _result(schema) if tensor == TENSOR else "Any"
    return f"def __call__({', '.join(words)}) -> {result}: ...  {IGNORED}".rstrip()


#: The base takes any arguments, and a call of one operator does not.
IGNORED = "# type: ignore[override, unused-ignore]"


def _argument(argument: Argument, tensor: str) -> str:
    name = argument.name
    if keyword.iskeyword(name):
        name = f"{name}_"
    default = " = ..." if argument.has_default_value() else ""
    return f"{name}: {type_text(argument.type, tensor)}{default}"


def _result(schema: FunctionSchema) -> str:
    found = [type_text(r.type, TENSOR, 1) for r in schema.returns]
    if not found:
        return "None"
    return found[0] if len(found) == 1 else f"tuple[{', '.join(found)}]"


def type_text(schema_type: Type, tensor: str, place: int = 0) -> str:
    """Write a type of a schema as Python's.

    Args:
        schema_type: to write.
        tensor: what tensors are called.
        place: 0 for an argument, 1 for a result.
    """
    match schema_type:
        case OptionalType(elem):
            return f"{type_text(elem, tensor, place)} | None"
        case ListType(elem, size):
            inner = type_text(elem, tensor, place)
            if place:
                return f"list[{inner}]"
            return f"Sequence[{inner}]" + (f" | {inner}" if size is not None else "")
        case DictType(key, value):
            of = "dict" if place else "Mapping"
            return f"{of}[{type_text(key, tensor, place)}, {type_text(value, tensor, place)}]"
        case TupleType(items):
            return f"tuple[{', '.join(type_text(t, tensor, place) for t in items)}]"
        case UnionType(items):
            return " | ".join(type_text(t, tensor, place) for t in items)
        case LiteralType(values):
            return f"Literal[{', '.join(map(repr, values))}]"
        case ClassType(_, cls) if cls is not None and cls.__module__ == builtins.__name__:
            return cls.__name__
    name = str(schema_type)
    if name == "Tensor" and place == 0:
        return tensor
    return BASES[name][place] if name in BASES else "Any"
