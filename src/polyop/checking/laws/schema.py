"""The law of the schema: nothing is written, shared or kept that it does not declare."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from polyop.checking.choices import choices
from polyop.checking.inputs import (
    cast,
    layouts,
    mirrored,
    resized,
    without_optionals,
)
from polyop.checking.law import Case, law, stumble
from polyop.checking.rarer import expanded, with_zeros
from polyop.checking.sample import (
    Array,
    Sample,
    array_of,
    copy_array,
    copy_owner,
    leaves_named,
    owner_of,
)
from polyop.dispatch.body import carried_by, result_forms
from polyop.errors import AliasError, MutationError
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor


@law("test_schema", "An operator writes and shares what its schema declares, and nothing else.")
def schema_law(case: Case) -> str | None:
    """Try a call, bit for bit, and a second one beside it."""
    note = check_call(case, case.sample)
    check_read_only(case)
    for sample in _others(case.sample):
        check_other(case, sample)
    check_memory_between_calls(case)
    return note


def _others(sample: Sample) -> Iterator[Sample]:
    """Give the sample otherwise: what is written and shared may depend on each argument."""
    singles = ((name, cast(sample, name)) for name in ("float32", "float64"))
    values = (("the other sign", mirrored(sample)), ("zeros", with_zeros(sample)))
    plain = chain(choices(sample), without_optionals(sample))
    for _, made in chain(_relaid(sample), resized(sample), singles, values, plain):
        yield made


def _relaid(sample: Sample) -> Iterator[tuple[str, Sample]]:
    return chain(layouts(sample), expanded(sample))


def check_other(case: Case, sample: Sample) -> None:
    """Look again at other inputs; what the operator refuses says nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_call(case, sample)
    except (MutationError, AliasError):
        raise
    except Exception:  # noqa: S110 - an input that is refused is another law's affair
        pass


def check_read_only(case: Case) -> None:
    """Call with memory that cannot be written: a write that is taken back leaves no trace.

    Raises:
        MutationError: NumPy refused a write.
    """
    given = case.sample.copy()
    written = given.written()
    for _, t in given.named():
        if id(t) not in written:
            array_of(t).flags.writeable = False
    try:
        given.call(case.op)
    except ValueError as error:
        # Code that wants a writable buffer, and need not write to it, is refused otherwise.
        if "read-only" in str(error) and "buffer source" not in str(error):
            raise MutationError(
                f"{case.name} writes an argument, and restores it before it returns",
                op=case.op._schema,
                declared="not written",
                seen=f"with arguments that cannot be written: {error}",
                source=stumble(case, error).source,
                fix="work on a copy (.clone()): meanwhile another thread may read the argument",
            ) from error
    except Exception:  # noqa: S110 - it may look for writable memory
        pass


def check_call(case: Case, sample: Sample) -> str | None:
    """Call once, and look at every byte that the call could reach.

    Raises:
        MutationError: an undeclared write.
        AliasError: undeclared sharing.
        ReturnError: results that are not the declared ones.
    """
    given = sample.copy()
    before = snapshot(given)
    result = given.call(case.op)
    unseen = check_writes(case, given, before)
    leaves = leaves_named(result, len(case.op._schema.returns))
    check_sharing(case, given, leaves, case.kernel_source)
    return unseen


# -- writes -------------------------------------------------------------------

#: Each tensor's name and values, and all memory around it with a copy.
Snapshot = tuple[list[tuple[str, Tensor, Array]], list[tuple[str, Array, Array]]]


def snapshot(sample: Sample) -> Snapshot:
    """Keep the values of each tensor, and all memory that they are views of."""
    named = list(sample.named())
    values = [(name, t, array_of(t).copy()) for name, t in named]
    owners: dict[int, tuple[str, Array, Array]] = {}
    for name, t in named:
        owner = owner_of(array_of(t))
        if id(owner) not in owners:
            owners[id(owner)] = (name, owner, copy_owner(owner))
    return values, list(owners.values())


def check_writes(case: Case, sample: Sample, before: Snapshot) -> str | None:
    """Compare the memory with what it was; gives a note on declared writes that did not happen."""
    values, owners = before
    written, idle = sample.written(), []
    declared: list[Array] = []
    for name, t, old in values:
        changed = array_of(t).tobytes() != old.tobytes()
        if id(t) in written:
            declared.append(array_of(t))
            idle += [] if changed else [name]
    for name, t, old in values:
        now = array_of(t)
        shared = any(np.may_share_memory(now, d) for d in declared)
        if id(t) not in written and not shared and now.tobytes() != old.tobytes():
            _wrote(case, name, now, old)
    for name, owner, before_it in owners:
        if not same_memory(owner, with_writes(owner, before_it, declared)):
            _wrote_around(case, name)
    return f"declared writes that this sample does not show: {', '.join(idle)}" if idle else None


def same_memory(a: Array, b: Array) -> bool:
    """Tell whether two arrays are the same bit for bit."""
    return a.tobytes() == b.tobytes()


def with_writes(owner: Array, before: Array, declared: Sequence[Array]) -> Array:
    """Give memory as it was, but for the elements that may have been written."""
    for d in declared:
        if owner_of(d) is owner:
            if d is owner or not same_geometry(before, owner):
                return owner
            copy_array(d, {id(owner): before})[...] = d
    return before


