"""What is tried: a call of an operator as a plain function of arrays, and what NumPy gives for it.

The function is written as text, because compilers read it: it holds nothing but the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from polyop.checking.capabilities.cells import Differs
from polyop.checking.compare import array_difference, same_bits
from polyop.checking.inputs import resized
from polyop.checking.law import Case, DoesNotApply
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.parts import PARTS
from polyop.payloads.exchange import to_numpy
from polyop.tensor.tensor import Tensor, is_differentiable, of_array

Fn = Callable[..., Any]
Leaves = list[tuple[str, Any]]


@dataclass(frozen=True)
class Subject:
    """An operator and one sample of its arguments.

    Attributes:
        op: the operator.
        sample: its arguments.
        twin: whether its functional twin is called: for arrays that are never written.
    """

    op: OpOverload
    sample: Sample
    twin: bool = False

    @property
    def target(self) -> OpOverload:
        """What is called."""
        found: OpOverload = self.op.functional if self.twin else self.op
        return found

    @cached_property
    def arrays(self) -> list[Array]:
        """The tensors' data, in order."""
        return [array_of(t) for t in self.sample.tensors()]

    @cached_property
    def written(self) -> list[int]:
        """The numbers of the tensors that a call writes."""
        if self.twin:
            return []
        ids = self.sample.written()
        return [i for i, t in enumerate(self.sample.tensors()) if id(t) in ids]

    @cached_property
    def wanted(self) -> list[int]:
        """The numbers of the tensors with respect to which gradients are asked for.

        Raises:
            DoesNotApply: there is no gradient.
        """
        rule = self.op.rule("backward")
        if self.op._schema.is_mutable:
            raise DoesNotApply("the operator writes its arguments")
        if rule is not None and rule.backward is None:
            raise DoesNotApply("the author says that there is no gradient")
        tensors = self.sample.tensors()
        found = [i for i, t in enumerate(tensors) if t.requires_grad]
        if not found and rule is not None:
            found = [i for i, t in enumerate(tensors) if is_differentiable(t.dtype)]
        if not found:
            raise DoesNotApply("no tensor of the samples requires grad")
        return found

    @cached_property
    def repeats(self) -> bool:
        """Whether two calls give the same."""
        case = Case(self.op, self.sample)
        try:
            case.needs_determinism()
            case.needs_repeats()
        except DoesNotApply:
            return False
        return True

    @cached_property
    def results(self) -> Leaves:
        """What NumPy gives."""
        return self.leaves(self.function()(*map(of_array, self.copies())))

    def copies(self) -> list[Array]:
        """Give the tensors' data, in memory that may be written."""
        return [np.array(a) for a in self.arrays]

    def leaves(self, returned: Any) -> Leaves:
        """Give the leaves of what the function returns, each with its name."""
        out, after = returned
        names = [name for name, _ in self.sample.named()]
        found = leaves_named(out, len(self.target._schema.returns))
        written = zip(self.written, after, strict=True)
        return found + [(f"the written {names[i]}", t) for i, t in written]

    def resized(self) -> Subject:
        """Give the call at other sizes, all of them larger than one.

        Raises:
            DoesNotApply: the operator takes no such sizes.
        """
        for _, sample in resized(self.sample):
            made = Subject(self.op, sample, self.twin)
            sizes = [n for a in made.arrays for n in a.shape]
            if sizes and min(sizes) > 1 and made.is_taken():
                return made
        raise DoesNotApply("the samples' sizes cannot be changed")

    def is_taken(self) -> bool:
        """Tell whether the operator takes the call on NumPy."""
        try:
            return bool(self.results) or True
        except Exception:  # its author decides what it raises
            return False

    def needs_no_writes(self) -> None:
        """Stop what cannot be said of an operator that writes.

        Raises:
            DoesNotApply: it writes.
        """
        if self.op._schema.is_mutable and not self.twin:
            raise DoesNotApply("the operator writes its arguments")

    def needs_tensors(self) -> None:
        """Stop where no argument is an array.

        Raises:
            DoesNotApply: so it is.
        """
        if not self.arrays:
            raise DoesNotApply("no argument is an array")

    def function(self, target: Any = None) -> Fn:
        """Give the call as a function of the arrays; it returns results, and what was written.

        Args:
            target: what is called instead of the operator.
        """
        scope: dict[str, Any] = {"target": self.target if target is None else target}
        counter = iter(range(len(self.arrays)))
        n = len(self.sample.schema.positional)
        texts = [_text(value, counter, scope) for value in self.sample.values]
        named = [
            f"{a.name}={text}"
            for a, text in zip(self.sample.schema.keyword_only, texts[n:], strict=True)
        ]
        names = ", ".join(f"a{i}" for i in range(len(self.arrays)))
        after = ", ".join(f"a{i}" for i in self.written)
        call = f"target({', '.join(texts[:n] + named)})"
        text = f"def call({names}):\n    out = {call}\n    return out, [{after}]\n"
        exec(text, scope)  # noqa: S102 - names from a parsed schema, and numbers of ours
        made: Fn = scope["call"]
        return made


