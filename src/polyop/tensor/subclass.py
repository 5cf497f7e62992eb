"""Tensor subclasses: classes of users that answer the calls with their tensors (S163 to S166).

A subclass defines `__dispatch__`; its tensors have the bit `SUBCLASS`, which
brings a call to the key Python, below autograd and transforms. A wrapper has
no data of its own: its payload says only what it looks like, and what it is
made of are tensors in its attributes. The other sort shares the payload of a
tensor that there was before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from polyop.devices import Device, DType, as_dtype
from polyop.dispatch.bits import BACKEND_SHIFT, GRAD, SUBCLASS, WRAPPED
from polyop.dispatch.body import result_forms
from polyop.dispatch.context import Word, entered, word
from polyop.dispatch.keys import DispatchKey
from polyop.dispatch.keyset import DispatchKeySet
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.python_key import check_classmethod, dispatches
from polyop.errors import UsageError, UsageTypeError
from polyop.symbolic import SymInt
from polyop.tensor.meta import Shape, contiguous_strides, normal_strides
from polyop.tensor.printing import PRINTER
from polyop.tensor.storage import share
from polyop.tensor.tensor import _DEVICE_BIT, MADE, Tensor

T = TypeVar("T", bound=Tensor)


class Outside:
    """The payload of a wrapper: what it looks like from outside."""

    __slots__ = ("cls", "device", "dtype", "shape", "strides")

    def __init__(
        self, cls: type, shape: Shape, dtype: DType, strides: Shape, device: Device
    ) -> None:
        self.cls = cls
        self.shape = shape
        self.dtype = dtype
        self.strides = strides
        self.device = device

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> Any:
        """The number of elements."""
        count: Any = 1
        for n in self.shape:
            count = count * n
        return count

    @property
    def base(self) -> None:
        """Nothing: a wrapper owns no memory."""
        return

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements would lie in order."""
        return normal_strides(self.shape, self.strides) is None

    def look(self, what: str) -> NoReturn:
        """Refuse a look at data that is not there.

        Raises:
            UsageTypeError: always.
        """
        raise UsageTypeError(
            f"{what}() looks at the data of a {self.cls.__name__}, which has none of its own",
            seen=repr(self),
            fix="look at the tensors inside it",
        )

    def __repr__(self) -> str:
        size = ", ".join(map(str, self.shape))
        return f"size=({size}), dtype={self.dtype.name}, device={self.device}"


PRINTER.texts[Outside] = lambda t: f"{type(t).__name__}(..., {t.payload!r})"


# -- making -------------------------------------------------------------------


def make_wrapper_subclass(
    cls: type[T],
    shape: Sequence[Any],
    *,
    strides: Sequence[Any] | None = None,
    dtype: Any,
    device: Any,
    requires_grad: bool = False,
) -> T:
    """Make a tensor of a subclass that has no data of its own.

    Args:
        cls: a subclass of `Tensor` with a classmethod `__dispatch__`.
        shape: what it shows as its shape; ints or symbolic ones.
        strides: in elements; by default those of a contiguous tensor.
        dtype: of its elements.
        device: where it says that they are.
        requires_grad: whether it is a leaf that gradients flow to.

    Raises:
        UsageTypeError: no such class, or sizes that are no integers.
        UsageError: a negative size, or not one stride per axis.

    Example:
        >>> import polyop
        >>> class Doubled(polyop.Tensor):
        ...     def __new__(cls, inner):
        ...         t = make_wrapper_subclass(
        ...             cls, inner.shape, dtype=inner.dtype, device=inner.device
        ...         )
        ...         t.inner = inner
        ...         return t
        ...     @classmethod
        ...     def __dispatch__(cls, op, types, args=(), kwargs=None):
        ...         args = [a.inner * 2 if isinstance(a, cls) else a for a in args]
        ...         return op(*args, **(kwargs or {}))
        >>> polyop.sin(Doubled(polyop.zeros(2)) + 1) + 0
        tensor([0.841471, 0.841471])
    """
    _check_class(cls)
    check_classmethod(cls)
    sizes = tuple(_size("shape", n) for n in shape)
    steps = contiguous_strides(sizes) if strides is None else tuple(strides)
    if len(steps) != len(sizes):
        raise UsageError(
            "there must be one stride per axis", declared=f"{len(sizes)} axes", seen=repr(steps)
        )
    where = Device(device)
    made = Tensor.__new__(cls)
    made.payload = Outside(cls, sizes, as_dtype(dtype), steps, where)
    made.keys = SUBCLASS
    if where.type != "cpu":
        made.keys |= 1 << (BACKEND_SHIFT + _DEVICE_BIT[where.type])
    made.version = 0
    if requires_grad:
        made.requires_grad_()
    MADE.subclasses = True
    return made


