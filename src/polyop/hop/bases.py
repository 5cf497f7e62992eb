"""Arguments that a call names by the bases that they are views of (S171, S172).

Where `op(x)` writes a view `x`, the functional call has the base in
`_all_bases`, and says how `x` is made of it:

- `_x_base_index=i` alone: it is the base itself; with `_x_alias=True`, all of it;
- with `_x_slice_dim`, `_x_slice_start`, `_x_slice_end`: a slice of it;
- with `_x_size`, `_x_stride`, `_x_storage_offset`: counted in its elements.

A list of tensors has `_x_length`, and `_x_0_base_index` and so on. A dict or a
record that is only read has `_x_leaves`, with None for those that are made so, by
`_x_0_base_index` and so on, and `_x_tree`, which says by numbers where they stand.
An `out=` has no base: `_out_size`, `_out_stride`, `_out_dtype`, `_out_device` say what
is made for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from polyop import tree
from polyop.errors import ArgumentError, nearest
from polyop.hop.strided import strided
from polyop.ops.factories import empty
from polyop.ops.views import VIEW_INVERSES, alias, inverse_order, permute_dims, slice_axis

BASES, CLONED = "_all_bases", "_only_clone_these_bases"
SLICE = ("slice_dim", "slice_start", "slice_end")
STRIDED = ("size", "stride", "storage_offset")
FRESH = ("size", "stride", "dtype", "device")
WORDS = ("length", "tree", "leaves", "base_index", "alias", *SLICE, *STRIDED, *FRESH[2:])


class View(NamedTuple):
    """A view of a base: `kind` is `whole`, `alias`, `slice` or `strided`."""

    base: int
    kind: str
    place: tuple[Any, ...] = ()

    def take(self, base: Any) -> Any:
        """Give the view."""
        if self.kind == "whole":
            return base
        return self.operator(base, *self.place, *self.more)

    @property
    def operator(self) -> Any:
        """The view operator."""
        return {"alias": alias, "slice": slice_axis, "strided": strided}[self.kind]

    @property
    def more(self) -> tuple[Any, ...]:
        """The arguments of the operator behind the place."""
        return (1,) if self.kind == "slice" else ()

    def put(self, base: Any, new: Any) -> Any:
        """Give the base with a new value of the view."""
        if self.kind in {"whole", "alias"}:
            return new
        name = {"slice": "core::slice", "strided": "memory::strided"}[self.kind]
        return VIEW_INVERSES[name](base, new, *self.place, *self.more)

    def spelled(self, prefix: str) -> dict[str, Any]:
        """Give the arguments that say it."""
        found: dict[str, Any] = {f"{prefix}_base_index": self.base}
        if self.kind == "alias":
            found[f"{prefix}_alias"] = True
        words = {"slice": SLICE, "strided": STRIDED}.get(self.kind, ())
        return found | {f"{prefix}_{w}": v for w, v in zip(words, self.place, strict=True)}


class Fresh(NamedTuple):
    """A tensor that is made for an `out=`."""

    size: Sequence[Any]
    stride: Sequence[Any]
    dtype: Any
    device: Any

    @property
    def order(self) -> list[int]:
        """The axes in the order of the strides."""
        return sorted(range(len(self.size)), key=lambda i: -self.stride[i])

    def make(self) -> Any:
        """Make it."""
        order = self.order
        made = empty(*[self.size[i] for i in order], dtype=self.dtype, device=self.device)
        return made if order == sorted(order) else permute_dims(made, inverse_order(order))


class Within(NamedTuple):
    """A tree: its leaves, with None for those that are views, and the views by their numbers."""

    numbers: Any
    leaves: Sequence[Any]
    views: dict[int, Any]

    def filled(self, bases: Sequence[Any]) -> Any:
        """Give the tree with its views of some bases."""
        leaves = [*self.leaves]
        for i, view in self.views.items():
            leaves[i] = taken(view, bases)
        return tree.unflatten(tree.structure(self.numbers), leaves)


@dataclass(frozen=True)
class OnBases:
    """A call on bases, taken apart.

    Attributes:
        bases: the tensors that are written.
        views: by argument, how it is made of a base; in lists, where it is a list, and `Within`
            a tree.
        plain: the other arguments.
        cloned: which bases are copied before they are written.
    """

    bases: list[Any]
    views: dict[str, Any]
    plain: dict[str, Any]
    cloned: frozenset[int] = field(default_factory=frozenset)

    def arguments(self, bases: Sequence[Any]) -> dict[str, Any]:
        """Give the arguments of the operator, made of some bases."""
        return self.plain | {name: taken(spec, bases) for name, spec in self.views.items()}

    @property
    def all_views(self) -> list[View]:
        """All views, those in lists too."""
        specs = [s for spec in self.views.values() for s in as_list(spec)]
        return [s for s in specs if isinstance(s, View)]

    @property
    def apart(self) -> bool:
        """Whether no base is given to two arguments."""
        used = [v.base for v in self.all_views]
        return len(set(used)) == len(used)


def as_list(spec: Any) -> list[Any]:
    """Give what is in a list or a tree, or the one thing."""
    if isinstance(spec, Within):
        return [*spec.views.values()]
    return spec if isinstance(spec, list) else [spec]


def taken(spec: Any, bases: Sequence[Any]) -> Any:
    """Give an argument, by how it is made."""
    if isinstance(spec, list):
        return [taken(s, bases) for s in spec]
    if isinstance(spec, Within):
        return spec.filled(bases)
    if isinstance(spec, View):
        return spec.take(bases[spec.base])
    return None if spec is None else spec.make()


def read(op: Any, schema: Any, kwargs: Mapping[str, Any]) -> OnBases:
    """Take a call apart.

    Raises:
        ArgumentError: something is missing, unknown, or out of range.
    """
    rest = dict(kwargs)
    bases = list(_needed(op, rest, BASES))
    only = rest.pop(CLONED, None)
    views: dict[str, Any] = {}
    for argument in schema.arguments:
        name = argument.name
        if f"_{name}_length" in rest:
            count = rest.pop(f"_{name}_length")
            views[name] = [_read(op, rest, f"_{name}_{i}", len(bases)) for i in range(count)]
        elif f"_{name}_leaves" in rest:
            leaves, numbers = rest.pop(f"_{name}_leaves"), _needed(op, rest, f"_{name}_tree")
            places = [i for i, leaf in enumerate(leaves) if leaf is None]
            made = {i: _read(op, rest, f"_{name}_{i}", len(bases)) for i in places}
            views[name] = Within(numbers, leaves, made)
        elif any(f"_{name}_{word}" in rest for word in ("base_index", "size")):
            views[name] = _read(op, rest, f"_{name}", len(bases))
    names = [a.name for a in schema.arguments]
    for name in rest:
        if name in views:
            _refuse(op, f"{name} is written, so it is given by a base alone", schema, name)
        if name not in names:
            near = nearest(name, [*names, *(f"_{n}_{w}" for n in names for w in WORDS)])
            _refuse(op, f"there is no argument {name!r}{near}", schema, name)
    for argument in schema.written:
        if rest.get(argument.name) is not None:
            name = argument.name
            _refuse(op, f"{name} is written, so it is given by a base", f"_{name}_base_index", name)
    given = views.keys() | rest.keys()
    missing = [n for a in schema.arguments if (n := a.name) not in given | optional(schema)]
    if missing:
        _refuse(op, f"{', '.join(missing)} of {op} is missing", schema, sorted(kwargs))
    chosen = range(len(bases)) if only is None else only
    if not set(chosen) <= set(range(len(bases))):
        _refuse(op, f"{CLONED} names a base that is not there", f"{len(bases)} bases", only)
    return OnBases(bases, views, rest, frozenset(chosen))


def optional(schema: Any) -> set[str]:
    """Give the names of the arguments that may be left out."""
    return {a.name for a in schema.arguments if a.has_default_value()}


def _read(op: Any, rest: dict[str, Any], prefix: str, count: int) -> View | Fresh | None:
    """Read how one tensor is made."""
    if f"{prefix}_base_index" not in rest:
        return Fresh(*[_needed(op, rest, f"{prefix}_{word}") for word in FRESH])
    base = rest.pop(f"{prefix}_base_index")
    if base is None:
        return None
    if type(base) is not int or not 0 <= base < count:
        _refuse(op, f"{prefix}_base_index names no base", f"0 to {count - 1}", base)
    if rest.pop(f"{prefix}_alias", False):
        return View(base, "alias")
    for kind, words in (("slice", SLICE), ("strided", STRIDED)):
        if f"{prefix}_{words[0]}" in rest:
            return View(base, kind, tuple(_needed(op, rest, f"{prefix}_{w}") for w in words))
    return View(base, "whole")


def _needed(op: Any, rest: dict[str, Any], name: str) -> Any:
    if name not in rest:
        _refuse(op, f"a call on bases needs {name}", name, sorted(rest))
    return rest.pop(name)


def _refuse(op: Any, problem: str, declared: Any, seen: Any) -> None:
    raise ArgumentError(
        problem,
        op=op,
        declared=declared,
        seen=seen,
        fix="auto_functionalized(op, **kwargs) takes the operator's own arguments",
    )
