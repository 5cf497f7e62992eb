"""Symbols: what kernels are run on, to learn which ufuncs they apply to which dtypes.

NumPy hands calls on a symbol to it (`__array_ufunc__`, `__array_function__`); it
notes a step of the formula, with the dtypes that NumPy itself resolves, and
gives the symbol of the result. Python's numbers stay without a dtype until a
ufunc gives them one, exactly as beside arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from polyop.compile.fused.formulas import FORMULAS, KINDS
from polyop.devices import DType

#: An operand: a symbol, or a constant as a scalar of the dtype that the step takes.
Operand: TypeAlias = "Symbol | np.generic"


class Unknown(Exception):  # noqa: N818 - it steers, and never reaches a user
    """A kernel does what no formula says."""


class Step(NamedTuple):
    """One line of a formula.

    Attributes:
        what: a ufunc, `"where"` or `"cast"`.
        loop: the dtype that the operands are converted to; None if they stay what they are.
        operands: symbols and constants.
        result: the symbol that it makes.
    """

    what: Any
    loop: DType | None
    operands: tuple[Operand, ...]
    result: Symbol


class Symbol(NDArrayOperatorsMixin):
    """An array of which only the dtype is known, and the steps that it comes of."""

    #: For kernels that ask whether data is repeated; what they do then depends on nothing else.
    strides = ()

    def __init__(self, dtype: DType, steps: list[Step]) -> None:
        if dtype not in KINDS:
            raise Unknown(dtype)
        self.dtype = dtype
        self.steps = steps

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Note a ufunc's step."""
        if method != "__call__" or kwargs or ufunc.nout != 1:
            raise Unknown(ufunc, method)
        *given, dtype = ufunc.resolve_dtypes((*map(_type_of, inputs), None))
        loop = given[0]
        if any(d != loop for d in given) or (ufunc, KINDS.get(loop)) not in FORMULAS:
            raise Unknown(ufunc, loop)
        return self._note(ufunc, loop, tuple(_typed(x, loop) for x in inputs), dtype)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Note a choice; answer what is asked of the dtype."""
        if function is np.iscomplexobj:
            return False
        if function is not np.where or kwargs or len(args) != 3:
            raise Unknown(function)
        condition, *values = args
        dtype = np.result_type(*[_known(x) for x in values])
        condition = _typed(condition, np.dtype(bool))
        return self._note("where", None, (condition, *[self._as(x, dtype) for x in values]), dtype)

    def astype(self, dtype: DType) -> Symbol:
        """Convert; what C and NumPy convert differently is refused."""
        if self.dtype == dtype:
            return self
        if KINDS[self.dtype] == "f" and KINDS.get(dtype) == "i":
            raise Unknown(dtype)  # numbers outside the range, and NaN
        return self._note("cast", None, (self,), dtype)

    def copy(self, order: str = "K") -> Symbol:
        """Give the symbol itself: a result never shares its memory."""
        return self

    @property
    def real(self) -> Symbol:
        """The symbol itself: no dtype here is complex."""
        return self

    def _as(self, value: Any, dtype: DType) -> Operand:
        return value.astype(dtype) if isinstance(value, Symbol) else _typed(value, dtype)

    def _note(self, what: Any, loop: Any, operands: tuple[Operand, ...], dtype: DType) -> Symbol:
        result = Symbol(dtype, self.steps)
        self.steps.append(Step(what, loop, operands, result))
        return result

    def __bool__(self) -> bool:
        raise Unknown("data")

    __hash__ = object.__hash__


def trace(kernel: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Symbol | None:
    """Run a kernel on symbols; None if there is no formula for what it does."""
    try:
        # Where a number does not fit its dtype, NumPy warns or raises: at every run then.
        with np.errstate(all="raise"):
            found = kernel(*args, **kwargs)
    except Exception:  # whatever a kernel thinks of symbols, it runs on arrays
        return None
    return found if isinstance(found, Symbol) else None


def _type_of(value: Any) -> Any:
    """Give what promotion sees of an operand: a dtype, or the type of a Python number."""
    if type(value) in (int, float):
        return type(value)
    return np.dtype(bool) if type(value) is bool else value.dtype


def _known(value: Any) -> Any:
    return value.dtype if isinstance(value, (Symbol, np.ndarray)) else value


def _typed(value: Any, dtype: DType) -> Operand:
    """Give an operand; a constant in the dtype of the step."""
    if isinstance(value, Symbol):
        return value
    if getattr(value, "ndim", 0):
        raise Unknown(value)
    if type(value) is int and dtype.kind == "i":
        info = np.iinfo(dtype)
        if not info.min <= value <= info.max:
            raise Unknown(value)
    # A Python number as NumPy converts it, through a double; a scalar or an array by a cast.
    found = (value.astype(dtype) if hasattr(value, "dtype") else np.array(value, dtype))[()]
    assert isinstance(found, np.generic)
    return found
