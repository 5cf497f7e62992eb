"""The law of fakes: a call without data says what a call with data gives.

One sample cannot tell a rule that computes a shape from one that remembers
it, so the sample is tried at other sizes too, 0 and 1 among them, at other
dtypes, and with symbols for sizes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from polyop.checking.choices import around, constants, relisted, turned_axes
from polyop.checking.compare import same_bits
from polyop.checking.fake_words import fix_of, ranged, wrong_of_sizes
from polyop.checking.inputs import (
    broadcast,
    cast,
    layouts,
    mirrored,
    mixed,
    other_kinds,
    resized,
    unequal,
    without_optionals,
)
from polyop.checking.law import Case, DoesNotApply, law
from polyop.checking.laws.precision import compare_precisions
from polyop.checking.laws.schema import number_of
from polyop.checking.rarer import in_bfloat16, other_widths, reranked, with_zeros
from polyop.checking.sample import Sample, leaves_named
from polyop.errors import MetadataMismatchError, MissingFakeError, PolyopError, first_line
from polyop.layers.deep_views import is_followed
from polyop.layers.fake import FakeTensorMode
from polyop.symbolic import ShapeEnv, SymBool, SymFloat, SymInt
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor

Named = Sequence[tuple[str, Any]]
Pairs = list[tuple[str, Any, Any]]


@law("test_faketensor", "A fake call gives the real results' shapes, dtypes, strides and devices.")
def fake_law(case: Case) -> str | None:
    """Compare fake and real results at the sample, at other inputs, and with symbols."""
    compare_fake(case, case.sample.copy(), "")
    compare_fake(case, case.sample.copy(), " with symbolic sizes", symbolic=True)
    sizes = widen(case, chain(resized(case.sample), unequal(case.sample)), "sizes")
    for name, sample in chain(constants(case.sample), relisted(case.sample), _values(case.sample)):
        _compare_taken(case, name, sample)
    layout = _compare_layouts(case)
    numbers = _compare_numbers(case) or _compare_axes(case)
    unsure = numbers or _unsure_note(case, _UNSURE) or layout
    return "; ".join(filter(None, (sizes, unsure))) or None


def _values(sample: Sample) -> Iterator[tuple[str, Sample]]:
    """Give other values: how many are picked, or how many differ, is no matter of shapes."""
    yield "values of the other sign", mirrored(sample)
    yield "values among zeros", with_zeros(sample)


def _compare_numbers(case: Case) -> str | None:
    """Compare at other integers; gives a note where some are wrong.

    Raises:
        MetadataMismatchError: the rule is right at no integer but the sample's.
    """
    note = None
    for made in around(case.sample):
        right, wrong = 0, []
        for name, sample in made:
            try:
                right += _compare_taken(case, name, sample)
            except MetadataMismatchError as error:
                wrong.append(error)
        if len(wrong) > 1 and not right:
            raise wrong[0]
        note = note or (_unsure("numbers", "compute with them", wrong[0]) if wrong else None)
    return note


def _compare_axes(case: Case) -> str | None:
    """Compare where integers that may be axes count from the other end.

    Raises:
        MetadataMismatchError: the rule is wrong, and the kernel gives what it gives at the sample,
            so that the integer is an axis.
    """
    for name, sample in turned_axes(case.sample):
        try:
            _compare_taken(case, name, sample)
        except MetadataMismatchError as error:
            if case.repeats and _alike(case, sample):
                raise
            return _unsure("numbers", "compute with them", error)
    return None


def _alike(case: Case, sample: Sample) -> bool:
    count = len(case.op._schema.returns)
    both = zip(*[leaves_named(case.run(s), count) for s in (case.sample, sample)], strict=False)
    return all(same_bits(a, b) for (_, a), (_, b) in both)


def _compare_layouts(case: Case) -> str | None:
    """Compare where arguments lie otherwise; gives a note where only strides are wrong.

    Raises:
        MetadataMismatchError: more is.
    """
    note = None
    for name, sample in layouts(case.sample):
        try:
            _compare_taken(case, f"{name} arguments", sample)
        except MetadataMismatchError as error:
            _compare_taken(case, f"{name} arguments", sample, strides=False)
            note = note or _unsure("layouts", "give the result the same strides", error)
    return note


Unsure = tuple[str, Callable[[Sample], Iterator[tuple[str, Sample]]], str]


def _unsure_note(case: Case, unsure: Iterable[Unsure]) -> str | None:
    """Say where kernel and rule differ for what the author may not have meant to be given."""
    for what, make, how in unsure:
        try:
            for name, sample in make(case.sample):
                _compare_taken(case, name, sample)
        except MetadataMismatchError as error:
            return _unsure(what, how, error)
    return None


def _unsure(what: str, how: str, error: MetadataMismatchError) -> str:
    return (
        f"the kernel takes {what} for which the fake rule is wrong: {error.problem}; "
        f"{error.declared}, {error.seen}. Refuse them in both, or {how} in both"
    )


_UNSURE: tuple[Unsure, ...] = (
    ("shapes", broadcast, "broadcast"),
    ("dtypes", mixed, "promote"),
    ("ranks", reranked, "compute with all axes"),
)


def _compare_taken(case: Case, name: str, sample: Sample, *, strides: bool = True) -> bool:
    """Compare at made inputs, unless the operator or its rule refuses them; tells if they agree.

    Raises:
        MetadataMismatchError: a fake result differs.
    """
    real = take(case, sample)
    if real is not None:
        try:
            compare_fake(case, sample, f" at {name}", real=real, strides=strides)
            return True
        except MetadataMismatchError:
            raise
        except Exception:  # noqa: S110 - the rule may check more than the kernel does
            pass
    return False


@law("test_dtypes", "For each dtype that is taken, results have the fake's dtype and like values.")
def dtypes_law(case: Case) -> str | None:
    """Compare fake and real results with arguments in other dtypes, and their values."""
    kinds = {t.dtype.kind for t in case.sample.tensors()}
    if not kinds & set("fciuV"):  # "V" is that of the small floats
        raise DoesNotApply("no tensor of the sample holds numbers")
    _needs_agreement(case)
    if not kinds & set("fcV"):
        return widen(case, other_widths(case.sample), "dtypes")
    names = ("float32", "float64", "float16")
    note = widen(case, [(f"dtype {d}", cast(case.sample, d)) for d in names], "dtypes")
    compare_precisions(case)
    others: list[Unsure] = [
        ("dtypes", make, "say the kernel's dtype") for make in (in_bfloat16, other_kinds)
    ]
    return note or _unsure_note(case, others)


@law("test_none_patterns", "Each optional argument may be None, for the fake as for the kernel.")
def none_law(case: Case) -> str | None:
    """Compare fake and real results with optional arguments left out."""
    made = list(without_optionals(case.sample))
    if not made:
        raise DoesNotApply("the sample gives no optional argument")
    _needs_agreement(case)
    return widen(case, made, "patterns of None")


def _needs_agreement(case: Case) -> None:
    """Stop where fake and kernel differ already at the sample."""
    try:
        compare_fake(case, case.sample.copy(), "")
    except MissingFakeError:
        raise DoesNotApply("there is no fake rule") from None
    except PolyopError:
        raise DoesNotApply("the sample itself fails test_faketensor") from None


def widen(case: Case, made: Iterable[tuple[str, Sample]], what: str) -> str | None:
    """Compare at made inputs; those that the operator refuses say nothing.

    Raises:
        MetadataMismatchError: a fake result differs, or the rule refuses all
            made inputs though the operator takes some.
    """
    agreed, refused = 0, []
    for name, sample in made:
        real = take(case, sample)
        if real is None:
            continue
        try:
            compare_fake(case, sample, f" at {name}", real=real)
            agreed += 1
        except MetadataMismatchError:
            raise
        except Exception as error:  # the rule may check more than the kernel does
            refused.append((name, error))
    if refused and not agreed:
        _refuses(case, *refused[0])
    return None if agreed or refused else f"the operator takes no other {what} than the sample's"


def take(case: Case, sample: Sample) -> tuple[Sample, Any] | None:
    """Run the operator on made inputs; None if it refuses them."""
    given = sample.copy()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return given, given.call(case.op)
    except Exception:  # any refusal says nothing
        return None


def _refuses(case: Case, name: str, error: Exception) -> None:
    said = first_line(error)
    raise MetadataMismatchError(
        f"the fake rule of {case.name} works only at the sample's own sizes and dtypes",
        op=case.op._schema,
        declared=f"the operator takes {name}",
        seen=f"the rule raised {type(error).__name__}: {said}",
        source=fake_source(case),
        fix="compute the result from the arguments' own shape and dtype",
    ) from error


def fake_source(case: Case) -> Any:
    """Give the place of the fake rule, or of what stands in for it."""
    has = case.op.rule("fake") is not None
    return case.op.rule_source("fake") if has else case.kernel_source


# -- one comparison -----------------------------------------------------------


def compare_fake(
    case: Case,
    sample: Sample,
    at: str,
    *,
    symbolic: bool = False,
    real: tuple[Sample, Any] | None = None,
    strides: bool = True,
) -> None:
    """Compare a fake call with a real one.

    Raises:
        MetadataMismatchError: they differ.
    """
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env, static_shapes=not symbolic)
    fakes = sample.map(mode.from_tensor)
    with mode:
        given = fakes.call(case.op)
    # The kernel may write its arguments: only now may it have them.
    owner, result = real or (sample, sample.call(case.op))
    count = len(case.op._schema.returns)
    comparison = Comparison(case, env, at, strides)
    pairs = comparison.paired(leaves_named(given, count), leaves_named(result, count))
    for name, fake, value in pairs:
        comparison.leaf(name, fake, value)
    if not symbolic:
        comparison.sharing(pairs, fakes, owner)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, where sizes are symbols of `env`, and what to call the input."""

    case: Case
    env: ShapeEnv
    at: str
    strides: bool = True
    #: The sizes that depend on data, as the kernel's results show them.
    seen: dict[str, int] = field(default_factory=dict)

    def paired(self, told: Named, seen: Named) -> Pairs:
        """Put each leaf of a fake result beside the real one."""
        if [name for name, _ in told] != [name for name, _ in seen]:
            self.differ("the results", "number", len(told), len(seen))
        return [(name, fake, real) for (name, fake), (_, real) in zip(told, seen, strict=True)]

    def leaf(self, name: str, fake: Any, real: Any) -> None:
        """Compare one leaf."""
        if isinstance(real, Tensor) and isinstance(fake, Tensor):
            self.tensor(name, fake, real)
        elif isinstance(real, Tensor) or isinstance(fake, Tensor) or not self.agree(fake, real):
            self.differ(name, "value", fake, real)

    def tensor(self, name: str, fake: Tensor, real: Tensor) -> None:
        """Compare what is known of a tensor without its data."""
        sizes: tuple[Any, ...] = real.shape
        if not self.all_agree(fake.shape, sizes):
            what = wrong_of_sizes(fake.shape, sizes)
            self.differ(name, what, ranged(fake.shape), list(sizes))
        for what in ("dtype", "device"):
            if getattr(fake, what) != getattr(real, what):
                self.differ(name, what, getattr(fake, what), getattr(real, what))
        told, seen = fake.stride(), real.stride()
        # Strides of axes that have one element, or none, are never used.
        used = [i for i, n in enumerate(sizes) if n > 1 and 0 not in sizes]
        if self.strides and not self.all_agree([told[i] for i in used], [seen[i] for i in used]):
            self.differ(name, "strides", list(told), list(seen))

    def all_agree(self, told: Sequence[Any], seen: Sequence[Any]) -> bool:
        """Tell whether all numbers fit."""
        return len(told) == len(seen) and all(map(self.agree, told, seen))

    def agree(self, fake: Any, real: Any) -> bool:
        """Tell whether a number of a fake result fits the real one."""
        if not isinstance(fake, (SymInt, SymFloat, SymBool)):
            return type(fake) is type(real) and bool(fake == real or repr(fake) == repr(real))
        if getattr(fake, "hint", None) is not None:
            return bool(fake.hint == real)
        if isinstance(fake, SymInt):
            least, most = self.env.range_of(fake)
            return bool(least <= real <= most) and self.same_symbol(fake, real)
        return True

    def same_symbol(self, fake: SymInt, real: int) -> bool:
        """Tell whether a size is what its symbols were elsewhere; a new symbol is what it is."""
        names = fake.expr.symbols()
        if names == (str(fake.expr),):
            return self.seen.setdefault(names[0], real) == real
        known = all(name in self.seen for name in names)
        return not known or bool(self.env.evaluate(fake, self.seen) == real)

    def sharing(self, pairs: Pairs, fakes: Sample, given: Sample) -> None:
        """Compare who shares memory with whom."""
        arguments = list(zip(fakes.named(), given.named(), strict=True))
        tensors = [p for p in pairs if isinstance(p[2], Tensor) and p[2].size]
        for name, fake, real in tensors:
            for (other, fake_arg), (_, real_arg) in arguments:
                told, seen = shares_memory(fake, fake_arg), shares_memory(real, real_arg)
                unknown = seen and not is_followed(self.case.op, number_of(name))
                if told != seen and not unknown and not _shared_twice(given, real_arg):
                    said = {True: f"shares memory with {other!r}", False: "new memory"}
                    self.differ(name, "sharing", said[told], said[seen])

    def differ(self, name: str, what: str, fake: object, real: object) -> NoReturn:
        """Say what differs."""
        raise MetadataMismatchError(
            f"the fake rule of {self.case.name} is wrong about the {what} of {name}{self.at}",
            op=self.case.op._schema,
            argument=name,
            declared=f"{what} {fake} (the fake rule)",
            seen=f"{what} {real} (the kernel)",
            source=fake_source(self.case),
            fix=fix_of(what, self.at),
        )


def _shared_twice(given: Sample, argument: Tensor) -> bool:
    """Tell whether arguments share memory, which their fakes cannot show."""
    return sum(shares_memory(argument, t) for t in given.tensors()) > 1
