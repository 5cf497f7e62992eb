"""What loops over tensors have in common: slices, stacks, and carries that keep their form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

from polyop import tree
from polyop.graph import GraphModule
from polyop.hop.forms import Flat, Fn, Group, breach, describe, path_of, same_structure
from polyop.hop.lifting import Lifted
from polyop.layers.fake.mode import FakeTensorMode
from polyop.layers.vmap.batch import VmapLevel, peel
from polyop.ops.factories import zeros
from polyop.ops.joining import stack
from polyop.ops.reductions import sum as sum_of
from polyop.ops.rounding import clone
from polyop.ops.views import moveaxis
from polyop.symbolic import statically_known_true
from polyop.tensor.meta import normal_strides
from polyop.tensor.tensor import Tensor, of_meta


def check_function(op: Any, fn: Any, name: str) -> None:
    """Refuse what is no function.

    Raises:
        SubgraphError: it cannot be called.
    """
    if not callable(fn):
        breach(f"{name} of {op} is no function", op, argument=name, seen=repr(fn))


def is_of_leaves(fn: Any) -> bool:
    """Tell whether a function takes and gives leaves, as those of programs do."""
    return isinstance(fn, (Flat, GraphModule))


def is_of_trees(fn: Any) -> bool:
    """Tell whether a flat function stands for one of trees."""
    inner = fn
    while isinstance(inner, (Flat, Lifted)):
        inner = inner.__wrapped__
    return isinstance(fn, Flat) and fn.spec is not None and not isinstance(inner, GraphModule)


def group_of(fn: Any, xs: Any) -> Group:
    """Give an operand as a group: its leaves, or itself."""
    return tuple(tree.leaves(xs)) if is_of_leaves(fn) else (xs,)


def length_of(op: Any, xs: Any) -> Any:
    """Give the length of the leaves of `xs`, along dimension 0.

    Raises:
        SubgraphError: there is no leaf, one is no Tensor or has no axis, or the lengths differ.
    """
    leaves = tree.leaves(xs)
    fix = "give tensors of one length along dimension 0"
    if not leaves:
        breach(f"xs of {op} has no Tensor", op, argument="xs", seen=describe(xs), fix=fix)
    for i, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not leaf.shape:
            breach(
                f"a leaf of xs of {op} is no Tensor with an axis", op,
                argument=f"xs{tree.paths(xs)[i]}", seen=describe(leaf), fix=fix,
            )  # fmt: skip
    first = leaves[0].shape[0]
    for i, leaf in enumerate(leaves):
        if leaf.shape[0] is not first and leaf.shape[0] != first:
            breach(
                f"the leaves of xs of {op} have different lengths", op,
                argument=f"xs{tree.paths(xs)[i]}", declared=f"length {first}",
                seen=describe(leaf), fix=fix,
            )  # fmt: skip
    return first


def step_of(xs: Any, i: int) -> Any:
    """Give one step of a tree of tensors."""
    return tree.map_leaves(lambda x: x[i], xs)


def fake_like(mode: FakeTensorMode, x: Any) -> Any:
    """Give a fake of the same size, dtype and device, with memory of its own."""
    return of_meta(mode.meta(x.shape, x.dtype, device=x.device)) if isinstance(x, Tensor) else x


def fake_step(mode: FakeTensorMode, x: Tensor) -> Tensor:
    """Give the fake of one step of a tensor, strides and all."""
    shape = tuple(x.shape[1:])
    strides = None if x.is_contiguous() else normal_strides(shape, x.stride()[1:])
    return of_meta(mode.meta(shape, x.dtype, strides, x.device))


def fake_stack(mode: FakeTensorMode, length: Any, x: Tensor) -> Tensor:
    """Give the fake of a stack of steps."""
    return of_meta(mode.meta((length, *x.shape), x.dtype, device=x.device))


def stacked(op: Any, fn: Fn, steps: Sequence[Any]) -> Any:
    """Stack the results of steps, leaf by leaf.

    Raises:
        SubgraphError: steps give different structures, shapes or dtypes, or what is no Tensor.
    """
    flat = [tree.flatten(step) for step in steps]
    first, spec = flat[0]
    for i, (leaves, found) in enumerate(flat):
        same_structure(op, ("step 0", spec), (f"step {i}", found), fn)
        for k, (a, b) in enumerate(zip(first, leaves, strict=True)):
            check_result(op, fn, path_of(spec, k), b)
            if facts(a) != facts(b):
                breach(
                    f"steps of {op} give different shapes or dtypes", op, fn,
                    argument=f"result{path_of(spec, k)} of step {i}", declared=describe(a),
                    seen=describe(b), fix="give each step the same shape and dtype",
                )  # fmt: skip
    columns = zip(*[leaves for leaves, _ in flat], strict=True)
    return tree.unflatten(spec, [stack(list(column)) for column in columns])


def check_result(op: Any, fn: Fn, path: str, leaf: Any) -> None:
    """Refuse a result that cannot be stacked."""
    if not isinstance(leaf, Tensor):
        breach(
            f"the results of {op} are stacked, and one is no Tensor", op, fn,
            argument=f"result{path}", seen=describe(leaf), fix="return a Tensor",
        )  # fmt: skip


def facts(x: Tensor) -> Any:
    """Give what all steps share of a tensor."""
    return tuple(x.shape), x.dtype, x.device


def empty_stack(x: Tensor, leaves: Sequence[Any]) -> Tensor:
    """Give the stack of no steps; it belongs to the history of what the loop was given."""
    made: Tensor = zeros((0, *x.shape), dtype=x.dtype, device=x.device)
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.requires_grad and made.dtype == leaf.dtype:
            made = made + sum_of(leaf) * 0
    return made


# -- carries ------------------------------------------------------------------


def acting(fn: Fn, act: Fn) -> Fn:
    """Give a function whose results something acts on, before any layer sees them."""

    @wraps(fn, updated=())
    def run(*given: Any) -> Any:
        return act(fn(*given))

    return run


def check_structure(op: Any, fn: Fn, spec: Any, new: Any, name: str = "the carry") -> list[Any]:
    """Check that a carry keeps its structure, and give its leaves.

    Raises:
        SubgraphError: it does not.
    """
    after, found = tree.flatten(new)
    same_structure(op, (f"{name} before a step", spec), ("after it", found), fn)
    return after


def check_carry(op: Any, fn: Fn, old: Any, new: Any, name: str = "the carry") -> list[Any]:
    """Check that a carry keeps structure, shapes and dtypes, and give its leaves.

    Raises:
        SubgraphError: it does not.
    """
    before, spec = tree.flatten(old)
    after = check_structure(op, fn, spec, new, name)
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        if not _keeps(a, b):
            breach(
                f"{name} of {op} changes in a step", op, fn,
                argument=f"{name.removeprefix('the ')}{path_of(spec, i)}",
                declared=f"{describe(a)} before", seen=f"{describe(b)} after",
                fix="give it the shape and dtype that it began with"
                if isinstance(b, Tensor) else "make it a Tensor",
            )  # fmt: skip
    return after


def own_memory(values: Sequence[Any], others: Sequence[Any] = ()) -> list[Any]:
    """Give values of which no two share memory, nor one with some others: copies where they do."""
    seen = {memory_of(x) for x in others if isinstance(x, Tensor)}
    done = list(values)
    for i, x in enumerate(values):
        if isinstance(x, Tensor):
            memory = memory_of(x)
            done[i] = clone(x) if memory in seen else x
            seen.add(memory)
    return done


def memory_of(x: Tensor) -> int:
    """Give what tensors that share memory have in common."""
    return id(x if x.version.__class__ is int else x.version)


def _keeps(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b)
    if a.dtype != b.dtype or a.device != b.device or len(a.shape) != len(b.shape):
        return False
    return all(
        m is n or statically_known_true(m == n) for m, n in zip(a.shape, b.shape, strict=True)
    )


def check_constant(op: Any, fn: Fn, old: Sequence[Any], new: Sequence[Any]) -> None:
    """Refuse a number in a carry that a program would keep for good.

    Raises:
        SubgraphError: the number changes.
    """
    for i, (a, b) in enumerate(zip(old, new, strict=True)):
        if not isinstance(a, Tensor) and (type(a) is not type(b) or a != b):
            breach(
                f"a number in the carry of {op} changes, and is a constant of the program", op, fn,
                argument=f"carry[{i}]", declared=describe(a), seen=describe(b),
                fix="make it a Tensor: polyop.tensor(...)",
            )  # fmt: skip


def fake_result(mode: FakeTensorMode, x: Any) -> Any:
    """Give a fake like a result, strides and all."""
    if not isinstance(x, Tensor):
        return x
    strides = None if x.is_contiguous() else normal_strides(tuple(x.shape), x.stride())
    return of_meta(mode.meta(x.shape, x.dtype, strides, x.device))


def fake_carry(mode: FakeTensorMode, first: Any, new: Any) -> Any:
    """Give the fake of a carry, which lies as the first one if all steps do."""
    tensors = isinstance(first, Tensor) and isinstance(new, Tensor)
    like = fake_result if tensors and same_layout(first, new) else fake_like
    return like(mode, first)


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Tell whether the elements of two tensors of one shape are known to lie the same way."""
    if a.is_contiguous() or b.is_contiguous():
        return a.is_contiguous() and b.is_contiguous()
    pairs = zip(a.stride(), b.stride(), strict=True)
    return all(m is n or statically_known_true(m == n) for m, n in pairs)


def sample_run(fn: Fn, mode: FakeTensorMode, xs: Any, args: Any) -> Any:
    """Run a function on fakes of a step."""
    steps = tree.map_leaves(lambda x: fake_step(mode, x), xs)
    return fn(*steps, *tree.map_leaves(lambda x: fake_like(mode, x), args))


def steps_of_batch(xs: Sequence[Any], level: VmapLevel) -> tuple[Group, list[int | None]]:
    """Put the batch behind the steps, and tell where it is in one of them."""
    pairs = [peel(x, level) for x in xs]
    values = tuple(v if a is None else moveaxis(v, a, 1) for v, a in pairs)
    return values, [None if a is None else 0 for _, a in pairs]
