"""Functional tensors: a value that is replaced where others would be written.

All tensors that share memory share a `Storage`, which holds the current value
of the base. A view is the chain of view operators that leads to it from the
base; it is computed again after a write, and a write to it is carried back
along the chain by the inverse of each view.

NOTE [Histories]
A value that replaces another has the history of the write. But a write under
`no_grad` leaves every history what it was, and one through a detached view
changes that view's alone: there the new value takes the history of the former
one (`histories.py`). A view has a part in the history of its base if it was
taken with grad mode on, or if a write was recorded since.

NOTE [Layouts]
A write leaves the layout of memory what it is, so a new value has its axes in
the order of the old one. Yet it has no gaps between its elements. So each
tensor knows the strides that it began with, and whether `reshape` gives a view
or a copy is asked of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polyop.devices import Device, DType
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import FUNCTIONAL, GRAD, LIFTED
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import MutationError
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.functionalize.histories import has_history, keep
from polyop.layers.layouts import are_same, laid_out, layout_of
from polyop.layers.levels import Level
from polyop.ops.inplace import copy_
from polyop.ops.views import VIEW_INVERSES, detach
from polyop.tensor.meta import META_SPACE, Shape, normal_strides
from polyop.tensor.printing import PRINTER
from polyop.tensor.tensor import Tensor, of_meta


class Own:
    """The history of a view that has no part in that of its base, and of the views of it.

    Attributes:
        value: the last one that was recorded, or None.
        recorded: at which generation that was.
        tensor: the view itself, at the end, when what it shares memory with is written.
    """

    __slots__ = ("recorded", "tensor", "value")

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.recorded = 0
        self.tensor: Tensor | None = None

    def settle(self, tensor: Tensor, *, given: bool) -> None:
        """Give the history to the view itself, whose memory has the last value already.

        Args:
            tensor: the view.
            given: whether others may know it, as they know an argument.
        """
        value = self.value if self.recorded else None
        if value is not None and (given or value.keys & LIFTED):
            if has_history(value):
                run_under(word().with_grad, copy_, tensor, keep(value, tensor, tangent=True))
        elif value is not None and value.keys & GRAD:
            tensor.keys |= GRAD
            tensor.grad_node = value.grad_node
        self.tensor = tensor


@dataclass(frozen=True, slots=True)
class Step:
    """A view operator, which of its arguments the tensor is, and the others.

    Attributes:
        op: the operator.
        args: all its arguments; the tensor's own place is not read.
        position: the tensor's place.
        path: of several results, which; of several views in a list, which.
        own: the history from here on, if that of the base ends here.
    """

    op: OpOverload
    args: tuple[Any, ...]
    position: int
    path: tuple[int, ...] = ()
    own: Own | None = None

    def take(self, base: Tensor) -> Tensor:
        """Call the operator."""
        args = list(self.args)
        args[self.position] = base
        view: Any = dispatch(self.op, args)
        for i in self.path:
            view = view[i]
        made: Tensor = view
        return made

    def apply(self, base: Tensor) -> Tensor:
        """Give the view of a base."""
        if self.own is None:
            return self.take(base)
        if self.own.tensor is not None:
            return self.own.tensor
        view = self.take(base)
        return view if self.own.value is None else keep(self.own.value, view, tangent=True)

    def invert(self, base: Tensor, new: Tensor) -> Tensor:
        """Give the base after its view was written.

        Raises:
            MutationError: the view has no inverse.
        """
        inverse = VIEW_INVERSES.get(self.op.name())
        if inverse is None or self.path:
            raise MutationError(
                f"a write through {self.op.name()} cannot be functionalized: no operator "
                "puts a part of it back into its base",
                op=self.op._schema,
                source=self.op.source,
                fix="write the base, or copy the view with .clone() first",
            )
        statics = [a for i, a in enumerate(self.args) if i != self.position]
        made: Tensor = inverse(base, new, *statics)
        return made


@dataclass(frozen=True, slots=True)
class Unknown:
    """A view that an operator gave while it wrote: how to take it again is not known."""

    op: OpOverload

    def take(self, base: Tensor) -> Tensor:
        """Refuse to take it again.

        Raises:
            MutationError: always.
        """
        raise MutationError(
            f"a view that {self.op.name()} gave is used after a write to the same memory, "
            "or returned beside it",
            op=self.op._schema,
            source=self.op.source,
            fix="copy the result of the operator (.clone()), or let it return nothing, and take "
            "the view by a view operator",
        )

    apply = take

    def invert(self, base: Tensor, new: Tensor) -> Tensor:
        """Refuse a write."""
        return self.take(base)


class Storage:
    """The current value of a base, how often it was replaced, and who sees the write.

    Attributes:
        value: the current one.
        generation: how often it was replaced.
        recorded: at which generation the history changed last.
        hidden: whether autograd is not to see the write at the end, whatever was recorded.
        layout: the strides, once the value was replaced.
    """

    __slots__ = ("generation", "hidden", "layout", "recorded", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self.generation = 0
        self.recorded = 0
        self.hidden = False
        self.layout: Shape | None = None

    def replace(self, new: Tensor) -> None:
        """Give the base a new value, as grad mode says; views of it are taken again."""
        if word().grad:
            self.renew(new)
        else:
            self.change(new, tangent=False)

    def renew(self, new: Tensor) -> None:
        """Give the base a new value and its history."""
        self._put(self._laid_out(new))
        self.recorded = self.generation

    def change(self, new: Tensor, *, tangent: bool) -> None:
        """Give the base a new value, and leave its history."""
        self._put(keep(self.value, self._laid_out(new), tangent=tangent))

    def _laid_out(self, new: Tensor) -> Tensor:
        return laid_out(new, layout_of(self.value))

    def _put(self, new: Tensor) -> None:
        if self.layout is None:
            self.layout = tuple(self.value.stride())
        self.value = new
        self.generation += 1


#: The views that lead from a base to a tensor.
Chain = tuple[Step | Unknown, ...]


def own_of(chain: Chain) -> Own | None:
    """Give the history that views take part in, or None: it is that of the base."""
    owns = [step.own for step in chain if isinstance(step, Step) and step.own is not None]
    return owns[-1] if owns else None


class Functional:
    """The payload of a functional tensor.

    Attributes:
        storage: shared with all its aliases.
        chain: the views that lead here from the base.
        level: the functionalization that it belongs to.
        layout: the strides of a view, where they are known.
    """

    __slots__ = ("_born", "_follows", "_seen", "_value", "chain", "layout", "level", "storage")

    def __init__(
        self,
        storage: Storage,
        chain: Chain,
        level: Level,
        value: Tensor | None = None,
        follows: bool = True,
    ) -> None:
        self.storage = storage
        self.chain = chain
        self.level = level
        self._seen = -1 if value is None else storage.generation
        self._value = value
        self._born = storage.generation
        self._follows = follows
        self.layout: Shape | None = None

    def value(self) -> Tensor:
        """Give the current value, computed again if the base was replaced."""
        if not self.chain:
            return self.storage.value
        if self._seen != self.storage.generation or self._value is None:
            self._value = self.taken()
            self._seen = self.storage.generation
        return self._value

    def taken(self) -> Tensor:
        """Take the views again, with a part in the history or without."""
        now = word().with_grad if self.follows() else word().without_grad
        made: Tensor = run_under(now, replay, self.storage.value, self.chain)
        return made

    def given(self) -> Tensor:
        """Give the value at the end, when it shares memory with its base."""
        value = self.storage.value
        for step in self.chain if own_of(self.chain) is not None else ():
            if isinstance(step, Step) and step.own is not None and step.own.tensor is None:
                step.own.settle(step.take(value), given=False)
            value = step.apply(value)
        return self.taken()

    def follows(self) -> bool:
        """Tell whether this tensor has a part in the history of its base."""
        return self._follows or (own_of(self.chain) or self.storage).recorded > self._born

    def replace(self, new: Tensor) -> None:
        """Give this tensor, and so its base and all aliases, a new value."""
        own = own_of(self.chain)
        values = [self.storage.value]
        for step in self.chain[:-1]:
            values.append(step.apply(values[-1]))
        for step, base in zip(reversed(self.chain), reversed(values), strict=False):
            if isinstance(step, Step) and step.own is not None:
                if step.own is own and word().grad:
                    own.value, own.recorded = new, self.storage.generation + 1
                new = detach(new)
            new = step.invert(base, new)
        if own is None:
            self.storage.replace(new)
        else:
            self.storage.change(new, tangent=True)

    @property
    def shape(self) -> Shape:
        """The size of each axis."""
        return tuple(self._shown().payload.shape)

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return self._shown().dtype

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return self._shown().device

    @property
    def recorded_value(self) -> Tensor:
        """The tensor that has the history."""
        return self.value()

    @property
    def strides(self) -> Shape:
        """The strides, in elements."""
        layout = self.layout if self.chain else self.storage.layout
        return tuple(self._shown().stride()) if layout is None else layout

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in order."""
        shown = self.as_laid_out()
        return self._shown().is_contiguous() if shown is None else shown.is_contiguous()

    def as_laid_out(self) -> Tensor | None:
        """Give a tensor without data of the layout, or None if the value has it."""
        layout, value = self.layout if self.chain else self.storage.layout, self.value()
        if layout is None or are_same(layout, value.stride()):
            return None
        shape = self.shape
        strides = normal_strides(shape, layout)
        return of_meta(META_SPACE.meta(shape, value.dtype, strides, Device("meta")))

    @property
    def base(self) -> None:
        """Nothing: a functional tensor owns no memory."""
        return

    def _shown(self) -> Tensor:
        # A write changes no shape, so an older value says it as well.
        if self.chain and self._value is not None:
            return self._value
        return self.value()

    def look(self, what: str) -> Any:
        """Look at the data of the current value."""
        if not self.level.alive:
            self.level.escaped()
        return self.value()._data(what)


