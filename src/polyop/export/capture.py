"""`export`: a function on some inputs, as a program for all inputs like them (S213)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.context import run_under, word
from polyop.dispatch.registry import as_operator
from polyop.errors import CaptureError, UsageTypeError
from polyop.export.dims import Leaf, spread
from polyop.export.gradients import Flat, alone, gradients_agree, refuse_own_gradients
from polyop.export.inputs import make_inputs, of_graph, positional_names, refuse_shared
from polyop.export.names import tensor_names
from polyop.export.objects import (
    Apart,
    add_checks,
    forget_states,
    refuse_leaked,
    refuse_unknown,
    renewed_all,
)
from polyop.export.orders import Turned, Watching
from polyop.export.program import Program
from polyop.export.results import attributes, clean, finish
from polyop.export.signature import Dimension, Signature
from polyop.export.wrappers import OfContainers, apart, refuse_gradients, wrappers_of
from polyop.graph import GraphModule, Node
from polyop.graph.node import GET_ATTR, identifier
from polyop.layers.fake import FakeTensorMode
from polyop.layers.functionalize import functionalize
from polyop.layers.trace.callers import Callers
from polyop.layers.trace.outside import levels_outside
from polyop.layers.trace.tracer import Tracer, real_object
from polyop.objects.identity import compares_identity
from polyop.ops.decompositions import core_decompositions
from polyop.source import caller
from polyop.symbolic import Guard, ShapeEnv
from polyop.tensor.asked import answering
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, of_meta


def export(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Program:
    """Capture a function as a program.

    Args:
        f: a function of tensors, numbers, opaque objects and containers of them. A traceable
            wrapper is one of the tensors inside it; the program takes and gives wrappers of the
            same shapes. An object of a reference class is an input; one from outside is a
            constant: names hold its fake meanwhile, so no other thread should use it.
        args: its positional arguments. The function is run on fakes of them: once for the graph,
            once or twice for its gradient, and twice for the order of keys, if dicts are given.
        kwargs: its keyword arguments.
        dynamic_shapes: which sizes may change: by argument, a dict from axes to `Dim`, or
            one entry for each axis; containers as in the arguments. A `Dim` for an int argument
            makes it a size. All else is fixed: the order of keys that it goes through, what it
            asks of tensors (`stride()`, ...), and layouts, if it writes through `reshape`.

    Raises:
        CaptureError: the function looks at data, writes a tensor that is no argument, or asks
            of a named dimension what does not hold in all of its range; a wrapper requires grad,
            or cannot be taken apart.
        ObjectError: the function asks an object for what only a fake class can answer.
        MissingFakeError: an operator has no fake rule.

    Example:
        >>> import polyop
        >>> x = polyop.ones((3, 4))
        >>> rows = polyop.export.Dim("rows", min=1)
        >>> program = export(lambda x: x.sin() * 2, (x,), dynamic_shapes={"x": {0: rows}})
        >>> print(program.graph)
        graph(x: f32[s0, 4]):
            sin: f32[s0, 4] = core.sin(x)
            multiply: f32[s0, 4] = core.multiply.Scalar(sin, 2)
            return [multiply]
        >>> program.module()(polyop.zeros((1, 4))).shape
        (1, 4)
    """
    given = _given(f, args, kwargs, dynamic_shapes)
    env = ShapeEnv()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=env, static_shapes=True)
    inputs = make_inputs(mode, given.known)
    places, constants = of_graph(inputs.specs), tensor_names(f)
    flat = Flat(OfContainers(Apart(f)), given.leaves, given.in_spec, places)
    paths = [inputs.specs[i].path for i in places]
    asked: set[str] = {"is"} if compares_identity(f, given.leaves) else set()
    run = _of_tensors(flat, paths, inputs.values, mode, constants, asked) if given.wrapped else flat
    module = trace(run, paths, inputs.values, mode, constants, asked)
    spec, guards = flat.out_spec, _guards_of(env, inputs.promised)
    whole = finish(module, inputs.specs)
    signature = whole.for_asked({*asked, "reshape"} if run.by_layouts else asked)
    signature = _of_gradients(module, signature, run, inputs.values, mode, wrapped=given.wrapped)
    made = Program(module, signature, given.in_spec, spec, given.names, inputs.dims, guards, mode)
    made = _by_key(made, f, flat, paths, inputs.values, constants, tried=not given.wrapped)
    forget_states(mode)
    return made


def _by_key(  # noqa: PLR0917 - what a trace is of
    made: Program,
    f: Callable[..., Any],
    flat: Flat,
    paths: Sequence[str],
    values: Sequence[Any],
    constants: Mapping[int, str],
    *,
    tried: bool,
) -> Program:
    """Let a program take dicts by key where its function never looks at the order of keys.

    It must compute the same of other orders.
    """
    if not made.orders or not tried:
        return made
    watching = Watching(OfContainers(Apart(f)))
    for probe in (Turned(watching.f), watching):
        again = Flat(probe, flat.leaves, flat.in_spec, flat.places)
        try:
            module = trace(again, paths, values, made.mode, constants, set())
            found = finish(module, made.signature.inputs)
            same = again.out_spec == made.out_spec and found.outputs == made.signature.outputs
        except Exception:  # whatever it is: then the order of keys is a part of the program
            return made
        if not same or str(module.graph) != str(made.graph):
            return made
    return replace(made, by_key=not watching.looked)


def run_decompositions(
    program: Program, table: Mapping[Any, Callable[..., Any]] | None = None
) -> Program:
    """Give a program with functions in the place of operators.

    Args:
        program: the program.
        table: by operator, a function of the same arguments, which is traced; by default
            `polyop.library.core_decompositions()`.

    Raises:
        UsageTypeError: the table is none.
    """
    chosen = core_decompositions() if table is None else table
    if not isinstance(chosen, Mapping):
        raise UsageTypeError(
            "a table of decompositions has a function by operator",
            argument="table",
            seen=f"{type(chosen).__name__} {chosen!r:.80}",
            fix="give {op: fn}, or nothing for polyop.library.core_decompositions()",
        )
    values = [
        of_meta(node.val) if isinstance(node.val, Meta) else node.val
        for node in program.graph.placeholders
    ]
    refuse_unknown(program.signature, values)
    replaced = {as_operator(op): fn for op, fn in chosen.items()}
    names = {id(t): name for name, t in program.state.items()}
    paths = [node.name for node in program.graph.placeholders]
    run = functionalize(program.graph_module)
    env = program.mode.shape_env
    assert env is not None
    before = len(env.guards)
    asked: set[str] = set()
    module = trace(run, paths, values, program.mode, names, asked, replaced)
    add_checks(module)
    clean(module.graph)
    module.recompile()
    constraints = (*program.constraints, *env.guards[before:])
    signature = program.signature
    parameters, constants = attributes(module)
    signature = Signature(
        signature.inputs, signature.outputs, signature.written, parameters, constants
    ).for_asked(asked)
    return Program(
        module, signature, program.in_spec, program.out_spec, program.names, program.dims,
        constraints, program.mode, program.by_key,
    )  # fmt: skip


class Given(NamedTuple):
    """The arguments of an export, with the tensors inside in the place of wrappers.

    Attributes:
        names: of the positional ones.
        leaves: of all of them.
        in_spec: their structure.
        known: each leaf with its path and dimensions.
        wrapped: whether there were wrappers.
    """

    names: tuple[str, ...]
    leaves: list[Any]
    in_spec: Any
    known: list[Leaf]
    wrapped: bool


def _given(f: Any, args: Any, kwargs: Any, dynamic_shapes: Any) -> Given:
    """Take the arguments apart; refuse what no program could be given."""
    _check_call(f, args, kwargs)
    wrapped = bool(wrappers_of((args, kwargs)))
    if wrapped:
        refuse_gradients(tree.leaves((args, kwargs)))
    args, named = apart((args, dict(kwargs or {})))
    names = positional_names(f, len(args))
    leaves, in_spec = tree.flatten((args, named))
    known = spread(names, args, named, dynamic_shapes)
    refuse_shared(known)
    return Given(tuple(names), leaves, in_spec, known, wrapped)


def _check_call(f: Any, args: Any, kwargs: Any) -> None:
    if not callable(f):
        raise UsageTypeError("export takes a function", argument="f", seen=type(f).__name__)
    if not isinstance(args, tuple):
        raise UsageTypeError(
            "the arguments are a tuple", argument="args", seen=type(args).__name__,
            fix="write (x,) for one argument",
        )  # fmt: skip
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise UsageTypeError(
            "the keyword arguments are a dict", argument="kwargs", seen=type(kwargs).__name__
        )


def _of_gradients(
    module: GraphModule,
    signature: Signature,
    run: Flat,
    values: Sequence[Any],
    mode: FakeTensorMode,
    *,
    wrapped: bool,
) -> Signature:
    """Refuse a gradient that the graph would lose; note in the signature what it has of others.

    Raises:
        CaptureError: with what to do.
    """
    if wrapped:
        refuse_gradients([module.get_attr(name) for name in signature.parameters])
    fresh = renewed_all(mode, values)
    by_asked = any({"requires_grad", "is_leaf"} & {*spec.asked} for spec in signature.inputs)
    if not wrapped and not by_asked and gradients_agree(module, run, fresh, signature, mode):
        return signature.for_gradients(fresh)
    refuse_own_gradients(module, run, renewed_all(mode, values), signature, mode)
    return signature


# -- the trace ----------------------------------------------------------------


class ExportTracer(Tracer):
    """A tracer that calls constants by their names, and for which no data can be looked at."""

    def __init__(self, names: Mapping[int, str], table: Mapping[Any, Any]) -> None:
        super().__init__(table=table, outside=levels_outside(word()))
        self.names = names

    def lift(self, tensor: Tensor) -> Node:
        """Give the node of a constant, under the name that the function has for it."""
        node = super().lift(tensor)
        return self._named(node, tensor)

    def lift_object(self, value: Any) -> Node:
        """Give the node of an opaque object from outside, under the name that it has there."""
        return self._named(super().lift_object(value), real_object(value))

    def _named(self, node: Node, value: Any) -> Node:
        name = self.names.get(id(value), "")
        if name and node.op == GET_ATTR and node.target != name and _is_free(self, name):
            self.constants[name] = self.constants.pop(node.target)
            node.target = name
        return node

    def look(self, tensor: Tensor, what: str) -> NoReturn:
        """Refuse: what a look gives would be the program's for ever."""
        error = CaptureError(
            f"the function looks at the data of a tensor: {what}()",
            seen="a constant"
            if tensor.payload.__class__ is np.ndarray
            else f"{tensor.dtype.name} of shape {tuple(tensor.shape)}",
            source=caller(),
            fix="compute with operators (polyop.where, ...), make an operator of this part, or "
            "pass a Python number",
        )
        self.note_failure(error)
        raise error


