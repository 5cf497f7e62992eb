"""Forward mode from reverse mode: a gradient is linear in what comes back, so its transpose is J.

The gradient of a call at a probe is recorded at a level of its own. Going back
through that record, from the tangents of the inputs to the probes, gives the
tangents of the results. That holds for complex numbers too, as the transpose
of a transpose. Only what is recorded can be transposed: a gradient that reads
data off the probe, or calls what has no gradient, is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from polyop import tree
from polyop.dispatch.context import Word, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import AutogradError, MissingGradientError
from polyop.layers.autograd.author import RUNNING
from polyop.layers.autograd.engine import run
from polyop.layers.autograd.grad_level import GradLevel, LinearLevel
from polyop.layers.autograd.lifted import Lifted
from polyop.layers.autograd.node import Node
from polyop.layers.levels import enter_level
from polyop.ops.define import ON_TENSORS, operator_of
from polyop.source import Source
from polyop.tensor.tensor import Tensor


class Called(NamedTuple):
    """Who is transposed, in errors: a schema or name, a place, and how a rule is given to it."""

    name: str
    schema: Any
    source: Source | None
    fix: str


class Probe(Lifted):
    """The payload of a probe: its data say nothing, so nobody may look at them."""

    __slots__ = ()
    level: ProbeLevel | TapeLevel

    def look(self, what: str) -> NoReturn:
        """Refuse: what is computed from the data would be lost."""
        self.level.refuse(f"looks at the data of a gradient ({what})")


class ProbeLevel(GradLevel):
    """The level at which a gradient is recorded, to be transposed."""

    kind = "the transposed gradient"
    __slots__ = ("called",)

    def __init__(self, called: Called) -> None:
        super().__init__()
        self.called = called

    def wrap(self, value: Tensor) -> Tensor:
        """Wrap a tensor."""
        return _probe(self, super().wrap(value))

    def refuse(self, why: str) -> NoReturn:
        """Raise the error of a gradient that cannot be transposed."""
        refuse(self.called, why)


class TapeLevel(LinearLevel):
    """The level at which `func.linearize` records tangents: probes, too."""

    kind = "func.linearize"
    __slots__ = ()

    def inner_word(self) -> Word:
        """Give the word of the function: values are recorded outside as grad mode says there."""
        return self.watched_word(self.outer)

    def run(self, op: OpOverload, args: Sequence[Any]) -> Any:
        """Run a call on what is inside the wrappers, and record it; a tangent has no history."""
        return super().run(_ALIAS if op is _DETACH else op, args)

    def wrap(self, value: Tensor) -> Tensor:
        """Wrap a tensor."""
        return _probe(self, super().wrap(value))

    def refuse(self, why: str) -> NoReturn:
        """Raise the error of a jvp that cannot be recorded."""
        raise MissingGradientError(
            f"func.linearize runs a function once, and records its tangents; a jvp {why}",
            op=self.kind,
            fix="compute tangents by differentiable operators, or call func.jvp",
        )


_ALIAS, _DETACH = operator_of(ON_TENSORS["alias"]), operator_of(ON_TENSORS["detach"])


def _probe(level: ProbeLevel | TapeLevel, tensor: Tensor) -> Tensor:
    """Let nobody look at the data of a level's tensor."""
    record = Probe()
    record.value, record.level, record.views = tensor.payload.value, level, None
    tensor.payload = record
    return tensor


def refuse(called: Called, why: str) -> NoReturn:
    """Raise the error of a gradient that cannot be transposed."""
    running = RUNNING.get()
    who = called.name
    if running is not None and running.name() != called.name:
        who = f"{running.name()}, which {called.name} calls,"
    raise MissingGradientError(
        f"forward mode has no jvp of {called.name}, and cannot transpose its backward: "
        f"that of {who} {why}",
        op=called.schema, source=called.source, fix=called.fix,
    )  # fmt: skip


class Transposed(NamedTuple):
    """The linear map from tangents of inputs to tangents of results.

    Attributes:
        ends: for each input, the node of its gradient, or None if nothing flows to it.
        probes: for each result, the node of its probe, or None if nothing flows from it.
    """

    ends: list[Node | None]
    probes: list[Node | None]

    def __call__(self, tangents: Sequence[Tensor], *, retain: bool) -> list[Tensor | None]:
        """Give the tangents of the results, None where nothing flows."""
        roots = [(n, t) for n, t in zip(self.ends, tangents, strict=True) if n is not None]
        wanted = frozenset(n for n in self.probes if n is not None)
        if not roots:
            return [None] * len(self.probes)
        found = run(roots, retain=retain, create_graph=True, wanted=wanted, under=word())
        return [None if n is None else found.get(n) for n in self.probes]


def transposed(
    called: Called,
    call: Callable[..., Any],
    primals: Sequence[Tensor],
) -> tuple[Any, Transposed]:
    """Run a call, and give its result with its linear map.

    Args:
        called: what runs, in errors.
        call: of the primals; returns a tree of tensors.
        primals: the tensors to differentiate at; the call may write them.

    Raises:
        MissingGradientError: the gradient cannot be transposed, or there is none.
    """
    lower = LinearLevel(writable=True)
    watched = [lower.watched(p) for p in primals]
    leaves = [t.grad_node for t in watched]  # before the call, which may write them
    with enter_level(lower):
        out = call(*watched)
    results = [(_node(lower, leaf), lower.peel(leaf)) for leaf in tree.leaves(out)]
    return lower.peel(out), at_a_level(called, results, leaves)


def at_a_level(
    called: Called, results: Sequence[tuple[Node | None, Any]], leaves: Sequence[Node]
) -> Transposed:
    """Record the gradient of a call at a level, and give its linear map.

    Args:
        called: what ran, in errors.
        results: each with its node, or None if it has no gradient.
        leaves: the nodes of the primals.

    Raises:
        MissingGradientError: the gradient cannot be transposed.
    """
    upper = ProbeLevel(called)
    probes = [
        None if node is None else upper.watched(ON_TENSORS["ones_like"](value))
        for node, value in results
    ]
    pairs = zip(results, probes, strict=True)
    roots = [(n, p) for (n, _), p in pairs if n is not None and p is not None]
    with enter_level(upper):
        ends = _go_back(upper, roots, leaves)
    return Transposed(ends, [None if p is None else p.grad_node for p in probes])


def _node(level: GradLevel, leaf: Any) -> Node | None:
    return level.node_of(leaf) if isinstance(leaf, Tensor) else None


def _go_back(
    upper: ProbeLevel, roots: Sequence[tuple[Node, Tensor]], leaves: Sequence[Node]
) -> list[Node | None]:
    """Run the gradient on probes, and give the node of what each input gets."""
    if not roots:
        return [None] * len(leaves)
    wanted = frozenset(leaves)
    try:
        found = run(roots, retain=False, create_graph=True, wanted=wanted, under=word())
    except AutogradError as error:
        if error.op:  # what backward returned does not fit; its author is told so
            raise
        upper.refuse(f"takes data out of a gradient: {error.problem}")
    return [_end(upper, found.get(leaf)) for leaf in leaves]


def _end(upper: ProbeLevel, gradient: Tensor | None) -> Node | None:
    if gradient is None:  # the author says that there is none
        return None
    node = upper.node_of(gradient)
    if node is None:
        upper.refuse("returns what is not computed by differentiable operators from its gradient")
    return node
