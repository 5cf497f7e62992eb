"""Opaque objects in exports: an input each, or constants of the program (S183, S186).

A traced function must not change the object that it is exported with, and the
program must not keep it. So a placeholder knows a copy, each run of the
function gets a new fake of that, and objects from outside are replaced by
their fakes while the function runs. What the function asks of the state of
an object is a fact of one object: the program asks again when it runs, and
refuses an object that answers otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from typing import Any, NoReturn

from polyop import tree
from polyop.dispatch.context import word
from polyop.dispatch.objects import ObjectOpOverload
from polyop.errors import CaptureError, GraphError
from polyop.export.outside import outside_objects, rebound
from polyop.export.signature import Signature
from polyop.graph import GraphModule, Node
from polyop.graph.node import CALL_FUNCTION, GET_ATTR
from polyop.layers.fake import FakeTensorMode
from polyop.layers.trace.sizes import Sizes
from polyop.objects.calls import call_object
from polyop.objects.environment import environment, put_back
from polyop.objects.fake_classes import fake_class_of
from polyop.objects.fakes import FakeObject, make_fake, original_of, stays_real
from polyop.objects.strays import watched
from polyop.schema.opaque import is_input, is_reference, opaque_type
from polyop.source import source_of
from polyop.symbolic import is_symbolic
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor


def class_name_of(value: Any) -> str:
    """Give the schema type of an opaque object."""
    if isinstance(value, ObjectInput):
        return value.class_name
    found = opaque_type(value.__class__)
    assert found is not None
    return found.name


def input_of(mode: FakeTensorMode, value: Any) -> Any:
    """Give what an export knows of an object that is an argument: a fake of a copy of it."""
    if stays_real(value):
        return value
    fake = make_fake(mode, original_of(value) if type(value) is FakeObject else value)
    return FakeObject(fake.wrapped_obj, fake.class_name, fake.real_obj, fake.real_obj)


def renewed(mode: FakeTensorMode, value: Any) -> Any:
    """Give a fake object in its first state; any other value as it is."""
    return make_fake(mode, original_of(value)) if type(value) is FakeObject else value


def forget_states(mode: FakeTensorMode) -> None:
    """Forget what earlier runs did to the fakes of objects; note what the next one reads."""
    mode.__dict__.pop("objects", None)
    mode.__dict__["on_read"] = note_read


def renewed_all(mode: FakeTensorMode, values: Sequence[Any]) -> list[Any]:
    """Give the inputs of one more run, in which no object has been changed yet."""
    forget_states(mode)
    return [renewed(mode, value) for value in values]


class Apart:
    """A function that gets new fakes of its objects at each run, those from outside too."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f = f
        self.outside = outside_objects(f)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function in the fake mode that is active."""
        mode = word().fake
        forget_states(mode)
        args, kwargs = tree.map_leaves(partial(renewed, mode), (args, kwargs))
        with (
            self.outside.held(),
            self._unchanged(),
            self.outside.replaced(mode.from_object),
            watched(mode),
        ):
            return rebound(self.f, mode.from_object)(*args, **kwargs)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Put back what the function changes outside it, and refuse it."""
        reads = environment(self.f)
        try:
            yield
        except BaseException:
            put_back(reads)
            raise
        changed = put_back(reads)
        if changed:
            raise CaptureError(
                f"the function changes {changed!r} outside it, and the program would not do that",
                argument=changed,
                source=source_of(self.f),
                fix="return what is to be kept, and keep it where the program is called",
            )


# -- what a program relies on -------------------------------------------------


def assert_answer(answer: Any, known: Any, what: str) -> None:
    """Stop a program whose object does not answer what it answered at export.

    Args:
        answer: what a call or a read of an object gave.
        known: what it gave at export; `...` stands for anything, and a pair of a dtype's name
            and sizes for a tensor.
        what: what was asked.

    Raises:
        CaptureError: with both.
    """
    if not _fits(answer, known):
        _refuse_answer(answer, known, what)


def assert_state(obj: Any, name: str, known: Any) -> None:
    """Stop a program whose object has another attribute than at export.

    Raises:
        CaptureError: with both.
    """
    answer = getattr(obj, name, None)
    if not _fits(answer, known):
        _refuse_answer(answer, known, f"{name} of a {class_name_of(obj)}")


def inner_object(obj: Any, name: str) -> Any:
    """Read an object out of an attribute of another.

    Raises:
        CaptureError: there is none.
    """
    found = getattr(obj, name, None)
    if not is_reference(found):
        _refuse_answer(found, ..., f"{name} of a {class_name_of(obj)}")
    return found


#: Passes keep them, in their places, though nobody reads what they give.
inner_object.is_impure = True  # type: ignore[attr-defined]
assert_answer.is_impure = True  # type: ignore[attr-defined]
assert_state.is_impure = True  # type: ignore[attr-defined]


def _refuse_answer(answer: Any, known: Any, what: str) -> NoReturn:
    raise CaptureError(
        f"the program was made for an object with another state: {what}",
        declared=f"{known!r:.80}",
        seen=f"{answer!r:.80}",
        fix="export it again for this state, or make an operator of what depends on it",
    )


_SCALARS = (bool, int, float, complex, str, bytes, type(None))


