"""`export`: a function on some inputs, as a program for all inputs like them (S213)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.bits import GRAD
from polyop.dispatch.context import run_under, word
from polyop.dispatch.registry import as_operator
from polyop.errors import CaptureError, UsageError, UsageTypeError
from polyop.export.dims import Dim, Kind, Leaf, spread
from polyop.export.gradients import refuse_own_gradients
from polyop.export.names import tensor_names
from polyop.export.program import Program
from polyop.export.signature import Dimension, InputSpec, OutputSpec, Signature
from polyop.graph import (
    Graph,
    GraphModule,
    Node,
    eliminate_common_subexpressions,
    eliminate_dead_code,
)
from polyop.graph.node import GET_ATTR, identifier
from polyop.layers.fake import FakeTensorMode
from polyop.layers.functionalize import functionalize
from polyop.layers.trace.tracer import Tracer
from polyop.ops.define import operator_of
from polyop.ops.inplace import copy_
from polyop.source import caller
from polyop.symbolic import ShapeEnv, SymInt, is_symbolic
from polyop.symbolic.env import default_least
from polyop.tensor.meta import Meta, Shape, element_strides, normal_strides
from polyop.tensor.storage import shares_memory
from polyop.tensor.tensor import Tensor, of_meta

COPY = operator_of(copy_)


class Inputs(NamedTuple):
    """Stand-ins for the leaves of the arguments, and the symbols in them."""

    specs: tuple[InputSpec, ...]
    values: list[Any]
    dims: dict[str, Dimension]
    promised: dict[str, Dimension]


def export(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Program:
    """Capture a function as a program.

    Args:
        f: a function of tensors, numbers and containers of them.
        args: its positional arguments, for which it is run once, on fakes.
        kwargs: its keyword arguments.
        dynamic_shapes: which sizes may change: by argument, a dict from axes to `Dim`, or
            one entry for each axis; containers as in the arguments. A `Dim` for an int argument
            makes it a size. All else is fixed.

    Raises:
        CaptureError: the function looks at data, writes a tensor that is no argument, or asks
            of a named dimension what does not hold in all of its range.
        MissingFakeError: an operator has no fake rule.

    Example:
        >>> import polyop
        >>> x = polyop.ones((3, 4))
        >>> rows = Dim("rows", min=1)
        >>> program = export(lambda x: x.sin() * 2, (x,), dynamic_shapes={"x": {0: rows}})
        >>> print(program.graph)
        graph(x: f32[s0, 4]):
            sin: f32[s0, 4] = core.sin(x)
            multiply: f32[s0, 4] = core.multiply.Scalar(sin, 2)
            return [multiply]
        >>> program.module()(polyop.zeros((1, 4))).shape
        (1, 4)
    """
    _check_call(f, args, kwargs)
    named = dict(kwargs or {})
    names = positional_names(f, len(args))
    leaves, in_spec = tree.flatten((args, named))
    known = spread(names, args, named, dynamic_shapes)
    _refuse_shared(known)
    env = ShapeEnv()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=env, static_shapes=True)
    inputs = make_inputs(mode, known)
    given = list(leaves)
    structure: list[Any] = []
    made: list[Any] = []

    def flat(*values: Any) -> list[Any]:
        for number, value in zip(_of_graph(inputs.specs), values, strict=True):
            given[number] = value
        positional, keywords = tree.unflatten(in_spec, given)
        found, spec = tree.flatten(functionalize(f)(*positional, **keywords))
        structure.append(spec)
        made.extend(found)
        return found

    paths = [inputs.specs[i].path for i in _of_graph(inputs.specs)]
    module = trace(flat, paths, inputs.values, mode, tensor_names(f))
    _refuse_narrowed(env, inputs.promised)
    guards = tuple(env.guards)
    signature = finish(module, inputs.specs)
    refuse_own_gradients(module, inputs.values, _graph_results(signature, made), mode)
    return Program(
        module, signature, in_spec, structure[0], tuple(names), inputs.dims, guards, mode
    )


def _graph_results(signature: Signature, leaves: Sequence[Any]) -> list[Any]:
    pairs = zip(signature.outputs, leaves, strict=True)
    return [leaf for spec, leaf in pairs if spec.kind == "result"]


def run_decompositions(
    program: Program, table: Mapping[Any, Callable[..., Any]] | None = None
) -> Program:
    """Give a program with functions in the place of operators.

    Args:
        program: the program.
        table: by operator, a function of the same arguments, which is traced.
    """
    values = [
        of_meta(node.val) if isinstance(node.val, Meta) else node.val
        for node in program.graph.placeholders
    ]
    replaced = {as_operator(op): fn for op, fn in (table or {}).items()}
    names = {id(t): name for name, t in program.state.items()}
    paths = [node.name for node in program.graph.placeholders]
    run = functionalize(program.graph_module)
    env = program.mode.shape_env
    assert env is not None
    before = len(env.guards)
    module = trace(run, paths, values, program.mode, names, replaced)
    clean(module.graph)
    module.recompile()
    constraints = (*program.constraints, *env.guards[before:])
    signature = program.signature
    parameters, constants = attributes(module)
    signature = Signature(
        signature.inputs, signature.outputs, signature.written, parameters, constants
    )
    return Program(
        module, signature, program.in_spec, program.out_spec, program.names, program.dims,
        constraints, program.mode,
    )  # fmt: skip


# -- inputs -------------------------------------------------------------------


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


def positional_names(f: Callable[..., Any], count: int) -> list[str]:
    """Name the positional arguments: by parameter, or by number."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p.name for p in parameters if p.kind in kinds]
    return [named[i] if i < len(named) else f"arg{i}" for i in range(count)]


