"""Runs a program of registrations in polyop or in PyTorch, and tells what came of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from tests.dispatch.registration_programs import Step, torch_key

from polyop.dispatch.guards import exclude_keys, force_keys, include_keys
from polyop.dispatch.keys import RUNTIME_KEYS, DispatchKey
from polyop.dispatch.keyset import DispatchKeySet, Mask, below
from polyop.dispatch.library import Library
from polyop.dispatch.registry import DEFINITIONS, PACKETS, PLACES
from polyop.dispatch.table import (
    FALLBACKS,
    Entry,
    compute_table,
    decide,
    fallthrough_kernel,
    mask_of,
    resolve_key,
)
from polyop.ops.factories import ones

ALL = (DispatchKey.Undefined, *RUNTIME_KEYS)
FILE = "registration_program"
#: Of a table: the reason, whether the key is passed over, the line of the library.
Line: TypeAlias = tuple[str, bool, int]


@dataclass
class Run:
    """A program that ran in one of the two systems.

    Args:
        system: what differs between them.
        ns: the operator's namespace.
        libs: the libraries by number.
        lines: where they were made.
        errors: by the number of the step.
        log: the numbers of the kernels that acted.
    """

    system: System
    ns: str
    libs: dict[int, Any] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    log: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.ns}::f"

    def run(self, steps: Sequence[Step]) -> Run:
        for i, step in enumerate(steps):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # PyTorch's, of overridden kernels
                    getattr(self, f"_{step.act}")(i, step)
            except Exception as error:
                self.errors[i] = error
        return self

    def end(self) -> None:
        for lib in self.libs.values():
            lib._destroy()

    # Libraries are made at lines of their own, by which PyTorch's tables name them.

    def _library(self, i: int, *args: str) -> Any:
        code = compile("\n" * i + "make(*args)", FILE, "eval")
        return eval(code, {"make": self.system.library, "args": args})

    def _make(self, i: int, step: Step) -> None:
        self.libs[step.lib] = self._library(i, self.ns, *step.more)
        self.lines[step.lib] = i + 1

    def _everyone(self, i: int, step: Step) -> None:
        self.libs[step.lib] = self._library(i, "_", "IMPL")
        self.lines[step.lib] = i + 1

    def _define(self, i: int, step: Step) -> None:
        self.libs[0].define("f(Tensor x) -> int")

    def _destroy(self, i: int, step: Step) -> None:
        self.libs[step.lib]._destroy()

    def _impl(self, i: int, step: Step) -> None:
        lib = self.libs[step.lib]
        if step.form == "through":
            lib.impl("f", self.system.through, step.key)
        elif step.form == "keyset":
            lib.impl("f", self._going_on(i, step.key), step.key, with_keyset=True)
        else:
            lib.impl("f", self._answering(i), step.key)

    def _fallback(self, i: int, step: Step) -> None:
        fn = self.system.through if step.form == "through" else self._answering(i)
        self.libs[step.lib].fallback(fn, step.key)

    def _answering(self, i: int) -> Callable[..., int]:
        def kernel(*args: Any) -> int:
            self.log.append(i)
            return i

        return kernel

    def _going_on(self, i: int, key: str) -> Callable[..., int]:
        def kernel(keyset: Any, x: Any) -> int:
            self.log.append(i)
            rest: int = self.system.go_on(self.name, keyset, key, x)
            return rest

        return kernel

    # Wrong uses, the same words in both systems.

    def _refused(self, i: int, step: Step) -> None:
        lib, one, free = self.libs[0], self._answering(i), self.libs[1]
        wrong: dict[str, Callable[[], Any]] = {
            "unknown key": lambda: lib.impl("f", one, "NoSuchKey"),
            "not callable": lambda: lib.impl("f", 3, "CPU"),
            "no operator": lambda: lib.impl(3, one, "CPU"),
            "foreign name": lambda: lib.impl("other::f", one, "CPU"),
            "no define": lambda: self._library(i, self.ns, "IMPL").define("g(Tensor x) -> int"),
            "foreign schema": lambda: lib.define("other::g(Tensor x) -> int"),
            "bad schema": lambda: lib.define("g(Tensor x -> int"),
            "bad alias analysis": lambda: lib.define("g(Tensor x) -> int", "SOME"),
            "other key": lambda: self._library(i, self.ns, "IMPL", "CUDA").impl("f", one, "CPU"),
            "taken": lambda: self._taken(lib, one),
            "fallback elsewhere": lambda: free.fallback(one, "FPGA"),
            "fallback without key": lambda: self._library(i, "_", "IMPL").fallback(one),
            "unknown kind": lambda: self._library(i, self.ns, "SOME"),
            "reserved": lambda: self._library(i, "prim", "DEF"),
            "second DEF": lambda: self._library(i, self.ns, "DEF"),
            "gone impl": lambda: self._gone(i).impl("f", one, "CPU"),
            "gone define": lambda: self._gone(i).define("g(Tensor x) -> int"),
        }
        wrong[step.more[0]]()

    def _taken(self, lib: Any, one: Any) -> None:
        lib.impl("f", one, "QuantizedCUDA")
        lib.impl("f", one, "QuantizedCUDA", allow_override=False)

    def _gone(self, i: int) -> Any:
        lib = self._library(i, self.ns, "FRAGMENT")
        lib._destroy()
        return lib

    # What came of it.

    def table(self) -> dict[str, Line]:
        """By key: the reason, whether it falls through, and the library's line; 0 is built in."""
        return self.system.table(self)

    def resolved(self, key: str) -> str:
        """The key whose kernel acts at another, or the kind of error."""
        return self.answer(lambda: self.system.resolve(self.name, key))

    def call(self, include: list[str], exclude: list[str], how: str) -> tuple[str, list[int]]:
        """The answer of a call under changed key sets, and the kernels that acted."""
        self.log.clear()
        with self.system.context(include, exclude, how):
            answer = self.answer(lambda: self.system.call(self.name))
        return answer, list(self.log)

    def redispatch(self, keys: list[str]) -> tuple[str, list[int]]:
        """The answer of a call on given keys, and the kernels that acted."""
        self.log.clear()
        return self.answer(lambda: self.system.redispatch(self.name, keys)), list(self.log)

    def answer(self, ask: Callable[[], Any]) -> str:
        try:
            return str(ask())
        except Exception as error:
            return _kind(error)