def step_of(
    op: OpOverload, args: tuple[Any, ...], position: int, path: tuple[int, ...] = ()
) -> Step:
    """Give the step of a view; one that no gradient flows through begins a history."""
    return Step(op, args, position, path, Own() if recorder_of(op) is None else None)


def last_step(tensor: Tensor) -> tuple[Tensor, Step] | None:
    """Give the tensor that one is a view of, and the step from there, if they are known."""
    view = getattr(tensor, "view_of", None)
    if view is None:
        return None
    parent, op, statics = view
    forms = result_forms(op._schema)
    rest = len(op._schema.arguments) - 1
    args, path = list(statics[:rest]), statics[rest:]
    kind, position = forms[path[0] if len(forms) > 1 and path else 0]
    if len(path) != (len(forms) > 1) + (kind == "views") or kind == "either":
        return None  # which of several results or arguments it is was not kept
    args.insert(position, None)
    return parent, step_of(op, tuple(args), position, path)


def replay(base: Tensor, chain: Chain) -> Tensor:
    """Follow a chain of views."""
    for step in chain:
        base = step.apply(base)
    return base


def functional(
    storage: Storage,
    chain: Chain,
    level: Level,
    value: Tensor | None = None,
    follows: bool = True,
) -> Tensor:
    """Make a functional tensor."""
    t = Tensor()
    t.payload = Functional(storage, chain, level, value, follows)
    t.keys = FUNCTIONAL
    t.version = 0
    return t


PRINTER.texts[Functional] = lambda t: f"FunctionalTensor({t.payload.value()!r})"