def _is_free(tracer: Tracer, name: str) -> bool:
    return name not in tracer.constants and not hasattr(GraphModule, name.partition(".")[0])


def trace(  # noqa: PLR0917 - what a trace is of, then how
    fn: Callable[..., Any],
    names: Sequence[str],
    values: Sequence[Any],
    mode: FakeTensorMode,
    constants: Mapping[int, str],
    asked: set[str],
    table: Mapping[Any, Any] | None = None,
) -> GraphModule:
    """Run a function of leaves on fakes, and record it; add to a set what it asks of tensors."""
    tracer = ExportTracer(constants, table or {})
    for name, value in zip(names, values, strict=True):
        tracer.placeholder(identifier(name), value)
    plain = alone(mode)
    with mode.traced_by(tracer):
        found = answering(
            Callers(tracer),
            lambda: run_under(plain.but(tracer=tracer), fn, *renewed_all(mode, values)),
        )
    module: GraphModule = run_under(plain, tracer.finish, found, mode.shape_env, "Program")
    refuse_leaked(mode, tracer.constants)
    asked |= tracer.asked
    return module


def _of_tensors(  # noqa: PLR0917 - what a trace is of
    flat: Flat,
    paths: Sequence[str],
    values: Sequence[Any],
    mode: FakeTensorMode,
    constants: dict[int, str],
    asked: set[str],
) -> Flat:
    """Give a function of wrappers as one of tensors, without calls of the wrappers' classes.

    A transform acts before classes of tensors do. So what these do is recorded
    first, and the graph of it is functionalized.
    """
    module = trace(flat.as_written, paths, values, mode, constants, asked)
    names = [n.target for n in module.graph.nodes if n.op == GET_ATTR]
    constants |= {id(module.get_attr(name)): name for name in names}
    spec = tree.structure((tuple(values), {}))
    return Flat(module, values, spec, range(len(values)))


def _guards_of(env: ShapeEnv, promised: Mapping[str, Dimension]) -> tuple[Guard, ...]:
    """Give what holds for sizes; refuse what narrows a dimension that was promised.

    Raises:
        CaptureError: with the dimension and the place that asks for less.
    """
    for guard in env.guards:
        broken = [promised[n] for n in guard.condition.symbols() if n in promised]
        if broken:
            dim = broken[0]
            raise CaptureError(
                f"the function does not hold for all sizes of the dimension {dim.label}",
                argument=dim.label,
                declared=dim.bound,
                seen=f"{guard.text}, with {dim.symbol} = {dim.label}",
                source=guard.place,
                fix="narrow its range, or use Dim.AUTO, for which this becomes a constraint",
            )
    return tuple(env.guards)
