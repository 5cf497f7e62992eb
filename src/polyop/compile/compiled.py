"""`compile`: results, gradients and writes of the eager function, from guarded programs.

The first call of a kind (structure, dtypes, shapes, grad mode, ...) captures
the function; further calls run the program. Sizes that change make the next
capture symbolic, so that one program serves all sizes that its guards allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import Any, NoReturn

from polyop import tree
from polyop.compile.aliasing import OPTIONS as ALIASING
from polyop.compile.aliasing import checked, policy_of
from polyop.compile.backends import BACKENDS, Backend, check_types, run_by
from polyop.compile.capture import Captured, LacksGrads, capture, refuse_late_writes
from polyop.compile.cuts import run_in_parts
from polyop.compile.kinds import describe_call, is_odd, is_plain, static
from polyop.compile.lasting import program_of
from polyop.compile.outlines import Inward
from polyop.compile.program import Program, run_program
from polyop.compile.quick import Quick, quick_of
from polyop.compile.recording import DataLook, Filled, SideEffect
from polyop.compile.refusals import OF_CAPTURES, explained, not_seen, run_for
from polyop.compile.tables import drop_dead, noting, put
from polyop.compile.wrappers import can_go_inside, refuse_wrappers, run_inside
from polyop.dispatch.own_call import CAPTURED_CHANGES
from polyop.errors import (
    CaptureError,
    SubgraphError,
    UsageError,
    UsageTypeError,
    nearest,
)
from polyop.forks import lock_maker
from polyop.graph import GraphModule
from polyop.hop.questions import Unanswered
from polyop.objects.environment import (
    One,
    containers_in,
    environment,
    objects_in,
    only_filled,
    put_back,
    tensors_in,
    unseen,
)
from polyop.objects.weakly import Gone

#: How a call runs without a program.
Way = Callable[[Callable[..., Any], Any, Any], Any]
_new_lock = lock_maker()
OPTIONS = ("cache_size_limit", *ALIASING)
#: What ends a capture, and says nothing of the function: it runs in another way.
_UNKNOWN = (DataLook, *OF_CAPTURES)
#: How often a function that changed its surroundings is captured again.
MOST_TRIES = 3


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
        backend: a name: "graph" runs a graph operator by operator; "c" runs its pointwise parts
            as loops of C, compiled at the first run and kept on disk, bits as eager's but for
            exponentials and the like (four units in the last place); "auto" is "c" where there
            is a C compiler. Or a function that makes a callable of a graph. Where calls have
            effects the graph takes tokens first and gives `(token, ..., result)`; one with
            an attribute `takes_tokens = False` gets it without, and keeps the nodes' order.
        options: `cache_size_limit`, the most programs to keep (64);
            `check_custom_op_aliasing` (True): where a custom operator's result shares storage
            undeclared, warn, and give a copy; `error_on_custom_op_aliasing` (False): raise.

    Raises:
        UsageError: an unknown backend or option.
        UsageTypeError: an option is of the wrong type.
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
    check_types(f, fullgraph, dynamic, backend)
    for option in options or {}:
        if option not in OPTIONS:
            raise UsageError(f"compile has no option {option!r}{nearest(option, OPTIONS)}")
    settings = (fullgraph, dynamic, backend, dict(options or {}))

    def make(fn: Callable[..., Any]) -> CompiledFunction:
        return CompiledFunction(fn, *settings)

    return make if f is None else make(f)


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
        self.aliasing = policy_of(options)
        self.options = options
        self.insides: dict[Any, Any] = {}  # by the kind of wrappers among the arguments
        self.programs: dict[Any, list[Program]] = {}
        self._quick: Quick | None = None
        self._cut: dict[Any, Way] = {}
        self._tries: dict[Any, int] = {}
        self._changes = CAPTURED_CHANGES[0]
        self._lock = _new_lock()
        self._has_dead = False
        self._note = noting(self)
        update_wrapper(self, fn, updated=())  # what `fn` keeps on itself is not ours

    def __deepcopy__(self, *memo: Any) -> CompiledFunction:
        return self  # as of any function

    __copy__ = __deepcopy__

    def __reduce__(self) -> NoReturn:
        raise UsageTypeError("a compiled function is not pickled", fix="pickle the plain one")

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        if owner is None:
            return self
        bound = self.fn.__get__(owner, kind)
        return lambda *args, **kwargs: self._call(bound, args, kwargs)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function, by a program if it can be captured."""
        quick = self._quick
        if quick is not None and not kwargs and quick.fits(args):
            try:
                return quick.run(self.fn, args)
            except Gone:
                pass
        return self._call(self.fn, args, kwargs)

    def _call(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        leaves, spec = tree.flatten((args, kwargs))
        if not is_plain(leaves):
            if can_go_inside(leaves):
                return run_inside(self, fn, leaves, spec, static)
            if self.fullgraph:
                refuse_wrappers(leaves)
            # Inside a transform or a trace the function is a part of what that captures.
            return fn(*args, **kwargs)
        odd = next(filter(is_odd, leaves), None)
        if odd is not None:
            return self._with_odd(odd, fn, args, kwargs)
        changes = CAPTURED_CHANGES[0]
        if changes != self._changes:
            self._forget(changes)
        if self._has_dead:
            with self._lock:
                self._has_dead = False
                drop_dead(self.programs, self._cut, self._tries)
        key, shapes = describe_call(leaves, spec, (args, kwargs), fn)
        program = self._find(key, shapes, leaves)
        reads: tuple[One, ...] = ()
        if program is None:
            try:
                program, reads = self._capture(fn, leaves, spec, key, shapes)
            except _Cut as cut:
                return cut.way(fn, args, kwargs)
        if not kwargs and fn is self.fn:
            self._quick = quick_of(program, args, spec, changes)
        try:
            return run_program(program, fn, leaves, spec)
        except Gone:
            return fn(*args, **kwargs)
        finally:
            del reads  # which hold what the program relies on, for the first run

    def _forget(self, changes: int) -> None:
        """Let go of all programs: they may hold former rules of operators, which now are others."""
        with self._lock:
            for kept in (self.programs, self.insides, self._cut, self._tries):
                kept.clear()
            self._quick, self._changes = None, changes

    def forget_dead(self) -> None:
        """Note that something died which programs rely on: the next call lets go of them."""
        self._quick, self._has_dead = None, True

    def _with_odd(self, odd: Any, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.fullgraph:
            raise CaptureError(
                "an array or iterator among the arguments would become part of the program",
                seen=type(odd).__name__,
                fix="give a tensor: polyop.from_numpy(array), or polyop.from_array(array)",
            )
        return fn(*args, **kwargs)

    def _find(self, key: Any, shapes: tuple[Any, ...], leaves: Any) -> Program | None:
        for program in self.programs.get(key, ()):
            if program.holds(shapes, leaves):
                return program
        return None

    def _capture(
        self, fn: Callable[..., Any], leaves: Any, spec: Any, key: Any, shapes: tuple[Any, ...]
    ) -> tuple[Program, tuple[One, ...]]:
        with self._lock:
            if key in self._cut:
                raise _Cut(self._cut[key])
            # Another thread may have captured the same meanwhile.
            found = self._find(key, shapes, leaves)
            if found is not None:
                return found, ()
            before = CAPTURED_CHANGES[0]
            symbolic = bool(self.programs.get(key)) if self.dynamic is None else self.dynamic
            reads = environment(fn, leaves)
            what = unseen(reads)
            if what:
                self._refuse(key, not_seen(what), "")
            make = partial(_capture_once, fn, leaves, spec, reads)
            try:
                captured = self._captured(make, key, symbolic=symbolic)
            except _Symbolic:
                symbolic = False
                captured = self._captured(make, key, symbolic=False)
            program = self._program(captured, symbolic, leaves, shapes, reads)
            if CAPTURED_CHANGES[0] != before:  # it may hold a former rule, as a call under way does
                return program, reads
            if sum(map(len, self.programs.values())) >= self.limit:
                self.programs.clear()
            put(self.programs, key, [*self.programs.get(key, ()), program], self._note)
            return program, reads

    def _captured(self, make: Callable[..., Any], key: Any, *, symbolic: bool) -> Captured:
        captured, error, changed = make(symbolic=symbolic)
        if error is not None:
            if symbolic and isinstance(error, Exception) and not isinstance(error, SideEffect):
                # Python wants plain numbers in places, such as `len`: a program per size, then.
                raise _Symbolic from None
            self._refuse(key, error, changed)
        return captured  # type: ignore[no-any-return]

    def _refuse(self, key: Any, error: BaseException, changed: str) -> NoReturn:
        """Raise, or say how the call runs instead."""
        if isinstance(error, Inward):
            self._remember_cut(key, self._inside)
            raise _Cut(self._inside) from None
        if not isinstance(error, _UNKNOWN):
            if not isinstance(error, Exception):
                raise error
            # It is the function's own: the eager call raises it, after the writes before it.
            raise _Cut(partial(run_for, error) if self.fullgraph else run_eagerly) from None
        tries = self._tries.get(key, 0) + 1
        put(self._tries, key, tries, self._note)
        if isinstance(error, Filled) and tries < MOST_TRIES:
            raise _Cut(run_eagerly) from None
        if self.fullgraph:
            if isinstance(error, SubgraphError):
                raise error  # it names what no subgraph of a program may do (S181)
            raise explained(self.fn, error) from error
        way = run_eagerly if isinstance(error, (SideEffect, Unanswered)) else run_in_parts
        if not changed or way is run_in_parts or tries >= MOST_TRIES:
            # What changed may be a cache that is filled once; then the next capture succeeds.
            self._remember_cut(key, way)
        raise _Cut(way) from None

    def _inside(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a call that makes wrappers, or whose gradient meets them."""
        return run_inside(self, fn, *tree.flatten((args, kwargs)), static)

    def _remember_cut(self, key: Any, way: Way) -> None:
        if len(self._cut) >= self.limit:
            self._cut.clear()
            self._tries.clear()
        put(self._cut, key, way, self._note)

    def _program(
        self, captured: Captured, symbolic: bool, leaves: Any, shapes: Any, reads: tuple[One, ...]
    ) -> Program:
        weakly = self.backend in BACKENDS.values()
        return program_of(
            captured, symbolic, leaves, shapes, self.fn, reads, self._note, self._run_of,
            weakly=weakly,
        )  # fmt: skip

    def _run_of(self, module: GraphModule) -> Callable[..., Any]:
        return checked(module, run_by(self.backend, module), self.aliasing)


def _capture_once(
    fn: Callable[..., Any], leaves: Any, spec: Any, reads: Any, *, symbolic: bool
) -> tuple[Captured | None, BaseException | None, str]:
    """Capture, leave what the function reads as it was, and tell what went wrong."""
    captured: Captured | None = None
    grads: Sequence[Any] = ()
    known = tensors_in(reads) | objects_in(reads) | containers_in(reads)
    while True:
        error: BaseException | None = None
        try:
            captured = capture(fn, leaves, spec, symbolic=symbolic, known=known, grads=grads)
            refuse_late_writes(captured, leaves, reads)
        except BaseException as raised:  # put back what changed, whatever it is
            error = raised
        kind = Filled if only_filled(reads) else SideEffect
        changed = put_back(reads)
        if not isinstance(error, LacksGrads):
            break
        grads = error.sources
    if changed and error is None:
        error = kind(f"the function changes {changed!r} outside it")
    return captured, error, changed


def run_eagerly(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call the function itself."""
    return fn(*args, **kwargs)


class _Symbolic(Exception):  # noqa: N818 - it steers, and never reaches a user
    """A capture fails, and may succeed with plain sizes."""


class _Cut(Exception):  # noqa: N818 - it steers, and never reaches a user
    """A call runs in another way."""

    def __init__(self, way: Way) -> None:
        self.way = way
