"""Kinds of calls: what selects the programs that are right for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from polyop.dispatch.bits import GRAD, NO_GRAD, NUMPY
from polyop.dispatch.context import word
from polyop.objects.guards import guards_of
from polyop.objects.made_of import is_foreign
from polyop.schema.opaque import VALUE, is_input, opaque_type
from polyop.tensor.meta import element_strides
from polyop.tensor.storage import Version
from polyop.tensor.tensor import Tensor
from polyop.tree.same import Same, exact, key_orders

#: Arguments that a program can neither take nor keep.
ODD = (np.ndarray, Iterator)


def is_odd(leaf: Any) -> bool:
    """Tell whether an argument is one that a program can neither take nor keep."""
    return leaf.__class__ is not Tensor and (isinstance(leaf, ODD) or is_foreign(leaf))


def is_plain(leaves: Sequence[Any]) -> bool:
    """Tell whether nothing but grad mode is active, and all tensors have NumPy data."""
    if int(word()) & ~NO_GRAD:
        return False
    return all(leaf.keys & ~(GRAD | NUMPY) == 0 for leaf in leaves if isinstance(leaf, Tensor))


def describe_call(
    leaves: Sequence[Any], spec: Any, given: Any, fn: Callable[..., Any]
) -> tuple[Any, tuple[Any, ...]]:
    """Give what selects the programs of a call, and the shapes that select among them."""
    facts, shapes = describe_inputs(leaves, spec, fn)
    # Besides the leaves: the pair, the arguments by position, and those by name.
    flat = spec.num_nodes == len(leaves) + 3
    return (facts, (tuple(given[1]),) if flat else key_orders(given)), shapes


def describe_inputs(
    leaves: Sequence[Any], spec: Any, fn: Callable[..., Any] | None
) -> tuple[Any, tuple[Any, ...]]:
    """Give what the inputs of a program are, and their shapes."""
    facts: list[Any] = [spec, int(word()), Same(getattr(fn, "__self__", None))]
    shapes: list[Any] = []
    first: dict[int, int] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            payload = leaf.payload
            # Two inputs that share storage are another program than two that do not.
            group = id(leaf.version) if leaf.version.__class__ is Version else id(leaf)
            contiguous = payload.flags.c_contiguous
            same = first.setdefault(id(leaf), i), first.setdefault(group, i)
            facts.append((payload.dtype, payload.ndim, leaf.keys, same, contiguous))
            shapes.append((payload.shape, None if contiguous else element_strides(payload)))
        elif is_input(leaf):
            facts.append((type(leaf), guards_of(leaf), first.setdefault(id(leaf), i)))
            shapes.append((None, None))
        else:
            facts.append((type(leaf), static(leaf)))
            shapes.append((None, None))
    return tuple(facts), tuple(shapes)


def static(leaf: Any) -> Any:
    """Give what a value that is no tensor is known by."""
    found = opaque_type(leaf.__class__)
    if found is not None and found.kind == VALUE:
        return leaf  # its class says what makes two of them equal
    return exact(leaf)