def make_subclass(cls: type[T], tensor: Tensor, requires_grad: bool = False) -> T:
    """Make a tensor of a subclass that shares a tensor's payload, and its count of writes.

    Args:
        cls: a subclass of `Tensor`; without `__dispatch__`, its tensors act as plain ones.
        tensor: what it shares.
        requires_grad: whether it is a leaf that gradients flow to.

    Raises:
        UsageTypeError: no subclass, no tensor, or a value inside a transform.
    """
    _check_class(cls)
    if not isinstance(tensor, Tensor) or tensor.keys & WRAPPED:
        raise UsageTypeError(
            "a subclass is made of a tensor outside of transforms", seen=f"{tensor!r:.80}"
        )
    if hasattr(cls, "__dispatch__"):
        check_classmethod(cls)
    made = Tensor.__new__(cls)
    made.payload = tensor.payload
    made.keys = tensor.keys & ~(GRAD | SUBCLASS)
    made.version = share(tensor)
    if dispatches(cls):
        made.keys |= SUBCLASS
        MADE.subclasses = True
    if requires_grad:
        made.requires_grad_()
    return made


def _check_class(cls: Any) -> None:
    if not isinstance(cls, type) or not issubclass(cls, Tensor) or cls is Tensor:
        raise UsageTypeError("not a subclass of Tensor", seen=repr(cls))


def _size(name: str, value: Any) -> Any:
    if isinstance(value, SymInt):
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UsageTypeError("sizes are integers", argument=name, seen=f"{value!r:.60}")
    if value.__index__() < 0:
        raise UsageError("a size is negative", argument=name, seen=repr(value))
    return value.__index__()


def copy_of(tensor: T) -> T:
    """Make a tensor of the same class, with the same payload and attributes."""
    cls = type(tensor)
    made = Tensor.__new__(cls)
    made.payload, made.keys = tensor.payload, tensor.keys
    if cls is Tensor:
        return made
    names = [n for c in cls.__mro__ if c.__module__ != Tensor.__module__ for n in _slots(c)]
    for name in names:
        if hasattr(tensor, name):
            setattr(made, name, getattr(tensor, name))
    vars(made).update(vars(tensor)) if hasattr(tensor, "__dict__") else None
    return made


def _slots(cls: type) -> Sequence[str]:
    found = vars(cls).get("__slots__", ())
    names = (found,) if isinstance(found, str) else found
    return [n for n in names if n not in {"__dict__", "__weakref__"}]


# -- traceable wrappers -------------------------------------------------------


def is_traceable_wrapper_subclass(t: object) -> bool:
    """Tell whether a value is a wrapper that can be taken apart and put together (S165)."""
    return (
        isinstance(t, Tensor)
        and t.keys & SUBCLASS != 0
        and hasattr(t, "__tensor_flatten__")
        and hasattr(t, "__tensor_unflatten__")
    )


