"""`register_index`: which axes of an operator's tensors meet, and the rules that follow (S56).

From `(m,n),(n,k)->(m,k)` follow the results' shapes and how a batch is computed: all axes before
the named ones are loops. The rules are not registered; an operator gives them where nothing else
is, so that any order of registrations and removals comes to the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from polyop.dispatch.library import Library, owner_of
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator, put_rule
from polyop.dispatch.table import Kernel
from polyop.errors import ArgumentError, RegistrationError, ReturnError, UsageError
from polyop.schema.model import Argument
from polyop.source import caller

Group = tuple[str, ...]

_GROUP = r"\(\s*(?:\w+\s*(?:,\s*\w+\s*)*)?\)"
_SIDE = rf"\s*{_GROUP}\s*(?:,\s*{_GROUP}\s*)*"
_WHOLE = re.compile(rf"{_SIDE}->{_SIDE}")


def register_index(op: Any, signature: str, /, *, lib: Library | None = None) -> None:
    """Say which axes of an operator's Tensor arguments and results meet.

    Args:
        op: the operator, in any form; its arguments are Tensors, `[*loops, *named axes]`.
        signature: one group of names per Tensor argument and Tensor result, such as
            `"(m,n),(n,k)->(m,k)"`; a result's names are names or sizes of arguments.
        lib: the library that owns the registration.

    Raises:
        UsageError: the text has another form, number of groups, or unknown names.
        RegistrationError: the operator writes its arguments or gives views of them.
    """
    found = as_operator(op)
    made = IndexSignature(found, signature, *_parsed(found, signature))
    put_rule(found, "index", Kernel(made, caller(), owner_of(lib, found.places)))


def index_of(op: OpOverload) -> IndexSignature | None:
    """Give an operator's index signature, or None."""
    found: IndexSignature | None = op.rule("index")
    return found


# -- reading ------------------------------------------------------------------


def _parsed(op: OpOverload, text: Any) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    if not isinstance(text, str) or not _WHOLE.fullmatch(text):
        _misused(op, "an index signature is written otherwise", text)
    sides = [
        tuple(tuple(re.findall(r"\w+", group)) for group in re.findall(_GROUP, side))
        for side in text.split("->")
    ]
    schema = op._schema
    if schema.is_mutable or any(r.alias_info is not None for r in schema.returns):
        raise RegistrationError(
            f"{op.name()} writes its arguments or gives views, so axes alone do not describe it",
            op=schema,
            source=op.source,
            fix="register the rules themselves: register_fake, register_vmap",
        )
    tensors = [a for a in schema.arguments if _is_tensor(a)]
    others = {str(r.type) for r in schema.returns} - {"Tensor"}
    if others or any("Tensor" in str(a.type) and a not in tensors for a in schema.arguments):
        _misused(op, "an index signature describes single Tensors only", text)
    if (len(sides[0]), len(sides[1])) != (len(tensors), len(schema.returns)):
        _misused(
            op, f"there are {len(tensors)} Tensor arguments and {len(schema.returns)} results", text
        )
    known = {name for group in sides[0] for name in group}
    known |= {a.name for a in schema.arguments if str(a.type) in {"int", "SymInt"}}
    unknown = [n for group in sides[1] for n in group if n not in known and not n.isdigit()]
    if unknown:
        _misused(op, f"no argument says how large {unknown[0]!r} is", text)
    return sides[0], sides[1]


def _is_tensor(argument: Argument) -> bool:
    return str(argument.type) == "Tensor"


def _misused(op: OpOverload, problem: str, text: Any) -> NoReturn:
    raise UsageError(
        problem,
        op=op._schema,
        seen=f"{text!r:.120}",
        source=op.source,
        fix='write one group per Tensor argument and result: "(m,n),(n,k)->(m,k)"',
    )


