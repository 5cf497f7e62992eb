"""Memory that goes in and out: what is shared, what is copied, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.standard.arrays import ALL, Array
from tests.standard.grid import REFUSALS, same_bits, spread

import polyop as xp

#: Arrays whose memory is laid out in every way, or is not there.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "plain": lambda x: x,
    "transposed": lambda x: x.T,
    "backward": lambda x: x[::-1, ::-2],
    "stepped": lambda x: x[::2, 1::2],
    "repeated": lambda x: np.broadcast_to(x[0], (3, 6)),
    "empty": lambda x: x[:0],
    "single": lambda x: x[0, 0:1].reshape(()),
    "read-only": lambda x: _locked(x),
}
COPIES = [None, True, False]


def _locked(x: Array) -> Array:
    x.flags.writeable = False
    return x


def laid_out(layout: str, dtype: str) -> Array:
    """Give an array of a layout."""
    return LAYOUTS[layout](spread(dtype, (4, 6)))


def _same(ours: Callable[[], Any], theirs: Callable[[], Any], given: Array) -> str:
    """Say how two ways differ: in the result, in whether it is the memory given, or in refusing."""
    try:
        wanted = theirs()
    except (*REFUSALS, BufferError) as error:
        wanted = error
    try:
        found = ours()
    except (*REFUSALS, BufferError) as error:
        found = error
    if isinstance(wanted, Exception) or isinstance(found, Exception):
        refused = isinstance(wanted, Exception) and isinstance(found, type(wanted))
        return "" if refused else f"NumPy {wanted!r:.80}, ours {found!r:.80}"
    array = found.numpy() if isinstance(found, xp.Tensor) else found
    if not same_bits(array, wanted):
        return f"NumPy {wanted!r:.80}, ours {array!r:.80}"
    shares = [np.may_share_memory(x, given) for x in (array, wanted)]
    return "" if not given.size or shares[0] == shares[1] else f"shared, NumPy shared: {shares}"


def _none(found: Iterator[str]) -> None:
    differences = [text for text in found if text]
    assert not differences, "\n".join(differences[:5])


def _exported(x: Any, copy: bool | None) -> Any:
    """What NumPy makes of an array, if memory that is read-only or backwards goes as a copy."""
    if x.flags.writeable and all(step >= 0 for step in x.strides):
        return np.from_dlpack(x, copy=copy)
    if copy is False:
        raise BufferError
    return np.from_dlpack(x, copy=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dlpack_shares_as_numpy_does(layout: str) -> None:
    """From an array, from a tensor, and from a tensor into NumPy, as `copy` says."""

    def cases() -> Iterator[str]:
        for dtype in ALL:
            x = laid_out(layout, dtype)
            ours = xp.from_numpy(x)
            for copy in COPIES:
                theirs = lambda c=copy, x=x: np.from_dlpack(x, copy=c)  # noqa: E731
                taken = lambda c=copy, x=x: _exported(x, c)  # noqa: E731
                for obj, wanted in ((x, theirs), (ours, taken)):
                    for named in ({}, {"device": "cpu"}):
                        yield _same(
                            lambda o=obj, c=copy, n=named: xp.from_dlpack(o, copy=c, **n), wanted, x
                        )
                yield _same(lambda c=copy, o=ours: np.from_dlpack(o, copy=c), taken, x)

    _none(cases())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_asarray_shares_as_numpy_does(layout: str) -> None:
    """Of arrays and of tensors, in the same dtype and in another, as `copy` says."""

    def cases() -> Iterator[str]:
        for dtype in ALL:
            x = laid_out(layout, dtype)
            for copy in COPIES:
                for other in (None, dtype, "complex128"):
                    for obj in (x, xp.from_numpy(x)):
                        yield _same(
                            lambda o=obj, c=copy, d=other: xp.asarray(o, dtype=d, copy=c),
                            lambda x=x, c=copy, d=other: np.asarray(x, dtype=d, copy=c),
                            x,
                        )

    _none(cases())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reshape_and_astype_share_as_numpy_does(layout: str) -> None:
    """A view where there is one, a copy where there is none or one is asked for."""

    def cases() -> Iterator[str]:
        for dtype in ALL:
            x = laid_out(layout, dtype)
            ours = xp.from_numpy(x)
            for copy in COPIES:
                for shape in ((-1,), x.shape, (1, *x.shape), x.shape[::-1]):
                    if not x.size and -1 in shape:
                        continue
                    yield _same(
                        lambda o=ours, s=shape, c=copy: xp.reshape(o, s, copy=c),
                        lambda x=x, s=shape, c=copy: np.reshape(x, s, copy=c),
                        x,
                    )
            for copied in (True, False):
                yield _same(
                    lambda o=ours, c=copied: xp.astype(o, o.dtype, copy=c),
                    lambda x=x, c=copied: np.astype(x, x.dtype, copy=c),
                    x,
                )

    _none(cases())


@pytest.mark.parametrize("dtype", ALL)
def test_an_array_without_elements_is_shared(dtype: str) -> None:
    """`copy=False` takes it, since nothing is copied; in another dtype it is another array."""
    assert xp.asarray(np.zeros((0, 3), dtype), copy=False).shape == (0, 3)
    other = "complex64" if dtype == "complex128" else "complex128"
    with pytest.raises(ValueError, match="cannot be shared"):
        xp.asarray(np.zeros(0, dtype), dtype=other, copy=False)
