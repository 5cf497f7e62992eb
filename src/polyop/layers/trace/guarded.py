"""`TracedModule`: a program with symbolic sizes, which is that of its function for some sizes only.

A trace takes equal sizes for one, and a branch on a size one way. Inputs of other sizes have
another program; nothing in this one would notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from polyop.errors import UsageError
from polyop.graph import GraphModule
from polyop.layers.trace.proxy import PreDispatchModule
from polyop.symbolic import ShapeEnv, is_symbolic
from polyop.tensor.tensor import Tensor


class SizeGuards:
    """What a trace relied on, as far as the inputs of its program can tell.

    Args:
        env: the symbols of the trace.
        names: of the inputs, in order.
        inputs: what they were in the trace.
    """

    def __init__(self, env: ShapeEnv, names: Sequence[str], inputs: Sequence[Any]) -> None:
        self.names = names
        self.strided = True
        told = self._sizes(tuple(map(self._facts, inputs)))
        sources = list(env.sources)
        # Bound to the numbers of the sources, each symbol tells where it is found.
        found = env.bind({source: i for i, source in enumerate(sources)})
        places = {name: sources[i] for name, i in found.items()}
        self.places = {name: place for name, place in places.items() if place in told}
        self.guards = [
            guard
            for guard in (*env.input_guards, *env.guards)
            if self.places.keys() >= set(guard.condition.symbols())
        ]
        self.strided = any(".stride(" in place for place in self.places.values())
        self.told = self._sizes(tuple(map(self._facts, inputs))).keys()
        self.passed: set[Any] = set()

    def check(self, inputs: Sequence[Any]) -> None:
        """Refuse inputs of which another program would have been traced.

        Raises:
            UsageError: with the guard that does not hold.
        """
        facts = tuple([self._facts(x) for x in inputs])
        if facts in self.passed or len(facts) != len(self.names):
            return
        sizes = self._sizes(facts)
        if not all(type(size) is int for size in sizes.values()):
            return  # another trace will see to it
        if sizes.keys() != self.told:
            _refuse(", ".join(self.told), sizes)
        bindings = {name: sizes[place] for name, place in self.places.items()}
        for guard in self.guards:
            if not guard.holds(bindings):
                _refuse(guard.text, sizes, guard.place)
        self.passed.add(facts)

    def _sizes(self, facts: Sequence[Any]) -> dict[str, Any]:
        """Give the sizes of all inputs, by source."""
        return {
            f"{name}{place}": size
            for name, fact in zip(self.names, facts, strict=True)
            for place, size in _named(fact)
        }

    def _facts(self, x: Any) -> Any:
        """Give what guards ask of an input."""
        if not isinstance(x, Tensor):
            return x if type(x) is int or is_symbolic(x) else None
        shape = x.payload.shape
        return (shape, x.stride()) if self.strided else (shape,)


def _named(fact: Any) -> list[tuple[str, Any]]:
    """Give the sizes of an input, by place."""
    if not isinstance(fact, tuple):
        return [] if fact is None else [("", fact)]
    words = zip(("shape[{}]", "stride({})"), fact, strict=False)
    return [(f".{word.format(i)}", n) for word, ns in words for i, n in enumerate(ns)]


def _refuse(declared: str, sizes: Mapping[str, Any], place: Any = "") -> NoReturn:
    raise UsageError(
        "the program was traced for other sizes",
        declared=declared,
        seen=", ".join(f"{source} = {size}" for source, size in sizes.items()),
        source=place,
        fix="trace it on inputs of such sizes too",
    )


class TracedModule(PreDispatchModule):
    """A program that refuses inputs of other sizes than it was traced for."""

    size_guards: SizeGuards

    def __call__(self, *inputs: Any) -> Any:
        """Run the graph."""
        self.size_guards.check(inputs)
        return super().__call__(*inputs)

    def __copy__(self) -> GraphModule:
        return guarded(super().__copy__(), self.size_guards)


def guarded(module: GraphModule, guards: SizeGuards) -> TracedModule:
    """Let a program refuse what its trace did not see."""
    module.__class__ = TracedModule
    module.__dict__["size_guards"] = guards
    return module  # type: ignore[return-value]  # it is one now
