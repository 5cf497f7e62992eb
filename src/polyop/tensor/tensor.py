"""`Tensor`: a payload, and the keys of those who act on it.

A payload is an array of some library, or a record of a layer: the meta of a
fake, one batch of a vmap. The fields are filled by the functions that make
tensors, one store each; an `__init__` would cost a frame. Operators become
methods in `ops/methods.py`, and autograd adds its own; the class body lists
them, so that readers and type checkers see the whole class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from polyop.devices import CPU, Device, DType, Layout
from polyop.dispatch.bits import BACKEND_SHIFT, FAKE, GRAD, NUMPY, PRE_DISPATCH, PROBING, TRACE
from polyop.dispatch.context import word
from polyop.dispatch.parts import PARTS
from polyop.errors import AutogradError, UsageTypeError
from polyop.lazy import load
from polyop.schema.types import ANNOTATIONS, TENSOR
from polyop.schema.values import register_symbolic, set_tensor_predicate
from polyop.symbolic import SymBool, SymFloat, SymInt
from polyop.tensor.asked import CAPTURES, answer, note
from polyop.tensor.meta import Meta, Shape, at_axis, element_strides
from polyop.warn import warn_constant

Method = Callable[..., Any]


class Made:
    """What was ever made in this process; until then nobody looks for it."""

    __slots__ = ("subclasses",)
    subclasses: bool


MADE = Made()
MADE.subclasses = False
#: A look at data goes to what records calls, if there is such a thing.
RECORDED = TRACE | PRE_DISPATCH | PROBING


class Tensor:
    """An array of some library, and the keys of those who act on it.

    Make one with `polyop.tensor`, `polyop.from_numpy`, `polyop.zeros`, ...

    Attributes:
        payload: the array, or a layer's record.
        keys: who acts on it (`dispatch/bits.py`).
        version: how often its storage was written (`tensor/storage.py`).
        grad_node: how it was computed, if it requires grad.
        graph_node: the node of the trace that made it.
        view_of: for a view, `(tensor it is a view of, operator, static arguments)`.
    """

    __slots__ = ("__weakref__", "grad_node", "graph_node", "keys", "payload", "version", "view_of")
    payload: Any
    keys: int
    version: Any
    grad_node: Any
    graph_node: Any
    view_of: tuple[Tensor, Any, tuple[Any, ...]]

    #: NumPy leaves operators with tensors to us.
    __array_ufunc__ = None
    __array_priority__ = 1000
    __hash__ = object.__hash__

    # -- what it is -----------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The size of each axis."""
        return tuple(self.payload.shape)

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        found: DType = self.payload.dtype
        return found

    @property
    def device(self) -> Device:
        """Where the elements are."""
        payload = self.payload
        return CPU if payload.__class__ is np.ndarray else payload.device

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.payload.shape)

    @property
    def size(self) -> Any:
        """The number of elements."""
        count: Any = 1
        for n in self.payload.shape:
            count = count * n
        return count

    @property
    def layout(self) -> Layout:
        """How the elements are laid out."""
        return Layout.strided

    @property
    def itemsize(self) -> int:
        """The bytes of one element."""
        return int(self.dtype.itemsize)

    @property
    def nbytes(self) -> Any:
        """The bytes of all elements."""
        return self.size * self.itemsize

    def dim(self) -> int:
        """Give the number of axes."""
        return len(self.payload.shape)

    def numel(self) -> Any:
        """Give the number of elements."""
        return self.size

    def element_size(self) -> int:
        """Give the bytes of one element."""
        return self.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Give the strides, in elements, or that of one axis."""
        payload = self.payload
        if payload.__class__ is not np.ndarray:
            note(self, "stride")
        found = element_strides(payload) if payload.__class__ is np.ndarray else payload.strides
        return tuple(found) if dim is None else at_axis(found, dim)

    def is_contiguous(self) -> bool:
        """Tell whether the elements lie in order."""
        payload = self.payload
        if payload.__class__ is np.ndarray:
            return bool(payload.flags.c_contiguous)
        note(self, "is_contiguous")
        return bool(payload.is_contiguous)

    def is_floating_point(self) -> bool:
        """Tell whether the elements are floating-point numbers."""
        return is_floating(self.dtype)

    def is_complex(self) -> bool:
        """Tell whether the elements are complex numbers."""
        return self.dtype.kind == "c"

    def data_ptr(self) -> int:
        """Give the address of the first element."""
        return int(self._data("data_ptr").ctypes.data)

    @property
    def is_fake(self) -> bool:
        """Whether it has no data."""
        return self.payload.__class__ is Meta

    # -- gradients ------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to it."""
        t = self if self.payload.__class__ is np.ndarray else note(self, "requires_grad")
        found = t.keys & GRAD != 0
        return answer(self, "requires_grad", found) if CAPTURES else found

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether no operator with a gradient made it."""
        t = self if self.payload.__class__ is np.ndarray else note(self, "is_leaf")
        found: bool = not t.keys & GRAD or t.grad_node.seq == 0
        return answer(self, "is_leaf", found) if CAPTURES else found

    @property
    def _version(self) -> int:
        found: int = self.version if self.version.__class__ is int else self.version.n
        return answer(self, "_version", found) if CAPTURES else found

    @property
    def _base(self) -> Tensor | None:
        """The tensor that it is a view of, or None."""
        if self.payload.__class__ is not np.ndarray:
            note(self, "_base")
        base = self
        while (view := getattr(base, "view_of", None)) is not None:
            base = view[0]
        found = None if base is self else base
        return answer(self, "_base", found) if CAPTURES else found

    # -- a look at the data ---------------------------------------------------

    def _data(self, what: str) -> Any:
        """Give the NumPy array for a look at the data, or raise what such a look means here."""
        payload = self.payload
        if word() & RECORDED and word().watcher is not None:
            return word().watcher.look(self, what)
        if payload.__class__ is np.ndarray:
            return payload
        if payload.__class__ is Meta and payload.tracer is not None:
            return payload.tracer.look(self, what)  # in a thread that the trace does not see
        return payload.look(what)

    def numpy(self, *, force: bool = False) -> Any:
        """Give a NumPy array that shares the memory.

        Args:
            force: also for a tensor that requires grad; detaches it.

        Raises:
            AutogradError: it requires grad, here or in its library, and `force` is false.
            DataDependentOutputError: it has no data.
        """
        if self.keys == 1 and not word():  # the plain case, which kernels are in
            return self.payload
        payload, now = self.payload, word()
        if now.grad and self.keys & GRAD and not force:
            raise AutogradError(
                "the data of a tensor that requires grad cannot be used unseen by autograd",
                fix="call .detach().numpy(), or .numpy(force=True)",
            )
        if payload.__class__ is np.ndarray and not now & RECORDED:
            return payload
        return self._data("detach().numpy" if force else "numpy")

    def item(self) -> Any:
        """Give the one element as a Python number.

        Raises:
            UsageError: it has another number of elements.
        """
        return self._data("item").item()

    def tolist(self) -> Any:
        """Give nested lists of Python numbers."""
        return self._data("tolist").tolist()

    def __bool__(self) -> bool:
        return bool(self._data("bool"))

    def __int__(self) -> int:
        return int(self._data("int").item())

    def __float__(self) -> float:
        return float(self._constant("float"))

    def __complex__(self) -> complex:
        return complex(self._constant("complex"))

    def _constant(self, what: str) -> Any:
        """Give the one element to whom may not know that no gradient flows through it."""
        found = self._data(what).item()
        if self.keys & GRAD and word().grad:
            warn_constant(what)
        return found

    def __index__(self) -> int:
        array = self._data("index")
        if array.dtype.kind not in "iu" or array.ndim:
            raise UsageTypeError(
                "only an integer tensor without axes is an index", seen=f"{self.dtype}{self.shape}"
            )
        return int(array.item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        return np.array(array, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if not self.shape:
            raise UsageTypeError("a tensor without axes has no length")
        return int(self.shape[0])  # of a symbol too, which is guarded to be that

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise UsageTypeError("a tensor without axes has no elements to iterate over")
        return iter([self[i] for i in range(len(self))])

    def __contains__(self, value: object) -> bool:
        return bool((self == value).any())  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        text: str = load("polyop.tensor.printing:PRINTER").text(self)
        return text

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.shape else repr(self)

    def __reduce__(self) -> Any:
        return load("polyop.tensor.copying:reduced")(self)

    def __copy__(self) -> Any:
        return load("polyop.tensor.copying:shallow")(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return load("polyop.tensor.copying:deep")(self, memo)

    # -- operators, attached in ops/methods.py ---------------------------------

    __add__: ClassVar[Method]
    __radd__: ClassVar[Method]
    __sub__: ClassVar[Method]
    __rsub__: ClassVar[Method]
    __mul__: ClassVar[Method]
    __rmul__: ClassVar[Method]
    __truediv__: ClassVar[Method]
    __rtruediv__: ClassVar[Method]
    __floordiv__: ClassVar[Method]
    __rfloordiv__: ClassVar[Method]
    __mod__: ClassVar[Method]
    __rmod__: ClassVar[Method]
    __pow__: ClassVar[Method]
    __rpow__: ClassVar[Method]
    __matmul__: ClassVar[Method]
    __rmatmul__: ClassVar[Method]
    __and__: ClassVar[Method]
    __or__: ClassVar[Method]
    __xor__: ClassVar[Method]
    __lshift__: ClassVar[Method]
    __rshift__: ClassVar[Method]
    __neg__: ClassVar[Method]
    __pos__: ClassVar[Method]
    __abs__: ClassVar[Method]
    __invert__: ClassVar[Method]
    __getitem__: ClassVar[Method]
    __setitem__: ClassVar[Method]
    detach: ClassVar[Method]
    clone: ClassVar[Method]
    any: ClassVar[Method]
    requires_grad_: ClassVar[Method]
    backward: ClassVar[Method]


def is_floating(dtype: DType) -> bool:
    """Tell whether a dtype is one of floating-point numbers, `ml_dtypes` included."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def is_differentiable(dtype: DType) -> bool:
    """Tell whether gradients can flow through a dtype."""
    return is_floating(dtype) or dtype.kind == "c"


