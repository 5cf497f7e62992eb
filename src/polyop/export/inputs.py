"""The inputs of an export: fakes for tensors, symbols for the sizes that may change."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from polyop.dispatch.bits import GRAD
from polyop.errors import CaptureError, UsageError
from polyop.export.dims import Dim, Kind, Leaf
from polyop.export.objects import class_name_of, input_of
from polyop.export.signature import Dimension, InputSpec
from polyop.layers.fake import FakeTensorMode
from polyop.objects.fakes import original_of
from polyop.schema.opaque import is_input
from polyop.symbolic import SymInt, is_symbolic
from polyop.symbolic.env import default_least
from polyop.tensor.meta import Shape, normal_strides
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor, of_meta


class Inputs(NamedTuple):
    """Stand-ins for the leaves of the arguments, and the symbols in them."""

    specs: tuple[InputSpec, ...]
    values: list[Any]
    dims: dict[str, Dimension]
    promised: dict[str, Dimension]


def positional_names(f: Callable[..., Any], count: int) -> list[str]:
    """Name the positional arguments: by parameter, or by number."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p.name for p in parameters if p.kind in kinds]
    return [named[i] if i < len(named) else f"arg{i}" for i in range(count)]


def refuse_shared(known: Sequence[Leaf]) -> None:
    """Refuse inputs that share memory, for the program cannot know that they do."""
    tensors = [(leaf.path, leaf.value) for leaf in known if isinstance(leaf.value, Tensor)]
    for n, (path, tensor) in enumerate(tensors):
        for other, earlier in tensors[:n]:
            if shares_memory(tensor, earlier):
                raise CaptureError(
                    f"two inputs share memory: {other} and {path}",
                    argument=path,
                    fix="export with separate tensors; the program may be called with shared "
                    "ones unless it writes them",
                )


def _object(
    mode: FakeTensorMode, leaf: Leaf, specs: Sequence[InputSpec], values: Sequence[Any]
) -> Any:
    """Give what stands for an object, which no other input is."""
    made = input_of(mode, leaf.value)
    paths = [spec.path for spec in specs if spec.kind != "constant"]
    for path, other in zip(paths, values, strict=False):
        if original_of(other) is original_of(made):  # it cannot be copied, or is itself in traces
            raise CaptureError(
                f"two inputs are one object: {path} and {leaf.path}",
                argument=leaf.path,
                declared=class_name_of(made),
                fix="export with two objects; the program may be called with one",
            )
    return made


def make_inputs(mode: FakeTensorMode, known: Sequence[Leaf]) -> Inputs:
    """Make a fake for each tensor and object, and a symbol for each size that may change."""
    symbols = Symbols(mode)
    specs: list[InputSpec] = []
    values: list[Any] = []
    for leaf in known:
        if isinstance(leaf.value, Tensor):
            specs.append(InputSpec(leaf.path, "tensor", None, bool(leaf.value.keys & GRAD)))
            values.append(_fake(mode, symbols, leaf))
        elif leaf.dims and is_symbolic(size := symbols.size(leaf, None, leaf.value)):
            specs.append(InputSpec(leaf.path, "size"))
            values.append(size)
        elif is_input(leaf.value):
            specs.append(InputSpec(leaf.path, "object", class_name_of(leaf.value)))
            values.append(_object(mode, leaf, specs, values))
        else:
            specs.append(InputSpec(leaf.path, "constant", leaf.value))
    return Inputs(tuple(specs), values, symbols.dims, symbols.promised)


class Symbols:
    """The symbols of an export: one for each name, and one for each size without a name."""

    def __init__(self, mode: FakeTensorMode) -> None:
        assert mode.shape_env is not None
        self.env = mode.shape_env
        self.named: dict[Dim, SymInt] = {}
        self.dims: dict[str, Dimension] = {}
        self.promised: dict[str, Dimension] = {}

    def size(self, leaf: Leaf, axis: int | None, hint: int) -> int | SymInt:
        """Give what stands for one size."""
        dim = leaf.dims.get(axis)
        if dim is None or (dim is Kind.AUTO and hint in (0, 1)):
            return hint
        place = leaf.path if axis is None else f"{leaf.path}.shape[{axis}]"
        if not isinstance(dim, Dim):
            lo = default_least(hint)
            return self._make("", hint, 0 if lo is None else lo, None, dim is not Kind.AUTO)
        if hint < dim.min or (dim.max is not None and hint > dim.max):
            raise CaptureError(
                f"the size at export is not in the range of the dimension {dim.name}",
                argument=place,
                declared=repr(dim),
                seen=hint,
                fix=f"write Dim({dim.name!r}, min={min(hint, dim.min)})"
                if hint < dim.min
                else "give a greater max",
            )
        if dim not in self.named:
            self._refuse_second(dim)
            self.named[dim] = self._make(dim.name, hint, dim.min, dim.max, promised=True)
        known = self.named[dim]
        if known.hint != hint:
            raise CaptureError(
                f"one dimension, {dim.name}, has two sizes",
                argument=place,
                declared=known.hint,
                seen=hint,
                fix="give each size a Dim with a name of its own",
            )
        return known

    def _make(self, name: str, hint: int, lo: int, hi: int | None, promised: bool) -> SymInt:
        made = self.env.create_symbol(hint, dynamic=True, min=lo, max=hi)
        assert isinstance(made, SymInt)
        symbol = str(made)
        self.dims[symbol] = Dimension(symbol, name, lo, hi, hint)
        if promised:
            self.promised[symbol] = self.dims[symbol]
        return made

    def _refuse_second(self, dim: Dim) -> None:
        if any(other.name == dim.name for other in self.named):
            raise UsageError(
                f"two dimensions are called {dim.name}, with different ranges", seen=repr(dim)
            )


def _fake(mode: FakeTensorMode, symbols: Symbols, leaf: Leaf) -> Tensor:
    tensor: Tensor = leaf.value
    shape = tuple(symbols.size(leaf, axis, int(n)) for axis, n in enumerate(tensor.shape))
    meta = mode.space.meta(shape, tensor.dtype, _strides(tensor, shape), tensor.device)
    fake = of_meta(meta)
    if tensor.keys & GRAD:
        fake.requires_grad_()
    return fake


def _strides(tensor: Tensor, shape: Shape) -> Shape | None:
    """Give the strides of a tensor, with its sizes where they are products of these.

    Of what is not dense, and may have other sizes, the gaps are those of the sample.
    """
    if tensor.is_contiguous():
        return None
    sizes, strides = [int(n) for n in tensor.shape], [int(n) for n in tensor.stride()]
    order = sorted(range(len(shape)), key=lambda axis: (abs(strides[axis]), -axis))
    step: Any = 1
    count = 1
    found: list[Any] = list(strides)
    for axis in order:
        if strides[axis] == count or sizes[axis] == 1:
            found[axis] = step
        elif strides[axis] == 0:
            continue
        else:
            step, count = strides[axis], strides[axis]
        step, count = step * shape[axis], count * sizes[axis]
    return normal_strides(shape, found)


def of_graph(specs: Sequence[InputSpec]) -> list[int]:
    """Give the numbers of the inputs that the graph takes."""
    return [i for i, spec in enumerate(specs) if spec.kind != "constant"]
