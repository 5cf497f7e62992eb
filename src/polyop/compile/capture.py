"""Capture: run a function once on fakes, and keep what it called as programs.

A program that needs no gradient is one graph. One that does is traced through
the backward too, and cut in two: forward, with the values that backward reads
as further results, and backward. Autograd then meets the whole as one node, so
that every rule (`no_grad` blocks, authors' gradients, `autograd.Function`)
acted once, at capture, exactly as in an eager call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from polyop import tree
from polyop.compile.outlines import Inward
from polyop.compile.recording import Answer, Capture, SideEffect, Source, found_at
from polyop.compile.refusals import refuse_gradient, refuse_unknown_sizes
from polyop.compile.split import split
from polyop.dispatch.bits import GRAD
from polyop.dispatch.body import Number
from polyop.dispatch.context import Word, run_under, word
from polyop.errors import CaptureError
from polyop.graph import GraphModule, Node
from polyop.graph.module import tensors_held
from polyop.graph.node import GET_ATTR
from polyop.graph.purity import escaping_nodes, is_write, written_nodes
from polyop.layers.autograd.between import grad_between
from polyop.layers.autograd.engine import meets_subclass
from polyop.layers.autograd.recorders import recorder_of
from polyop.layers.fake import FakeTensorMode
from polyop.layers.fake.convert import symbolic_meta
from polyop.layers.trace.kinds import refuse_kind
from polyop.layers.trace.tracer import Tracer, describe
from polyop.objects.environment import One, tensors_of
from polyop.objects.strays import watched
from polyop.objects.weakly import Weak
from polyop.schema.opaque import is_input
from polyop.symbolic import ShapeEnv, is_symbolic
from polyop.tensor.asked import answering
from polyop.tensor.meta import Meta, meta_of
from polyop.tensor.storage import Version, share, shares_memory
from polyop.tensor.subclass import is_traceable_wrapper_subclass
from polyop.tensor.tensor import MADE, Tensor, of_meta

#: Operators that make a view, each with its other arguments and the way out of its results.
Views = tuple[tuple[Any, tuple[Any, ...]], ...]


@dataclass(frozen=True, slots=True)
class Captured:
    """A function on inputs of one kind, as programs.

    Attributes:
        forward: gives the results, flat, and then what backward reads.
        backward: takes what it reads, then the gradients of the differentiable
            results; gives the gradients of the differentiable inputs. Or None.
        spec: the structure of the results.
        results: how many leaves these have.
        differentiable: the positions of results that the backward program is for.
        passed: for the position of a result that is an input or a parameter, or a
            view of one: which, and the views to take of it.
        wanted: the positions of inputs that require grad.
        parameters: tensors from elsewhere that require grad; further inputs.
        env: the sizes, with the guards that the capture relied on.
        grads: the tensors whose gradients are inputs, behind the arguments.
        answers: what else the program relies on of tensors.
    """

    forward: GraphModule
    backward: GraphModule | None
    spec: Any
    results: int
    differentiable: tuple[int, ...]
    passed: dict[int, tuple[Source, Views]]
    wanted: tuple[int, ...]
    parameters: tuple[Tensor | Weak, ...]
    env: ShapeEnv
    grads: tuple[Source, ...] = ()
    answers: tuple[Answer, ...] = ()

    def given(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """Give all that the program takes: the leaves of the arguments, and gradients."""
        if not self.grads:
            return leaves
        return [*leaves, *(found_at(source, leaves).grad for source in self.grads)]


class LacksGrads(BaseException):
    """Captured code reads gradients that should be inputs."""

    def __init__(self, sources: Iterable[Source]) -> None:
        super().__init__()
        self.sources = tuple(sources)


def capture(
    fn: Callable[..., Any],
    leaves: Sequence[Any],
    spec: Any,
    *,
    symbolic: bool,
    known: Collection[int] = (),
    grads: Sequence[Source] = (),
) -> Captured:
    """Capture a call.

    Args:
        fn: the function.
        leaves: its arguments, flat.
        spec: their structure.
        symbolic: give the inputs symbolic sizes.
        known: the ids of tensors, containers and opaque objects that were there before the call.
        grads: the tensors whose gradients are inputs too.

    Raises:
        DataLook: the function looked at data.
        LacksGrads: it reads the gradient of a tensor that `grads` has not.
        CaptureError: a result is no tensor or number, or shares storage while there are gradients.
        MissingFakeError: an operator has no fake rule.
    """
    env = ShapeEnv()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=env, static_shapes=not symbolic)
    tracer = Capture()
    given = [*leaves, *(found_at(source, leaves).grad for source in grads)]
    inputs = _inputs(tracer, mode, given)
    count = len(leaves)
    tracer.given = {id(x): (i, leaves[i]) for i, x in _tensors(inputs[:count])}
    tracer.grads = {
        id(found_at(source, leaves)): x for source, x in zip(grads, inputs[count:], strict=True)
    }
    before = [state_of(x) for x in inputs]
    args, kwargs = tree.unflatten(spec, inputs[:count])
    under = word().but(tracer=tracer, fake=mode)
    try:
        with watched(mode, known), mode.traced_by(tracer):
            out = answering(tracer, run_under, under, fn, *args, **kwargs)
    except BaseException as error:
        if error is not tracer.failure:  # it may follow from that, which the function caught
            tracer.refuse_failure()
            refuse_unknown_sizes(error, env)
        raise
    finally:
        left = tracer.restore()
    tracer.refuse_failure()
    if tracer.lacks:
        raise LacksGrads([*grads, *tracer.lacks.values()])
    _refuse_gone(tracer)
    _refuse_effects(left, inputs, before)
    _refuse_moved(inputs[:count], spec, (args, kwargs))
    _refuse_outer(out, known)
    results, out_spec = tree.flatten(out)
    _refuse_kinds(results)
    captured = _finish(tracer, under, inputs, results, out_spec, env)
    _refuse_made(tracer, captured, known)
    return replace(captured, grads=tuple(grads), answers=tuple(tracer.answers.values()))


def _refuse_gone(tracer: Tracer) -> None:
    gone = [n.target for n in tracer.graph.nodes if not getattr(n.target, "alive", True)]
    if gone:
        raise SideEffect(f"the function calls {gone[0].name()}, and removes it")


def _refuse_made(tracer: Tracer, captured: Captured, known: Collection[int]) -> None:
    """Refuse a program that would hand out, or write, data of the function at every run."""
    shared = written_nodes(reversed(captured.forward.graph.nodes), is_write)
    output = captured.forward.graph.output_node
    assert output is not None
    if captured.backward is None:
        shared |= escaping_nodes(reversed(captured.forward.graph.nodes))
    else:
        # What backward reads leaves the program too, and is handed to nobody.
        shared |= {node for node in output.args[0][0] if isinstance(node, Node)}
    made = [tracer.constants[n.target] for n in shared if n.op == GET_ATTR]
    made += [source for source, _ in captured.passed.values() if isinstance(source, Tensor)]
    if any(isinstance(t, Tensor) and id(t) not in known for t in made):
        raise CaptureError(
            "a tensor that is made of data in the function is written, or a result",
            fix="make it of numbers (polyop.full), or return a copy: .clone()",
        )


def refuse_late_writes(captured: Captured, leaves: Sequence[Any], reads: Sequence[One]) -> None:
    """Refuse to write a tensor whose memory is an array too, which was read as it was at first."""
    arrays = [one.scope for one in reads if isinstance(one.scope, np.ndarray)]
    if not arrays or not any(map(is_write, captured.forward.graph.nodes)):
        return
    tensors = [x for x in (*leaves, *tensors_of(reads)) if isinstance(x, Tensor)]
    payloads = [x.payload for x in tensors if x.payload.__class__ is np.ndarray]
    if any(np.may_share_memory(p, array) for p in payloads for array in arrays):
        raise SideEffect("the function writes a tensor, and reads its memory as an array")


def _inputs(tracer: Tracer, mode: FakeTensorMode, leaves: Sequence[Any]) -> list[Any]:
    """Make a fake per tensor, the same one for a tensor that is given twice."""
    made: dict[int, Any] = {}
    versions: dict[int, Version] = {}
    inputs = list(leaves)
    for i, leaf in enumerate(leaves):
        if not is_given(leaf):
            continue
        if id(leaf) not in made:
            tensor = isinstance(leaf, Tensor)
            made[id(leaf)] = _fake(mode, i, leaf, versions) if tensor else mode.from_object(leaf)
        inputs[i] = made[id(leaf)]
        tracer.placeholder(f"x{i}", inputs[i])
    return inputs


def _tensors(values: Sequence[Any]) -> list[tuple[int, Tensor]]:
    """Give the tensors among the leaves, with their numbers, the first of each last."""
    return [(i, x) for i, x in reversed([*enumerate(values)]) if isinstance(x, Tensor)]


def is_given(leaf: Any) -> bool:
    """Tell whether a leaf of the arguments is an input of the program."""
    return isinstance(leaf, Tensor) or is_input(leaf)


def _fake(mode: FakeTensorMode, i: int, leaf: Tensor, versions: dict[int, Version]) -> Tensor:
    # What a view is a view of is not an input; that views share writes is kept.
    if mode.static_shapes:
        meta = meta_of(leaf, mode.space)
    else:
        assert mode.shape_env is not None
        meta = symbolic_meta(leaf, mode.space, mode.shape_env, f"x{i}", ())
    fake = of_meta(meta)
    if leaf.version.__class__ is Version:
        fake.version = versions.setdefault(id(leaf.version), share(fake))
    if leaf.keys & GRAD:
        fake.requires_grad_()
    return fake


# -- what no program can do ---------------------------------------------------


def state_of(value: Any) -> Any:
    """Give what a function may change of a tensor's gradient; a value that is no tensor itself."""
    if not isinstance(value, Tensor):
        return value
    node = value.grad_node if value.keys & GRAD else None
    hooks = tuple(getattr(node, "hooks", None) or ())
    return value.keys & GRAD, node, getattr(node, "kept", None), hooks


