"""`TracedModule`: a program with symbolic sizes: that of its function for inputs of some kind only.

A trace takes equal sizes for one, and a branch on a size one way; so it does with dtypes, with
values that are no tensors, and with what else the function asks of a tensor. Other inputs have
another program; nothing in this one would notice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from polyop.dispatch.context import word
from polyop.errors import CaptureError, UsageError
from polyop.graph import GraphModule
from polyop.layers.trace.proxy import PreDispatchModule
from polyop.schema.opaque import is_input
from polyop.symbolic import ShapeEnv, is_symbolic
from polyop.tensor.tensor import Tensor
from polyop.tree.same import Same

#: How an input answers what a function asks of tensors; the strides are among its sizes.
ANSWERS: dict[str, Callable[[Any], Any]] = {
    "_base": lambda x: x._base is not None,
    "grad": lambda x: x.grad is not None,
    "is": lambda _: "no other input",
    "is_contiguous": lambda x: x.is_contiguous(),
    "is_leaf": lambda x: (x.is_leaf, x.requires_grad),
    "requires_grad": lambda x: x.requires_grad,
    "stride": lambda x: x.is_contiguous(),
    "tangent": lambda _: "any",
}


def pass_on(asked: Collection[str]) -> None:
    """Tell the trace, if any, that runs a program what this relies on."""
    outer: set[str] = getattr(word().recorder, "asked", set())
    outer.update(asked)


def answers_of(x: Any) -> dict[str, Any]:
    """Give how an input answers each question; the function may change that."""
    return {name: ask(x) for name, ask in ANSWERS.items()} if isinstance(x, Tensor) else {}


@dataclass(frozen=True, slots=True)
class Fixed:
    """A value that is no tensor and no size: the program is for this one."""

    kind: type
    value: Any

    def __str__(self) -> str:
        value = self.value.value if isinstance(self.value, Same) else self.value
        return f"{self.kind.__name__} {value}"


class SizeGuards:
    """What a trace relied on, as far as the inputs of its program can tell.

    Args:
        env: the symbols of the trace.
        names: of the inputs, in order.
        inputs: what they were in the trace.
        answers: of each input, before the trace.
        asked: what the function asked of tensors, by name.
    """

    def __init__(
        self,
        env: ShapeEnv,
        names: Sequence[str],
        inputs: Sequence[Any],
        answers: Sequence[Mapping[str, Any]],
        asked: Collection[str],
    ) -> None:
        self.names = names
        self.asked = sorted(asked)
        layouts = {} if {"is_contiguous", "stride"}.isdisjoint(asked) else env.layouts
        self.strided = True
        facts = tuple(map(self._facts, inputs))
        told = self._sizes(facts)
        sources = [*env.sources, *layouts]
        # Bound to the numbers of the sources, each symbol tells where it is found.
        found = env.bind({source: i for i, source in enumerate(sources)})
        places = {name: sources[i] for name, i in found.items()}
        self.places = {name: place for name, place in places.items() if place in told}
        self.guards = [
            guard
            for guard in (*env.input_guards, *layouts.values(), *env.guards)
            if self.places.keys() >= set(guard.condition.symbols())
        ]
        self.strided = any(".stride(" in place for place in self.places.values())
        self.told = self._sizes(tuple(map(self._facts, inputs))).keys()
        self.kinds = [
            (kind[0], tuple([known[name] for name in self.asked])) if known else kind
            for known, kind in zip(answers, map(_kind, facts), strict=True)
        ]
        self.passed: set[Any] = set()

    def check(self, inputs: Sequence[Any]) -> None:
        """Refuse inputs of which another program would have been traced.

        Raises:
            UsageError: with the guard that does not hold.
        """
        if self.asked:
            pass_on(self.asked)
        if "is" in self.asked:
            refuse_same(self.names, inputs, UsageError)
        facts = tuple([self._facts(x) for x in inputs])
        if facts in self.passed or len(facts) != len(self.names):
            return
        self._check_kinds(facts)
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

    def _check_kinds(self, facts: Sequence[Any]) -> None:
        for name, known, kind in zip(self.names, self.kinds, map(_kind, facts), strict=True):
            if known != kind:
                raise UsageError(
                    "the program was traced for another kind of input",
                    argument=name,
                    declared=self._spelled(known),
                    seen=self._spelled(kind),
                    fix="trace it on such inputs too",
                )

    def _spelled(self, kind: Any) -> str:
        """Write what an input is besides its sizes."""
        if not isinstance(kind, tuple):
            return str(kind)
        pairs = zip(self.asked, kind[1], strict=True)
        return ", ".join([f"a tensor of {kind[0]}", *(f"{name}: {is_so}" for name, is_so in pairs)])

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
            return x if type(x) is int or is_symbolic(x) else _fixed(x)
        payload = x.payload
        strides = x.stride() if self.strided else ()
        answers = tuple([ANSWERS[name](x) for name in self.asked]) if self.asked else ()
        return payload.shape, strides, payload.dtype, answers


def refuse_same(
    names: Sequence[str], inputs: Sequence[Any], kind: type[UsageError | CaptureError]
) -> None:
    """Refuse one tensor as two inputs, where the function compares tensors by identity.

    Raises:
        UsageError: or what `kind` is.
    """
    first: dict[int, str] = {}
    for name, x in zip(names, inputs, strict=False):
        other = first.setdefault(id(x), name) if isinstance(x, Tensor) else name
        if other != name:
            raise kind(
                "the function compares tensors by identity, and its program has different ones",
                argument=name,
                declared=f"another tensor than {other}",
                seen="the same",
                fix="pass a copy: .clone(), or call the function itself",
            )


def _fixed(x: Any) -> Fixed | None:
    """Give what a value that is no tensor is known by; None for an object, which is an input."""
    if is_input(x):
        return None
    if isinstance(x, (float, complex)):
        return Fixed(type(x), repr(x))  # -0.0 == 0.0, and nan is not nan
    try:
        hash(x)
    except TypeError:
        return Fixed(type(x), Same(x))
    return Fixed(type(x), x)


def _kind(fact: Any) -> Any:
    """Give what a fact tells besides sizes."""
    if isinstance(fact, tuple):
        return fact[2:]
    return fact if isinstance(fact, Fixed) else "a number"


def _named(fact: Any) -> list[tuple[str, Any]]:
    """Give the sizes of an input, by place."""
    if fact is None or isinstance(fact, Fixed):
        return []
    if not isinstance(fact, tuple):
        return [("", fact)]
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
    """A program that refuses inputs of other kinds and sizes than it was traced for."""

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
