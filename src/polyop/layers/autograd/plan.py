"""What the gradient of one operator reads, found in the text of its formulas.

A `Plan` is made per operator, from its schema and its `Formula`; a `Part` per
set of inputs that need gradients: the texts concerned, and what they read.
`write.py` turns a part into functions.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from polyop.dispatch.body import Form, result_forms
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.write import Shape, shape_of
from polyop.schema.tags import Tag

#: What may be asked of a tensor without keeping it.
FACTS = {
    "shape": "{p}.shape", "dtype": "{p}.dtype", "ndim": "len({p}.shape)", "device": "{p}.device",
}  # fmt: skip


class Read(NamedTuple):
    """One thing that a formula reads.

    Attributes:
        name: the variable in the backward.
        kind: `"tensor"`, `"tensor?"`, `"tensor[]"`, `"tensor?[]"`, `"static"`, `"fact"`,
            `"facts"` (one of each tensor of a list), `"result"` or `"results"`.
        index: of the argument or result.
        fact: which fact.
    """

    name: str
    kind: str
    index: int  # type: ignore[assignment]  # the name of a method of tuples, which none calls
    fact: str = ""


class Part(NamedTuple):
    """The gradients of one set of inputs.

    Attributes:
        needs: the positions of the inputs, among all arguments.
        texts: the gradient's expression for each of them.
        reads: what the expressions read.
        calls: the names of operators that they call.
    """

    needs: tuple[int, ...]
    texts: tuple[str, ...]
    reads: tuple[Read, ...]
    calls: tuple[str, ...]


class Plan:
    """The formulas of one operator."""

    def __init__(self, op: OpOverload, texts: Mapping[str, str]) -> None:
        self.op = op
        self.shape: Shape = shape_of(op._schema)
        self.names = [a.name for a in op._schema.arguments]
        self.forms: tuple[Form, ...] = result_forms(op._schema)
        self.texts = {self.names.index(name): text for name, text in texts.items() if text}
        self.parts: dict[tuple[int, ...], Part] = {}
        self.written: dict[Any, Any] = {}

    @cached_property
    def diff(self) -> tuple[int, ...]:
        """The positions of the arguments with a gradient."""
        return tuple(sorted(self.texts))

    @cached_property
    def broadcasts(self) -> bool:
        """Whether gradients must be summed to the shape of their input."""
        return Tag.pointwise in self.op.tags and len(self.shape.of("tensor", "tensor?")) > 1

    @cached_property
    def single(self) -> bool:
        """Whether there is one result, a tensor."""
        return len(self.forms) == 1 and self.forms[0][0] not in {"list", "views", "value"}

    def part(self, needs: tuple[int, ...]) -> Part:
        """Give what one set of inputs needs."""
        if needs not in self.parts:
            self.parts[needs] = self._read(needs)
        return self.parts[needs]

    def _read(self, needs: tuple[int, ...]) -> Part:
        reader = _Reader(self)
        texts = tuple(reader.rewrite(self.texts[i]) for i in needs)
        return Part(needs, texts, tuple(reader.reads.values()), tuple(sorted(reader.calls)))


class _Reader(ast.NodeTransformer):
    """Finds what texts read, and renames what is kept only as a fact."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reads: dict[str, Read] = {}
        self.calls: set[str] = set()
        self.bound: set[str] = set()

    def rewrite(self, text: str) -> str:
        tree = ast.parse(text, mode="eval")
        self.bound = {
            n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        return ast.unparse(self.visit(tree))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        found = self._tensor(node.value)
        if found is None or node.attr not in FACTS:
            return self.generic_visit(node)
        name = f"{found.name}_{node.attr}_"
        kind = "fact" if found.kind == "tensor" else "result_fact"
        self.reads[name] = Read(name, kind, found.index, node.attr)
        return ast.Name(name, ast.Load())

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        asked, source = _asked_of_each(node)
        found = self._find(source)
        if found is None or found.kind != "tensor[]" or asked not in FACTS:
            return self.generic_visit(node)
        name = f"{found.name}_{asked}s_"
        self.reads[name] = Read(name, "facts", found.index, asked)
        return ast.Name(name, ast.Load())

    def visit_Name(self, node: ast.Name) -> ast.AST:
        name = node.id
        if name in self.bound or _gradient(name):
            return node
        found = self._find(name)
        if found is None:
            self.calls.add(name)
        else:
            self.reads[name] = found
        return node

    def _tensor(self, node: ast.AST) -> Read | None:
        found = self._find(node.id) if isinstance(node, ast.Name) else None
        return found if found is not None and found.kind in {"tensor", "result"} else None

    def _find(self, name: str) -> Read | None:
        if name in self.plan.names:
            i = self.plan.names.index(name)
            return Read(name, self.plan.shape.kinds[i], i)
        if name == "r" or (name[:1] == "r" and name[1:].isdigit()):
            return self._result(name)
        return None

    def _result(self, name: str) -> Read:
        index = int(name[1:] or 0)
        many = len(self.plan.forms) == 1 and self.plan.forms[0][0] in {"list", "views"}
        return Read(name, "results" if many else "result", index)


def _asked_of_each(node: ast.ListComp) -> tuple[str, str]:
    """Read `[x.asked for x in source]`; give two empty names for any other list."""
    elt, loop = node.elt, node.generators[0]
    if (
        len(node.generators) == 1
        and not loop.ifs
        and isinstance(elt, ast.Attribute)
        and ast.unparse(elt.value) == ast.unparse(loop.target)
    ):
        return elt.attr, ast.unparse(loop.iter)
    return "", ""


def _gradient(name: str) -> bool:
    return name == "g" or (name[0] == "g" and name[1:].isdigit())


def slots(letter: str, count: int, room: int) -> Sequence[str]:
    """Name the slots of a node for so many values; one name stands for a tuple of all."""
    return [f"{letter}{i}" for i in range(count)] if count <= room else [f"{letter}0"]


def store(letter: str, values: Sequence[str], room: int) -> list[str]:
    """Lines that store values into a node."""
    names = slots(letter, len(values), room)
    if len(names) == len(values):
        return [f"_n.{name} = {value}" for name, value in zip(names, values, strict=True)]
    return [f"_n.{letter}0 = ({', '.join(values)})"]


def load(letter: str, variables: Sequence[str], room: int) -> list[str]:
    """Lines that load them."""
    names = slots(letter, len(variables), room)
    if len(names) == len(variables):
        return [f"{v} = _n.{name}" for name, v in zip(names, variables, strict=True)]
    return [f"{', '.join(variables)} = _n.{letter}0"]


Names = dict[str, Any]
