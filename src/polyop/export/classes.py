"""Classes that files name: Enums, records, opaque objects. They are looked up, never imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from typing import Any

from polyop.devices import Layout, MemoryFormat
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.objects import ObjectOpOverload
from polyop.errors import ProgramFileError, nearest
from polyop.graph import GraphModule, Node
from polyop.graph.node import GET_ATTR, PLACEHOLDER
from polyop.objects.fakes import flat_form
from polyop.schema.classes import class_named, name_of_class
from polyop.schema.opaque import is_input, opaque_type
from polyop.schema.types import ClassType, walk

#: Enums of polyop's own.
OWN_ENUMS: dict[str, type[Enum]] = {"layout": Layout, "memory_format": MemoryFormat}
_CLASSES = "give its class a method __obj_flatten__ and a classmethod __obj_unflatten__"


def import_first(module: str) -> str:
    """Write which module a reader imports before a file is loaded."""
    return f"import {module} first" if module else "import the module that defines it first"


def class_path(cls: type) -> str:
    """Name a class by its module and its place there."""
    return f"{cls.__module__}:{cls.__qualname__}"


# -- opaque objects -----------------------------------------------------------


def object_form(value: Any, inner: Callable[[Any], Any]) -> dict[str, Any] | None:
    """Give the class name and the flat form of an opaque object; None for any other value.

    Args:
        value: the object.
        inner: encodes the values of the flat form.

    Raises:
        ProgramFileError: no file can hold it, or none could be read.
    """
    name = name_of_class(type(value))
    if name is None or isinstance(value, Enum) or opaque_type(type(value)) is None:
        return None
    for method in ("__obj_flatten__", "__obj_unflatten__"):
        if not callable(getattr(type(value), method, None)):
            raise ProgramFileError(
                f"the program holds an object that no file can hold: {name} has no {method}",
                seen=f"{value!r:.80}",
                fix=f"{_CLASSES}; or pass the object as an argument",
            )
    flat = [[key, inner(part)] for key, part in flat_form(value)]
    return {"object": name, "module": type(value).__module__, "flat": flat}


def object_of(data: dict[str, Any], inner: Callable[[Any], Any]) -> Any:
    """Make an opaque object of its flat form, by the class that is registered here.

    Raises:
        ProgramFileError: no such class, or it takes no such form.
    """
    name = data["object"]
    cls = opaque_class(name, str(data.get("module", "")))
    make = getattr(cls, "__obj_unflatten__", None)
    if make is None:
        raise ProgramFileError(
            f"the program holds an object of {name}, which has no __obj_unflatten__",
            declared=name,
            fix=_CLASSES,
        )
    flat = tuple((str(key), inner(part)) for key, part in data["flat"])
    try:
        made = run_under(PLAIN, make, flat)
    except Exception as error:
        raise ProgramFileError(
            f"the class {name} takes no object of the form that the file has",
            declared=", ".join(key for key, _ in flat),
            seen=f"{type(error).__name__}: {error}"[:200],
            fix="use the version of the class that the program was saved with",
        ) from error
    if not isinstance(made, cls):
        raise ProgramFileError(
            f"{name}.__obj_unflatten__ gives no object of the class",
            declared=name,
            seen=class_path(type(made)),
        )
    return made


def opaque_class(name: Any, module: str = "") -> type:
    """Give a registered opaque class by its name in a file.

    Raises:
        ProgramFileError: with the module to import.
    """
    cls = class_named(name)
    if cls is None or opaque_type(cls) is None or issubclass(cls, Enum):
        raise ProgramFileError(
            f"the program needs the opaque class {name}, which is not registered here",
            declared=name,
            fix=import_first(module or str(name).rpartition(".")[0]),
        )
    return cls


def opaque_name(name: Any) -> str:
    """Give the name of a class that is registered here; see `opaque_class`."""
    opaque_class(name)
    return str(name)


def check_classes(module: GraphModule, names: dict[str, str]) -> None:
    """Verify that operators are given objects of the classes that their schemas name.

    Args:
        module: a graph from a file.
        names: the classes of its inputs, by the name of the placeholder.

    Raises:
        ProgramFileError: an operator takes another class.
    """
    known: dict[Node, type] = {}
    for node in module.graph.nodes:
        if node.op == PLACEHOLDER and node.name in names:
            known[node] = opaque_class(names[node.name])
        elif node.op == GET_ATTR and is_input(value := module.get_attr(node.target)):
            known[node] = type(value)
        elif isinstance(node.target, ObjectOpOverload):
            _check_call(node, known)


def _check_call(node: Node, known: dict[Node, type]) -> None:
    schema = node.target._schema
    named = {a.name: a.type for a in schema.arguments}
    given = [*zip(named, node.args, strict=False), *node.kwargs.items()]
    for name, value in given:
        cls = known.get(value) if isinstance(value, Node) else None
        wanted = [t.cls or class_named(t.name) for t in walk(named[name]) if type(t) is ClassType]
        if cls is not None and not any(w is not None and issubclass(cls, w) for w in wanted):
            raise ProgramFileError(
                f"the file gives {schema.qualified_name} an object of another class",
                op=schema,
                argument=name,
                declared=named[name],
                seen=class_path(cls),
            )


# -- records and Enums --------------------------------------------------------


def loaded_class(path: str) -> type:
    """Give a record class that is imported already.

    Raises:
        ProgramFileError: it is not, or is no record.
    """
    module, _, name = path.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    is_record = isinstance(found, type) and (
        hasattr(found, "__dataclass_fields__")
        or (issubclass(found, tuple) and hasattr(found, "_fields"))
    )
    if not is_record:
        raise ProgramFileError(
            f"the program holds a record of the class {name}, which is not there",
            seen=path,
            fix=import_first(module),
        )
    return found  # type: ignore[no-any-return]


def member_of(name: str, member: str) -> Enum:
    """Give a member of an Enum that is known by name (S215)."""
    cls = OWN_ENUMS.get(name) or class_named(name)
    if cls is None or not issubclass(cls, Enum):
        raise ProgramFileError(
            f"the program holds a member of the Enum {name}, which is not there",
            fix=import_first(name.rpartition(".")[0]),
        )
    if member not in cls.__members__:
        raise ProgramFileError(
            f"the Enum {name} has no member {member!r}{nearest(member, cls.__members__)}",
            declared=", ".join(cls.__members__),
        )
    return cls[member]
