"""A kernel in C as the kernel of an operator: arguments in, results out, errors as ours.

Results are made by polyop before the kernel runs: like an argument, or as the
library's shape function says. Where both are missing the kernel makes them
itself, through the one callback that it is given. What comes in is contiguous,
unless the operator takes any strides; a written argument that is not is copied
back. Nothing is written that the schema does not declare as written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import addressof, c_char, c_char_p, cast, pointer
from typing import Any, NamedTuple, NoReturn

import numpy as np

from polyop.devices import DType
from polyop.dispatch.body import carriers
from polyop.dispatch.kernel_abi import (
    BOOL,
    FLOAT,
    INT,
    MAKE,
    STRIDED,
    TENSOR,
    WRITTEN,
    Call,
    Shaped,
    UnfitError,
    Values,
    dtype_of,
)
from polyop.dispatch.parts import PARTS
from polyop.errors import ArgumentError, KernelError, MutationError
from polyop.schema.model import FunctionSchema
from polyop.source import Source
from polyop.symbolic import SymBool, SymFloat, SymInt

Function = Callable[..., int]
#: What a kernel may give as a result of each type.
_NUMBERS: dict[str, dict[int, Callable[[Any], Any]]] = {
    "int": {INT: int},
    "SymInt": {INT: int},
    "float": {INT: float, FLOAT: float},
    "bool": {BOOL: bool},
}
ERROR_SIZE = 1024


class Plan(NamedTuple):
    """What is known of an operator whose kernel is in C.

    Args:
        schema: the operator's.
        kernel: the function.
        shape: the function that makes results without data; None if there is none.
        like: for each result the position of the argument that it is like; () if not known so.
        strided: whether the kernel takes any strides.
        source: the line in the C file.
        dtypes: those that tensors may have; empty for any.
    """

    schema: FunctionSchema
    kernel: Function
    shape: Function | None
    like: tuple[int | None, ...]
    strided: bool
    source: Source
    dtypes: tuple[DType, ...] = ()

    @property
    def flags(self) -> list[int]:
        """Say for each argument whether it may be written."""
        return [WRITTEN if a.is_write else 0 for a in self.schema.arguments]

    @property
    def has_fake(self) -> bool:
        """Whether shapes and dtypes are known without the kernel, and are all there is to know."""
        new = [r for r in self.schema.returns if r.alias_info is None]
        return bool(new) and all(str(r.type) == "Tensor" for r in new) and self.knows_shapes

    @property
    def knows_shapes(self) -> bool:
        """Whether results are made before the kernel runs."""
        return bool(self.like) or self.shape is not None


class Run:
    """One run of a kernel, or of a shape function, with what it made."""

    __slots__ = ("address", "call", "error", "failure", "makes", "plan", "results", "values")

    def __init__(self, plan: Plan, make: Callable[[Sequence[int], DType], Any]) -> None:
        self.plan = plan
        self.makes = make  # of a shape and a dtype
        self.error = (c_char * ERROR_SIZE)()
        self.call = Call(cast(self.error, c_char_p), ERROR_SIZE, _MAKE)
        self.address = addressof(self.call)
        self.results: list[Any] = [None] * len(plan.schema.returns)
        self.values = Values(len(plan.schema.returns))
        self.failure: BaseException | None = None

    def make(self, i: int, shape: Sequence[int], dtype: DType) -> None:
        """Make a result, and show it to the function."""
        made = self.results[i] = self.makes(shape, dtype)
        is_array = made.__class__ is np.ndarray
        self.values.put(self.values.array[i], made if is_array else Shaped(shape, dtype), WRITTEN)
        self.values.show_data()

    def refuse(self, text: str) -> int:
        """Leave a text as this run's error."""
        self.error.value = text.encode()[: ERROR_SIZE - 1]
        return 1

    def do(self, function: Function, args: Values) -> None:
        """Run a function.

        Raises:
            KernelError: it reports an error, or asked for a result that cannot be made.
        """
        _running[self.address] = self
        try:
            status = function(pointer(self.call), args.array, self.values.array)
        finally:
            del _running[self.address]
        if self.failure is not None:
            raise self.failure
        text = self.error.value.decode(errors="replace")
        if status or text:
            _fail(self.plan, text or f"it gave {status}, and no text", args)


#: The runs under way, by the address of their call: a kernel may make results in any thread.
_running: dict[int, Run] = {}


