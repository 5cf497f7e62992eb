"""The three routes themselves: from a call to the arrays of its results (`plan.py`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np

from polyop import tree
from polyop.dispatch.context import run_under, word
from polyop.dispatch.operator import OpOverload
from polyop.errors import AutogradError, MissingKernelError
from polyop.layers.payloads.facts import mapped, tensors
from polyop.layers.payloads.plan import Plan
from polyop.ops.generator import Generator, draw
from polyop.payloads.exchange import from_numpy, is_cut, to_numpy
from polyop.payloads.held import Held, of_held
from polyop.payloads.library import Library
from polyop.payloads.native import Call, Unsupported
from polyop.schema.tags import Tag
from polyop.tensor.meta import Meta
from polyop.tensor.tensor import Tensor, is_differentiable

#: What a library raises where it does not do what was asked: of dtypes, options, sizes, data.
REFUSALS = (
    Unsupported, TypeError, ValueError, IndexError, RuntimeError, AttributeError, ArithmeticError,
    np.linalg.LinAlgError,
)  # fmt: skip


class Request(NamedTuple):
    """One call.

    Attributes:
        plan: of the operator.
        library: of the arrays.
        like: one of them.
        args: the operator's arguments.
        wanted: the metas of the results, or None.
    """

    plan: Plan
    library: Library
    like: Any
    args: tuple[Any, ...]
    wanted: Any

    def array(self, t: Tensor) -> Any:
        """Give a tensor's array as one of the library."""
        held = t.payload
        if held.__class__ is Held:
            return self.library.ready(held.array)
        return from_numpy(self.library, held, self.like)

    def tensor(self, t: Tensor) -> Tensor:
        """Give a tensor as one over the library, whose history does not matter."""
        return of_held(Held(self.array(t), self.library))

    def concrete(self) -> bool:
        """Tell whether all arrays have data."""
        given = [t.payload for v in self.args for t in tensors(v) if t.payload.__class__ is Held]
        return all(self.library.is_concrete(held.array) for held in given)

    def recorded(self) -> bool:
        """Tell whether the library's gradients would miss results that NumPy computes."""
        op = (self.plan.twin or self.plan).op
        formula = op.rule("formula")
        named = zip(op._schema.arguments, self.args, strict=True)
        given = [v for a, v in named if formula is None or a.name in formula.text]
        held = [t.payload for v in given for t in tensors(v) if t.payload.__class__ is Held]
        return any(is_cut(one.array, self.library, op.name()) for one in held)


def answer(request: Request) -> Any:
    """Give the arrays of the results."""
    plan = request.plan
    if plan.native is None and plan.parts is not None:
        return decomposed(request)
    refusal: BaseException | None = None
    if plan.native is not None:
        try:
            return native(request)
        except REFUSALS as error:
            refusal = error
    return exchanged(request, refusal)


def native(request: Request) -> Any:
    """Run the native kernel.

    Raises:
        REFUSALS: it has no answer.
    """
    kernel = request.plan.native
    assert kernel is not None
    given = [mapped(value, request.array) for value in request.args]
    call = Call(request.library, request.like, request.wanted)
    return finished(request.library, kernel(call, *given), request.wanted)


def decomposed(request: Request) -> Any:
    """Run the decomposition, below all layers."""
    parts = request.plan.parts
    assert parts is not None
    given = [mapped(value, request.tensor) for value in request.args]
    out = run_under(word().in_kernel, parts, *given)
    arrays = tree.map_leaves(lambda t: mapped(t, request.array), out)
    return finished(request.library, arrays, request.wanted)


def finished(library: Library, out: Any, wanted: Any) -> Any:
    """Give native results the dtypes that NumPy's have.

    Raises:
        Unsupported: a shape is another; the answer is none.
    """
    if wanted.__class__ in {list, tuple}:
        return [finished(library, o, w) for o, w in zip(out, wanted, strict=True)]
    if wanted.__class__ is not Meta:
        return out
    sizes = zip(wanted.shape, out.shape, strict=False)
    if len(out.shape) != len(wanted.shape) or any(n.__class__ is int and n != m for n, m in sizes):
        raise Unsupported
    dtype = library.canonical(wanted.dtype)
    return out if library.dtype(out) == dtype else library.astype(out, dtype)


# -- the exchange ---------------------------------------------------------------------------


