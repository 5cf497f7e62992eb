"""`register_index`: which axes of an operator's tensors meet, and the rules that follow (S56).

From `(m,n),(n,k)->(m,k)` follow the results' shapes and how a batch is computed: all axes before
the named ones are loops. The rules are not registered; an operator gives them where nothing else
is, so that any order of registrations and removals comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np

from polyop.dispatch.index_cuts import Chunks, Cuts, Sharding, name_axes
from polyop.dispatch.index_text import Group, is_size, is_tensor, read_index
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.library import Library, owner_of
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.registry import as_operator, put_rule
from polyop.dispatch.table import Kernel
from polyop.errors import ArgumentError, ReturnError
from polyop.schema.model import Argument
from polyop.source import caller


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
    made = IndexSignature(found, signature, *read_index(found._schema, found.source, signature))
    put_rule(found, "index", Kernel(made, caller(), owner_of(lib, found.places)))


def index_of(op: Any) -> IndexSignature | None:
    """Give the index signature of an operator in any form, or None."""
    found: IndexSignature | None = as_operator(op).rule("index")
    return found


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
        arguments = self.op._schema.arguments
        defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
        given = zip([a.name for a in arguments], args, strict=False)
        return defaults | dict(given) | dict(kwargs)

    def tensors(self, values: Mapping[str, Any]) -> list[tuple[Argument, Any, Group]]:
        """Give the Tensor arguments, with their values and named axes."""
        chosen = [a for a in self.op._schema.arguments if is_tensor(a)]
        for argument in chosen:
            if argument.name not in values:
                self._unfit(argument.name, "a Tensor", "nothing", fix="give every Tensor argument")
        return [(a, values[a.name], g) for a, g in zip(chosen, self.inputs, strict=True)]

    def shapes(self, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Give the shapes of the results for arguments by name."""
        loops, sizes = self.loops_of(values)
        return [(*loops, *(self._size(n, sizes, values) for n in group)) for group in self.outputs]

    def loops_of(
        self, values: Mapping[str, Any]
    ) -> tuple[list[Any], Mapping[str, tuple[Any, str]]]:
        """Give the sizes of the loops, and of each named axis with the argument that has it."""
        sizes: dict[str, tuple[Any, str]] = {}
        loops: list[Any] = []
        for argument, x, group in self.tensors(values):
            shape, rest = tuple(x.shape), len(x.shape) - len(group)
            if rest < 0:
                self._unfit(
                    argument.name, f"it has the axes ({', '.join(group)})", f"shape {shape}"
                )
            for name, size in zip(group, shape[rest:], strict=True):
                known, where = sizes.setdefault(name, (size, argument.name))
                wanted = int(name) if name.isdigit() else known
                if size != wanted:
                    said = "" if name.isdigit() else f" as in argument {where!r}"
                    self._unfit(
                        argument.name, f"axis {name} of size {wanted}{said}", f"size {size}"
                    )
            loops = self._broadcast(argument, loops, shape[:rest])
        return loops, sizes

    def _size(self, name: str, sizes: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        if name in sizes:
            return sizes[name][0]
        if name.isdigit():
            return int(name)
        if name not in values:
            self._unfit(name, f"the size of axis {name}", "nothing", fix=f"give {name}=...")
        return values[name]

    def _broadcast(self, argument: Argument, loops: list[Any], more: Sequence[Any]) -> list[Any]:
        n = max(len(loops), len(more))
        one, two = [1] * (n - len(loops)) + loops, [1] * (n - len(more)) + list(more)
        for a, b in zip(one, two, strict=True):
            if b != 1 and a not in (b, 1):
                self._unfit(
                    argument.name, f"loops that broadcast with {loops}", f"loops {list(more)}"
                )
        return [b if a == 1 else a for a, b in zip(one, two, strict=True)]

    def _unfit(
        self,
        argument: str,
        declared: str,
        seen: str,
        fix: str = "give tensors whose axes of one name have one size",
    ) -> NoReturn:
        raise ArgumentError(
            f"{self.op.name()} cannot take argument {argument!r}: its axes do not fit {self.text}",
            op=self.op._schema,
            argument=argument,
            declared=declared,
            seen=seen,
            source=self.op.rule_source("index"),
            fix=fix,
        )

    # -- cuts -----------------------------------------------------------------

    def chunks(self, *given: Cuts, **sizes: int) -> Chunks:
        """Say how results are chunked where arguments are: loops may be cut, named axes not.

        Args:
            given: for each Tensor argument the sizes of the chunks of each axis, as Dask has
                them: `((2, 2), (3,))`.
            sizes: the int arguments that are sizes of results.

        Raises:
            ArgumentError: a named axis is cut, loops are cut otherwise, or sizes do not fit.
        """
        pairs = self._paired(given, "chunks", _CHUNKS)
        for argument, cuts in pairs:
            self._check_form(argument, cuts)
        totals = {a.name: SimpleNamespace(shape=tuple(map(sum, cuts))) for a, cuts in pairs}
        shapes = self.shapes(self._named((), {**totals, **self._sizes(sizes)}))
        triples = self.tensors({a.name: cuts for a, cuts in pairs})
        loops: list[tuple[int, ...]] = []
        for argument, cuts, group in triples:
            loops = self._cut_loops(argument, loops, cuts[: len(cuts) - len(group)])
            self._check_whole(argument, cuts, group)
        return Chunks(
            tuple(tuple(map(tuple, cuts)) for cuts in given),
            tuple((*loops, *((n,) for n in shape[len(loops) :])) for shape in shapes),
            tuple(tuple(range(len(c) - len(g), len(c))) for _, c, g in triples),
        )

    def _paired(self, given: Sequence[Any], what: str, fix: str) -> list[tuple[Argument, Any]]:
        """Put what is given for each Tensor argument beside it."""
        chosen = [a for a in self.op._schema.arguments if is_tensor(a)]
        if len(given) != len(chosen):
            names = ", ".join(a.name for a in chosen)
            self._unfit(names, f"{what} of {len(chosen)} Tensors", f"of {len(given)}", fix=fix)
        return list(zip(chosen, given, strict=True))

    def _check_form(self, argument: Argument, cuts: Any) -> None:
        axes = cuts if isinstance(cuts, (tuple, list)) else [None]
        if not all(isinstance(c, (tuple, list)) and c and all(map(_is_count, c)) for c in axes):
            self._unfit(
                argument.name, "the sizes of the chunks of each axis", repr(cuts), fix=_CHUNKS
            )

    def _sizes(self, sizes: Mapping[str, Any]) -> Mapping[str, Any]:
        known = [a.name for a in self.op._schema.arguments if is_size(a)]
        for name, size in sizes.items():
            if name not in known or not _is_count(size):
                self._unfit(name, f"the sizes {known}", f"{name}={size!r}", fix="give sizes only")
        return sizes

    def _cut_loops(
        self, argument: Argument, loops: list[tuple[int, ...]], more: Sequence[Any]
    ) -> list[tuple[int, ...]]:
        n = max(len(loops), len(more))
        one = [(1,)] * (n - len(loops)) + loops
        two = [(1,)] * (n - len(more)) + [tuple(c) for c in more]
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            if a != b and (1,) not in (a, b):
                fix = "cut axes that meet alike: rechunk one of the arguments"
                self._unfit(argument.name, f"loop {i} cut into {a}", f"cut into {b}", fix=fix)
        return [b if a == (1,) else a for a, b in zip(one, two, strict=True)]

    def _check_whole(self, argument: Argument, cuts: Sequence[Any], group: Group) -> None:
        for name, chunks in zip(group, cuts[len(cuts) - len(group) :], strict=True):
            if len(chunks) != 1:
                fix = f"rechunk {argument.name}: only loops may be cut"
                self._unfit(argument.name, f"axis {name} in one chunk", f"{tuple(chunks)}", fix=fix)

    def sharding(self, *shapes: Sequence[Any]) -> Sharding:
        """Name all axes of all tensors, for what lays arrays over a mesh of devices.

        Args:
            shapes: of the Tensor arguments; without them, `...` stands for the loops.

        Raises:
            ArgumentError: shapes do not fit.
        """
        if shapes:
            given = self._paired(shapes, "shapes", "give the shape of each Tensor argument")
            self.loops_of({a.name: SimpleNamespace(shape=tuple(s)) for a, s in given})
        return name_axes(self.inputs, self.outputs, shapes)

    # -- rules ----------------------------------------------------------------

    def fake(self, *args: Any, **kwargs: Any) -> Any:
        """Make the results without data: promoted dtype, and the shapes that follow."""
        values = self._named(args, kwargs)
        given = [x for _, x, _ in self.tensors(values)]
        dtype = self.dtype(given)
        made = [given[0].new_empty(list(s), dtype=dtype) for s in self.shapes(values)]
        return made[0] if len(made) == 1 else tuple(made)

    @property
    def gives_fake(self) -> bool:
        """Whether the rule for fakes is the one that the axes give."""
        own = [self.op.places.top(place) for place in ("fake", DispatchKey.Meta)]
        return own == [None, None] and not self.op._can_decompose()

    def dtype(self, tensors: Sequence[Any]) -> Any:
        """Give the dtype of the results where the operator has no rule of its own for fakes."""
        dtypes = {x.dtype for x in tensors}
        return dtypes.pop() if len(dtypes) == 1 else np.result_type(*dtypes)

    def _checking(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def fake(*args: Any, **kwargs: Any) -> Any:
            shapes = self.shapes(self._named(args, kwargs))
            given = own(*args, **kwargs)
            fix = "correct the fake rule, or the index signature"
            self.check(given, shapes, self.op.rule_source("fake"), fix)
            return given

        return fake

    def check(
        self,
        given: Any,
        shapes: Sequence[tuple[Any, ...]],
        source: object,
        fix: str,
        at: str = "",
    ) -> None:
        """Hold results against the shapes that follow; `at` says for which arguments.

        Raises:
            ReturnError: a result has another shape; it names the axis.
        """
        results = given if isinstance(given, (tuple, list)) else (given,)
        for i, (result, shape) in enumerate(zip(results, shapes, strict=False)):
            seen = tuple(result.shape)
            if seen != shape:
                where = _where(self.outputs[i], seen, shape)
                raise ReturnError(
                    f"result {i} of {self.op.name()} does not fit {self.text}{at}: {where}",
                    op=self.op._schema,
                    declared=f"shape {shape}",
                    seen=f"shape {seen}",
                    source=source,
                    fix=fix,
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
        own = {a.name: len(x.shape) - (a.name in batched) for a, x, _ in self.tensors(values)}
        for argument, _, group in self.tensors(values):
            if own[argument.name] < len(group):  # the batch is not one of its axes
                axes, seen = ", ".join(group), f"{own[argument.name]} axes without the batch"
                self._unfit(argument.name, f"it has the axes ({axes})", seen)
        most = max(own[a.name] - len(group) for a, _, group in self.tensors(values))
        for name, loops in batched.items():
            x = values[name].movedim(dims[name], 0)
            for _ in range(most - loops):
                x = x.unsqueeze(1)
            values[name] = x
        n = len(schema.positional)
        out = self.op(*[values[k] for k in names[:n]], **{k: values[k] for k in names[n:]})
        return out, 0 if len(schema.returns) == 1 else (0,) * len(schema.returns)


_CHUNKS = "give for each Tensor argument a tuple of sizes for each axis: ((2, 2), (3,))"


def _is_count(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n >= 0


def _where(names: Group, seen: Sequence[Any], shape: Sequence[Any]) -> str:
    """Name the axes that are missing, or the first that is wrong."""
    loops = len(shape) - len(names)
    every = [*(f"loop {i}" for i in range(loops)), *(f"axis {name}" for name in names)]
    if len(seen) == len(shape):
        pairs = zip(every, zip(seen, shape, strict=True), strict=True)
        return next(name for name, (a, b) in pairs if a != b)
    rest = list(seen)
    missing: list[str] = []
    for name, size in zip(every[::-1], shape[::-1], strict=True):
        if rest and rest[-1] == size:
            rest.pop()
        else:
            missing.insert(0, name)
    if not rest:
        return f"{' and '.join(missing)} missing"
    return f"{len(seen)} axes instead of {len(shape)} ({', '.join(every) or 'none'})"