def inner_tensors(t: Any) -> list[tuple[str, Tensor]]:
    """Give the tensors of a traceable wrapper, by attribute.

    Raises:
        UsageTypeError: it is none, or an attribute that it names is no tensor.
    """
    if not is_traceable_wrapper_subclass(t):
        raise UsageTypeError(
            "not a traceable wrapper",
            declared="a subclass with __tensor_flatten__ and __tensor_unflatten__",
            seen=type(t).__name__,
        )
    found = [(name, getattr(t, name, None)) for name in t.__tensor_flatten__()[0]]
    for name, value in found:
        if not isinstance(value, Tensor):
            raise UsageTypeError(
                f"{type(t).__name__}.__tensor_flatten__ names {name!r}, which is no tensor",
                seen=f"{type(value).__name__} {value!r:.60}",
                fix="name the attributes that are tensors",
            )
    return [(name, value) for name, value in found if value is not None]


def rebuilt(t: Any, inner: dict[str, Tensor]) -> Any:
    """Make a wrapper like another one, of other tensors inside.

    Raises:
        UsageTypeError: `__tensor_unflatten__` gives something else.
    """
    context = t.__tensor_flatten__()[1]
    shape, strides = tuple(t.payload.shape), tuple(t.stride())
    made = type(t).__tensor_unflatten__(inner, context, shape, strides)
    if not isinstance(made, type(t)):
        raise UsageTypeError(
            f"{type(t).__name__}.__tensor_unflatten__ gives no {type(t).__name__}",
            seen=type(made).__name__,
        )
    return made


def map_inner(t: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Put `fn` of each inner tensor in its place, in wrappers of wrappers too."""
    if not is_traceable_wrapper_subclass(t):
        return fn(t)
    return rebuilt(t, {name: map_inner(x, fn) for name, x in inner_tensors(t)})


# -- for handlers -------------------------------------------------------------


class no_dispatch(entered):
    """Inside it no mode and no subclass is asked (S166).

    What shares the payload of a tensor is dealt with as that tensor; a wrapper
    has no data, so a call with one raises.
    """

    __slots__ = ()

    def word(self) -> Word:
        """Give the current word without the key Python."""
        now = word()
        return now.but(exclude=now.exclude | PYTHON)


PYTHON = DispatchKeySet([DispatchKey.Python, DispatchKey.PythonTLSSnapshot])


def return_and_correct_aliasing(op: OpOverload, args: Any, kwargs: Any, out: Any) -> Any:
    """Give the result of a subclass's handler, with the aliasing that the schema declares.

    A result that the schema declares to be an argument becomes that argument
    itself; one that it declares to be a view of an argument shares its count
    of writes, and knows what it is a view of, so that autograd sees writes
    through it.

    Args:
        op: the operator.
        args: as `__dispatch__` got them.
        kwargs: as `__dispatch__` got them.
        out: the result of the handler.
    """
    values = _filled(op, args, kwargs or {})
    forms = result_forms(op._schema)
    if len(forms) == 1:
        return _corrected(op, values, forms[0], out)
    done = [_corrected(op, values, form, x) for form, x in zip(forms, out or (), strict=True)]
    return tuple(done) if forms else None


def _filled(op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """Give all arguments in schema order."""
    rest = op._schema.arguments[len(args) :]
    return [*args, *[kwargs.get(a.name, a.default_value) for a in rest]]


def _corrected(op: OpOverload, values: Sequence[Any], form: tuple[str, int], out: Any) -> Any:
    kind, i = form
    if kind == "argument":
        return values[i]
    if kind == "views":
        return [_tied(op, values, i, x, n) for n, x in enumerate(out)]
    return _tied(op, values, i, out) if kind == "view" else out


def _tied(op: OpOverload, values: Sequence[Any], i: int, out: Any, *more: int) -> Any:
    """Tie a view to what it is a view of."""
    base = values[i]
    if not isinstance(out, Tensor) or out is base:
        return out
    if getattr(out, "view_of", None) is None or out.view_of[0] is not base:
        out.version = share(base)
        out.view_of = (base, op, (*values[:i], *values[i + 1 :], *more))
    return out