def _refuse_effects(left: str, inputs: Sequence[Any], before: Sequence[Any]) -> None:
    if left:
        raise SideEffect(left)
    if any(state_of(x) != was for x, was in zip(inputs, before, strict=True)):
        raise SideEffect("the function changes whether, or how, an input requires grad")


def _refuse_moved(inputs: Sequence[Any], spec: Any, given: Any) -> None:
    now, structure = tree.flatten(given)
    if structure != spec or any(a is not b for a, b in zip(now, inputs, strict=True)):
        raise SideEffect("the function changes a container that it was given")


def _refuse_outer(out: Any, known: Collection[int]) -> None:
    """Refuse a container from outside as a result: a program would make another one."""
    waiting = [out]
    while waiting:
        value = waiting.pop()
        parts = tree.children(value)[1]
        if parts is not None and id(value) in known:
            raise CaptureError("a result is a container that is read from outside the function")
        waiting += parts or ()


def _refuse_kinds(results: Sequence[Any]) -> None:
    for value in results:
        if is_traceable_wrapper_subclass(value):
            raise Inward
        refuse_kind(value)


def _finish(  # noqa: PLR0917
    tracer: Tracer,
    under: Word,
    inputs: Sequence[Any],
    results: list[Any],
    spec: Any,
    env: ShapeEnv,
) -> Captured:
    parameters = {
        name: t for name, t in tracer.constants.items() if isinstance(t, Tensor) and t.keys & GRAD
    }
    wanted = _wanted(inputs)
    passed: dict[int, tuple[Source, Views]] = {}
    grown: list[int] = []
    for i, result in enumerate(results):
        if isinstance(result, Tensor) and result.keys & GRAD:
            found = _passed(result, inputs)
            if found is None:
                grown.append(i)
            else:
                passed[i] = found
    if not grown:
        kept = [None if i in passed else r for i, r in enumerate(results)]
        forward = tracer.finish(kept, env)
        return Captured(forward, None, spec, len(results), (), passed, wanted, (), env)
    if MADE.subclasses and meets_subclass(results[i].grad_node for i in grown):
        raise Inward
    _refuse_shared([*inputs, *parameters.values()], results, grown)
    with_inputs = [inputs[i] for i in wanted] + list(parameters.values())
    for held in [*tracer.constants.values()]:
        tree.map_leaves(tracer.value, tensors_held(held))  # backward has them as they are now
    last = tracer.graph.last
    roots = list({id(results[i]): results[i] for i in grown}.values())
    tangents = [_tangent(tracer, root) for root in roots]
    try:
        grads = run_under(under, grad_between, roots, with_inputs, tangents, create_graph=False)
    except Exception as error:  # an eager call takes no gradient
        refuse_gradient(error)
    kept = [None if i in passed else r for i, r in enumerate(results)]
    whole = tracer.finish([kept, list(grads)], env)
    forward, backward = split(whole, last, list(parameters))
    order = tuple(next(i for i in grown if results[i] is root) for root in roots)
    return Captured(
        forward, backward, spec, len(results), order, passed, wanted,
        tuple(parameters.values()), env,
    )  # fmt: skip