def _refuse_shared(known: Sequence[Leaf]) -> None:
    """Refuse inputs that share memory, for the program cannot know that they do."""
    tensors = [(leaf.path, leaf.value) for leaf in known if isinstance(leaf.value, Tensor)]
    for n, (path, tensor) in enumerate(tensors):
        for other, earlier in tensors[:n]:
            if shares_memory(tensor, earlier):
                raise CaptureError(
                    f"two inputs share memory: {other} and {path}",
                    argument=path,
                    fix="export with separate tensors; the program may be called with shared "
                    "ones unless it writes them",
                )


def make_inputs(mode: FakeTensorMode, known: Sequence[Leaf]) -> Inputs:
    """Make a fake for each tensor, and a symbol for each size that may change."""
    symbols = Symbols(mode)
    specs: list[InputSpec] = []
    values: list[Any] = []
    for leaf in known:
        if isinstance(leaf.value, Tensor):
            specs.append(InputSpec(leaf.path, "tensor", None, bool(leaf.value.keys & GRAD)))
            values.append(_fake(mode, symbols, leaf))
        elif leaf.dims and is_symbolic(size := symbols.size(leaf, None, leaf.value)):
            specs.append(InputSpec(leaf.path, "size"))
            values.append(size)
        else:
            specs.append(InputSpec(leaf.path, "constant", leaf.value))
    return Inputs(tuple(specs), values, symbols.dims, symbols.promised)


class Symbols:
    """The symbols of an export: one for each name, and one for each size without a name."""

    def __init__(self, mode: FakeTensorMode) -> None:
        assert mode.shape_env is not None
        self.env = mode.shape_env
        self.named: dict[str, Any] = {}
        self.dims: dict[str, Dimension] = {}
        self.promised: dict[str, Dimension] = {}

    def size(self, leaf: Leaf, axis: int | None, hint: int) -> int | SymInt:
        """Give what stands for one size."""
        dim = leaf.dims.get(axis)
        if dim is None or (dim is Kind.AUTO and hint in (0, 1)):
            return hint
        place = leaf.path if axis is None else f"{leaf.path}.shape[{axis}]"
        if not isinstance(dim, Dim):
            lo = default_least(hint)
            return self._make("", hint, 0 if lo is None else lo, None, dim is not Kind.AUTO)
        if hint < dim.min or (dim.max is not None and hint > dim.max):
            raise CaptureError(
                f"the size at export is not in the range of the dimension {dim.name}",
                argument=place,
                declared=repr(dim),
                seen=hint,
                fix=f"write Dim({dim.name!r}, min={min(hint, dim.min)})"
                if hint < dim.min
                else "give a greater max",
            )
        if dim not in self.named:
            self._refuse_second(dim)
            self.named[dim] = self._make(dim.name, hint, dim.min, dim.max, promised=True)
        known = self.named[dim]
        if known.hint != hint:
            raise CaptureError(
                f"one dimension, {dim.name}, has two sizes",
                argument=place,
                declared=known.hint,
                seen=hint,
                fix="give each size a Dim with a name of its own",
            )
        return known

    def _make(self, name: str, hint: int, lo: int, hi: int | None, promised: bool) -> SymInt:
        made = self.env.create_symbol(hint, dynamic=True, min=lo, max=hi)
        assert isinstance(made, SymInt)
        symbol = str(made)
        self.dims[symbol] = Dimension(symbol, name, lo, hi, hint)
        if promised:
            self.promised[symbol] = self.dims[symbol]
        return made

    def _refuse_second(self, dim: Dim) -> None:
        if any(other.name == dim.name for other in self.named):
            raise UsageError(
                f"two dimensions are called {dim.name}, with different ranges", seen=repr(dim)
            )


def _fake(mode: FakeTensorMode, symbols: Symbols, leaf: Leaf) -> Tensor:
    tensor: Tensor = leaf.value
    shape = tuple(symbols.size(leaf, axis, int(n)) for axis, n in enumerate(tensor.shape))
    meta = mode.space.meta(shape, tensor.dtype, _strides(tensor, shape), tensor.device)
    fake = of_meta(meta)
    if tensor.keys & GRAD:
        fake.requires_grad_()
    return fake


