"""The tangent of a pointwise operator on bare arrays: its text, as steps that reuse memory.

On large arrays a tangent costs what it touches, and memory that is new costs most. So the texts
of all arguments become one row of ufunc calls: signs move to where they are free, what is computed
twice is computed once, and each step writes over an operand that nobody reads again. Every number
is what the text gives, to the last bit; only zeros may get a sign.

It holds for arrays of one real dtype and one layout; the function that is written looks at them,
and gives None for any others, and for texts of other forms there is no function.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.dispatch.bits import NUMPY
from polyop.dispatch.write import indent, make_function
from polyop.ops.define import ON_ARRAYS
from polyop.ops.select import cleared
from polyop.tensor.tensor import Tensor

Array = np.ndarray[Any, Any]
#: `(values, r, tangents) -> tangent`, tensors all; None if the arrays do not fit.
Steps = Callable[[Sequence[Any], Tensor, Sequence[Any]], Tensor | None]


class Value(NamedTuple):
    """An operand: how it is spelled, what it is, and whether its sign is still to be turned.

    Attributes:
        text: a variable, or a number.
        kind: `"array"` of the common dtype, `"mask"` of bools, or `"number"`.
        negative: whether the value meant is minus that.
    """

    text: str
    kind: str
    negative: bool = False


class Step(NamedTuple):
    """One call, whose result is an array of the common dtype, or a mask."""

    call: str
    operands: tuple[str, ...]
    kind: str


class UnfitError(Exception):
    """A text is of another form."""


_OPERATORS: dict[type, str] = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide",
    ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal",
    ast.Eq: "equal", ast.NotEq: "not_equal", ast.Pow: "power", ast.BitAnd: "logical_and",
}  # fmt: skip
SCOPE: dict[str, Any] = {
    **{name: getattr(np, name) for name in [*_OPERATORS.values(), "negative"]},
    "cleared": cleared, "where": np.where, "Tensor": Tensor,
}  # fmt: skip
_NUMBERS = {int, float}
#: Calls that cannot write over an operand.
_NEW = {"where"}


class _Writer:
    """Turns texts into steps; equal steps are one."""

    def __init__(self, names: Mapping[str, Value]) -> None:
        self.names = names
        self.steps: list[Step] = []
        self.functions: dict[str, Any] = {}

    def value(self, node: ast.expr) -> Value:
        """Give what an expression is."""
        match node:
            case ast.Name(name) if name in self.names:
                return self.names[name]
            case ast.Constant(number) if number.__class__ in _NUMBERS:
                return Value(repr(number), "number")
            case ast.UnaryOp(ast.USub(), ast.Constant(number)) if number.__class__ in _NUMBERS:
                return Value(f"-{number!r}", "number")
            case ast.UnaryOp(ast.USub(), operand):
                return _minus(self.value(operand))
            case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
                return self.binary(_OPERATORS[type(operator)], self.value(left), self.value(right))
            case ast.Compare(left, [operator], [right]) if type(operator) in _OPERATORS:
                pair = self.spelled(self.value(left)), self.spelled(self.value(right))
                return self.step(_OPERATORS[type(operator)], pair, "mask")
            case ast.Call(ast.Name(name), arguments, []):
                return self.call(name, [self.value(a) for a in arguments])
        raise UnfitError

    def binary(self, call: str, a: Value, b: Value) -> Value:
        """Compute with two values; signs go to the result."""
        if call == "logical_and" and a.kind == b.kind == "mask":
            return self.step(call, (a.text, b.text), "mask")
        if "mask" in {a.kind, b.kind} or a.kind == b.kind == "number":
            raise UnfitError
        if call == "power":
            return self.step(call, (self.spelled(a), self.spelled(b)))
        if call in {"multiply", "divide"}:
            found = self.step(call, (a.text, b.text))
            return _minus(found) if a.negative != b.negative else found
        if call not in {"add", "subtract"}:
            raise UnfitError
        return self.sum(a, _minus(b) if call == "subtract" else b)

    def sum(self, a: Value, b: Value) -> Value:
        """Add two values, of which each may have its sign turned."""
        if a.negative == b.negative:
            found = self.step("add", (a.text, b.text))
            return _minus(found) if a.negative else found
        plus, minus = (b, a) if a.negative else (a, b)
        return self.step("subtract", (plus.text, minus.text))

    def call(self, name: str, given: Sequence[Value]) -> Value:
        """Call a function of a text by its kernel on arrays."""
        if name in {"conj", "real", "beside", "steep"}:  # no complex numbers, and no levels above
            return given[0]
        kinds = [v.kind for v in given]
        if name == "where" and kinds[:1] == ["mask"] and "array" in kinds[1:]:
            texts = [self.spelled(v) for v in given]
            if texts[1] == "0":
                return self.step("cleared", (texts[0], texts[2]))
            return self.step("where", tuple(texts))
        if kinds != ["array"] or not _is_unary(ON_ARRAYS.get(name)):
            raise UnfitError
        self.functions[name] = ON_ARRAYS[name]
        return self.step(name, (self.spelled(given[0]),))

    def spelled(self, value: Value) -> str:
        """Spell a value with its sign."""
        if not value.negative:
            return value.text
        if value.kind != "array":
            raise UnfitError
        return self.step("negative", (value.text,)).text

    def step(self, call: str, operands: tuple[str, ...], kind: str = "array") -> Value:
        """Give the result of a step, which may be there already."""
        made = Step(call, operands, kind)
        if made not in self.steps:
            self.steps.append(made)
        return Value(f"v{self.steps.index(made)}", kind)


def _minus(value: Value) -> Value:
    return value._replace(negative=not value.negative)


def _is_unary(function: Any) -> bool:
    return isinstance(function, np.ufunc) and function.nin == 1 and "d->d" in function.types


class Written(NamedTuple):
    """A text as steps.

    Attributes:
        steps: in their order; `v0`, `v1`, ... are their results.
        result: the operand that is the tangent.
        functions: those of the steps that are called by names of operators.
    """

    steps: Sequence[Step]
    result: str
    functions: Mapping[str, Any]

    @property
    def reads(self) -> set[str]:
        """All operands."""
        return {self.result, *(operand for step in self.steps for operand in step.operands)}

    def applied(self, operands: Mapping[str, Any]) -> Any:
        """Give the tangent of any objects that NumPy's functions take."""
        known = dict(operands)
        for n, step in enumerate(self.steps):
            given = [known[x] if x in known else ast.literal_eval(x) for x in step.operands]
            if step.call == "cleared":
                known[f"v{n}"] = np.where(given[0], 0, given[1])
            else:
                known[f"v{n}"] = {**SCOPE, **self.functions}[step.call](*given)
        return known[self.result]