def same_geometry(a: Array, b: Array) -> bool:
    """Tell whether elements lie alike, so that a view of one is the same view of the other."""
    return a.strides == b.strides and a.shape == b.shape and bool(a.size)


def _wrote(case: Case, name: str, now: Array, old: Array) -> None:
    item = now.dtype.itemsize
    bits = np.frombuffer(now.tobytes(), np.uint8) != np.frombuffer(old.tobytes(), np.uint8)
    flat = int(np.argmax(bits)) // item
    place = [int(i) for i in np.unravel_index(flat, now.shape)]
    was, became = old.reshape(-1)[flat], now.reshape(-1)[flat]
    count = len(np.unique(np.flatnonzero(bits) // item))
    raise MutationError(
        f"{case.name} writes its argument {name!r}, which its schema does not declare",
        op=case.op._schema,
        argument=name,
        declared="not written",
        seen=f"element {place} was {was.item()!r} and became {became.item()!r} "
        f"({count} of {now.size} changed)",
        source=case.kernel_source,
        fix=f"work on a copy ({name}.clone()), or declare the write: "
        f"mutates_args=({root(name)!r},)",
    )


def _wrote_around(case: Case, name: str) -> None:
    raise MutationError(
        f"{case.name} writes memory beside its argument {name!r}, which is a view of it",
        op=case.op._schema,
        argument=name,
        declared="not written",
        seen="bytes outside the argument's own elements changed",
        source=case.kernel_source,
        fix="write only to what the call makes; never through the base of an argument",
    )


def root(name: str) -> str:
    """Give the argument's name, without the way to a leaf in it."""
    return name.partition("[")[0].partition(".")[0]


# -- sharing ------------------------------------------------------------------


def check_sharing(
    case: Case, sample: Sample, leaves: Sequence[tuple[str, Any]], source: Any
) -> None:
    """Compare who shares memory with what the schema declares.

    Args:
        case: the operator.
        sample: what it was given.
        leaves: the leaves of its results, by name.
        source: the place of the kernel or rule that gave them.

    Raises:
        AliasError: a result shares memory, undeclared.
    """
    forms = result_forms(case.op._schema)
    seen: list[tuple[str, Tensor]] = []
    for name, t in leaves:
        if isinstance(t, Tensor):
            number = number_of(name)
            places = carried_by(case.op._schema, number, forms[number])
            allowed = [a for place in places for a in sample.at(place)]
            for other_name, other in sample.named():
                # What shares memory with a declared alias may share it with the result.
                if shares_memory(t, other) and not any(shares_memory(other, a) for a in allowed):
                    _shares(case, name, f"argument {other_name!r}", source)
            if not places:
                for other_name, other in seen:
                    if shares_memory(t, other):
                        _shares(case, name, other_name, source)
                seen.append((name, t))


def number_of(name: str) -> int:
    """Give the number of the result that a leaf is part of."""
    digits = name.removeprefix("result ").partition("[")[0]
    return int(digits) if digits.isdigit() else 0


def _shares(case: Case, name: str, other: str, source: Any) -> None:
    raise AliasError(
        f"{name} of {case.name} shares storage with {other}",
        op=case.op._schema,
        declared="no sharing",
        seen=f"{name} and {other} are the same memory",
        source=source,
        fix="return a copy (.clone()), or declare the alias in the schema: "
        "(Tensor(a) x) -> Tensor(a) for a view, Tensor(a!) for a returned input",
    )


#: How many results are kept, and looked at again after later calls: buffers may be used in turn.
CALLS = 6


def check_memory_between_calls(case: Case) -> None:
    """Call several times; a later call must not touch what belongs to an earlier one.

    Raises:
        MutationError: it writes an argument or a result of an earlier call.
        AliasError: two calls give the same memory.
    """
    count = len(case.op._schema.returns)
    held: list[tuple[str, Tensor, bytes]] = []
    for _ in range(CALLS):
        given = case.sample.copy()
        leaves = leaves_named(given.call(case.op), count)
        made = [(name, t) for name, t in leaves if isinstance(t, Tensor)]
        for name, t, old in held:
            if array_of(t).tobytes() != old:
                _wrote_earlier(case, name)
        for name, t in made:
            for other_name, other, _ in held:
                if shares_memory(t, other):
                    _shares_earlier(case, name, other_name)
        new = [(f"argument {n!r}", t) for n, t in given.named()] + made
        held += [(name, t, array_of(t).tobytes()) for name, t in new]


def _wrote_earlier(case: Case, name: str) -> None:
    raise MutationError(
        f"a call of {case.name} writes {name} of an earlier call",
        op=case.op._schema,
        declared="not written",
        seen=f"{name} changed while the operator ran on other arguments",
        source=case.kernel_source,
        fix="keep no argument and no result between calls, in a global, default or cache",
    )


def _shares_earlier(case: Case, name: str, other: str) -> None:
    raise AliasError(
        f"{name} of {case.name} shares storage with {other} of an earlier call",
        op=case.op._schema,
        declared="no sharing",
        seen="one buffer is given back by two calls",
        source=case.kernel_source,
        fix="give back a new tensor on each call; copy what is cached (.clone())",
    )
