"""What a program holds of the world around its function: weak references, where guards are by them.

The tensors that a program has for constants are those that its guards found. While
these hold somebody else has the tensors; a run, and a gradient that is waited for,
hold them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from polyop.compile.again import origin_of
from polyop.compile.capture import Captured
from polyop.compile.kinds import describe_inputs
from polyop.compile.program import Program
from polyop.graph import GraphModule
from polyop.graph.module import reads_of
from polyop.objects.environment import One, tensors_in
from polyop.objects.loose import loosened
from polyop.objects.weakly import Gone, Note, Weak, real
from polyop.tensor.tensor import Tensor

Run = Callable[..., Any]
#: Holds a tensor from outside weakly; other values are themselves.
Hold = Callable[[Any], Any]


class LooseModule(GraphModule):
    """A graph whose constants are weak references, where others have them too."""

    _weak: tuple[Weak, ...] = ()

    def __call__(self, *inputs: Any) -> Any:
        """Run the graph; the run holds the constants."""
        held = held_by(self._weak)
        program = self._program
        found = super().__call__(*inputs) if program is None else program(*inputs)
        del held
        return found

    def get_attr(self, qualname: str) -> Any:
        """Give an attribute by its qualified name."""
        found = self.__dict__.get(qualname)
        return real(found) if found.__class__ is Weak else super().get_attr(qualname)


def held_by(weak: Iterable[Weak]) -> list[Any]:
    """Give what weak references are of.

    Raises:
        Gone: one is dead.
    """
    held = []
    for x in weak:
        found = x()
        if found is None:
            raise Gone
        held.append(found)
    return held


def program_of(  # noqa: PLR0917
    captured: Captured,
    symbolic: bool,
    leaves: Sequence[Any],
    shapes: tuple[Any, ...],
    fn: Any,
    reads: Sequence[One],
    note: Note,
    make: Callable[[GraphModule], Run],
    *,
    weakly: bool,
) -> Program:
    """Make a program that keeps nothing alive which it can hold weakly.

    Args:
        captured: the graphs.
        symbolic: whether sizes are.
        leaves: the arguments of the call that was captured.
        shapes: of the inputs.
        fn: the function that is compiled.
        reads: what it reads.
        note: is told that something died that the program relies on.
        make: makes the callable of a graph.
        weakly: whether that reads constants of the graph at each run.
    """
    facts = None
    if captured.grads:
        facts, shapes = describe_inputs(captured.given(leaves), None, None)
    known = tensors_in(reads)
    made: dict[int, Weak] = {}

    def hold(value: Any) -> Any:
        if not isinstance(value, Tensor) or id(value) not in known:
            return value
        if id(value) not in made:
            made[id(value)] = Weak(value, note)
        return made[id(value)]

    halves = [m for m in (captured.forward, captured.backward) if m is not None]
    origin = origin_of(reads, *halves)
    guards, weak = loosened(reads, fn, note)
    constants = tuple(map(hold, origin.constants))
    held = [_module(module, hold) for module in halves]
    runs = [
        _keeping(make(loose), loose) if weakly else make(whole)
        for whole, loose in zip(halves, held, strict=True)
    ]
    back = len(halves) > 1
    captured = replace(
        captured,
        forward=held[0],
        backward=held[1] if back else None,
        passed={i: (hold(source), views) for i, (source, views) in captured.passed.items()},
        parameters=tuple(map(hold, captured.parameters)),
        grads=tuple(map(hold, captured.grads)),
        answers=tuple(x._replace(source=hold(x.source)) for x in captured.answers),
    )
    origin = origin._replace(reads=guards, constants=constants, weak=(*weak, *made.values()))
    return Program(captured, runs[0], runs[1] if back else None, symbolic, origin, shapes, facts)


def _module(module: GraphModule, hold: Hold) -> GraphModule:
    """Give a module whose constants are held; the graph is the same one."""
    values = {name: owner.get_attr(name) for owner, name in reads_of(module) if owner is module}
    held = {
        name: _module(value, hold) if isinstance(value, GraphModule) else hold(value)
        for name, value in values.items()
    }
    if all(held[name] is value for name, value in values.items()):
        return module
    made = LooseModule(held, module.graph, module._class_name)
    made._weak = tuple({id(x): x for x in held.values() if isinstance(x, Weak)}.values())
    return made


def _keeping(run: Run, module: GraphModule) -> Run:
    """Let a run hold the constants of its module, and of those inside."""
    modules = {id(owner): owner for owner, _ in reads_of(module)}.values()
    weak = [x for owner in modules if isinstance(owner, LooseModule) for x in owner._weak]
    if not weak or (run is module and len(modules) == 1):
        return run

    def kept(*inputs: Any) -> Any:
        held = held_by(weak)
        found = run(*inputs)
        del held
        return found

    return kept
