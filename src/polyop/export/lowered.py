"""`LoweredModule`: a part of a program in a backend's own form, and the registry of backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from polyop.dispatch.bits import GRAD
from polyop.errors import DelegateError, UsageTypeError, nearest
from polyop.export.outcome import Outcome
from polyop.export.program import Program, ProgramModule
from polyop.graph import Graph, GraphModule, Node
from polyop.graph.module import reads_of
from polyop.lazy import load
from polyop.tensor.tensor import Tensor

Executor = Callable[..., Any]


class CompileSpec(NamedTuple):
    """An option that a part was lowered with."""

    key: str
    value: Any


class Backend(Protocol):
    """Who takes parts of programs: which nodes, in which form, and how they run.

    Attributes:
        backend_id: its name in files.
    """

    backend_id: str

    def takes(self, node: Node) -> bool:
        """Tell whether it can run a node."""

    def lower(self, program: Program, compile_specs: Sequence[CompileSpec]) -> bytes:
        """Give the form of a part that it runs."""

    def executor(self, lowered: LoweredModule) -> Executor:
        """Give the function that runs a part, of the part's inputs, giving all its results."""


#: Backends by name; those of polyop come when they are first used.
BACKENDS: dict[str, Any] = {"onnx": "polyop.export.onnx.backend:OnnxBackend"}


def register_backend(backend: Backend) -> Backend:
    """Make a backend known by its `backend_id`, so that loaded programs find it.

    Raises:
        UsageTypeError: it lacks a method of `Backend`.
    """
    check_backend(backend)
    BACKENDS[backend.backend_id] = backend
    return backend


def check_backend(backend: Any) -> None:
    """Refuse what lacks a method of `Backend`.

    Raises:
        UsageTypeError: it does.
    """
    for name in ("backend_id", "takes", "lower", "executor"):
        if not hasattr(backend, name):
            raise UsageTypeError(
                f"a backend has {name}", declared="backend_id, takes, lower, executor",
                seen=f"{type(backend).__name__} {backend!r:.80}",
                fix="give the name of a backend, or an object with these",
            )  # fmt: skip


def find_backend(backend: Any) -> Backend:
    """Give a backend by its name; an object is given as it is.

    Raises:
        DelegateError: no backend has that name, or its package is not installed.
        UsageTypeError: the object is none.
    """
    if not isinstance(backend, str):
        check_backend(backend)
        found: Backend = backend
        return found
    if backend not in BACKENDS:
        raise DelegateError(
            f"there is no backend {backend!r}{nearest(backend, BACKENDS)}",
            declared=", ".join(BACKENDS),
            fix="import the module that calls register_backend",
        )
    if isinstance(BACKENDS[backend], str):
        BACKENDS[backend] = _made(backend, BACKENDS[backend])
    made: Backend = BACKENDS[backend]
    return made


def _made(name: str, place: str) -> Any:
    try:
        return load(place)()
    except ImportError as error:
        raise DelegateError(
            f"the backend {name} needs a package that is not installed: {error.name}",
            fix=f"pip install polyop[{name}]",
        ) from error


class LoweredModule:
    """A part of a program, lowered (S216); `call_delegate` runs it.

    Args:
        original_module: the part as a program; gradients and fakes come from it.
        backend_id: who lowered it.
        payload: its form there.
        compile_specs: the options that it was lowered with.

    Raises:
        DelegateError: there is neither a program nor a payload, or the payload is no bytes.
    """

    def __init__(
        self,
        original_module: Program | None,
        backend_id: str,
        payload: bytes = b"",
        compile_specs: Sequence[CompileSpec] = (),
    ) -> None:
        if original_module is None and not payload:
            raise DelegateError(
                f"a lowered module of {backend_id} has neither a program nor a payload",
                argument="original_module, payload",
                fix="give one of them; polyop.export.to_backend(program, backend) makes both",
            )
        if original_module is not None and not isinstance(original_module, Program):
            raise UsageTypeError(
                "the original module is a Program", seen=type(original_module).__name__
            )
        self.original_module = original_module
        self.backend_id = backend_id
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise DelegateError(
                f"what {backend_id} lowers a part to is no bytes", argument="payload",
                declared="bytes", seen=f"{type(payload).__name__} {payload!r:.60}",
                fix="return bytes from the backend's lower",
            )  # fmt: skip
        self.payload = bytes(payload)
        self.compile_specs = tuple(compile_specs)
        self._executor: Executor | None = None
        self._backward: Executor | None = None
        self._original: ProgramModule | None = None

    @property
    def executor(self) -> Executor | None:
        """Give the backend's function that runs the payload; None if nobody knows the backend."""
        if self._executor is None and self.payload and self.backend_id in BACKENDS:
            self._executor = find_backend(self.backend_id).executor(self)
        return self._executor

    @property
    def original(self) -> ProgramModule:
        """Give the program as a function.

        Raises:
            DelegateError: there is none.
        """
        if self._original is None:
            if self.original_module is None:
                raise DelegateError(
                    f"a lowered module of {self.backend_id} has no original program",
                    fix="lower it again from the program",
                )
            self._original = self.original_module.module()
        return self._original

    @property
    def graph_module(self) -> GraphModule | None:
        """Give the graph of the program with what it reads; None if there is no program."""
        return None if self.original_module is None else self.original_module.graph_module

    @property
    def graph(self) -> Graph | None:
        """Give the graph of the program; None without one, for then nobody knows what it does."""
        return None if self.original_module is None else self.original_module.graph

    @cached_property
    def outcome(self) -> Outcome | None:
        """Give what is known of its results; None if nothing is: no program, or wrappers."""
        program = self.original_module
        if program is None or any(program.wraps):
            return None
        return Outcome(program, self.backend_id)

    @cached_property
    def _reads(self) -> tuple[tuple[Any, str], ...]:
        """Who has the tensors of the program, and of lowered modules inside it, and where."""
        found = []
        for module, name in reads_of(self.original_module):
            path, _, last = name.rpartition(".")
            if isinstance(module.get_attr(name), Tensor):
                found.append((module.get_attr(path) if path else module, last))
        return tuple(found)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Give the tensors of the program that require grad."""
        found = [t for owner, name in self._reads if (t := getattr(owner, name)).keys & GRAD]
        return tuple({id(t): t for t in found}.values()) if found else ()

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Give the other tensors of the program."""
        found = [t for owner, name in self._reads if not (t := getattr(owner, name)).keys & GRAD]
        return tuple({id(t): t for t in found}.values())

    @property
    def backward(self) -> Executor | None:
        """Give the backend's own backward: of inputs, results and gradients; None without one."""
        if self._backward is None and self.backend_id in BACKENDS:
            make = getattr(find_backend(self.backend_id), "backward", None)
            self._backward = None if make is None else make(self)
        return self._backward

    def __repr__(self) -> str:
        return f"<LoweredModule of {self.backend_id}, {len(self.payload)} bytes>"