def known_part(value: Any, size_of: Callable[[Any], Any] | None = None) -> Any:
    """Give of a value what a program may rely on, and `...` for the rest.

    Args:
        value: what is known of an answer: numbers, texts, metas, containers of them.
        size_of: gives what stands for a size; without it, tensors say nothing.
    """
    if type(value) in _SCALARS or isinstance(value, Enum):
        return value
    if isinstance(value, Meta) and size_of is not None:
        return value.dtype.name, tuple(map(size_of, value.shape))
    if type(value) in (list, tuple):
        return type(value)(known_part(v, size_of) for v in value)
    if type(value) is dict:
        return {k: known_part(v, size_of) for k, v in value.items()}
    return ...


def _fits(answer: Any, known: Any) -> bool:
    if known is ...:
        return True
    if isinstance(answer, Tensor):
        answer = answer.dtype.name, tuple(answer.shape)
    if is_symbolic(answer) or is_symbolic(known):  # another trace will see to it
        return bool(answer == known)
    if type(answer) is not type(known):
        return False
    if type(known) in (list, tuple):
        return len(answer) == len(known) and all(map(_fits, answer, known))
    if type(known) is dict:
        return list(answer) == list(known) and all(_fits(answer[k], known[k]) for k in known)
    return answer is known or repr(answer) == repr(known)


def says_something(known: Any) -> bool:
    """Tell whether there is anything to compare: a number, a text, a length, a size."""
    if type(known) is tuple:
        return any(map(says_something, known))
    return known is not ... and known is not None


def note_read(fake: FakeObject, name: str, value: Any) -> Any:
    """Record that the traced function read an attribute of an object, and give what it gets."""
    tracer = word().tracer
    if is_reference(value):
        return _inner_object(tracer, fake, name, value)
    if tracer is None:
        return value
    known = known_part(value)
    if says_something(known) or value is None:
        node = tracer.object_node(fake)
        tracer.graph.create_node(CALL_FUNCTION, assert_state, (node, name, known))
    return value


def _inner_object(tracer: Any, fake: FakeObject, name: str, value: Any) -> Any:
    """Give the fake of an object inside another; each run reads it there."""
    found = opaque_type(value.__class__)
    assert found is not None
    if found.reconstruct_fn is not None:
        return value  # which makes the node when it is asked for
    inner = word().fake.from_object(value)
    if tracer is not None:
        args = tracer.object_node(fake), name
        node = tracer.graph.create_node(CALL_FUNCTION, inner_object, args, val=inner)
        tracer.track_object(inner, node)
    return inner


def add_checks(module: GraphModule) -> None:
    """Let a program and its subgraphs check what objects answer, where code went on with that."""
    sizes = Sizes(module.graph)
    for node in list(module.graph.nodes):
        if node.op == GET_ATTR:
            inner = module.get_attr(node.target)
            if isinstance(inner, GraphModule):
                add_checks(inner)
        elif node.op == CALL_FUNCTION and asks_state(node):
            _check(node, sizes)
    module.recompile()


def asks_state(node: Node) -> bool:
    """Tell whether a node calls an object whose state decides what it gives."""
    calls = node.target is call_object or isinstance(node.target, ObjectOpOverload)
    return calls and any(has_state(given.val) for given in node.all_input_nodes)


def has_state(value: Any) -> bool:
    """Tell whether a value is an object that answers anything in traces."""
    if type(value) is FakeObject:
        return value.wrapped_obj is not None
    return is_reference(value) and (stays_real(value) or fake_class_of(type(value)) is not None)


def _check(node: Node, sizes: Sizes) -> None:
    graph = sizes.graph
    what = f"{node.args[1]}()" if node.target is call_object else f"{node.target}"
    with graph.inserting_after(node):
        known = known_part(node.val, partial(_size, sizes))
        if says_something(known):
            graph.create_node(CALL_FUNCTION, assert_answer, (node, known, what))


def _size(sizes: Sizes, size: Any) -> Any:
    try:
        return sizes.node(size) if is_symbolic(size) else int(size)
    except GraphError:  # no tensor before has it
        return ...


def refuse_leaked(mode: FakeTensorMode, constants: dict[str, Any]) -> None:
    """Refuse a fake of this export as a constant: no run of the program would have it."""
    for value in constants.values():
        payload = getattr(value, "payload", None) if isinstance(value, Tensor) else None
        if payload.__class__ is Meta and payload.space is mode.space:
            raise CaptureError(
                "the function reads a tensor that no call gave it, out of the state of an object "
                "or kept from an earlier run",
                seen=f"{value.dtype.name} of shape {tuple(value.shape)}",
                fix="get it by a method of the object (and of its fake class), or by an operator",
            )


# -- calls and files ----------------------------------------------------------


class ObjectInput:
    """What a program from a file knows of an object that is an input: its class."""

    __slots__ = ("class_name",)

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name

    def __repr__(self) -> str:
        return f"ObjectInput({self.class_name})"


def refuse_unknown(signature: Signature, values: Sequence[Any]) -> None:
    """Refuse to trace a program again of whose objects only the classes are known.

    Raises:
        CaptureError: with the input.
    """
    for number, value in zip(signature.of_graph, values, strict=True):
        if isinstance(value, ObjectInput):
            path = signature.inputs[number].path
            raise CaptureError(
                f"the program is from a file, which keeps of {path} only the class, and a trace "
                "needs its state",
                argument=path,
                declared=value.class_name,
                fix="decompose it before it is saved",
            )


def stands_for_object(value: Any) -> bool:
    """Tell whether what a graph knows of a value is that it is an opaque object."""
    return isinstance(value, ObjectInput) or is_input(value)
