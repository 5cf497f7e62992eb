"""`compile`: results, gradients and writes of the eager function, from guarded programs.

The first call of a kind (structure, dtypes, shapes, grad mode, ...) captures
the function; further calls run the program. Sizes that change make the next
capture symbolic, so that one program serves all sizes that its guards allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from threading import RLock
from typing import Any

import numpy as np

from polyop import tree
from polyop.compile.capture import Captured, DataLook, capture
from polyop.compile.cuts import run_in_parts
from polyop.compile.environment import Read, environment
from polyop.dispatch.bits import GRAD, NO_GRAD, NUMPY
from polyop.dispatch.context import run_under, word
from polyop.errors import CaptureError, FakeError, MissingFakeError, UsageError, nearest
from polyop.graph import GraphModule
from polyop.layers.autograd import Function
from polyop.tensor.storage import Version
from polyop.tensor.tensor import Tensor

Backend = Callable[[GraphModule, Sequence[Any]], Callable[..., Any]]
OPTIONS = ("cache_size_limit",)


def run_graph(module: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """Run the graph node by node, by its register program."""
    return module


#: The backends by name.
BACKENDS: dict[str, Backend] = {"graph": run_graph}


def compile(
    f: Callable[..., Any] | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Backend = "graph",
    options: dict[str, Any] | None = None,
) -> Any:
    """Capture a function when it is called, and run the captured graph from then on.

    Args:
        f: the function; without it, the call decorates.
        fullgraph: raise where the function cannot be captured as one graph;
            otherwise it is cut there.
        dynamic: True for symbolic sizes at once, False for a program per shape,
            None for symbolic sizes once they have changed.
        backend: a name, or a function that makes a callable of a graph.
        options: `cache_size_limit`, the most programs to keep (64).

    Raises:
        UsageError: an unknown backend or option.
        CaptureError: in a call, with `fullgraph`: what cannot be captured.

    Example:
        >>> import polyop
        >>> @polyop.compile(fullgraph=True)
        ... def f(x):
        ...     return x * 2 + 1
        >>> f(polyop.ones(3))
        tensor([3., 3., 3.])
    """
    if isinstance(backend, str):
        if backend not in BACKENDS:
            raise UsageError(f"there is no backend {backend!r}{nearest(backend, BACKENDS)}")
        backend = BACKENDS[backend]
    for option in options or {}:
        if option not in OPTIONS:
            raise UsageError(f"compile has no option {option!r}{nearest(option, OPTIONS)}")
    settings = (fullgraph, dynamic, backend, dict(options or {}))

    def make(fn: Callable[..., Any]) -> CompiledFunction:
        return CompiledFunction(fn, *settings)

    return make if f is None else make(f)


@dataclass(frozen=True, slots=True)
class Program:
    """A captured call, ready to run, and what it holds for."""

    captured: Captured
    run: Callable[..., Any]
    run_backward: Callable[..., Any] | None
    shapes: tuple[Any, ...]
    reads: tuple[Read, ...]

    def holds(self, shapes: tuple[Any, ...]) -> bool:
        """Tell whether the program is right for inputs of these shapes."""
        if not all(read.same() for read in self.reads):
            return False
        env = self.captured.env
        if env is None:
            return shapes == self.shapes
        sizes = {
            f"x{i}.{kind}": size
            for i, (shape, strides) in enumerate(shapes)
            for kind, size in _named(shape, strides)
        }
        return env.check_guards(env.bind(sizes)) is None


def _named(shape: Any, strides: Any) -> list[tuple[str, int]]:
    sizes = [(f"shape[{k}]", n) for k, n in enumerate(shape or ())]
    return sizes + [(f"stride({k})", n) for k, n in enumerate(strides or ())]


class CompiledFunction:
    """A function that runs as captured programs."""

    def __init__(
        self,
        fn: Callable[..., Any],
        fullgraph: bool,
        dynamic: bool | None,
        backend: Backend,
        options: dict[str, Any],
    ) -> None:
        self.fn = fn
        self.fullgraph = fullgraph
        self.dynamic = dynamic
        self.backend = backend
        self.limit = int(options.get("cache_size_limit", 64))
        self.programs: dict[Any, list[Program]] = {}
        self._cut: set[Any] = set()
        self._lock = RLock()
        update_wrapper(self, fn)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        if owner is None:
            return self
        bound = self.fn.__get__(owner, kind)
        return lambda *args, **kwargs: self._call(bound, args, kwargs)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._call(self.fn, args, kwargs)

    def _call(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        leaves, spec = tree.flatten((args, kwargs))
        if not _is_plain(leaves):
            # Inside a transform or a trace the function is a part of what that captures.
            return fn(*args, **kwargs)
        key, shapes = describe_inputs(leaves, spec, fn)
        program = self._find(key, shapes)
        if program is None:
            try:
                program = self._capture(fn, leaves, spec, key, shapes)
            except _Cut:
                return run_in_parts(fn, args, kwargs)
        return run_program(program, leaves)

    def _find(self, key: Any, shapes: tuple[Any, ...]) -> Program | None:
        for program in self.programs.get(key, ()):
            if program.holds(shapes):
                return program
        return None

    def _capture(
        self, fn: Callable[..., Any], leaves: Any, spec: Any, key: Any, shapes: tuple[Any, ...]
    ) -> Program:
        with self._lock:
            if key in self._cut:
                raise _Cut
            known = self.programs.setdefault(key, [])
            symbolic = bool(known) if self.dynamic is None else self.dynamic
            try:
                captured = capture(fn, leaves, spec, symbolic=symbolic)
            except DataLook as look:
                self._refuse(key, f"{look.what}() looks at data", look.place, look)
            except MissingFakeError as error:
                self._refuse(key, error.problem, error.source, error)
            except (CaptureError, FakeError) as error:
                self._refuse(key, error.problem, error.source, error)
            program = self._program(captured, shapes, environment(fn))
            if sum(map(len, self.programs.values())) >= self.limit:
                known.clear()
            known.append(program)
            return program

    def _refuse(self, key: Any, why: str, place: object, cause: Exception) -> None:
        """Raise, or remember that calls of this kind run in parts."""
        if self.fullgraph:
            raise CaptureError(
                f"{getattr(self.fn, '__name__', 'the function')} cannot be captured as one graph: {why}",
                source=place,
                fix="make an operator of what looks at data (polyop.custom_op, with a fake rule), "
                "or compile without fullgraph=True",
            ) from cause
        self._cut.add(key)
        raise _Cut from None

    def _program(self, captured: Captured, shapes: Any, reads: tuple[Read, ...]) -> Program:
        back = captured.backward
        return Program(
            captured,
            self.backend(captured.forward, ()),
            None if back is None else self.backend(back, ()),
            shapes,
            reads,
        )


class _Cut(Exception):  # noqa: N818 - it steers, and never reaches a user
    """Calls of this kind run in parts."""


def _is_plain(leaves: Sequence[Any]) -> bool:
    """Tell whether nothing but grad mode is active, and all tensors have NumPy data."""
    if int(word()) & ~NO_GRAD:
        return False
    return all(
        leaf.keys & ~(GRAD | NUMPY) == 0 for leaf in leaves if isinstance(leaf, Tensor)
    )


def describe_inputs(
    leaves: Sequence[Any], spec: Any, fn: Callable[..., Any]
) -> tuple[Any, tuple[Any, ...]]:
    """Give what selects the programs of a call, and the shapes that select among them."""
    facts: list[Any] = [spec, int(word()), id(getattr(fn, "__self__", None))]
    shapes: list[Any] = []
    first: dict[int, int] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            payload = leaf.payload
            # Two inputs that share storage are another program than two that do not.
            group = id(leaf.version) if leaf.version.__class__ is Version else id(leaf)
            contiguous = payload.flags.c_contiguous
            facts.append((payload.dtype, payload.ndim, leaf.keys, first.setdefault(group, i), contiguous))
            shapes.append((payload.shape, None if contiguous else payload.strides))
        else:
            facts.append((type(leaf), _static(leaf)))
            shapes.append((None, None))
    return tuple(facts), tuple(shapes)


def _static(leaf: Any) -> Any:
    """Give what a value that is no tensor is known by."""
    if isinstance(leaf, float) and leaf == 0:
        return str(leaf)  # -0.0 == 0.0
    if isinstance(leaf, np.ndarray):
        raise CaptureError(
            "a NumPy array among the arguments would become part of the program",
            fix="give a tensor: polyop.from_numpy(array)",
        )
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return leaf


# -- running ------------------------------------------------------------------


def run_program(program: Program, leaves: Sequence[Any]) -> Any:
    """Run a program on the leaves of a call's arguments."""
    captured = program.captured
    inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if captured.backward is None:
        # No result requires grad, whatever the inputs do: a `no_grad` block, say, was captured.
        results = run_under(word().without_grad, program.run, *inputs)
        return tree.unflatten(captured.spec, results)
    holder: list[Any] = []
    made = CompiledCall.apply(program, holder, *inputs, *captured.parameters)
    grown = iter(made if isinstance(made, tuple) else (made,))
    results = [next(grown) if i in captured.differentiable else r for i, r in enumerate(holder)]
    return tree.unflatten(captured.spec, results)