def _text(value: Any, counter: Any, scope: dict[str, Any]) -> str:
    """Write a value: tensors are the function's arguments, all else is a name in its scope."""
    if isinstance(value, Tensor):
        return f"a{next(counter)}"
    if isinstance(value, list | tuple):
        inner = "".join(f"{_text(v, counter, scope)}, " for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, dict):
        pairs = [f"{k!r}: {_text(v, counter, scope)}" for k, v in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if value is None or value.__class__ in {bool, int, str}:
        return repr(value)
    name = f"s{len(scope)}"
    scope[name] = value
    return name


# -- comparing --------------------------------------------------------------------------------


def is_array(value: Any) -> bool:
    """Tell whether a value is an array of any library, or a tensor."""
    return isinstance(value, np.ndarray | np.generic | Tensor) or PARTS.is_array(value)


def data(value: Any) -> Any:
    """Give an array's data as NumPy's, and another value as it is."""
    if isinstance(value, Tensor):
        return array_of(value)
    return to_numpy(value) if is_array(value) else value


def compare(subject: Subject, got: Leaves, wanted: Leaves, what: str = "") -> None:
    """Compare a library's results with NumPy's.

    Raises:
        Differs: they are not the same, within the rounding of their dtypes.
    """
    if len(got) != len(wanted):
        raise Differs(f"{what}{len(got)} results instead of {len(wanted)}")
    for (name, a), (_, b) in zip(got, wanted, strict=True):
        said = _difference(data(a), data(b), exact=subject.repeats)
        if said:
            raise Differs(f"{what}{name} is not NumPy's: {said}")


def _difference(a: Any, b: Any, *, exact: bool) -> str:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if exact:
            return array_difference(a, b)
        same = a.shape == b.shape and a.dtype == b.dtype
        return "" if same else f"{a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}"
    return "" if not exact or same_bits(a, b) else f"{a!r} instead of {b!r}"


def noise(like: Sequence[Array], seed: int) -> list[Array]:
    """Give arrays of other arrays' shapes and dtypes, with values that are not special."""
    made = []
    for i, a in enumerate(like):
        rng = np.random.default_rng([seed, i])
        values: Any = rng.uniform(0.5, 1.5, a.shape)
        if a.dtype.kind == "c":
            values = values + 1j * rng.uniform(0.5, 1.5, a.shape)
        made.append(np.asarray(values, a.dtype))
    return made


#: How many calls a batch holds, and by what floating numbers of each differ from the first.
SCALES = (1.0, 0.9, 0.8)


def batch(subject: Subject) -> list[list[Array]]:
    """Give the arrays of several calls: floating ones are scaled, so that they stay in a domain."""
    return [
        [
            np.asarray(a * scale, a.dtype) if is_differentiable(a.dtype) else a.copy()
            for a in subject.arrays
        ]
        for scale in SCALES
    ]


def tensor_leaves(subject: Subject, f: Fn) -> Fn:
    """Give a function that returns a row of those leaves that are arrays."""

    def flat(*arrays: Any) -> tuple[Any, ...]:
        leaves = subject.leaves(f(*arrays))
        pairs = zip(leaves, subject.results, strict=True)
        return tuple([leaf for (_, leaf), (_, wanted) in pairs if is_array(wanted)])

    return flat


def looped(subject: Subject) -> Leaves:
    """Give what a loop over the batch gives on NumPy, stacked.

    Raises:
        DoesNotApply: the results of the calls have several shapes.
    """
    f = subject.function()
    runs = [subject.leaves(f(*[of_array(a.copy()) for a in one])) for one in batch(subject)]
    found: Leaves = []
    for column in zip(*runs, strict=True):
        if not is_array(column[0][1]):
            continue
        arrays = [np.asarray(data(value)) for _, value in column]
        if len({a.shape for a in arrays}) > 1:
            raise DoesNotApply("the calls of a batch have results of several shapes")
        found.append((column[0][0], np.stack(arrays)))
    return found