def _strides(tensor: Tensor, shape: Shape) -> Shape | None:
    """Give the strides that a dense tensor of the same order of axes has; None for others."""
    payload = tensor.payload
    if payload.__class__ is not np.ndarray or payload.flags.c_contiguous:
        return None
    strides = element_strides(payload)
    order = sorted(range(len(shape)), key=lambda axis: (strides[axis], -axis))
    step: Any = 1
    count = 1
    found: list[Any] = [0] * len(shape)
    for axis in order:
        if strides[axis] != count and payload.shape[axis] != 1:
            return None  # not dense: a program cannot promise such gaps of all sizes
        found[axis] = step
        step = step * shape[axis]
        count *= payload.shape[axis]
    return normal_strides(shape, found)


def _of_graph(specs: Sequence[InputSpec]) -> list[int]:
    return [i for i, spec in enumerate(specs) if spec.kind != "constant"]


# -- the trace ----------------------------------------------------------------


class ExportTracer(Tracer):
    """A tracer that calls constants by their names, and for which no data can be looked at."""

    def __init__(self, names: Mapping[int, str], table: Mapping[Any, Any]) -> None:
        super().__init__(table=table)
        self.names = names

    def lift(self, tensor: Tensor) -> Node:
        """Give the node of a constant, under the name that the function has for it."""
        node = super().lift(tensor)
        name = self.names.get(id(tensor), "")
        if name and node.op == GET_ATTR and node.target != name and _is_free(self, name):
            self.constants[name] = self.constants.pop(node.target)
            node.target = name
        return node

    def look(self, tensor: Tensor, what: str) -> NoReturn:
        """Refuse: what a look gives would be the program's for ever."""
        raise CaptureError(
            f"the function looks at the data of a tensor: {what}()",
            seen=str(tensor.payload) if tensor.payload.__class__ is Meta else "a constant",
            source=caller(),
            fix="compute with operators (polyop.where, ...), make an operator of this part, or "
            "pass a Python number",
        )


def _is_free(tracer: Tracer, name: str) -> bool:
    return name not in tracer.constants and not hasattr(GraphModule, name.partition(".")[0])


def trace(
    fn: Callable[..., Any],
    names: Sequence[str],
    values: Sequence[Any],
    mode: FakeTensorMode,
    constants: Mapping[int, str],
    table: Mapping[Any, Any] | None = None,
) -> GraphModule:
    """Run a function of leaves on fakes, and record it."""
    tracer = ExportTracer(constants, table or {})
    for name, value in zip(names, values, strict=True):
        tracer.placeholder(identifier(name), value)
    under = word().but(tracer=tracer, fake=mode)
    found = run_under(under, fn, *values)
    module: GraphModule = run_under(
        under.but(tracer=None), tracer.finish, found, mode.shape_env, "Program"
    )
    return module


def _refuse_narrowed(env: ShapeEnv, promised: Mapping[str, Dimension]) -> None:
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


# -- the end: writes, results -------------------------------------------------


def clean(graph: Graph) -> None:
    """Remove what nobody reads, and calls that are made twice."""
    eliminate_dead_code(graph)
    eliminate_common_subexpressions(graph)
    graph.lint()


def finish(module: GraphModule, specs: tuple[InputSpec, ...]) -> Signature:
    """Turn writes to inputs into results, and give the signature."""
    graph = module.graph
    output = graph.output_node
    assert output is not None
    leaves = output.args[0]
    _refuse_kinds(leaves)
    given: dict[Node, int] = dict(zip(graph.placeholders, _of_graph(specs), strict=True))
    writes = {n: given[n.args[0]] for n in graph.nodes if n.target is COPY and n.args[0] in given}
    given |= writes
    results = [leaf for leaf in leaves if isinstance(leaf, Node) and leaf not in given]
    outputs = tuple(_output(leaf, given, results) for leaf in leaves)
    output.set_args((results,))
    for node in writes:
        node.replace_all_uses_with(node.args[1])
    output.set_args(([*(node.args[1] for node in writes), *output.args[0]],))
    for node in writes:
        graph.erase_node(node)
    _refuse_writes(graph)
    clean(graph)
    module.recompile()
    parameters, constants = attributes(module)
    return Signature(specs, outputs, tuple(writes.values()), parameters, constants)


def _output(leaf: Any, given: Mapping[Node, int], results: Sequence[Node]) -> OutputSpec:
    if not isinstance(leaf, Node):
        return OutputSpec("constant", leaf)
    if leaf in given:
        return OutputSpec("input", given[leaf])
    return OutputSpec("result", results.index(leaf))


def _refuse_writes(graph: Graph) -> None:
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            raise CaptureError(
                f"the function writes a tensor that is no argument: {node.target}",
                op=schema,
                seen=", ".join(n.name for n in node.all_input_nodes),
                fix="pass the tensor as an argument",
            )


def _refuse_kinds(leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, (Node, int, float, complex, str, bytes)):
            raise CaptureError(
                "a result is no tensor, number or container of them", seen=type(leaf).__name__
            )


def attributes(module: GraphModule) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = dict.fromkeys(n.target for n in module.graph.nodes if n.op == GET_ATTR)
    tensors = {name: module.get_attr(name) for name in names}
    learned = [n for n, t in tensors.items() if isinstance(t, Tensor) and t.keys & GRAD]
    fixed = [n for n, t in tensors.items() if isinstance(t, Tensor) and not t.keys & GRAD]
    return tuple(learned), tuple(fixed)
