"""Gradients that authors register: `setup_context` after forward, `backward` with what it kept.

The author's functions always work on tensors, and run below autograd unless
the gradient is itself differentiated. All checks of what they return are here
and in `mirror.py`, so that a mistake is told in the author's words.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import OpOverload
from polyop.dispatch.rules import AutogradRule
from polyop.layers.autograd.arrays import adapted, fill_tensors, send
from polyop.layers.autograd.context import Context, refuse
from polyop.layers.autograd.mirror import (
    NodeOf,
    describe,
    held,
    make_spec,
    matched,
    needs_of,
    nodes_in,
    spec_of,
)
from polyop.layers.autograd.node import Node, next_seq, result_node
from polyop.layers.autograd.taken import watching
from polyop.layers.autograd.write import facts
from polyop.layers.rule_notes import note_rule
from polyop.lazy import load
from polyop.schema.types import leaf_kind
from polyop.tensor.tensor import Tensor, is_differentiable

#: The operator whose backward is running, for errors of second gradients (S133).
RUNNING: ContextVar[Any] = ContextVar("running", default=None)


class Inputs(tuple[Any, ...]):
    """The positional arguments; `box` has every argument by name.

    Each operator has a class of its own, which knows the names.
    """

    __slots__ = ()  # without it each call would pay for a dict
    names: ClassVar[Sequence[str]] = ()

    @property
    def box(self) -> SimpleNamespace:
        """Every argument by name."""
        return SimpleNamespace(**dict(zip(self.names, self, strict=True)))


class AllInputs(Inputs):
    """The same for an operator with keyword-only arguments."""

    keyword_only: Sequence[Any] = ()

    @property
    def box(self) -> SimpleNamespace:
        """Every argument by name."""
        return SimpleNamespace(**dict(zip(self.names, (*self, *self.keyword_only), strict=True)))


class AuthorRecorder:
    """Records calls of one operator with an author's gradient."""

    def __init__(self, op: OpOverload, rule: AutogradRule) -> None:
        self.op = op
        self.rule = rule
        self.source = op.rule_source("backward")
        self.names = [a.name for a in op._schema.arguments]
        self.positional = len(op._schema.positional)
        self.single = len(op._schema.returns) == 1
        self.fresh = all(r.alias_info is None for r in op._schema.returns)
        self.inputs_class: type[Inputs] = type(
            "Inputs",
            (AllInputs if op._schema.keyword_only else Inputs,),
            {"names": self.names, "__slots__": ()},
        )
        setup = rule.setup_context
        self.setup = None if setup is None else watching(setup_caller(setup), setup)
        self.setup_is_plain = _parameters(setup) == ["ctx", "inputs", "output"]
        #: The author's own, where it is called with positional arguments alone.
        self.alone = watching(setup, setup) if setup is not None and self.setup_is_plain else None
        if op._schema.keyword_only:
            self.alone = None
        assert rule.backward is not None
        self.backward = rule.backward
        kinds = [leaf_kind(a.type) for a in op._schema.arguments]
        self.holds_containers = not {"static", "tensor", "tensor?"}.issuperset(kinds)
        self.keywords_count = any(kind != "static" for kind in kinds[self.positional :])

    def record(
        self,
        outer: Sequence[Any],
        values: Sequence[Any],
        out: Any,
        results: Any,
        *,
        kept: bool,
        node_of: NodeOf,
        plain: bool,
    ) -> None:
        """Record a call.

        Args:
            outer: the arguments, whose nodes `node_of` gives.
            values: the same arguments as the author sees them.
            out: the results as the author sees them.
            results: the results that get the history.
            kept: whether `out` and `results` differ, as they do under a level.
            node_of: gives the node of a tensor that requires grad, or None.
            plain: whether all is NumPy.
        """
        specs = [spec_of(a, node_of) for a in outer]
        nodes = tuple(node for spec in specs for node in nodes_in(spec))
        if not nodes:
            return
        ctx = Context()
        ctx.needs_input_grad = tuple(map(needs_of, specs))
        run_under(word().without_grad, self.set_up, ctx, values, out)
        inner = flatten_results(out)[0]
        ctx.seal(list(zip(self.names, values, strict=True)), inner, inner if kept else None)
        self.give_history(ctx, specs, nodes, inner, results)

    def set_up(self, ctx: Any, values: Sequence[Any], out: Any) -> None:
        """Run the author's `setup_context`, if there is one; its errors are noted.

        Args:
            ctx: what it fills.
            values: all arguments, keyword-only ones last.
            out: the results.
        """
        setup = self.setup
        if setup is None:
            return
        try:
            if self.alone is not None:
                self.alone(ctx, self.inputs_class(values), out)
            else:
                setup(ctx, self._inputs(values), self._keywords(values), out)
        except Exception as error:
            note_rule(error, self.op, "setup_context")
            raise

    def give_history(
        self,
        ctx: Context,
        specs: Sequence[Any],
        nodes: tuple[Node, ...],
        inner: Sequence[Any],
        results: Any,
    ) -> None:
        """Make the node of a call, and give it to the results.

        Args:
            ctx: as `setup_context` filled it.
            specs: what backward is to give for each argument.
            nodes: all that are in `specs`.
            inner: the results in a row as the author saw them.
            results: the results that get the history.
        """
        flat, shape = flatten_results(results, single=self.single)
        node = Node()
        node.backward = author_backward
        node.op = self.op
        node.seq = next_seq()
        node.n0 = nodes
        node.s0 = ctx
        node.s1 = specs
        node.more = ([facts(t) for t in flat], self, shape)
        own_history(flat if self.fresh else new_among(self.op, results))
        give_node(node, flat, inner, ctx._without)

    def _inputs(self, values: Sequence[Any]) -> Inputs:
        inputs = self.inputs_class(values[: self.positional])
        if isinstance(inputs, AllInputs):
            inputs.keyword_only = values[self.positional :]
        return inputs

    def _keywords(self, values: Sequence[Any]) -> dict[str, Any]:
        n = self.positional
        return dict(zip(self.names[n:], values[n:], strict=True))

    def matched(self, n: Node, given: Any) -> Iterator[tuple[Node, Any]]:
        """Give each gradient that backward returned, with the node that it is for."""
        # The quick way keeps a tuple of plain facts.
        specs = n.s1 if n.s1.__class__ is list else [*map(_made, n.s1)]
        if len(specs) == 1:
            given = held(self.names[0], specs[0], given)
        for name, spec, value in zip(self.names, specs, self.laid_out(given), strict=True):
            yield from matched(self.op, self.source, name, spec, value)

    def laid_out(self, given: Any) -> Sequence[Any]:
        """Give what backward returned as one value per argument.

        Raises:
            AutogradError: the count, or a name, is wrong.
        """
        names, n = self.names, len(self.names)
        if isinstance(given, dict) and (n != 1 or set(given) == set(names)):
            unknown = [k for k in given if k not in names]
            if unknown:
                raise refuse(
                    self.op,
                    f"backward returned a gradient for {unknown[0]!r}, which is no argument",
                    declared=", ".join(names), seen=describe(given), source=self.source,
                    fix="name arguments of the schema",
                )  # fmt: skip
            return [given.get(name) for name in names]
        values = list(given) if isinstance(given, tuple) else [given]
        if len(values) == self.positional and not self.keywords_count:
            values += [None] * (n - self.positional)
        if len(values) != n:
            count = n if self.keywords_count else self.positional
            raise refuse(
                self.op,
                "backward returned a wrong number of gradients",
                declared=f"{count} ({', '.join(names[:count])})",
                seen=describe(given),
                source=self.source,
                fix="return one value per argument, None where there is no gradient",
            )
        return values


