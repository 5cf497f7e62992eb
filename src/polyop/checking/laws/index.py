"""The law of index signatures: a kernel does what the axes that its author named say (S56).

Fakes, batches, chunks and shards follow from the signature, and none of them runs the kernel to
see. So the kernel is run here: at other sizes, on stacks, and at sizes that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from polyop.checking.compare import compare_leaves
from polyop.checking.derived import (
    Loops,
    agrees,
    attempt,
    mixed_loops,
    resized_by_name,
    tensors_of,
)
from polyop.checking.inputs import cast
from polyop.checking.law import Case, DoesNotApply, law
from polyop.checking.laws.cuts import check_cuts
from polyop.checking.sample import Array, Sample, array_of, leaves_named
from polyop.dispatch.index_signature import IndexSignature, index_of
from polyop.errors import ArgumentError, OpCheckError, PolyopError, ReturnError
from polyop.tensor.tensor import Tensor, is_floating, of_array

#: Laws that use a rule which follows from the signature, where the author gave none: the rule.
FOLLOWING = {
    "test_faketensor": "fake",
    "test_dtypes": "fake",
    "test_none_patterns": "fake",
    "test_aot_dispatch_dynamic": "fake",
    "test_aot_dispatch_static": "fake",
    "test_autocast": "fake",
    "test_vmap": "vmap",
}
#: How many elements of a stack are compared with calls of their own.
MOST_ELEMENTS = 12
#: Sizes of all named axes at once: none, one, and each another.
LARGER = (7, 4, 9, 5, 11, 6, 13, 8)
_FIX = "correct the kernel, or the index signature"

Variation = Callable[[Array, int], Array]


@law("test_index", "A call obeys its index signature, and on a stack it is the stack of calls.")
def index_law(case: Case) -> str | None:
    """Hold calls against the signature: shapes, dtypes, stacks, and sizes that do not fit."""
    index = index_of(case.op)
    if index is None:
        raise DoesNotApply("the operator has no index signature")
    trial = IndexTrial(case, index)
    trial.check(case.sample)
    if trial.core is not None:
        trial.check_sizes(trial.core)
        trial.check_refusals(trial.core)
        trial.check_stacks(trial.core)
        if trial.unlike is None:
            check_cuts(case, index, case.sample)
    return trial.dtype_note() or trial.unlike


@dataclass(frozen=True)
class IndexTrial:
    """What is tried of one sample, and the signature that it is held against."""

    case: Case
    index: IndexSignature

    @property
    def reason(self) -> dict[str, Any]:
        """The parts of an error that says what the kernel does."""
        return {"op": self.case.op._schema, "source": self.case.kernel_source}

    def values(self, sample: Sample) -> Mapping[str, Any]:
        """Give a sample's arguments by name."""
        return dict(zip([a.name for a in sample.schema.arguments], sample.values, strict=True))

    def shapes(self, sample: Sample) -> list[tuple[int, ...]]:
        """Give the shapes of the results for a sample."""
        return self.index.shapes(self.values(sample))

    # -- one call -------------------------------------------------------------

    def check(self, sample: Sample, at: str = "") -> None:
        """Call, and compare shapes and dtypes.

        Raises:
            ArgumentError: the sample itself does not fit.
            ReturnError: a result does not.
        """
        shapes = self.shapes(sample)
        given = sample.copy()
        self.compare(given, given.call(self.case.op), shapes, at)

    def compare(
        self, given: Sample, result: Any, shapes: Sequence[tuple[int, ...]], at: str
    ) -> None:
        """Compare the results of a call with what follows from its arguments."""
        self.index.check(result, shapes, self.case.kernel_source, _FIX, at)
        if not agrees(self.index, given, result):
            results = result if isinstance(result, tuple) else (result,)
            raise ReturnError(
                f"a result of {self.case.name} has another dtype than its arguments promote to{at}",
                declared=f"dtype {self.index.dtype(given.tensors())}",
                seen=f"dtype {', '.join(str(r.dtype) for r in results)}",
                fix="give the promoted dtype, or register a fake rule, which says another",
                **self.reason,
            )

    def attempt(self, sample: Sample, at: str) -> bool:
        """Compare a call on made inputs; those that the operator refuses say nothing."""
        found = attempt(self.case.op, sample)
        if found is not None:
            self.compare(*found, self.shapes(sample), at)
        return found is not None

    # -- sizes ----------------------------------------------------------------

    @cached_property
    def core(self) -> Sample | None:
        """The sample's first element: a call without loops; None if a loop has size 0."""
        loops = self.loops(self.case.sample)
        return None if 0 in loops else self.element(self.case.sample, (0,) * len(loops))

    @cached_property
    def names(self) -> list[str]:
        """The names of axes whose size is free."""
        every = [n for group in (*self.index.inputs, *self.index.outputs) for n in group]
        return [n for n in dict.fromkeys(every) if not n.isdigit()]

    @cached_property
    def larger(self) -> dict[str, int]:
        """Another size for each name."""
        return dict(zip(self.names, LARGER * len(self.names), strict=False))

    def check_sizes(self, core: Sample) -> None:
        """Compare at other sizes of named axes."""
        for sizes in (self.larger, dict.fromkeys(self.names, 1), dict.fromkeys(self.names, 0)):
            if sizes:
                said = ", ".join(f"{name}={size}" for name, size in sizes.items())
                self.attempt(resized_by_name(self.index, core, sizes), f" at {said}")

    def check_refusals(self, core: Sample) -> None:
        """Call with one axis longer than those of its name.

        Raises:
            ArgumentError: the kernel takes it, and nobody else would.
        """
        base = resized_by_name(self.index, core, self.larger)
        if attempt(self.case.op, base) is None:
            base = core
        for number, (name, x, group) in enumerate(tensors_of(self.index, base)):
            for axis in self.shared(number, group):
                # Where the others have size 1, or this one no place to be longer from, it might
                # broadcast.
                if x.shape[axis] >= 2:
                    self.refuse(base, number, name, group[axis], axis)

    def shared(self, number: int, group: tuple[str, ...]) -> Iterator[int]:
        """Give the axes whose size something else says too."""
        for axis, name in enumerate(group):
            others = [g for i, g in enumerate(self.index.inputs) if i != number]
            if name.isdigit() or group.count(name) > 1 or any(name in g for g in others):
                yield axis

    def refuse(self, base: Sample, number: int, argument: str, name: str, axis: int) -> None:
        """Call with one axis of one argument longer, which has to be refused."""
        tensors = base.tensors()
        array = array_of(tensors[number])
        longer = [n + 2 if i == axis else n for i, n in enumerate(array.shape)]
        tensors[number] = of_array(np.resize(array, longer).astype(array.dtype, copy=False))
        if attempt(self.case.op, base.rebuilt(tensors)) is None:
            return
        raise ArgumentError(
            f"the kernel of {self.case.name} takes sizes that {self.index.text} refuses: "
            f"axis {name}",
            argument=argument,
            declared=f"axis {name} of size {array.shape[axis]}, as its name says",
            seen=f"size {longer[axis]}, and no error",
            fix="raise an error where sizes differ (polyop.extend.index_of(op)(*args) does), "
            "or name the axes otherwise",
            **self.reason,
        )

    @cached_property
    def unlike(self) -> str | None:
        """Why values of two calls cannot be compared, if so."""
        try:
            self.case.needs_repeats()
        except DoesNotApply as why:
            return f"values are not compared: {why}"
        return None

    # -- loops ----------------------------------------------------------------

    def loops(self, sample: Sample) -> list[int]:
        """Give the sizes of a sample's loops."""
        return list(self.index.loops_of(self.values(sample))[0])

    def element(self, sample: Sample, place: Sequence[int]) -> Sample:
        """Give the arguments of one call of those that a call with loops stands for."""
        made = []
        for _, x, group in tensors_of(self.index, sample):
            loops = x.shape[: len(x.shape) - len(group)]
            here = zip(place[len(place) - len(loops) :], loops, strict=True)
            made.append(array_of(x)[tuple(0 if n == 1 else p for p, n in here)].copy())
        return sample.rebuilt(map(of_array, map(np.asarray, made)))

    def check_stacks(self, core: Sample) -> None:
        """Compare the sample with its elements' calls, and then stacks that are made of it."""
        self.check_stack(self.case.sample)
        count = len(self.index.inputs)
        alone = [[(2,) if i == k else () for i in range(count)] for k in range(count)]
        for loops in ([(2,)] * count, mixed_loops(count), *(alone if count > 1 else [])):
            # What values an operator takes is not known; equal ones it has to.
            any(self.check_stack(stacked(core, loops, vary)) for vary in VARIATIONS)
        self.attempt(stacked(core, [(0,)] * count, equal), " for loops (0,)")

    def check_stack(self, sample: Sample) -> bool:
        """Compare a call with its elements' calls; False if the elements are refused.

        Raises:
            OpCheckError: the call on the stack is refused, or has other values.
            ReturnError: its results have other shapes.
        """
        loops = self.loops(sample)
        places = _spread(list(np.ndindex(*loops)))
        found = [attempt(self.case.op, self.element(sample, place)) for place in places]
        singles = [self.leaves(one[1]) for one in found if one is not None]
        if len(singles) < len(places):
            return False
        at = f" for loops {tuple(loops)}"
        given = sample.copy()
        result = self.call_stack(given, at)
        self.compare(given, result, self.shapes(sample), at)
        if self.unlike:
            return True
        for place, single in zip(places, singles, strict=True):
            self.compare_element(self.leaves(result), single, place, at)
        return True

    def leaves(self, result: Any) -> list[tuple[str, Any]]:
        """Give the results, each with its name."""
        return leaves_named(result, len(self.case.op._schema.returns))

    def call_stack(self, given: Sample, at: str) -> Any:
        """Call with loops, whose elements are known to be taken."""
        try:
            return given.call(self.case.op)
        except Exception as error:  # an author's kernel may raise anything
            problem = error.problem if isinstance(error, PolyopError) else str(error)
            first = problem.splitlines()[0] if problem else ""
            raise OpCheckError(
                f"{self.case.name} refuses arguments{at}, though it takes each element",
                declared=f"{self.index.text}: axes in front of the named ones are loops",
                seen=f"{type(error).__name__}: {first}",
                fix="write the kernel for [*loops, *named axes], or take the index signature away",
                **self.reason,
            ) from error

    def compare_element(
        self, whole: list[tuple[str, Any]], single: list[tuple[str, Any]], place: Any, at: str
    ) -> None:
        """Compare one element of the results of a stack."""
        chosen = [(name, of_array(np.asarray(array_of(t)[place]))) for name, t in whole]
        said = f"mixes loops,{at}: element {list(place)} is not that of its call"
        compare_leaves(
            chosen,
            single,
            self.case.tolerance,
            f"{{}} of {self.case.name} {said}",
            declared=f"{self.index.text}: each element of a stack as if it were alone",
            fix="count axes from the last (axis=-1), and reduce named axes only",
            **self.reason,
        )

    # -- dtypes ---------------------------------------------------------------

    def dtype_note(self) -> str | None:
        """Compare for other precisions; say where ints give what the signature does not.

        Raises:
            ReturnError: in another precision a result has another dtype.
        """
        for dtype in ("float32", "float64"):
            self.attempt(cast(self.case.sample, dtype), f" for {dtype}")
        ints = self.case.sample.map(_as_ints)
        found = attempt(self.case.op, ints)
        if found is None or agrees(self.index, *found):
            return None
        return (
            "for int64 arguments the kernel gives another dtype than the fake, which promotes: "
            "refuse them, or register a fake rule"
        )