class Places(NamedTuple):
    """Which arguments a tangent is of.

    Attributes:
        names: of all arguments.
        tensors: the positions of the tensors.
        needs: those that have a tangent.
        same: whether all tensors are one and the same, with one tangent.
    """

    names: Sequence[str]
    tensors: Sequence[int]
    needs: tuple[int, ...]
    same: bool = False

    def place(self, i: int) -> int:
        """Give where the value of an argument is first."""
        return self.tensors[0] if self.same and i in self.tensors else i

    @property
    def values(self) -> list[int]:
        """The positions of different tensors."""
        return sorted({self.place(i) for i in self.tensors})

    @property
    def moving(self) -> list[int]:
        """The positions of different tangents."""
        return sorted({self.place(i) for i in self.needs})

    @property
    def statics(self) -> list[int]:
        """The positions of arguments that are no tensors."""
        return [i for i in range(len(self.names)) if i not in self.tensors]


def written_of(texts: Mapping[int, str], places: Places) -> Written | None:
    """Write the steps of some tangents, or give None if a text is of another form.

    Args:
        texts: the parts of the tangent, by an argument whose tangent is `g` in the text; those
            of others are `g0`, `g1`, ...
        places: the arguments.
    """
    place, tensors = places.place, places.tensors
    kinds = ["array" if i in tensors else "number" for i in range(len(places.names))]
    values = {
        name: Value(f"x{place(i)}", kind)
        for i, (name, kind) in enumerate(zip(places.names, kinds, strict=True))
    }
    values["r"] = Value("r", "array")
    values |= {f"g{i}": Value(f"g{place(i)}", "array") for i in tensors}
    writer, parts = _Writer(values), []
    try:
        for i, text in texts.items():
            values["g"] = Value(f"g{place(i)}", "array")
            parts.append(writer.value(ast.parse(text, mode="eval").body))
        total = parts[0]
        for part in parts[1:]:
            total = writer.sum(total, part)
        result = writer.spelled(total)
    except UnfitError:
        return None
    return Written(writer.steps, result, writer.functions) if total.kind == "array" else None


def steps_of(texts: Mapping[int, str], places: Places) -> Steps | None:
    """Write the function of some tangents, or give None if a text is of another form."""
    written = written_of(texts, places)
    if written is None:
        return None
    lines = [
        *_looks(places.values, places.moving),
        *_static_looks(written.steps, set(places.statics)),
        *_calls(written.steps),
        *_wrapped(written.result),
    ]
    text = "\n".join(["def f(values, out, tangents):", *indent(lines)])
    return make_function(text, {**SCOPE, **written.functions}, "tangent", ())


# -- the text -----------------------------------------------------------------


def _looks(tensors: Sequence[int], moving: Sequence[int]) -> list[str]:
    """Lines that load the arrays, and give up where they are not alike."""
    lines = [
        "r = out.payload",
        "shape, strides, dtype = r.shape, r.strides, r.dtype",
        "if dtype.kind != 'f' or not shape: return None",
    ]
    found = [(f"x{i}", f"values[{i}]") for i in tensors]
    for x, source in [*found, *((f"g{i}", f"tangents[{i}]") for i in moving)]:
        test = f"{x}.dtype is not dtype or {x}.shape != shape or {x}.strides != strides"
        lines += [f"{x} = {source}.payload", f"if {test}: return None"]
    return lines


def _static_looks(steps: Sequence[Step], statics: set[int]) -> list[str]:
    """Lines that load the numbers which steps read; others than real ones give other dtypes."""
    lines = []
    read = {operand for step in steps for operand in step.operands}
    for i in sorted(statics):
        if f"x{i}" in read:
            test = f"x{i}.__class__ is not float and x{i}.__class__ is not int"
            lines += [f"x{i} = values[{i}]", f"if {test}: return None"]
    return lines


def _calls(steps: Sequence[Step]) -> list[str]:
    """Lines of the calls, each over an operand that is read for the last time."""
    last = {operand: n for n, step in enumerate(steps) for operand in step.operands}
    kinds = {f"v{n}": step.kind for n, step in enumerate(steps)}
    lines = []
    for n, step in enumerate(steps):
        free = [x for x in step.operands if kinds.get(x) == step.kind and last[x] == n]
        over = free[:1] if step.call not in _NEW else []
        lines.append(f"v{n} = {step.call}({', '.join([*step.operands, *over])})")
    return lines


def _wrapped(result: str) -> list[str]:
    """Lines that give a tangent itself, or wrap what was computed."""
    if result.startswith("g"):
        return [f"return tangents[{result[1:]}]"]
    return [
        "t = Tensor()",
        f"t.payload, t.keys, t.version = {result}, {NUMPY}, 0",
        "return t",
    ]
