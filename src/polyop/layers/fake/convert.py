"""The meta of a real tensor in a fake mode, with symbols for its sizes where they are wanted.

Symbols come from the sizes first; a stride that is a product of sizes is
written as that product, so that a dense tensor needs no symbols of its own for
its layout. Only a stride that no product explains gets a symbol. That a stride
is such a product is a fact of the sample, which the guards ask for again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from polyop.symbolic import ShapeEnv
from polyop.tensor.meta import Meta, MetaSpace, Shape, Size, meta_of, normal_strides


def symbolic_meta(
    tensor: Any, space: MetaSpace, env: ShapeEnv, source: str, dynamic: Collection[int]
) -> Meta:
    """Describe a tensor, with symbols of `env` for its sizes.

    Args:
        tensor: the tensor, real or on the device `meta`.
        space: of the mode.
        env: where the symbols are made.
        source: how a program finds the tensor, such as `"x"`.
        dynamic: the axes that get a symbol of their own, for 0 and 1 too.
    """
    plain = meta_of(tensor, space)
    axes = {axis % plain.ndim for axis in dynamic} if plain.ndim else set()
    sizes = tuple(
        env.create_symbol(size, f"{source}.shape[{i}]", dynamic=i in axes)
        if isinstance(size, int)
        else size
        for i, size in enumerate(plain.shape)
    )
    strides = None
    if not plain.is_contiguous:
        strides = _symbolic_strides(plain, sizes, env, source)
    return space.meta(sizes, plain.dtype, strides, plain.device)


def _symbolic_strides(plain: Meta, sizes: Shape, env: ShapeEnv, source: str) -> Shape | None:
    explained: dict[Size, Size] = {0: 0, 1: 1}
    strides: list[Size] = [0] * plain.ndim
    for axis in sorted(range(plain.ndim), key=lambda i: (plain.strides[i], -i)):
        stride, size = plain.strides[axis], plain.shape[axis]
        place = f"{source}.stride({axis})"
        if stride not in explained:
            explained[stride] = env.create_symbol(int(stride), place, dynamic=True)
        else:
            env.note_stride(place, explained[stride])
        strides[axis] = explained[stride]
        explained.setdefault(stride * size, strides[axis] * sizes[axis])
    return normal_strides(sizes, strides)
