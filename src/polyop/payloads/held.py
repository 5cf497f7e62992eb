"""`Held`: an array of another library as the payload of a tensor.

NOTE [Views of what cannot be written]
Where memory is shared (PyTorch, CuPy) a view is the library's own, and a write goes into it.
Elsewhere, and where the library has no such view (a flip in PyTorch), a view remembers what it was
taken of and by which operator. A write to it is carried back to the base by the inverse of the
operator (`VIEW_INVERSES`), and the base gets another array; whoever looks at a view after a write
takes it again. So all libraries have the aliasing of NumPy, strides included: an array without
strides keeps those that NumPy's would have, and a new result of a library with strides of its own
is laid out by them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyop.devices import CPU, META, Device, DType
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import BACKEND_SHIFT, OTHER
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import MutationError
from polyop.ops.views import VIEW_INVERSES
from polyop.payloads.exchange import refuse_cut, to_numpy
from polyop.payloads.library import Array, Library
from polyop.tensor.meta import Shape, contiguous_strides
from polyop.tensor.printing import PRINTER
from polyop.tensor.tensor import _DEVICE_BIT, Tensor


class Held:
    """An array of another library, with what every payload says of itself.

    Attributes:
        library: of the array.
        shape: of the array.
        dtype: NumPy's word for the array's dtype.
        taken: for a view that shares no memory: how it is taken again.
        writes: how often the base was written, which all views of it share.
        frozen: whether its elements are repeated, so that none may be written.
        seen: how often it was when the array was taken.
    """

    __slots__ = (
        "__weakref__", "_array", "_key", "_strides", "dtype", "frozen", "library", "seen", "shape",
        "taken", "writes",
    )  # fmt: skip

    def __init__(self, array: Array, library: Library, strides: Shape | None = None) -> None:
        self._array = array
        self._strides = strides
        self.library = library
        self.shape: Shape = library.sizes(array)
        self.dtype: DType = library.dtype(array)
        self.frozen = False
        self.writes = [0]
        self.seen = 0
        self.taken: Taken | None = None
        self._key: Any = None

    @property
    def array(self) -> Array:
        """The array as it is now."""
        if self.seen != self.writes[0]:
            self._take_again()
        return self._array

    def _take_again(self) -> None:
        if self.taken is not None:
            self._array = self.taken.array()
        self.seen = self.writes[0]

    def view(self, array: Array, strides: Shape | None, taken: Taken) -> Held:
        """Give a view of this array."""
        made = Held(array, self.library, strides)
        made.frozen = self.frozen or taken.op.name() == "core::broadcast_to"
        made.writes = self.writes
        made.seen = self.writes[0]
        if self.taken is not None or not self.library.shares(array, self._array):
            made.taken = taken
        return made

    def write(self, value: Array) -> None:
        """Let the array have a new value, of its shape and dtype.

        Raises:
            MutationError: a view cannot be written.
        """
        self.check_writable()
        if self.taken is None:
            self._array = self.library.write(self.array, value)
        else:
            self.taken.put_back(value)
            self._array = value
        self._count_write()

    def wrote(self) -> None:
        """Say that the array itself was written: the base of a view gets what is there now."""
        if self.taken is not None:
            self.taken.put_back(self._array)
        self._count_write()

    def check_writable(self) -> None:
        """Refuse a write that cannot be.

        Raises:
            MutationError: elements are repeated, or a view cannot be carried back to its base.
        """
        if self.frozen:
            raise MutationError(
                "a tensor that only repeats others' elements cannot be written",
                seen=repr(self),
                fix="copy it with .clone() first",
            )
        if self.taken is not None:
            self.taken.inverse()
            self.taken.base.check_writable()

    def _count_write(self) -> None:
        self.writes[0] += 1
        self.seen = self.writes[0]

    # -- what every payload says ------------------------------------------------

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return self.library.device(self._array)

    @property
    def base(self) -> None:
        """Nothing that could be compared: memory is the library's affair."""
        return

    @property
    def strides(self) -> Shape:
        """The strides, in elements."""
        found = self.library.strides(self._array) if self.taken is None else None
        return found or self._strides or contiguous_strides(self.shape)

    @property
    def laid_out(self) -> Shape | None:
        """The strides, in elements; None if the elements lie in order."""
        found = self.library.strides(self._array) if self.taken is None else None
        if found is None:
            return self._strides
        return None if self.library.in_order(self._array) else found

    @property
    def key(self) -> Any:
        """Shape, dtype and strides, with a hash.

        Raises:
            TypeError: a size or a stride is a symbol of the library.
        """
        if self._key is None:
            if not all(n.__class__ is int for n in self.shape):
                raise TypeError("a size is a symbol")
            laid_out = self.laid_out
            if not all(n.__class__ is int for n in laid_out or ()):
                raise TypeError("a stride is a symbol")
            self._key = self.shape, self.dtype, laid_out, self.device
        return self._key

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in order."""
        return self.laid_out is None

    def look(self, what: str) -> Any:
        """Give the data as a NumPy array; read-only where a write would not be seen.

        Raises:
            AutogradError: it is asked for unseen by gradients of the library.
        """
        array = self.array
        found = to_numpy(array, what=what)
        if what == "numpy":
            way = "call .detach().numpy(), or .numpy(force=True)"
            refuse_cut(array, self.library, what, way)
        if self.taken is not None and found.flags.writeable:
            found = found.view()
            found.flags.writeable = False
        return found

    def __repr__(self) -> str:
        return f"{self.library.name} array of {self.dtype.name}{list(self.shape)}"


class Taken:
    """How a view was taken that shares no memory with its base."""

    __slots__ = ("args", "base", "op", "place", "which")

    def __init__(
        self,
        base: Held,
        op: OpOverload,
        args: tuple[Any, ...],
        place: int,
        which: int | None = None,
    ) -> None:
        self.base = base
        self.op = op
        self.args = args
        self.place = place
        self.which = which

    def array(self) -> Array:
        """Take the view of the base as it is now."""
        args = [of_held(self.base) if i == self.place else a for i, a in enumerate(self.args)]
        found = run_under(word().in_kernel, dispatch, self.op, args)
        forms = result_forms(self.op._schema)
        if self.which is not None and forms[0][0] == "views":
            found = found[self.which]
        return found.payload.array

    def inverse(self) -> Any:
        """Give the inverse of the operator.

        Raises:
            MutationError: nobody knows it.
        """
        inverse = VIEW_INVERSES.get(self.op.name())
        if inverse is None:
            raise MutationError(
                f"a view that {self.op.name()} gave of an array of {self.base.library.name} "
                "cannot be written: it shares no memory with its base",
                op=self.op._schema,
                source=self.op.source,
                fix="copy the view with .clone() first, or write the base",
            )
        return inverse

    def put_back(self, value: Array) -> None:
        """Let the base have a new value where the view is.

        Raises:
            MutationError: nobody knows how.
        """
        inverse = self.inverse()
        statics = [a for i, a in enumerate(self.args) if i != self.place]
        new = of_held(Held(value, self.base.library))
        made = run_under(word().in_kernel, inverse, of_held(self.base), new, *statics)
        whole = made.payload.array
        if self.op.name() == "core::detach":  # who writes there changes values, and no gradient
            whole = self.base.library.behind(self.base.array, whole)
        self.base.write(whole)


def keys_of_held(held: Held) -> int:
    """Give the keys of a tensor over another library's array."""
    device = held.device
    # What a library itself only traces, as PyTorch on the device meta, it computes itself.
    if device is CPU or device is META:
        return OTHER
    return OTHER | 1 << (BACKEND_SHIFT + _DEVICE_BIT[device.type])


def of_held(held: Held) -> Tensor:
    """Make a tensor of another library's array."""
    t = Tensor()
    t.payload = held
    t.keys = keys_of_held(held)
    t.version = 0
    return t


def _text(tensor: Tensor) -> str:
    held: Held = tensor.payload
    size = f"size=({', '.join(map(str, held.shape))}), dtype={held.dtype.name}"
    if held.library.lazy or not held.library.is_concrete(held.array):
        return f"tensor(..., {size}, library={held.library.name})"
    shown: Any = _Shown(held.look("repr"), tensor.requires_grad)
    inner = PRINTER.texts[np.ndarray](shown)
    return f"{inner[:-1]}, library={held.library.name})"


class _Shown:
    """What the text of a NumPy tensor reads."""

    __slots__ = ("payload", "requires_grad")

    def __init__(self, payload: Any, requires_grad: bool) -> None:
        self.payload = payload
        self.requires_grad = requires_grad


PRINTER.texts[Held] = _text