def _made(fact: Any) -> Any:
    """Make the spec of an argument of its plain facts."""
    if fact.__class__ is list:
        return [_made(item) for item in fact]
    if fact.__class__ is dict:
        return {k: _made(item) for k, item in fact.items()}
    return None if fact is None else make_spec(*fact)


def copied(value: Any) -> Any:
    """Copy lists and dicts, down to the leaves: a kernel may take things out of its own."""
    if value.__class__ is list:
        return [*map(copied, value)]
    return {k: copied(v) for k, v in value.items()} if value.__class__ is dict else value


class Laid(NamedTuple):
    """Where the parts of a result that is a record, a dict or a tuple lie among all."""

    spec: Any
    numbers: range


def flatten_results(results: Any, *, single: bool = False) -> tuple[list[Any], list[Any]]:
    """Give the single results in a row, and which of them make each result.

    A result that is a list is mirrored by a list of numbers, any other
    container by a `Laid`, and None by None: it is no single result.

    Args:
        results: what a call gave.
        single: whether the schema has one return, so that a tuple is that one.
    """
    flat: list[Any] = []
    several = results.__class__ is tuple and not single
    return flat, [_place(result, flat) for result in (results if several else (results,))]


def _place(result: Any, flat: list[Any]) -> Any:
    if result is None:
        return None
    if result.__class__ is list:
        return [_place(item, flat) for item in result]
    start = len(flat)
    if isinstance(result, _LEAVES):
        flat.append(result)
        return start
    leaves, spec = tree.flatten(result)
    flat += leaves
    return start if spec.is_leaf() else Laid(spec, range(start, len(flat)))


