"""A function that looks at data runs in parts: calls are recorded, and run as graphs between looks.

Nothing of the function's code is read. It runs once per call; operators are
recorded on fakes, and when it looks at data, what was recorded runs as one
graph, and the tensors that still live become real, in place.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

import numpy as np

from polyop import tree
from polyop.compile.outlines import parts_of
from polyop.dispatch.bind import dispatch
from polyop.dispatch.bits import BACKENDS, FAKE, GRAD, NUMPY, OTHER
from polyop.dispatch.context import AUTOGRAD, Word, run_under, word
from polyop.dispatch.modes import DispatchMode
from polyop.errors import FakeError, MissingRuleError
from polyop.graph.node import called
from polyop.graph.purity import is_impure_target
from polyop.hop.questions import Unanswered
from polyop.layers.fake import FakeTensorMode
from polyop.layers.trace.tracer import Tracer
from polyop.schema.opaque import is_input
from polyop.symbolic import ShapeEnv, is_symbolic
from polyop.tensor.storage import set_version, version_of
from polyop.tensor.tensor import Tensor

#: What the keys of a tensor say of its payload.
_PAYLOAD = NUMPY | OTHER | FAKE | BACKENDS


def run_in_parts(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a function, its operators recorded and run in parts.

    Where gradients are needed the call is eager: autograd records each
    operator when it runs, which a part would do too late.
    """
    leaves = tree.leaves((args, kwargs))
    if word().grad and any(isinstance(x, Tensor) and x.keys & GRAD for x in leaves):
        return fn(*args, **kwargs)
    recorder = Recorder(word())
    under = word().but(tracer=recorder.tracer, fake=recorder.mode, modes=(recorder,))
    with recorder.mode.traced_by(recorder.tracer):
        try:
            return run_under(under, fn, *args, **kwargs)
        finally:
            # After an exception too: the writes before it count, and what is kept must be real.
            recorder.flush()


class Recorder(DispatchMode):
    """Records calls, and knows which of their results still live."""

    supports_higher_order_operators = True

    def __init__(self, outer: Word) -> None:
        self.outer = outer
        # Data is known at a look, so a size that depends on it is cut there too.
        self.mode = FakeTensorMode(
            allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True
        )
        self.tracer = Part(self)
        self.live: list[weakref.ref[Tensor]] = []
        self.lock = RLock()  # other threads that use what was recorded let it run

    def __dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call on fakes, under the trace, and note its results."""
        given = kwargs or {}
        if word().tracer is not self.tracer:
            return called(op)(*args, **given)  # of a trace inside the function, which records it
        whole = not hasattr(op, "_schema")
        if whole or _has_grad((args, given)) or _has_objects(op, (args, given)):
            # A parameter from elsewhere: from here on autograd must see the calls. What is
            # done to an object must be done when the code that follows looks at it. Functions
            # that an operator gets may do either.
            return self._now(op, args, given)
        self.tracer.noted = None
        try:
            with self.lock:
                result = called(op)(*args, **given)
                parts = [part for x in tree.leaves(result) for part in parts_of(x)]
                made = [x for x in parts if isinstance(x, Tensor)]
                self.live += [weakref.ref(x) for x in made if x.keys & FAKE]
        except Unanswered:
            raise  # nor could the real call know, below the gradients that are recorded
        except Exception as error:
            if self.tracer.noted is None and not isinstance(error, (FakeError, MissingRuleError)):
                raise
            # The real call knows more, or raises the error that belongs to it.
            return self._now(op, args, given)
        if is_impure_target(op) or any(is_symbolic(n) for x in made for n in x.shape):
            # Writes and draws keep their place among what is not recorded, and a size
            # that depends on data is a number for the code that follows.
            self.flush()
        return result

    def _now(self, op: Any, args: Any, kwargs: Any) -> Any:
        self.flush()
        # Under what is on now: what has acted already, such as autograd, acts no second time.
        before = self.outer
        outer = word().but(tracer=before.tracer, fake=before.fake, modes=before.modes)
        if not hasattr(op, "_schema") and not _has_grad((args, kwargs)):
            # Of what a function calls nothing has acted, unless a gradient records the whole.
            outer = outer.but(below=before.below, exclude=outer.exclude - AUTOGRAD)
        return run_under(outer, called(op), *args, **kwargs)

    def flush(self) -> None:
        """Run what was recorded, and make the tensors that still live real."""
        with self.lock:
            self._flush()

    def _flush(self) -> None:
        found = [t for t in (ref() for ref in self.live) if t is not None and t.keys & FAKE]
        self.live.clear()
        tensors = list({id(t): t for t in found}.values())
        plain = self.outer.without_grad
        recorded = self.tracer
        if len(recorded.graph.nodes):
            module = run_under(plain, recorded.finish, tensors)
            # The writes were counted when they were recorded.
            counts = [(t, version_of(t)) for t in recorded.written_constants()]
            recorded.restart()
            values = run_under(plain, module)
            for tensor, count in counts:
                set_version(tensor, count)
            for tensor, value in zip(tensors, values, strict=True):
                tensor.payload = value.payload
                tensor.keys = tensor.keys & ~_PAYLOAD | value.keys & _PAYLOAD
                del tensor.graph_node


def _has_objects(op: Any, values: Any) -> bool:
    if hasattr(op, "_schema"):
        return bool(op.objects)
    return any(map(is_input, tree.leaves(values)))


def _has_grad(values: Any) -> bool:
    return any(isinstance(x, Tensor) and x.keys & GRAD for x in tree.leaves(values))


class Part(Tracer):
    """The calls since the last look."""

    looks_to_print = True
    runs_once = True
    whole_calls = False
    knows_layouts = True  # it runs once, on what it was recorded of

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = weakref.ref(recorder)
        self.noted: BaseException | None = None

    def restart(self) -> None:
        """Begin the next part."""
        fresh = Tracer()
        for name in ("graph", "constants", "sizes", "_lifted"):
            setattr(self, name, getattr(fresh, name))

    def note_failure(self, error: BaseException) -> None:
        """Let the recorder know: the call runs on data."""
        self.noted = error

    def elsewhere(self, op: Any, values: Sequence[Any]) -> Any:
        """Run what was recorded, and then the call."""
        recorder = self.recorder()
        assert recorder is not None
        recorder.flush()
        fakes = any(isinstance(x, Tensor) and x.keys & FAKE for x in tree.leaves(list(values)))
        return NotImplemented if fakes else dispatch(op, values)

    def look(self, tensor: Tensor, what: str) -> Any:
        """Run what was recorded, and give the data."""
        recorder = self.recorder()
        assert recorder is not None
        recorder.flush()
        payload = tensor.payload  # where it belongs to a transform, what is inside is looked at
        return payload if payload.__class__ is np.ndarray else payload.look(what)
