"""Whole Jacobians: a forward or reverse derivative, batched over a basis."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from polyop.dispatch.bits import OTHER
from polyop.errors import AutogradError
from polyop.layers.autograd.chosen import Argnums, Fn, by_leaves
from polyop.layers.autograd.forward_mode import check_results, jvp
from polyop.layers.autograd.transforms import recorded
from polyop.layers.rows import taken_apart
from polyop.layers.vmap import vmap
from polyop.ops.define import ON_TENSORS
from polyop.tensor.tensor import Tensor


def jacfwd(
    func: Fn,
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
    chunk_size: int | None = None,
) -> Fn:
    """Give the Jacobian of a function by forward mode, one column per input element.

    Args:
        func: returns a tree of tensors.
        argnums: which arguments to differentiate; a tuple gives a tuple.
        has_aux: whether it returns `(result, aux)`; then so does the Jacobian.
        randomness: what random operators inside do; see `vmap`.
        chunk_size: how many columns run at once; None is all.

    Returns:
        A function; each result of shape `s` has, for each input of shape `t`, a
        Jacobian of shape `s + t` in its place.

    Raises:
        UsageError: in the call, `argnums` do not fit the arguments.
        UsageTypeError: an input is no floating tensor, or a result no tensor.
        AutogradError: an input is complex, and has two derivatives.
    """

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        of_leaves, leaves, build = by_leaves(func, argnums, args, kwargs)
        primals = tuple(leaves)
        seen: list[Any] = []

        def column(*basis: Any) -> Any:
            _, slope, *aux = jvp(of_leaves, primals, basis, has_aux=has_aux)
            seen[:] = aux
            return slope

        check_inputs(leaves)
        _refuse_complex("jacfwd", "input", leaves)
        mapped = vmap(column, 0, 0, randomness, chunk_size=chunk_size)
        columns, build_out = taken_apart(mapped(*basis_of(leaves)))
        sizes = [prod(x.shape) for x in leaves]

        def parts(whole: Tensor) -> list[Tensor]:
            rows = zip(_split(whole, sizes), leaves, strict=True)
            return [_columns_last(part, x) for part, x in rows]

        found = build_out([build(parts(c)) for c in columns])
        return (found, seen[0]) if has_aux else found

    return jacobian


def jacrev(
    func: Fn,
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Fn:
    """Give the Jacobian of a function by reverse mode, one row per result element.

    Args:
        func: returns a tree of tensors.
        argnums: which arguments to differentiate; a tuple gives a tuple.
        has_aux: whether it returns `(result, aux)`; then so does the Jacobian.
        chunk_size: how many rows run at once; None is all.

    Returns:
        A function; see `jacfwd`.

    Raises:
        UsageError: in the call, `argnums` do not fit the arguments.
        UsageTypeError: an input is no floating tensor, or a result no tensor.
        AutogradError: a result is complex, and has two gradients.
    """

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        of_leaves, leaves, build = by_leaves(func, argnums, args, kwargs)
        ran = recorded(of_leaves, leaves, tuple, has_aux=has_aux)
        check_results(ran.results)
        results = ran.values()
        _refuse_complex("jacrev", "result", results)
        sizes = [prod(r.shape) for r in results]

        def row(*basis: Tensor) -> tuple[Tensor, ...]:
            return tuple(ran.pulled(basis, retain=True))

        rows = vmap(row, chunk_size=chunk_size)(*basis_of(results))
        split = [_split(whole, sizes) for whole in rows]
        found = ran.build(
            [build([_rows_first(s[i], r) for s in split]) for i, r in enumerate(results)]
        )
        return (found, ran.level.peel(ran.aux)) if has_aux else found

    return jacobian


def hessian(func: Fn, argnums: Argnums = 0) -> Fn:
    """Give the second derivatives of a function, forward mode over reverse mode.

    Args:
        func: returns a tree of tensors, most often one without axes.
        argnums: which arguments to differentiate; a tuple gives a tuple of tuples.

    Returns:
        A function; a result of shape `s` has, for inputs of shapes `t` and `u`,
        second derivatives of shape `s + t + u` in its place.
    """
    return jacfwd(jacrev(func, argnums), argnums)


def check_inputs(leaves: Sequence[Any]) -> None:
    """Refuse inputs that have no derivative, before a basis is made of them."""
    if any(not isinstance(x, Tensor) for x in leaves):
        jvp(lambda *x: x, tuple(leaves), tuple(leaves))


def _refuse_complex(name: str, what: str, tensors: Sequence[Tensor]) -> None:
    """Refuse what a real basis sees one half of."""
    for i, x in enumerate(tensors):
        if x.dtype.kind == "c":
            raise AutogradError(
                f"{name} takes real steps, and {what} {i} is complex: half of it would be lost",
                argument=f"{what} {i}",
                declared="a real dtype",
                seen=f"dtype {x.dtype}",
                fix="differentiate real and imaginary parts, or use func.jvp and func.vjp",
            )


def basis_of(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Give the standard basis of all elements: for each tensor, its part of every vector."""
    sizes = [prod(x.shape) for x in leaves]
    total, start, made = sum(sizes), 0, []
    for x, n in zip(leaves, sizes, strict=True):
        # The diagonal of ones that begins where the elements of this tensor do.
        eye = ON_TENSORS["eye"](total, n, k=-start, dtype=x.dtype, device=x.device)
        if x.keys & OTHER:  # of the library of what it goes with
            eye = ON_TENSORS["add"](eye, ON_TENSORS["zero_of"](x, []))
        made.append(_reshaped(eye, [total, *x.shape], x))
        start += n
    return made


def _split(whole: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Cut axis 0 into parts of given sizes."""
    if len(sizes) == 1:
        return [whole]
    found, start = [], 0
    for n in sizes:
        found.append(ON_TENSORS["slice"](whole, 0, start, start + n, 1))
        start += n
    return found


def _columns_last(part: Tensor, x: Tensor) -> Tensor:
    """Bring columns, along axis 0, behind the axes of the result."""
    moved = ON_TENSORS["moveaxis"](part, 0, -1)
    return _reshaped(moved, [*moved.shape[:-1], *x.shape], x)


def _rows_first(part: Tensor, result: Tensor) -> Tensor:
    """Give rows, along axis 0, the axes of the result."""
    return _reshaped(part, [*result.shape, *part.shape[1:]], result)


def _reshaped(tensor: Tensor, shape: Sequence[Any], x: Tensor) -> Tensor:
    """Give the axis that counts the elements of `x` the axes of `x`; it is that of a vector."""
    found: Tensor = tensor if len(x.shape) == 1 else ON_TENSORS["reshape"](tensor, shape)
    return found