def _make(address: int, i: int, given: Any, ndim: int, sizes: Any) -> int:
    """Make a result for a kernel; an exception must not leave through C."""
    run = _running.get(address)
    if run is None:  # a call that is over
        return 1
    try:
        returns = run.plan.schema.returns
        if not 0 <= i < len(returns) or not _is_new_tensor(returns[i]):
            return run.refuse(f"result {i} is no tensor to be made")
        if not 0 <= ndim <= 64:
            return run.refuse(f"a tensor cannot have {ndim} dimensions")
        shape = [sizes[n] for n in range(ndim)]
        if any(size < 0 for size in shape):
            return run.refuse(f"a tensor cannot have the shape {tuple(shape)}")
        if run.results[i] is not None:
            return run.refuse(f"result {i} is there already")
        run.make(i, shape, dtype_of(given))
    except (UnfitError, MemoryError, ValueError) as error:
        return run.refuse(f"result {i} cannot be made: {error}")
    except BaseException as error:
        run.failure = error
        return 1
    return 0


_MAKE = MAKE(_make)


def _is_new_tensor(result: Any) -> bool:
    return result.alias_info is None and str(result.type) == "Tensor"


class CKernel:
    """A kernel on bare arrays that is a function in C."""

    __slots__ = ("_flags", "plan")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._flags = plan.flags

    def __call__(self, /, *args: Any) -> Any:
        """Run the kernel."""
        plan = self.plan
        fit = [
            self._fit(i, value, flag)
            for i, (value, flag) in enumerate(zip(args, self._flags, strict=True))
        ]
        values = _values(plan, fit, self._flags)
        run = Run(plan, np.empty)
        for i, position in enumerate(plan.like):
            if position is not None:
                run.make(i, args[position].shape, args[position].dtype)
        if plan.shape is not None:
            run.do(plan.shape, values)
            _check_made(run, values)
        values.show_data()
        run.do(plan.kernel, values)
        _check_made(run, values)
        for value, copy in zip(args, fit, strict=True):
            _write_back(value, copy)
        given = [_number(run, i, values) for i in range(len(run.results))]
        return given[0] if len(given) == 1 else given

    def _fit(self, i: int, value: Any, flag: int) -> Any:
        """Give an array that the kernel can take, and its copy if it cannot take it itself."""
        if value.__class__ is list:
            return [self._fit(i, item, flag) for item in value]
        if value.__class__ is not np.ndarray:
            return value
        if flag and not value.flags.writeable:
            argument = self.plan.schema.arguments[i]
            raise MutationError(
                f"{self.plan.schema.qualified_name} writes {argument.name!r}, and this array is "
                "read-only",
                op=self.plan.schema,
                argument=f"{argument.name} (position {i})",
                declared=argument.type,
                seen="an array that is not writeable",
                source=self.plan.source,
                fix="give a copy: x.clone()",
            )
        if self.plan.dtypes and value.dtype not in self.plan.dtypes:
            self._refuse_dtype(i, value)
        flags = value.flags
        even = not any(s % (value.itemsize or 1) for s in value.strides)
        if flags.aligned and (flags.c_contiguous or (self.plan.strided and even)):
            return value
        return np.array(value, order="C", copy=True)

    def _refuse_dtype(self, i: int, value: Any) -> NoReturn:
        argument, names = self.plan.schema.arguments[i], [d.name for d in self.plan.dtypes]
        raise ArgumentError(
            f"{self.plan.schema.qualified_name} does not take a tensor of dtype {value.dtype}",
            op=self.plan.schema,
            argument=f"{argument.name} (position {i})",
            declared=", ".join(names),
            seen=_describe(value),
            source=self.plan.source,
            fix=f"convert it first: x.to(polyop.{names[0]})",
        )


def _write_back(value: Any, copy: Any) -> None:
    """Bring what was written into a copy to where it belongs."""
    if value is copy or value is None:
        return
    if value.__class__ is list:
        for one, other in zip(value, copy, strict=True):
            _write_back(one, other)
    elif value.flags.writeable:
        value[...] = copy


