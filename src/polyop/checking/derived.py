"""Samples that an index signature gives: where an author says which axes meet, inputs can be made.

Each named axis gets a size of its own, a prime, so that no axis is taken for another; then sizes
0 and 1, loops, loops that broadcast, and other dtypes. What is not the first sample is kept where
the operator takes it: that it may refuse, the signature does not say.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from polyop.checking.sample import Array, Sample, array_of, sample_of
from polyop.dispatch.index_signature import IndexSignature, index_of
from polyop.dispatch.index_text import is_size, is_tensor
from polyop.dispatch.operator import OpOverload
from polyop.errors import UsageError, first_line
from polyop.schema.model import Argument
from polyop.schema.types import OptionalType
from polyop.tensor.tensor import Tensor, of_array

Loops = Sequence[tuple[int, ...]]

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
#: What stands for an argument without a default, by its type.
SIMPLE: dict[str, Any] = {
    "int": 2, "SymInt": 2, "float": 0.5, "bool": False, "Scalar": 2.0, "complex": 0.5 + 0.5j,
}  # fmt: skip
#: The dtypes that an argument may have; those of the first sample are tried in this order.
DTYPES = ("float64", "int64", "bool")
MOST_COMBINATIONS = 64


def derived_samples(op: OpOverload) -> tuple[Sample, ...]:
    """Make samples from an operator's index signature; none if it has none.

    Raises:
        UsageError: an argument has no simple value, or the operator takes none of the samples.
    """
    index = index_of(op)
    if index is None:
        return ()
    sizes = dict(zip(_names(index), PRIMES * len(_names(index)), strict=False))
    tensors = len(index.inputs)
    first = _first(index, sizes)
    dtypes = [t.dtype.name for t in first.tensors()]
    more = [
        _make(index, sizes, dtypes, [(4,)] * tensors),
        _make(index, sizes, dtypes, mixed_loops(tensors)),
        _make(index, dict.fromkeys(sizes, 1), dtypes),
        _make(index, dict.fromkeys(sizes, 0), dtypes),
        *_other_dtypes(index, sizes, dtypes),
    ]
    return (first, *(sample for sample in more if attempt(op, sample) is not None))


def mixed_loops(tensors: int) -> Loops:
    """Give loops that broadcast: one behind the other's; for one tensor, two loops."""
    return [(2, 1)] + [(3,)] * (tensors - 1) if tensors > 1 else [(2, 3)] * tensors


def attempt(op: OpOverload, sample: Sample) -> tuple[Sample, Any] | None:
    """Call an operator on a copy of made inputs: the copy and the result, None if it refuses."""
    given = sample.copy()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return given, given.call(op)
    except Exception:  # any refusal says nothing
        return None


# -- the first sample ---------------------------------------------------------


def _first(index: IndexSignature, sizes: Mapping[str, int]) -> Sample:
    """Give the first sample that the operator takes, of the dtypes that come first."""
    seen = None
    for dtypes in _combinations(len(index.inputs)):
        sample = _make(index, sizes, dtypes)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                sample.copy().call(index.op)
        except Exception as error:  # an author's kernel may raise anything
            seen = seen or error
        else:
            return sample
    raise UsageError(
        f"{index.op.name()} takes none of the samples that {index.text} gives",
        op=index.op._schema,
        seen="" if seen is None else f"{type(seen).__name__}: {first_line(seen)}",
        source=index.op.rule_source("index"),
        fix=f"register samples: @{index.op._opname}.samples, or polyop.library.register_samples",
    ) from seen


def _combinations(tensors: int) -> Iterator[tuple[str, ...]]:
    """Give dtypes for each tensor, those with most floats first."""
    many = list(product(DTYPES, repeat=min(tensors, 4)))
    many.sort(key=lambda dtypes: sum(DTYPES.index(d) for d in dtypes))
    for dtypes in many[:MOST_COMBINATIONS]:
        yield (*dtypes, *("float64" for _ in range(tensors - 4)))


