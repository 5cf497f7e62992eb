"""Whether a program holds for some inputs: kinds, sizes, ranges, constraints (S213)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

from polyop.devices import Device, DType
from polyop.dispatch.bits import FUNCTIONAL, GRAD
from polyop.dispatch.context import word
from polyop.errors import CaptureError
from polyop.export.signature import Dimension, InputSpec
from polyop.layers.autograd.duals import Dual
from polyop.layers.levels import LEVEL_BITS
from polyop.layers.memory import below
from polyop.layers.trace.guarded import pass_on
from polyop.schema.classes import class_named
from polyop.symbolic import Expr, Guard, SymInt, is_symbolic
from polyop.tensor.meta import Meta, same_layout
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor

#: What a function may ask that the layout answers.
LAYOUTS = {"reshape", "stride", "is_contiguous"}


class Expected(NamedTuple):
    """What an input of the graph must be; the size of a number is its only axis."""

    number: int
    path: str
    dtype: DType | None
    device: Device | None
    shape: tuple[Any, ...]
    requires_grad: bool

    def place(self, axis: int) -> str:
        """Write where a size is found."""
        return self.path if self.dtype is None else f"{self.path}.shape[{axis}]"


class Checker:
    """The checks of one program, prepared once.

    Args:
        inputs: the leaves of the arguments.
        written: the numbers of those that the program writes.
        values: what the graph knows of its inputs: metas and symbolic numbers.
        dims: the symbols.
        constraints: what the capture relied on besides.
    """

    def __init__(
        self,
        inputs: Sequence[InputSpec],
        written: Sequence[int],
        values: Sequence[Any],
        dims: Mapping[str, Dimension],
        constraints: Sequence[Guard],
    ) -> None:
        self.constants = [
            (i, spec.path, spec.value) for i, spec in enumerate(inputs) if spec.kind == "constant"
        ]
        self.objects = [
            (i, spec.path, spec.value) for i, spec in enumerate(inputs) if spec.kind == "object"
        ]
        numbers = [i for i, spec in enumerate(inputs) if spec.kind != "constant"]
        self.expected = [
            _expected(i, inputs[i], value)
            for i, value in zip(numbers, values, strict=True)
            if inputs[i].kind != "object"
        ]
        metas = zip(numbers, values, strict=True)
        self.asked = [(i, inputs[i], meta) for i, meta in metas if inputs[i].asked]
        self.written = [(i, inputs[i].path) for i in written]
        self.dims = dims
        self.constraints = constraints

    def check(self, leaves: Sequence[Any]) -> None:
        """Refuse inputs that the program was not made for.

        Raises:
            CaptureError: with the input or dimension, what it must be, and what it is.
        """
        for number, path, value in self.constants:
            if not _same(leaves[number], value):
                _refuse(f"the program was made for one value of {path}", path, value,
                        leaves[number], "export it again for this value")  # fmt: skip
        for number, path, name in self.objects:
            _object(path, name, leaves[number])
        sizes: dict[str, int] = {}
        later = []
        for expected in self.expected:
            later += self._kind(expected, leaves[expected.number], sizes)
        for place, size, found in later:
            self._computed(place, size, found, sizes)
        self._constraints(sizes)
        if self.asked:
            asked = {"stride" if name == "reshape" else name for name in self.asked[0][1].asked}
            pass_on(asked)
            if "is" in asked:
                self._apart(leaves)
        for number, spec, meta in self.asked:
            _asked(spec, meta, leaves[number], sizes)
        if self.written:
            self._overlap(leaves)

    def _kind(
        self, expected: Expected, leaf: Any, sizes: dict[str, int]
    ) -> list[tuple[str, Expr, int]]:
        """Check one input, learn its sizes, and give those that others decide."""
        if expected.dtype is None:
            if type(leaf) is not int and not is_symbolic(leaf):
                _refuse(f"{expected.path} must be an int", expected.path, "int", leaf)
            shape: Sequence[Any] = (leaf,)
        else:
            shape = _tensor_shape(expected, leaf)
        later = []
        for axis, (size, found) in enumerate(zip(expected.shape, shape, strict=True)):
            if is_symbolic(found):
                continue  # another trace will see to it
            if isinstance(size, int):
                if size != found:
                    _refuse("an input has another size than the program was made for",
                            expected.place(axis), size, found,
                            "export with dynamic_shapes, and a Dim for this axis")  # fmt: skip
            elif not is_symbolic(size):
                continue  # the graph does not know it
            elif str(size) in self.dims:
                self._learn(expected.place(axis), self.dims[str(size)], found, sizes)
            else:
                later.append((expected.place(axis), size.expr, found))
        return later

    def _learn(self, place: str, dim: Dimension, found: int, sizes: dict[str, int]) -> None:
        known = sizes.setdefault(dim.symbol, found)
        if known != found:
            _refuse(f"one dimension, {dim.label}, has two sizes", place, f"{dim.label} == {known}",
                    found)  # fmt: skip
        if found < dim.lo or (dim.hi is not None and found > dim.hi):
            end = f"min={found}" if found < dim.lo else f"max={found}"
            _refuse(f"the dimension {dim.label} is out of its range", place, dim.bound, found,
                    f"export with a wider range: Dim({dim.name or 'size'!r}, {end})")  # fmt: skip

    def _computed(self, place: str, size: Expr, found: int, sizes: Mapping[str, int]) -> None:
        if all(name in sizes for name in size.symbols()) and size.evaluate(sizes) != found:
            _refuse("an input has another size than the program was made for", place,
                    f"{size} = {size.evaluate(sizes)}", found)  # fmt: skip

    def _constraints(self, sizes: Mapping[str, int]) -> None:
        for guard in self.constraints:
            names = guard.condition.symbols()
            if all(name in sizes for name in names) and not guard.holds(sizes):
                seen = ", ".join(f"{self.dims[n].label} = {sizes[n]}" for n in names)
                _refuse(f"a constraint of the program does not hold for {seen}",
                        ", ".join(self.dims[n].label for n in names), guard.text, seen,
                        f"it was relied on at {guard.message or guard.place}")  # fmt: skip

    def _apart(self, leaves: Sequence[Any]) -> None:
        first: dict[int, str] = {}
        for number, spec, _ in self.asked:
            other = first.setdefault(id(leaves[number]), spec.path)
            if other != spec.path:
                _refuse("the function compares tensors by identity, and the program was made for "
                        "different ones", spec.path, f"another tensor than {other}", "the same",
                        "pass a copy: .clone(), or call the function itself")  # fmt: skip

    def _overlap(self, leaves: Sequence[Any]) -> None:
        for number, path in self.written:
            for other in self.expected:
                leaf = leaves[other.number]
                if other.number == number or not isinstance(leaf, Tensor):
                    continue
                if shares_memory(leaves[number], leaf):
                    problem = f"the program writes {path}, which shares memory with {other.path}"
                    _refuse(problem, path, "memory of its own", other.path,
                            "pass a copy: .clone()")  # fmt: skip


def _expected(number: int, spec: InputSpec, value: Any) -> Expected:
    if isinstance(value, Meta):
        facts = value.dtype, value.device, value.shape, spec.requires_grad
        return Expected(number, spec.path, *facts)
    return Expected(number, spec.path, None, None, (value,), False)


def _tensor_shape(expected: Expected, leaf: Any) -> Sequence[Any]:
    if not isinstance(leaf, Tensor):
        _refuse(f"{expected.path} must be a tensor", expected.path, "Tensor",
                type(leaf).__name__, "make it one: polyop.asarray(...)")  # fmt: skip
    if leaf.dtype != expected.dtype or leaf.device is not expected.device:
        _refuse("an input has another dtype or device", expected.path,
                f"{expected.dtype} on {expected.device}", f"{leaf.dtype} on {leaf.device}",
                "convert it, or export for this dtype")  # fmt: skip
    if leaf.ndim != len(expected.shape):
        _refuse("an input has another number of axes", expected.path,
                f"{len(expected.shape)} axes", f"shape {tuple(leaf.shape)}")  # fmt: skip
    if not expected.requires_grad and word().grad and any(t.keys & GRAD for t in _levels(leaf)):
        _refuse("an input requires grad, and the program was made without gradients",
                expected.path, "requires_grad=False", "requires_grad=True",
                "export with tensors that require grad, or call it under no_grad()")  # fmt: skip
    return leaf.shape


def _levels(tensor: Tensor) -> Iterator[Tensor]:
    """Give a tensor, and what it is to each transform around."""
    yield tensor
    while tensor.keys & (LEVEL_BITS | FUNCTIONAL):
        tensor = below(tensor) if tensor.keys & LEVEL_BITS else tensor.payload.recorded_value
        yield tensor


def _tangent(tensor: Tensor) -> Tensor | None:
    return tensor.payload.tangent if isinstance(tensor.payload, Dual) else None


def _asked(spec: InputSpec, meta: Meta, leaf: Tensor, sizes: Mapping[str, int]) -> None:
    """Refuse a tensor of which the function would have got other answers."""
    if LAYOUTS & {*spec.asked}:
        _layout(spec, meta, leaf, sizes)
    if "tangent" in spec.asked and any(_tangent(t) is not None for t in _levels(leaf)):
        _refuse("an input has a tangent, and the program does not know the derivative of an "
                "autograd.Function on the way", spec.path, "no tangent", "one of func.jvp",
                "make an operator of this part and register its derivative")  # fmt: skip
    for name, known in (
        ("requires_grad", spec.requires_grad), ("is_leaf", True), ("grad", None), ("_base", None)
    ):  # fmt: skip
        wanted = name in spec.asked or (name == "requires_grad" and "is_leaf" in spec.asked)
        if wanted and (found := getattr(leaf, name)) is not known:
            _refuse(f"the function asks for .{name} of a tensor, and the program has one answer",
                    spec.path, f"{name} = {known}", f"{name} = {found!r:.60}",
                    "call the function itself, or export it with such an input")  # fmt: skip


def _layout(spec: InputSpec, meta: Meta, leaf: Tensor, sizes: Mapping[str, int]) -> None:
    """Refuse a tensor that lies otherwise.

    Where no stride was asked, but a view or a copy taken, that is one of which `reshape` would
    give a view and not a copy, or back.
    """
    strides = [known_size(n, sizes) for n in meta.strides]
    shape: Any = tuple(leaf.shape)
    found = tuple(leaf.stride())
    if any(n is None or is_symbolic(n) for n in (*strides, *shape, *found)):
        return  # another trace will see to it
    if {*spec.asked} & LAYOUTS == {"reshape"}:
        same = 0 in shape or _order(shape, strides) == _order(shape, found)
        what = "what the program writes depends"
    else:
        same = same_layout(shape, tuple(strides), found)
        what = "the function asks for strides, or is_contiguous(), so the program depends"
    if not same:
        _refuse("an input lies in memory in another way than the program was made for, and "
                f"{what} on that", spec.path, f"strides {tuple(strides)}", f"strides {found}",
                "give a contiguous one: .contiguous()" if meta.is_contiguous
                else "export it with an input that lies in this way")  # fmt: skip


def known_size(size: Any, sizes: Mapping[str, int]) -> Any:
    """Give a size as a number, or None if it is not known."""
    if not isinstance(size, SymInt):
        return size
    known = all(name in sizes for name in size.expr.symbols())
    return size.expr.evaluate(sizes) if known else None


def _order(shape: Sequence[int], strides: Sequence[int]) -> Any:
    """Describe a layout by what decides over views: the order of axes, and which can be joined."""
    axes = [axis for axis, n in enumerate(shape) if n != 1]
    order = sorted(axes, key=lambda axis: -abs(strides[axis]))
    joined = [strides[a] == strides[b] * shape[b] for a, b in pairwise(order)]
    inner = [strides[axis] == 1 for axis in order[-1:]]
    return order, joined, inner, [strides[axis] < 0 for axis in axes]


def _object(path: str, name: str, leaf: Any) -> None:
    cls = class_named(name)
    if cls is None or not isinstance(leaf, cls):
        _refuse(f"{path} must be an object of {name}", path, name, class_path(leaf.__class__),
                "give an object of this class, or of a subclass")  # fmt: skip


def class_path(cls: type) -> str:
    """Write a class as a reader finds it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _same(a: Any, b: Any) -> bool:
    """Tell whether two constants are interchangeable; 1, 1.0 and True are not, nor 0.0 and -0.0."""
    if type(a) is not type(b):
        return False
    return a is b or (repr(a) == repr(b) if isinstance(a, (float, complex)) else bool(a == b))


def _refuse(problem: str, place: str, declared: object, seen: object, fix: str = "") -> NoReturn:
    raise CaptureError(problem, argument=place, declared=declared, seen=seen, fix=fix)