def _kind(error: Exception) -> str:
    # S90: PyTorch breaks an assertion of its own where the last key falls through.
    if isinstance(error, NotImplementedError) or "fallthrough_kernel was executed" in str(error):
        return "missing"
    return "ambiguous" if "mbigu" in f"{type(error).__name__} {error}" else repr(error)


class System:
    """What differs between the two."""

    library: Any
    through: Any
    x: Any

    def table(self, run: Run) -> dict[str, Line]:
        raise NotImplementedError

    def resolve(self, name: str, key: str) -> str:
        raise NotImplementedError

    def go_on(self, name: str, keyset: Any, key: str, x: Any) -> int:
        raise NotImplementedError

    def context(self, include: list[str], exclude: list[str], how: str) -> Any:
        raise NotImplementedError

    def call(self, name: str) -> Any:
        raise NotImplementedError

    def redispatch(self, name: str, keys: list[str]) -> Any:
        raise NotImplementedError


class PyTorch(System):
    """The oracle."""

    x = torch.ones(1)  # made outside of the key sets under which calls are compared
    library, through = torch.library.Library, staticmethod(torch.library.fallthrough_kernel)
    line = re.compile(r"(\w+): (ambiguous|fallthrough )?.*? at (.*):(\d+) \[([\w ]+)\]$")

    def op(self, name: str) -> Any:
        return getattr(getattr(torch.ops, name.partition("::")[0]), "f").default

    def keys(self, names: Sequence[str]) -> Any:
        found = torch._C.DispatchKeySet(torch._C.DispatchKey.Undefined)
        for name in names:
            found = found | torch._C.DispatchKeySet(torch_key(name))
        return found

    def table(self, run: Run) -> dict[str, Line]:
        missing = {key.name: ("missing", False, 0) for key in ALL}
        text = torch._C._dispatch_dump_table(run.name)
        return missing | dict(filter(None, map(self._entry, text.splitlines())))

    def stale(self, name: str) -> bool:
        """Whether calls go by an older table than the one that is shown, by its own check."""
        try:
            torch._C._dispatch_check_invariants(name)
        except RuntimeError:
            return True
        return False

    def _entry(self, text: str) -> tuple[str, Line] | None:
        key = text.partition(":")[0]
        if key not in DispatchKey.__members__:
            return None
        if "ambiguous" in text:
            return key, ("ambiguous", False, 0)
        found = self.line.match(text)
        assert found, text
        ours = found[3].endswith(FILE)
        return key, (found[5], bool(found[2]) and ours, int(found[4]) * ours)

    def resolve(self, name: str, key: str) -> str:
        found = torch._ops.resolve_key(self.op(name), torch_key(key))
        return str(torch._C._dispatch_key_name(found))

    def go_on(self, name: str, keyset: Any, key: str, x: Any) -> int:
        after = torch._C._dispatch_keyset_full_after(torch_key(key))
        result: int = self.op(name).redispatch(keyset & after, x)
        return result

    def context(self, include: list[str], exclude: list[str], how: str) -> Any:
        if how == "force":
            return torch._C._ForceDispatchKeyGuard(self.keys(include), self.keys(exclude))
        if how == "include":
            guards = ExitStack()
            for key in include:
                guards.enter_context(torch._C._IncludeDispatchKeyGuard(torch_key(key)))
            return guards
        return torch._C._ExcludeDispatchKeyGuard(self.keys(exclude))

    def call(self, name: str) -> Any:
        return self.op(name)(self.x)

    def redispatch(self, name: str, keys: list[str]) -> Any:
        return self.op(name).redispatch(self.keys(keys), self.x)