def of_array(array: Any) -> Tensor:
    """Wrap a NumPy array; nothing is copied."""
    t = Tensor()
    t.payload = array
    t.keys = NUMPY
    t.version = 0
    return t


def of_meta(meta: Meta) -> Tensor:
    """Make a tensor without data: a fake, or one on the device `meta`."""
    t = Tensor()
    t.payload = meta
    t.keys = keys_of_meta(meta)
    t.version = 0
    return t


#: The bit of the backend Meta.
META_KEYS = 1 << (BACKEND_SHIFT + 8)
_DEVICE_BIT = {"cpu": 0, "cuda": 1, "xla": 2, "mps": 3, "xpu": 4, "privateuseone": 5, "meta": 8}


def keys_of_meta(meta: Meta) -> int:
    """Give the keys of a tensor without data."""
    if meta.space.mode is None:
        return META_KEYS
    if meta.device is CPU:
        return FAKE
    return FAKE | 1 << (BACKEND_SHIFT + _DEVICE_BIT[meta.device.type])


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _integer(tensor: Any) -> int | None:
    """Give the number in a 0-d integer tensor, which may stand where an int is wanted."""
    return int(tensor.item()) if not tensor.shape and tensor.dtype.kind in "iu" else None


ANNOTATIONS[Tensor] = TENSOR
set_tensor_predicate(_is_tensor, _integer)
register_symbolic(SymInt, SymFloat, SymBool)
PARTS.Tensor = Tensor
PARTS.ndarray, PARTS.asarray = np.ndarray, np.asarray
PARTS.Meta, PARTS.of_meta = Meta, of_meta