def _values(plan: Plan, given: Sequence[Any], flags: Sequence[int]) -> Values:
    """Put arguments in place for C, tensors without their data yet."""
    values = Values(len(given))
    i = 0
    try:
        for i, (value, flag) in enumerate(zip(given, flags, strict=True)):
            values.put(values.array[i], value, flag)
    except UnfitError as unfit:
        argument = plan.schema.arguments[i]
        raise ArgumentError(
            f"{plan.schema.qualified_name}: {unfit}",
            op=plan.schema,
            argument=f"{argument.name} (position {i})",
            declared=argument.type,
            seen=_describe(given[i]),
            source=plan.source,
            fix="convert it first",
        ) from None
    return values


def _check_made(run: Run, args: Values) -> None:
    for i, result in enumerate(run.plan.schema.returns):
        if _is_new_tensor(result) and run.results[i] is None:
            _fail(run.plan, f"result {i} was not made", args)


def _number(run: Run, i: int, args: Values) -> Any:
    """Give a result, a number from where the kernel put it."""
    result, value = run.plan.schema.returns[i], run.values.array[i]
    if result.alias_info is not None or run.results[i] is not None:
        return run.results[i]
    read = _NUMBERS[str(result.type)].get(value.kind)
    if read is None:
        _fail(run.plan, f"result {i} is no {result.type}", args)
    return read(value.number if value.kind == FLOAT else value.integer)


def _fail(plan: Plan, text: str, args: Values) -> NoReturn:
    names = [a.name for a in plan.schema.arguments]
    seen = [f"{n}: {_shown(v)}" for n, v in zip(names, args.array, strict=True) if v.kind == TENSOR]
    raise KernelError(
        f"the kernel of {plan.schema.qualified_name} reports: {text}",
        op=plan.schema,
        seen=", ".join(seen),
        source=plan.source,
        fix="give arguments that the kernel takes, or change it there",
    )


def _shown(value: Any) -> str:
    tensor = value.tensor.contents
    shape = tuple(tensor.shape[n] for n in range(tensor.ndim))
    return f"{dtype_of(tensor.dtype).name}{list(shape)}"


def _describe(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return f"{value!r:.80}" if dtype is None else f"a tensor of dtype {dtype!r}"


# -- the fake rule ------------------------------------------------------------


class CFake:
    """The fake rule of an operator in C: results like arguments, or what the function says.

    A shape function computes with numbers, so it fixes the symbolic sizes that it is given.
    """

    __slots__ = ("plan",)

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give results without data."""
        plan = self.plan
        given = [*args, *(kwargs[a.name] for a in plan.schema.arguments[len(args) :])]
        if plan.shape is None:
            done = [
                given[arg_of_result(r, plan.schema)] if i is None else _like(given[i])
                for i, r in zip(plan.like, plan.schema.returns, strict=True)
            ]
        else:
            done = self._from_function(given)
        return done[0] if len(done) == 1 else tuple(done)

    def _from_function(self, given: Sequence[Any]) -> list[Any]:
        plan = self.plan
        assert plan.shape is not None
        run = Run(plan, Shaped)
        values = _values(plan, [_without_data(v) for v in given], plan.flags)
        run.do(plan.shape, values)
        _check_made(run, values)
        like = next((v for v in given if isinstance(v, PARTS.Tensor)), None)
        return [
            given[arg_of_result(r, plan.schema)] if made is None else _empty(like, made)
            for r, made in zip(plan.schema.returns, run.results, strict=True)
        ]


def arg_of_result(result: Any, schema: FunctionSchema) -> int:
    """Give the position of the argument that a result is."""
    return carriers(schema, schema.returns.index(result))[0]


def _like(x: Any) -> Any:
    return x.new_empty(x.shape)


def _empty(like: Any, made: Shaped) -> Any:
    if like is not None:
        return like.new_empty(made.shape, dtype=made.dtype)
    return PARTS.find_operator("core::empty", "", 0)(list(made.shape), dtype=made.dtype)


def _without_data(value: Any) -> Any:
    if isinstance(value, PARTS.Tensor):
        return Shaped([int(size) for size in value.shape], value.dtype)
    if value.__class__ in {list, tuple}:
        return [_without_data(item) for item in value]
    # Of a symbolic number, what the function makes of it holds for this number alone.
    concrete = _CONCRETE.get(value.__class__)
    return concrete(value) if concrete else value


_CONCRETE: dict[type, Callable[[Any], Any]] = {SymInt: int, SymFloat: float, SymBool: bool}


__all__ = ["STRIDED", "CFake", "CKernel", "Plan"]