class Polyop(System):
    """What is judged."""

    x = ones([1])
    library, through = Library, staticmethod(fallthrough_kernel)

    def table(self, run: Run) -> dict[str, Line]:
        if run.name in DEFINITIONS:
            op = DEFINITIONS[run.name].op
            kernels, table = op.kernels(), {key: op.table[key] for key in ALL}
        else:
            kernels = PLACES[run.name].kernels() if run.name in PLACES else {}
            table = compute_table(kernels)
        owners = {lib._owner: run.lines[i] for i, lib in run.libs.items()}
        return {key.name: self._entry(kernels, key, table[key], owners) for key in ALL}

    def _entry(self, kernels: Any, key: DispatchKey, entry: Entry, owners: Any) -> Line:
        # PyTorch says of a fallthrough also which rule gave it.
        reason = decide(kernels.__contains__, key)[1].value
        if entry.kernel is None or entry.kernel in FALLBACKS.values():
            return reason, False, 0
        return reason, entry.kernel.fallthrough, owners[entry.kernel.owner]

    def op(self, name: str) -> Any:
        return PACKETS[name].op_overloads()[0]

    def resolve(self, name: str, key: str) -> str:
        return resolve_key(self.op(name), key).name

    def go_on(self, name: str, keyset: Any, key: str, x: Any) -> int:
        result: int = self.op(name).redispatch(keyset & below(DispatchKey[key]), x)
        return result

    def context(self, include: list[str], exclude: list[str], how: str) -> Any:
        if how == "force":
            return force_keys(include, exclude)
        return include_keys(include) if how == "include" else exclude_keys(exclude)

    def call(self, name: str) -> Any:
        return self.op(name)(self.x)

    def redispatch(self, name: str, keys: list[str]) -> Any:
        return self.op(name).redispatch(DispatchKeySet(keys), self.x)

    def mask(self, name: str) -> Mask:
        return mask_of(self.op(name).table)
