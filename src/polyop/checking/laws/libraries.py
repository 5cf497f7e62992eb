"""Kernels for one library's arrays: they give what the operator gives for NumPy's.

A library is tried where it is imported already, and on its default device; else a note says that
nobody tried.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from polyop.checking.compare import compare_leaves
from polyop.checking.inputs import cast
from polyop.checking.law import Case, outcome
from polyop.checking.sample import array_of
from polyop.dispatch.library_kernels import library_kernels
from polyop.errors import first_line
from polyop.payloads.api import from_array
from polyop.payloads.exchange import from_numpy
from polyop.payloads.libraries import LIBRARIES
from polyop.tensor.tensor import Tensor, of_array

#: How far libraries may round differently, in single precision.
NEAR = (1e-3, 1e-3)


def compare_libraries(case: Case) -> str | None:
    """Compare with the kernels for other libraries; say which were not tried, and why.

    Raises:
        OpCheckError: values differ.
    """
    untried = []
    for (library, device), kernel in library_kernels(case.op).items():
        why = _untried(library, device) or _compare(case, library, kernel.source)
        if why:
            untried.append(f"the kernel for {library} at {kernel.source} was not tried: {why}")
    return "; ".join(untried) or None


def _untried(library: str, device: str) -> str:
    if library not in LIBRARIES:
        return "nobody here makes its arrays"
    if library not in sys.modules:
        return f"{library} is not imported"
    return f"it is for {device}" if device not in {"", "cpu"} else ""


def _compare(case: Case, library: str, source: Any) -> str:
    # Not every library has, or keeps, double precision.
    single = cast(case.sample, "float32")
    made = LIBRARIES[library][1]

    def moved(t: Tensor) -> Tensor:
        found: Tensor = from_array(from_numpy(made, array_of(t)))
        return found

    try:
        wanted = outcome(case, single.copy())
        got = outcome(case, single.copy().map(moved))
    except Exception as error:  # the library may refuse what NumPy takes
        said = first_line(error)
        return f"{type(error).__name__}: {said}"
    compare_leaves(
        _numbers(got),
        _numbers(wanted),
        NEAR if case.rtol is None else case.tolerance,
        f"{{}} of {case.name} is another one for arrays of {library}",
        op=case.op._schema,
        declared="what the operator gives for arrays of NumPy",
        source=source,
        fix="compute the same in each kernel; if numbers are drawn, say so: "
        "tags=(Tag.nondeterministic_seeded,)",
    )
    return ""


def _numbers(leaves: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Give leaves with their tensors in the widest dtypes, because libraries have other ones."""
    return [(name, _wide(t) if isinstance(t, Tensor) else t) for name, t in leaves]


def _wide(t: Tensor) -> Tensor:
    array = array_of(t)
    return of_array(array.astype("complex128" if np.iscomplexobj(array) else "float64"))


__all__ = ["compare_libraries"]