def _as_ints(t: Tensor) -> Tensor:
    return of_array(array_of(t).astype("int64")) if is_floating(t.dtype) else t


# -- stacks -------------------------------------------------------------------


def rolled(array: Array, by: int) -> Array:
    """Move elements, so that each call of a stack has other values."""
    return scaled(np.roll(array, by), by)


def scaled(array: Array, by: int) -> Array:
    """Stretch values, which keeps what they are to each other."""
    if array.dtype.kind not in "fc":
        return array.copy()
    return np.asarray(array * (1 + by / 8), array.dtype)


def equal(array: Array, by: int) -> Array:
    """Keep the values: what takes one takes each."""
    return array.copy()


VARIATIONS: tuple[Variation, ...] = (rolled, scaled, equal)


def stacked(core: Sample, loops: Loops, vary: Variation) -> Sample:
    """Give a sample with loops in front of each tensor, its elements varied."""
    made = []
    for number, (t, shape) in enumerate(zip(core.tensors(), loops, strict=True)):
        array = array_of(t)
        count = int(np.prod(shape))
        every = [vary(array, number + i) for i in range(count)]
        whole = np.stack(every) if every else np.empty((0, *array.shape), array.dtype)
        made.append(of_array(whole.reshape((*shape, *array.shape))))
    return core.rebuilt(made)


def _spread(places: list[Any]) -> list[Any]:
    """Give at most so many places, spread over all."""
    if len(places) <= MOST_ELEMENTS:
        return places
    chosen = np.linspace(0, len(places) - 1, MOST_ELEMENTS).astype(int)
    return [places[i] for i in chosen]
