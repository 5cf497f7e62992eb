"""ONNX Runtime runs authors' operators: one description per operator, and one kernel per node.

NOTE [Open types]
A description says that an operator takes and gives any number of tensors of any type. The types of
results stand in the model, where the exporter wrote them; each is held against the result before
it is written. So one description serves all dtypes.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyop.dispatch.context import PLAIN, run_under
from polyop.dispatch.operator import OpOverload
from polyop.errors import AliasError, DelegateError, PolyopError, ReturnError
from polyop.export.onnx.c_api import VERSION, Address, Api, shim
from polyop.export.onnx.calls import CALL, Input, from_text, op_type
from polyop.forks import process_lock
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor, of_array

_INT, _COUNT = ctypes.c_int, ctypes.c_size_t
_NEWEST = 2**31 - 1
_OPEN, _VARIADIC, _ON_CPU = 0, 2, 0


class Kernel(NamedTuple):
    """One node of a model.

    Attributes:
        op: the operator.
        values: its arguments, an `Input` for each input of the node.
    """

    op: OpOverload
    values: list[Any]

    def run(self, api: Api, context: int) -> None:
        """Run the operator on the inputs of a call, and give its results.

        Raises:
            DelegateError: the model has other results.
            AliasError: the kernel kept memory of an input, which is not its own.
        """
        arrays = api.inputs(context)
        free = [sys.getrefcount(array) for array in arrays]
        self._answer(api, context, arrays)
        if [sys.getrefcount(array) for array in arrays] != free:
            raise AliasError(
                f"the kernel of {self.op.name()} keeps an input, or a view of it, beyond the call",
                op=self.op._schema,
                source=self.op.source,
                fix="keep a copy: ONNX Runtime uses the memory anew",
            )

    def _answer(self, api: Api, context: int, arrays: Sequence[Any]) -> None:
        results = self._call(arrays)
        count = api.count("KernelContext_GetOutputCount", context)
        if count != len(results):
            raise DelegateError(
                f"{self.op.name()} has {len(results)} results, and the model {count}",
                op=self.op._schema,
                fix="export the model again",
            )
        for i, result in enumerate(results):
            api.give(context, i, result)

    def _call(self, arrays: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
        schema = self.op._schema
        given = [
            _placed(v, arrays, is_static=leaf_kind(a.type) == "static")
            for a, v in zip(schema.arguments, self.values, strict=True)
        ]
        n = len(schema.positional)
        names = [a.name for a in schema.keyword_only]
        named = dict(zip(names, given[n:], strict=True))
        out = run_under(PLAIN, self.op.entry, *given[:n], **named)
        return [_data(self.op, r) for r in (out if isinstance(out, tuple | list) else [out])]


def _placed(value: Any, arrays: Sequence[Any], *, is_static: bool) -> Any:
    if value.__class__ is Input:
        array = arrays[value.number]
        return array.item() if is_static else of_array(array)
    if isinstance(value, list):
        return [_placed(v, arrays, is_static=is_static) for v in value]
    return value


def _data(op: OpOverload, result: Tensor) -> np.ndarray[Any, Any]:
    payload = result.payload
    if not isinstance(payload, np.ndarray):
        raise ReturnError(f"the kernel of {op.name()} gave a tensor without data", op=op._schema)
    return payload


# -- descriptions -----------------------------------------------------------------------------


class _CustomOp(ctypes.Structure):
    """What ONNX Runtime is told of an operator, in the order of its header."""

    _fields_ = [("version", ctypes.c_uint32)] + [
        (name, Address)
        for name in (
            *("create", "name", "provider", "input_type", "input_count", "output_type"),
            *("output_count", "compute", "destroy", "input_form", "output_form", "input_memory"),
            *("input_arity", "input_alike", "output_arity", "output_alike", "create_or_fail"),
            *("compute_or_fail", "infer", "start_version", "end_version"),
        )
    ]


class Runtime:
    """What this process has told ONNX Runtime; it lives as long as the process, as sessions may.

    Attributes:
        api: the interface; None before the first registration.
    """

    def __init__(self) -> None:
        self.api: Api | None = None
        self.lock = process_lock()
        self.wanted: dict[str, list[OpOverload]] = {}
        self.error: BaseException | None = None
        self._numbers = itertools.count(1)
        self._kernels: dict[int, Kernel] = {}
        self._known: dict[OpOverload, _CustomOp] = {}
        self._by_address: dict[int, tuple[OpOverload, Any]] = {}
        self._domains: dict[tuple[Any, ...], int] = {}
        self._callbacks: list[Any] = []

    # -- registration -------------------------------------------------------------------

    def register(self, options: Any, ops: Sequence[OpOverload]) -> None:
        """Let the sessions of some options find operators.

        Raises:
            DelegateError: there is no C compiler, or ONNX Runtime refuses.
        """
        path, set_handler = shim()
        with self.lock:
            self.wanted = {}
            for op in ops:
                self.wanted.setdefault(op.namespace, []).append(op)
            if not self._callbacks:
                set_handler(self._callback(Address, self._registered, Address, Address))
            self.error = None
            options.register_custom_ops_library(path)
            if self.error is not None:
                raise self.error

    def _registered(self, options: int, base: int) -> int | None:
        try:
            self.api = self.api or Api(base)
            for namespace, ops in self.wanted.items():
                self.api.call("AddCustomOpDomain", options, self._domain(namespace, ops))
        except BaseException as error:  # nothing may pass through C
            self.error = error
        return None

    def _domain(self, namespace: str, ops: Sequence[OpOverload]) -> int:
        assert self.api is not None
        chosen = sorted(ops, key=lambda op: op.name())
        key = (namespace, *chosen)
        if key not in self._domains:
            domain = self.api.address("CreateCustomOpDomain", namespace.encode())
            for op in chosen:
                known = ctypes.addressof(self._description(op))
                self.api.call("CustomOpDomain_Add", domain, known)
            self._domains[key] = domain
        return self._domains[key]

    def _description(self, op: OpOverload) -> _CustomOp:
        if op not in self._known:
            name = ctypes.create_string_buffer(op_type(op).encode())
            made = self._known[op] = _CustomOp(VERSION, **self._functions)
            self._by_address[ctypes.addressof(made)] = (op, name)
        return self._known[op]

    # -- what ONNX Runtime calls ----------------------------------------------------------

    @property
    def _functions(self) -> dict[str, int]:
        if "_made" not in self.__dict__:
            self._made: dict[str, int] = {
                "name": self._address(Address, self._name, Address),
                "create_or_fail": self._address(
                    Address, self._create, Address, Address, Address, Address
                ),
                "compute_or_fail": self._address(Address, self._compute, Address, Address),
                "destroy": self._address(None, self._destroy, Address),
                **self._constants(),
            }
        return self._made

    def _constants(self) -> dict[str, int]:
        of_operator = {
            "input_count": 1, "output_count": 1, "input_arity": 0, "output_arity": 0,
            "input_alike": 0, "output_alike": 0, "start_version": 1, "end_version": _NEWEST,
        }  # fmt: skip
        of_place = {
            "input_type": _OPEN, "output_type": _OPEN, "input_form": _VARIADIC,
            "output_form": _VARIADIC, "input_memory": _ON_CPU,
        }  # fmt: skip
        sizes = ("input_count", "output_count")
        return {
            "provider": self._address(Address, lambda _: None, Address),
            **{
                name: self._address(_COUNT if name in sizes else _INT, lambda _, v=v: v, Address)
                for name, v in of_operator.items()
            },
            **{
                name: self._address(_INT, lambda _, __, v=v: v, Address, _COUNT)
                for name, v in of_place.items()
            },
        }

    def _callback(self, result: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        made = ctypes.CFUNCTYPE(result, *arguments)(function)
        self._callbacks.append(made)
        return made

    def _address(self, result: Any, function: Callable[..., Any], *arguments: Any) -> int:
        made = self._callback(result, function, *arguments)
        return ctypes.cast(made, Address).value or 0

    def _name(self, operator: int) -> int:
        return ctypes.addressof(self._by_address[operator][1])

    def _create(self, operator: int, _: int, info: int, out: int) -> int | None:
        assert self.api is not None
        op = self._by_address[operator][0]
        try:
            kernel = Kernel(op, from_text(self.api.attribute(info, CALL)))
            number = next(self._numbers)
            self._kernels[number] = kernel
            Address.from_address(out).value = number
        except BaseException as error:
            return self.api.failure(_text(op, error))
        return None

    def _compute(self, number: int, context: int) -> int | None:
        assert self.api is not None
        kernel = self._kernels[number]
        try:
            kernel.run(self.api, context)
        except BaseException as error:
            return self.api.failure(_text(kernel.op, error))
        return None

    def _destroy(self, number: int) -> None:
        self._kernels.pop(number, None)


def _text(op: OpOverload, error: BaseException) -> str:
    if isinstance(error, PolyopError):
        return f"{type(error).__name__}: {error}"
    return f"the kernel of {op.name()} raised\n" + "".join(traceback.format_exception(error))


RUNTIME = Runtime()