_LEAVES = (Tensor, int, float, complex, str)


def placed(place: Any, flat: Sequence[Any]) -> Any:
    """Give the values of one result, laid out as it is."""
    if place is None or place.__class__ is int:
        return None if place is None else flat[place]
    if place.__class__ is list:
        return [placed(item, flat) for item in place]
    return tree.unflatten(place.spec, [flat[i] for i in place.numbers])


def new_among(op: OpOverload, results: Any) -> list[Any]:
    """Give the single results that are declared to be no arguments and no views."""
    returns = op._schema.returns
    every = results if len(returns) > 1 else (results,)
    new = [x for r, x in zip(returns, every, strict=True) if r.alias_info is None]
    return flatten_results(new)[0]


def own_history(results: Sequence[Any]) -> None:
    """Let results be no views: the tensors that a kernel took them of have no history.

    A write to such a view would be recorded on its base, past the author's backward.
    """
    for result in results:
        if isinstance(result, Tensor) and hasattr(result, "view_of"):
            del result.view_of


def give_node(
    node: Node, flat: Sequence[Any], inner: Sequence[Any], without: tuple[int, ...] = ()
) -> None:
    """Give results their history, those that gradients can flow through."""
    single = len(flat) == 1
    for number, (result, seen) in enumerate(zip(flat, inner, strict=True)):
        if not isinstance(result, Tensor) or id(seen) in without:
            continue
        if is_differentiable(result.payload.dtype):
            result.keys |= GRAD
            result.grad_node = node if single else result_node(node, number)


def _author_backward(n: Node, g: Any, grads: dict[Node, Any], push: Callable[[Node], Any]) -> None:
    recorder: AuthorRecorder = n.more[1]
    rule = recorder.rule.backward
    assert rule is not None
    ctx = n.s0.running(n)
    given = call_backward(n, ctx, g, n.more[2], rule)
    for node, d in recorder.matched(n, given):
        send(node, d, grads, push)


author_backward = adapted(_author_backward)


def call_backward(n: Node, ctx: Context, g: Any, shape: Any, rule: Callable[..., Any]) -> Any:
    """Call an author's backward, with one gradient per result."""
    flat = g if g.__class__ is list else [g]
    if ctx._materialize and g.__class__ is list:
        flat = fill_tensors(n, flat)
    given = [flat[i] if i.__class__ is int else placed(i, flat) for i in shape]
    token = RUNNING.set(n.op)
    try:
        found = rule(ctx, *given)
    except Exception as error:
        note_rule(error, n.op, "backward")
        raise
    finally:
        RUNNING.reset(token)
    return whole(n.op, "backward", ctx, found)


def whole(op: Any, rule: str, ctx: Context, given: Any) -> Any:
    """Give what a rule returned, refusing gradients that it has no part of (NOTE [Stops])."""
    if not ctx._taken:
        return given
    return load("polyop.layers.autograd.stops:stopped")(op, rule, ctx._taken, given)


def _parameters(fn: Callable[..., Any] | None) -> list[str]:
    """Name the parameters of a function; three without a name if it does not say.

    Those with a default are the author's own, unless their names are ours.
    """
    try:
        found = inspect.signature(fn).parameters.values() if fn is not None else ()
    except (TypeError, ValueError):
        return ["", "", ""]
    return [p.name for p in found if p.default is p.empty or p.name in _WANTED]


_WANTED = ("ctx", "inputs", "keyword_only_inputs", "output")


def setup_caller(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Give `(ctx, inputs, keywords, output)` for an author's `setup_context` of any form (S124)."""
    names = _parameters(fn)
    if set(names) <= set(_WANTED) and names != ["ctx", "inputs", "output"]:
        places = [_WANTED.index(name) for name in names]

        def by_name(*given: Any) -> Any:
            return fn(**{_WANTED[i]: given[i] for i in places})

        return by_name
    if len(names) == 4:
        return fn

    def by_position(ctx: Any, inputs: Any, keywords: Any, output: Any) -> Any:
        return fn(ctx, inputs, output)

    return by_position
