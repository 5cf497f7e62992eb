"""What Dask runs: a call of an operator without its arrays, on NumPy's arrays, far from the caller.

NOTE [Nothing raises on the way]
Dask takes a graph apart in its scheduler and in each worker, and what raises there loses its
reason, or the worker. So a call travels as bytes that nobody reads before it runs. An operator
that is not there is then an error of that task, and goes to whoever waits for the result.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NoReturn

import cloudpickle
import numpy as np

from polyop import tree
from polyop.bridges.dask.declared import Declared, fits
from polyop.bridges.dask.identity import token_parts
from polyop.bridges.dask.outlines import Fact, Outlines, fact_of, filled
from polyop.bridges.dask.travel import Parcel, found_by, parcel_of
from polyop.bridges.told import told
from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import (
    MetadataMismatchError,
    OperatorGoneError,
    OperatorNotFoundError,
    ReturnError,
)
from polyop.payloads.api import from_array
from polyop.tensor.tensor import Tensor, of_array


class Call:
    """A call without its arrays, which a task gives it in a row.

    Args:
        op: the operator.
        template: its arguments, with a slot for each array.
        wanted: what is declared of each result.

    Attributes:
        outlines: what is known of its results.
        several: whether it gives a tuple of arrays.
    """

    __slots__ = ("op", "outlines", "several", "template", "wanted")

    def __init__(
        self, op: OpOverload, template: list[Any], wanted: tuple[Declared, ...] = ()
    ) -> None:
        self.op = op
        self.template = template
        self.wanted = wanted
        self.outlines = Outlines(op, template)
        self.several = len(wanted) != 1

    def __repr__(self) -> str:
        return self.op.name()

    def declaring(self, wanted: tuple[Declared, ...]) -> Call:
        """Give the call of which something else is declared."""
        made = Call(self.op, self.template, wanted)
        made.outlines = self.outlines
        return made

    def __dask_tokenize__(self) -> Any:
        return "polyop", token_parts(self.op), self.template, [str(w) for w in self.wanted]

    def __reduce__(self) -> tuple[Any, ...]:
        parcel = parcel_of(self.op)
        return Sent, (parcel.name, cloudpickle.dumps((parcel, self.template, self.wanted)))

    def __call__(self, *operands: Any) -> Any:
        """Run the kernel; give the array of its result, or a tuple of them.

        Raises:
            MetadataMismatchError: a result is not as the fake rule says.
            OperatorGoneError: the operator was removed.
        """
        given = [_read_only(_only(x)) for x in operands]
        out = run_under(PLAIN, self._run, map(_tensor, given))
        arrays = tuple([self._array(leaf, given) for leaf in tree.leaves(out)])
        self._check(arrays, given)
        return arrays if self.several else arrays[0]

    def _run(self, tensors: Any) -> Any:
        values = filled(self.template, tensors)
        names = [a.name for a in self.op._schema.keyword_only]
        n = len(values) - len(names)
        try:
            return self.op.entry(*values[:n], **dict(zip(names, values[n:], strict=True)))
        except Exception as error:
            told(error, self.op, "dask")
            raise

    def _array(self, leaf: Any, given: Sequence[Any]) -> Any:
        """Give a result's array; views of arguments become arrays of their own."""
        if not isinstance(leaf, Tensor) or leaf.payload.__class__ is not np.ndarray:
            raise ReturnError(
                f"the kernel of {self.op.name()} gave something else than a tensor with data",
                op=self.op._schema,
                seen=f"{type(leaf).__name__} {leaf!r:.80}",
                source=self.op.source,
                fix="return tensors of NumPy's arrays: polyop.from_numpy(result)",
            )
        found = leaf.payload
        shares = any(found is x or np.may_share_memory(found, x) for x in given)
        return found.copy() if shares else found

    def _check(self, arrays: Sequence[Any], given: Sequence[Any]) -> None:
        """Hold results against the fake rule, here and where the recipe was written."""
        facts = tuple(map(fact_of, given))
        said = self.outlines.of(facts).facts
        if not len(arrays) == len(said) == len(self.wanted):
            self._differs("the number of results", len(self.wanted), len(arrays))
        shapes = [fact.shape for fact in facts]
        for i, (array, fact, wanted) in enumerate(zip(arrays, said, self.wanted, strict=True)):
            declared = wanted.of_chunk(shapes)
            if array.shape == fact.shape == declared.shape and array.dtype == declared.dtype:
                continue
            if not fits(array.shape, fact.shape):
                self._differs(f"the shape of result {i}", fact.shape, array.shape)
            if not fits(array.shape, declared.shape) or array.dtype != declared.dtype:
                refuse_chunk(self.op, i, declared, fact_of(array), facts, cut=wanted.is_cut)

    def _differs(self, what: str, declared: object, seen: object) -> NoReturn:
        raise MetadataMismatchError(
            f"{what} of {self.op.name()} is not what its fake rule says",
            op=self.op._schema,
            declared=declared,
            seen=seen,
            source=self.op.rule_source("fake"),
            fix="let the fake rule and the kernel give the same shapes and dtypes, for parts of "
            "arrays too",
        )


