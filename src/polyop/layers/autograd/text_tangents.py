"""The tangents of operators whose gradient is a text that gives the tangent as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polyop.devices import DType
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import NUMPY
from polyop.dispatch.context import word
from polyop.dispatch.operator import Handler, OpOverload
from polyop.dispatch.results import tensors_in
from polyop.dispatch.write import indent, make_function, shape_of
from polyop.layers.autograd.arrays import cast_tensor, conj_tensor
from polyop.layers.autograd.paired import LARGE, Kernel, Loop, PairedLoops
from polyop.layers.autograd.steps import Places, Steps, Written, steps_of, written_of
from polyop.lazy import load
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor, is_differentiable

Tangents = Sequence[Any]
#: `(values, tangents) -> (results, a tangent or None for each)`; the results in a row.
TangentRule = Callable[[Sequence[Any], Tangents], tuple[Any, Sequence[Any]]]
#: One text for the tangents of several arguments together, `g0`, `g1`, ... in their order.
JOINT: dict[str, dict[tuple[int, ...], str]] = {
    "core::divide": {(0, 1): "(g0 - g1 * r) / b"},
    "core::where": {(1, 2): "where(condition, g1, g2)"},
}


class TextTangents:
    """The rule of an operator whose gradient's text gives the tangent as well.

    For complex numbers the text gives the conjugate, and only where the function
    is holomorphic; these are transposed.
    """

    def __init__(self, op: OpOverload, texts: Any, otherwise: TangentRule) -> None:
        self.op = op
        names = [a.name for a in op._schema.arguments]
        self.names = names
        self.texts = {names.index(name): text for name, text in texts.items() if text}
        self.joint = JOINT.get(op.name(), {})
        self.written: dict[tuple[int, ...], Callable[..., Any]] = {}
        #: By the bits of the arguments that have a tangent, inverted where all tensors are one.
        self.steps: dict[int, tuple[Steps | None, Places]] = {}
        self.otherwise = otherwise
        self.tensors = [i for i, k in enumerate(shape_of(op._schema).kinds) if k == "tensor"]
        self.first = self.tensors[0] if self.tensors else 0
        self.loops = PairedLoops(op, self._loop)
        self.pair = tuple(self.tensors) if len(self.tensors) == 2 else None

    def __call__(self, values: Sequence[Any], tangents: Tangents) -> tuple[Any, Sequence[Any]]:
        """Run the operator, and its text on the tangents."""
        if any(t.dtype.kind == "c" for t in tensors_in(tuple(values))):
            return self.otherwise(values, tangents)
        return self._pushed(dispatch(self.op, values), values, tangents)

    def at_once(
        self, call: Handler, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        """Do the same where all tensors are plain arrays, and nobody watches."""
        first = values[self.first].payload
        if first.dtype.kind == "c":
            return self.otherwise(values, tangents)
        which = 0
        for i in self.texts:
            if tangents[i] is not None:
                which |= 1 << i
        pair = self.pair
        if pair is not None and values[pair[0]] is values[pair[1]]:
            which = ~which if tangents[pair[0]] is tangents[pair[1]] else which
        steps, _ = self.steps.get(which) or self._steps(which)
        found = None
        large = first.size >= LARGE or (pair and values[pair[1]].payload.size >= LARGE)
        if large and steps is not None:
            found = self.loops.run(values, tangents, which, first.dtype)
            if found is not None and found[1] is not None:
                return found
        out = call(*values) if found is None else found[0]
        d = None if steps is None else steps(values, out, tangents)
        if d is not None:
            return out, (d,)
        if any(values[i].payload.dtype.kind == "c" for i in self.tensors):
            return self.otherwise(values, tangents)
        return self._pushed(out, values, tangents)

    def _pushed(
        self, out: Any, values: Sequence[Any], tangents: Tangents
    ) -> tuple[Any, Sequence[Any]]:
        dtype = out.dtype
        needs = tuple(i for i in self.texts if tangents[i] is not None)
        if not needs or not is_differentiable(dtype):
            return out, [None]
        if dtype.kind == "c":
            return self.otherwise(values, tangents)
        write = self.written.get(needs)
        if write is None:
            write = self.written[needs] = self._write(needs)
        d = write(values, out, tangents)
        if d.shape != out.shape:
            d = ON_TENSORS["broadcast_to"](d, list(out.shape))
        return out, [d if d.dtype is dtype else cast_tensor(d, dtype)]

    def _parts(self, needs: tuple[int, ...]) -> dict[int, str]:
        """Give the texts of some tangents, by an argument whose tangent is `g` in it."""
        if needs in self.joint:
            return {needs[0]: self.joint[needs]}
        return {i: self.texts[i] for i in needs}

    def _steps(self, which: int) -> tuple[Steps | None, Places]:
        bits = ~which if which < 0 else which
        needs = tuple([i for i in self.texts if bits >> i & 1])
        places = Places(self.names, self.tensors, needs, which < 0)
        kinds = shape_of(self.op._schema).kinds
        fits = needs and all(kind in {"tensor", "static"} for kind in kinds)
        found = steps_of(self._parts(needs), places) if fits else None
        self.steps[which] = found, places
        return found, places

    def _written(self, places: Places) -> Written | None:
        return written_of(self._parts(tuple(places.needs)), places)

    def _loop(self, kernel: Kernel, which: int, dtype: DType) -> Loop | None:
        """Build a loop, except where the tangent is an argument's: it costs nothing."""
        places = self.steps[which][1]
        written = self._written(places)
        if written is None or written.result.startswith("g"):
            return None
        made: Loop | None = load("polyop.compile.fused.pairs:make_loop")(
            kernel, written, places, dtype
        )
        return made

    def _write(self, needs: tuple[int, ...]) -> Callable[..., Any]:
        parts = self._parts(needs)
        lines = [f"{', '.join(self.names)}, = values"]
        lines += [f"g{i} = tangents[{i}]" for i in needs]
        for n, i in enumerate(parts):
            # What a text computes is new memory, except where it is the tangent itself.
            plus = "plus" if "g" in [*parts.values()][:n] else "plus_into"
            text = parts[i]
            lines += [f"g = g{i}", f"d = {text}" if n == 0 else f"d = {plus}(d, {text})"]
        text = "\n".join(["def f(values, r, tangents):", *indent([*lines, "return d"])])
        scope = {
            **ON_TENSORS,
            "conj": conj_tensor,
            "plus": ON_TENSORS["add"],
            "plus_into": plus_into,
        }
        return make_function(text, scope, f"{self.op._opname}_jvp", ())


def plus_into(d: Tensor, other: Tensor) -> Tensor:
    """Add to a tensor that nobody else has, in its own memory where that can be done unseen."""
    a, b = d.payload, other.payload
    plain = d.keys == NUMPY == other.keys and not word()
    if plain and a.shape == b.shape and a.dtype is b.dtype and a.shape:
        np.add(a, b, a)
        return d
    total: Tensor = ON_TENSORS["add"](d, other)
    return total