# -- sizes --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class IndexSignature:
    """The named axes of an operator's Tensors, and the rules that follow from them.

    Args:
        op: the operator.
        text: as it was written.
        inputs: the names of each Tensor argument's last axes.
        outputs: the names of each result's last axes.
    """

    op: OpOverload
    text: str
    inputs: tuple[Group, ...]
    outputs: tuple[Group, ...]

    def rule(self, slot: str, own: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """Give the rule of a slot: the operator's own, or what the axes say."""
        if self.op._can_decompose():
            return own
        if slot == "fake":
            return self.fake if own is None else self._checking(own)
        return self.vmap if own is None else own

    def __call__(self, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
        """Give the shapes of the results.

        Raises:
            ArgumentError: a shape of an argument does not fit; it names the axis.
        """
        return self.shapes(self._named(args, kwargs))

    def _named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        names = [a.name for a in self.op._schema.arguments]
        return dict(zip(names, args, strict=False)) | dict(kwargs)

    def tensors(self, values: Mapping[str, Any]) -> list[tuple[Argument, Any, Group]]:
        """Give the Tensor arguments, with their values and named axes."""
        chosen = [a for a in self.op._schema.arguments if _is_tensor(a)]
        return [(a, values[a.name], g) for a, g in zip(chosen, self.inputs, strict=True)]

    def shapes(self, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Give the shapes of the results for arguments by name."""
        sizes: dict[str, tuple[Any, str]] = {}
        loops: list[Any] = []
        for argument, x, group in self.tensors(values):
            shape, rest = tuple(x.shape), len(x.shape) - len(group)
            if rest < 0:
                self._unfit(argument, f"it has the axes ({', '.join(group)})", f"shape {shape}")
            for name, size in zip(group, shape[rest:], strict=True):
                known, where = sizes.setdefault(name, (size, argument.name))
                wanted = int(name) if name.isdigit() else known
                if size != wanted:
                    said = "" if name.isdigit() else f" as in argument {where!r}"
                    self._unfit(argument, f"axis {name} of size {wanted}{said}", f"size {size}")
            loops = self._broadcast(argument, loops, shape[:rest])
        return [(*loops, *(self._size(n, sizes, values) for n in group)) for group in self.outputs]

    def _size(self, name: str, sizes: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        if name in sizes:
            return sizes[name][0]
        return int(name) if name.isdigit() else values[name]

    def _broadcast(self, argument: Argument, loops: list[Any], more: Sequence[Any]) -> list[Any]:
        n = max(len(loops), len(more))
        one, two = [1] * (n - len(loops)) + loops, [1] * (n - len(more)) + list(more)
        for a, b in zip(one, two, strict=True):
            if b != 1 and a not in (b, 1):
                self._unfit(argument, f"loops that broadcast with {loops}", f"loops {list(more)}")
        return [b if a == 1 else a for a, b in zip(one, two, strict=True)]

    def _unfit(self, argument: Argument, declared: str, seen: str) -> NoReturn:
        raise ArgumentError(
            f"{self.op.name()} cannot take argument {argument.name!r}: "
            f"its axes do not fit {self.text}",
            op=self.op._schema,
            argument=argument.name,
            declared=declared,
            seen=seen,
            source=self.op.rule_source("index"),
            fix="give tensors whose axes of one name have one size",
        )

    # -- rules ----------------------------------------------------------------

    def fake(self, *args: Any, **kwargs: Any) -> Any:
        """Make the results without data: promoted dtype, and the shapes that follow."""
        values = self._named(args, kwargs)
        given = [x for _, x, _ in self.tensors(values)]
        dtypes = {x.dtype for x in given}
        dtype = dtypes.pop() if len(dtypes) == 1 else np.result_type(*dtypes)
        made = [given[0].new_empty(list(s), dtype=dtype) for s in self.shapes(values)]
        return made[0] if len(made) == 1 else tuple(made)

    def _checking(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def fake(*args: Any, **kwargs: Any) -> Any:
            shapes = self.shapes(self._named(args, kwargs))
            given = own(*args, **kwargs)
            self.check(given, shapes)
            return given

        return fake

    def check(self, given: Any, shapes: Sequence[tuple[Any, ...]]) -> None:
        """Hold results against the shapes that follow.

        Raises:
            ReturnError: a result has another shape; it names the axis.
        """
        results = given if isinstance(given, (tuple, list)) else (given,)
        for i, (result, shape) in enumerate(zip(results, shapes, strict=False)):
            if tuple(result.shape) != shape:
                self._wrong(i, tuple(result.shape), shape)

    def _wrong(self, i: int, seen: tuple[Any, ...], shape: tuple[Any, ...]) -> NoReturn:
        names = self.outputs[i]
        named = dict(zip(names[::-1], zip(seen[::-1], shape[::-1], strict=False), strict=False))
        wrong = [n for n, (a, b) in named.items() if a != b and len(seen) == len(shape)]
        where = f"axis {wrong[-1]}" if wrong else "its axes"
        raise ReturnError(
            f"result {i} of {self.op.name()} does not fit {self.text}: {where}",
            op=self.op._schema,
            declared=f"shape {shape}",
            seen=f"shape {seen}",
            source=self.op.rule_source("fake"),
            fix="correct the fake rule, or the index signature",
        )

    def vmap(self, info: Any, in_dims: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Make the batch one more loop, in front of the others."""
        schema = self.op._schema
        names = [a.name for a in schema.arguments]
        dims = dict(zip(names, in_dims, strict=False)) | dict(info.kwarg_dims or {})
        values = self._named(args, kwargs)
        batched = {
            argument.name: len(x.shape) - 1 - len(group)
            for argument, x, group in self.tensors(values)
            if dims.get(argument.name) is not None
        }
        most = max(
            len(x.shape) - len(group) - (argument.name in batched)
            for argument, x, group in self.tensors(values)
        )
        for name, loops in batched.items():
            x = values[name].movedim(dims[name], 0)
            for _ in range(most - loops):
                x = x.unsqueeze(1)
            values[name] = x
        n = len(schema.positional)
        out = self.op(*[values[k] for k in names[:n]], **{k: values[k] for k in names[n:]})
        return out, 0 if len(schema.returns) == 1 else (0,) * len(schema.returns)