def exchanged(request: Request, refusal: BaseException | None = None) -> Any:
    """Run the NumPy kernel on converted data; as a task, if arrays are recipes."""
    plan, library = request.plan, request.library
    if not request.concrete():
        no_data(plan.op, library, refusal)
    if Tag.nondeterministic_seeded in plan.op.tags:
        refuse_drawn_twice(plan.op, library)
    if library.lazy and request.wanted is not None:
        return deferred(request, plan.kernel)
    out = plan.kernel(*[mapped(v, as_numpy) for v in request.args])

    def back(x: Any) -> Any:
        if not isinstance(x, (np.ndarray, np.generic)):
            return x
        if is_differentiable(x.dtype) and request.recorded():
            refuse_lost(plan.op, library, refusal)
        return from_numpy(library, x, request.like)

    return tree.map_leaves(back, list(out) if isinstance(out, tuple) else out)


def deferred(request: Request, kernel: Callable[..., Any]) -> Any:
    """Make a recipe of a kernel.

    One that draws has a stream of its own, the same each time that it is computed. The call draws
    where that begins, so calls differ, and follow the generator that they are given.
    """
    op = request.plan.op
    if Tag.pointwise in op.tags and any(value.__class__ is int for value in request.args):
        # Whether a dtype holds a number is known now.
        kernel(*[mapped(value, _without_elements) for value in request.args])
    given = [mapped(value, request.array) for value in request.args]
    if Tag.nondeterministic_seeded in op.tags:
        place = [a.name for a in op._schema.arguments].index("generator")
        seed = int(draw(given[place], "integers", 1 << 62))
        kernel, given[place] = partial(_from_seed, kernel, place, seed), None
    return request.library.defer(kernel, given, request.wanted)


def _without_elements(t: Tensor) -> Any:
    return np.empty(0, t.dtype)


def _from_seed(kernel: Callable[..., Any], place: int, seed: int, *args: Any) -> Any:
    return kernel(*args[:place], Generator(seed), *args[place + 1 :])


def as_numpy(t: Tensor) -> Any:
    """Give a tensor's data as a NumPy array that is only read."""
    payload = t.payload
    return to_numpy(payload.array) if payload.__class__ is Held else payload


def refuse_drawn_twice(op: OpOverload, library: Library) -> None:
    """Refuse draws which a library repeats for its gradients, of a stream that it knows nothing of.

    Raises:
        AutogradError: it does.
    """
    if library.runs_again():
        raise AutogradError(
            f"{op.name()} draws random numbers from polyop's generator in a function that "
            f"{library.name} runs again for its gradient, and would draw others then",
            op=op._schema,
            declared=f"numbers that follow {library.name}'s own generator",
            seen="torch.utils.checkpoint",
            source=op.source,
            fix="draw outside of the function, and give it the numbers; or call an operator with "
            "the tag nondeterministic_seeded on PyTorch's own tensors",
        )


def refuse_lost(op: OpOverload, library: Library, refusal: BaseException | None = None) -> NoReturn:
    """Refuse a result of NumPy's kernel, which the library's gradients would take for a constant.

    Raises:
        AutogradError: always.
    """
    raise AutogradError(
        f"{op.name()} would be computed by NumPy here, and cut from the gradients of "
        f"{library.name}{_reason(refusal)}",
        op=op._schema,
        declared=f"a native kernel for {library.name}, through which gradients flow",
        source=op.source,
        fix="call it on what is detached, or in another dtype",
    ) from refusal


def _reason(refusal: BaseException | None) -> str:
    """Say why the native kernel has no answer."""
    if refusal is None:
        return ""
    why = f" ({type(refusal).__name__}: {refusal})"[:200] if str(refusal) else ""
    return f": its native kernel cannot do this call{why}"


def no_data(op: OpOverload, library: Library, refusal: BaseException | None = None) -> NoReturn:
    """Refuse what a library only traces.

    Raises:
        MissingKernelError: always.
    """
    raise MissingKernelError(
        f"{op.name()} has no kernel for what {library.name} traces{_reason(refusal)}",
        op=op._schema,
        declared="NumPy's kernel on converted data, which a tracer or fake has not",
        source=op.source,
        fix="call it outside of the traced function, or write it with operators for which "
        f'polyop.extend.payload_route(op, "{library.name}") says "native"',
    ) from refusal