def refuse_chunk(
    op: OpOverload, i: int, declared: Fact, seen: Fact, given: Sequence[Fact], *, cut: bool = True
) -> NoReturn:
    """Refuse what is not as its recipe declares, though the fake rule says so when it runs.

    Raises:
        MetadataMismatchError: always.
    """
    what = "a chunk" if cut else "the data"
    fix = (
        "let the kernel and the fake rule give for parts of the arguments the same parts of the "
        "result; or take away what lets it be cut: the tag pointwise, or names of axes"
        if cut
        else "let the fake rule say the same whenever it is asked; call the operator anew if its "
        "rule has changed"
    )
    raise MetadataMismatchError(
        f"{what} of result {i} of {op.name()} is not what was declared when the recipe was written",
        op=op._schema,
        declared=f"{declared}{', as the arguments are cut' if cut else ''}",
        seen=f"{seen}, of arguments {', '.join(map(str, given))}",
        source=op.rule_source("fake"),
        fix=fix,
    )


class Sent:
    """A call that came from another process; its operator is found when it runs.

    Args:
        name: of the operator.
        text: the pickle of the call.
    """

    __slots__ = ("name", "text")

    def __init__(self, name: str, text: bytes) -> None:
        self.name = name
        self.text = text

    def __repr__(self) -> str:
        return self.name

    def __dask_tokenize__(self) -> Any:
        return "polyop", self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return Sent, (self.name, self.text)

    def __call__(self, *operands: Any) -> Any:
        """Run the kernel.

        Raises:
            OperatorNotFoundError: the operator is not in this process.
        """
        try:
            return self._call()(*operands)
        except OperatorGoneError:  # a client that defined it anew came between
            return self._call()(*operands)

    def _call(self) -> Call:
        call = ARRIVED.get(self.text)
        if call is None or not call.op.alive:
            if len(ARRIVED) >= MOST:
                ARRIVED.clear()
            call = ARRIVED[self.text] = self._arrived()
        return call

    def _arrived(self) -> Call:
        try:
            parcel, template, wanted = pickle.loads(self.text)  # noqa: S301 - from Dask's client
        except Exception as error:  # unpickling runs what others wrote
            raise OperatorNotFoundError(
                f"a call of {self.name} cannot be read in this worker",
                op=self.name,
                seen=f"{type(error).__name__}: {error}",
                fix="install what its arguments are made of where workers run",
            ) from error
        return Call(found_by(Parcel(*parcel)), template, wanted)


#: The calls that came to this process, by their pickles.
ARRIVED: dict[bytes, Call] = {}
#: They are forgotten when there are so many.
MOST = 1 << 10


def _only(x: Any) -> Any:
    """Give an array out of the lists that Dask puts around an axis which ends in the call."""
    while x.__class__ is list:
        (x,) = x
    return x


def _read_only(x: Any) -> Any:
    """Give an array that a kernel cannot write: other tasks read the same memory."""
    if not isinstance(x, (np.ndarray, np.generic)) or hasattr(x, "mask"):
        return x  # of another library, which `from_array` knows, or refuses
    found = np.asarray(x).view()
    found.flags.writeable = False
    return found


def _tensor(x: Any) -> Tensor:
    return of_array(x) if x.__class__ is np.ndarray else from_array(x)