def _wanted(inputs: Sequence[Any]) -> tuple[int, ...]:
    """Give the positions of inputs that require grad, each tensor once."""
    first = {id(x): i for i, x in reversed(list(enumerate(inputs)))}
    return tuple(
        i
        for i, x in enumerate(inputs)
        if isinstance(x, Tensor) and x.keys & GRAD and first[id(x)] == i
    )


def _passed(result: Tensor, inputs: Sequence[Any]) -> tuple[Source, Views] | None:
    """Find the input or outer tensor that a result is, or is a view of, and by which views."""
    views: list[tuple[Any, tuple[Any, ...]]] = []
    base = result
    while True:
        for i, given in enumerate(inputs):
            if given is base:
                return i, tuple(reversed(views))
        if base.payload.__class__ is not Meta:
            return base, tuple(reversed(views))
        view = getattr(base, "view_of", None)
        if view is None or not _can_be_taken(view[1], view[2]):
            return None
        views.append((view[1], view[2]))
        base = view[0]


def _can_be_taken(op: Any, statics: Sequence[Any]) -> bool:
    """Tell whether a view, with its history, is there again when it is taken of the real tensor."""
    several = len(op._schema.returns) > 1
    known = not several or any(x.__class__ is Number for x in statics)
    fixed = not any(isinstance(x, Tensor) or is_symbolic(x) for x in tree.leaves(tuple(statics)))
    return known and fixed and recorder_of(op) is not None


def _refuse_shared(given: Sequence[Any], results: Sequence[Any], grown: Sequence[int]) -> None:
    for n, i in enumerate(grown):
        result = results[i]
        others = [*given, *[results[k] for k in grown[:n] if results[k] is not result]]
        if any(isinstance(x, Tensor) and shares_memory(result, x) for x in others):
            raise CaptureError(
                f"result {i} shares storage with an input or another result, "
                "and a gradient is needed",
                fix="return a copy: .clone()",
            )
        if result.is_leaf:
            raise CaptureError(
                f"result {i} is a leaf that the function made", fix="make it outside"
            )


def _tangent(tracer: Tracer, result: Tensor) -> Tensor:
    """Make the placeholder for the gradient of a result."""
    tangent = of_meta(describe(result))
    tracer.placeholder("tangent", tangent)
    return tangent