def _other_dtypes(
    index: IndexSignature, sizes: Mapping[str, int], dtypes: Sequence[str]
) -> list[Sample]:
    """Give other precisions, and ints where results are what the signature says of ints."""
    if "float64" not in dtypes:
        return []
    made = []
    for other in ("float32", "int64"):
        sample = _make(index, sizes, [other if d == "float64" else d for d in dtypes])
        found = attempt(index.op, sample)
        if found and (other == "float32" or agrees(index, *found)):
            made.append(sample)
    return made


def agrees(index: IndexSignature, sample: Sample, result: Any) -> bool:
    """Tell whether results have the dtype that the rule for fakes gives, if the axes give it."""
    if not index.gives_fake:
        return True
    results = result if isinstance(result, tuple) else (result,)
    return all(r.dtype == index.dtype(sample.tensors()) for r in results)


# -- one sample ---------------------------------------------------------------


def _names(index: IndexSignature) -> list[str]:
    """Give the names whose size is free, in the order in which they are met."""
    every = [name for group in (*index.inputs, *index.outputs) for name in group]
    return [name for name in dict.fromkeys(every) if not name.isdigit()]


def _make(
    index: IndexSignature, sizes: Mapping[str, int], dtypes: Sequence[str], loops: Loops = ()
) -> Sample:
    known = {**sizes, **{n: int(n) for g in index.inputs for n in g if n.isdigit()}}
    made: dict[str, Any] = {}
    at = 0
    for argument in index.op._schema.arguments:
        if is_tensor(argument):
            group = tuple(known[name] for name in index.inputs[at])
            shape = (*(loops[at] if loops else ()), *group)
            made[argument.name] = of_array(_values(shape, dtypes[at], at))
            at += 1
        elif is_size(argument) and argument.name in known:
            made[argument.name] = known[argument.name]
        elif not argument.has_default_value():
            made[argument.name] = _simple(index, argument)
    return sample_of(index.op, (), made)


def _simple(index: IndexSignature, argument: Argument) -> Any:
    if isinstance(argument.type, OptionalType):
        return None
    if str(argument.type) not in SIMPLE:
        raise UsageError(
            f"no sample can be made: {argument.name} has no default, and no simple value",
            op=index.op._schema,
            argument=argument.name,
            declared=str(argument.type),
            source=index.op.rule_source("index"),
            fix="register samples, or give the argument a default",
        )
    return SIMPLE[str(argument.type)]


def _values(shape: tuple[int, ...], dtype: str, number: int) -> Array:
    """Give positive numbers that differ; ints and bools are 0 and 1, to be places in any axis."""
    count = int(np.prod(shape))
    if dtype.startswith("float"):
        made = np.linspace(0.1, 1.0, count) + number / 8
    else:
        made = np.asarray((np.arange(count) + number) % 2, "float64")
    return np.asarray(made.reshape(shape).astype(dtype))


# -- other samples of the same operator ---------------------------------------


def resized_by_name(index: IndexSignature, sample: Sample, sizes: Mapping[str, int]) -> Sample:
    """Give a sample without loops at other sizes of named axes, in ints that are sizes too."""
    values: list[Any] = []
    groups = iter(index.inputs)
    for argument, value in zip(sample.schema.arguments, sample.values, strict=True):
        if is_tensor(argument):
            group = next(groups)
            shape = tuple(sizes.get(n, old) for n, old in zip(group, value.shape, strict=True))
            array = array_of(value)
            values.append(of_array(np.resize(array, shape).astype(array.dtype, copy=False)))
        else:
            known = is_size(argument) and argument.name in sizes
            values.append(sizes[argument.name] if known else value)
    return Sample(sample.schema, tuple(values))


def tensors_of(index: IndexSignature, sample: Sample) -> list[tuple[str, Tensor, tuple[str, ...]]]:
    """Give the Tensor arguments of a sample, each with its name and its named axes."""
    values = dict(zip([a.name for a in sample.schema.arguments], sample.values, strict=True))
    return [(a.name, x, group) for a, x, group in index.tensors(values)]