class CompiledCall(Function):
    """The one node that autograd sees of a compiled call."""

    @staticmethod
    def forward(ctx: Any, program: Program, holder: list[Any], *inputs: Tensor) -> Any:
        """Run the forward program; results without gradient go out through `holder`."""
        results, saved = program.run(*inputs)
        ctx.program = program
        ctx.places = [i for i, value in enumerate(saved) if isinstance(value, Tensor)]
        ctx.others = [None if isinstance(value, Tensor) else value for value in saved]
        ctx.save_for_backward(*[value for value in saved if isinstance(value, Tensor)])
        ctx.count = len(inputs)
        holder.extend(results)
        return tuple(results[i] for i in program.captured.differentiable)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Run the backward program."""
        saved = list(ctx.others)
        for place, value in zip(ctx.places, ctx.saved_tensors, strict=True):
            saved[place] = value
        found = iter(ctx.program.run_backward(*saved, *grads))
        captured: Captured = ctx.program.captured
        n = ctx.count - len(captured.parameters)
        tensors = _tensor_positions(captured, n)
        of_inputs = [next(found) if i in tensors else None for i in range(n)]
        return (None, None, *of_inputs, *found)


def _tensor_positions(captured: Captured, n: int) -> frozenset[int]:
    """Give the positions, among the tensor inputs, of those that require grad."""
    names = [node.target for node in captured.forward.graph.placeholders[:n]]
    wanted = {f"x{i}" for i in captured.wanted}
    return frozenset(i for i, name in enumerate(names) if name in wanted)
