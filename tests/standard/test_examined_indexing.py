"""Indexing as programs write it: overlapping writes, far bounds, mixed keys drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.standard.arrays import ALL, into
from tests.standard.grid import SHAPES, differs, none, spread

import polyop as xp

FAR = 2**70
STATEMENTS = """
x[1:] = x[:-1]
x[:-1] = x[1:]
x[:] = x[::-1]
x[:] = x[::-1, ::-1]
x += x[::-1]
x[::2] += 1
x[x > 3] = 0
x[x > 3] += 1
x[x == 99] = 5
x[x > 3] *= x[x > 3]
x[:, 1] *= x[:, 0]
x[0] = x[1] = 5
x[...] = 7
x[()] = 3
x[1, ...] = x[0, ...]
x[..., 0] = x[0, 0]
v = x[1]; v += 1
v = x.T; v += 1
v = x[:, ::2]; v *= 2
v = x[None]; v -= 1
v = x[::-1]; v[1:] = v[:-1]
x[[0, 0]] += 1
x[:, [1, 0]] = x[:, [0, 1]]
x[1:2] = x[0]
x[0:0] = 3
x -= x
x //= 2; x %= 2; x **= 2
x[1][2] = 50
x[-1] = -1
x[0, 0] = True
x[:, None, :][0, 0, 0] = 77
x[FAR:] = 1
x[:FAR] = 1
x[::FAR] = 1
x[::-FAR] = 2
x[-FAR:] = 4
x[FAR] = 1
x[-FAR] = 1
x[0, FAR] = 1
x[::0] = 1
x[True] = 5
x[False] = 5
x[True, 0] = 5
x[..., ...] = 1
x[1.0] = 1
x[None, 0] = 2
x[0, 0, 0] = 1
x[[True, False, True]] = 9
x[[]] = 4
x[0] = [1, 2, 3, 4]
x[0] = [1, 2]
x[:, :, :] = 1
x[0, [1, 2], None] = 3
x[1:1, [0]] = 4
x[0] = 1j
x[0] = x
"""
EXPRESSIONS = """
x[FAR:]
x[:FAR]
x[-FAR:]
x[::FAR]
x[::-FAR]
x[FAR]
x[-FAR]
x[0, -FAR]
x[::0]
x[True]
x[False, 0]
x[..., ...]
x[None, ..., None]
x[0, 0, 0]
x[[[1, 0]]]
x[[0, 1], [1, 2]]
x[[0, 1], :][:, [1, 2]]
x[[5]]
x[[True]]
x[((0, 1), (1, 2))]
x[0:1.5]
x[3:][0]
x[x > 100]
x[::-1, ::-2]
x[5:1]
x[-100:100:3]
x[2:-5:-1]
x[...][0]
"""


def written(text: str) -> Callable[[Any], Any]:
    """Make a function of a statement about `x`, which gives `x` as it is then."""
    lines = ["def run(x):", *(f"    {part.strip()}" for part in text.split(";")), "    return x"]
    scope: dict[str, Any] = {"FAR": FAR}
    exec("\n".join(lines), scope)
    return scope["run"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", STATEMENTS.strip().splitlines())
def test_writes_as_programs_have_them(text: str) -> None:
    """The array is what NumPy's is afterwards, or the statement is refused where NumPy's is."""
    run = written(text)
    none(iter([differs(run, run, np.arange(12.0).reshape(3, 4))]))


@pytest.mark.parametrize("text", EXPRESSIONS.strip().splitlines())
def test_reads_as_programs_have_them(text: str) -> None:
    """Bounds of any size are those of Python; an index that is not there is refused."""
    run = written(f"x = {text}")
    none(iter([differs(run, run, np.arange(12.0).reshape(3, 4))]))


def test_an_index_of_more_than_64_bits_is_an_index_error() -> None:
    """However large the number is, the error is the one of an index that is not there."""
    x = xp.ones((2, 3))
    for key in (FAR, -FAR, (0, FAR), (slice(None), -FAR)):
        with pytest.raises(IndexError):
            x[key]
        with pytest.raises(IndexError):
            x[key] = 1.0


BOUNDS = [None, 0, 1, -1, 2, -2, 9, -9]
STEPS = [None, 1, 2, -1, -2, 3, -3, 100, -100]


class Keys:
    """Draws keys for a shape; every kind that the standard has, and their mixtures."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def one_of(self, several: list[Any]) -> Any:
        """Draw one of some things."""
        return several[int(self.random.integers(len(several)))]

    def basic(self, size: int) -> Any:
        """Draw a slice, or an integer, which may be out of range."""
        if self.random.integers(3):
            return slice(self.one_of(BOUNDS), self.one_of(BOUNDS), self.one_of(STEPS))
        return int(self.random.integers(-size - 1, size + 1))

    def places(self, size: int) -> Any:
        """Draw an array of integers of some dtype."""
        shape = self.one_of([(), (2,), (2, 1), (0,)])
        numbers = self.random.integers(-size, size, shape) if size else np.zeros(shape, int)
        return np.asarray(numbers).astype(self.one_of(["int8", "int64", "int32"]))

    def mixed(self, shape: tuple[int, ...]) -> Any:
        """Draw a key of slices, None, an ellipsis, and masks or arrays, but no integer beside."""
        key: list[Any] = []
        axis = 0
        while axis < len(shape):
            kind = self.random.integers(6)
            if kind == 0:
                key.append(None)
            elif kind == 1 and Ellipsis not in [k for k in key if k is Ellipsis]:
                key.append(...)
                break
            elif kind == 2:
                key.append(self.places(shape[axis]))
                axis += 1
            elif kind == 3:
                n = int(self.random.integers(1, len(shape) - axis + 1))
                key.append(self.random.integers(0, 2, shape[axis : axis + n]).astype(bool))
                axis += n
            else:
                part = slice(self.one_of(BOUNDS), self.one_of(BOUNDS), self.one_of(STEPS))
                key.append(part)
                axis += 1
        return tuple(key)

    def plain(self, shape: tuple[int, ...]) -> Any:
        """Draw a key of integers and slices alone."""
        return tuple([self.basic(n) for n in shape])


def _reads(key: Any) -> Callable[[Any], Any]:
    return lambda x: x[tuple(map(into, key)) if isinstance(x, xp.Tensor) else key]


def _writes(key: Any) -> Callable[[Any, Any], Any]:
    def run(x: Any, value: Any) -> Any:
        x[tuple(map(into, key)) if isinstance(x, xp.Tensor) else key] = value
        return x

    return run


@pytest.mark.parametrize("seed", range(4))
def test_keys_of_every_kind(seed: int) -> None:
    """Reading and writing agree with NumPy for mixtures of keys, or both refuse them."""
    keys = Keys(seed)

    def cases() -> Any:
        for _ in range(300):
            shape = keys.one_of(SHAPES[:9])
            x = spread(keys.one_of(ALL), shape, small=True)
            key = keys.one_of([keys.mixed, keys.plain])(shape)
            yield differs(_reads(key), _reads(key), x)
            try:
                there = x[key].shape
            except IndexError:
                there = ()
            value = spread(str(x.dtype), keys.one_of([there, there[1:], (), (1,) * len(there)]))
            if value.ndim <= len(there):
                yield differs(_writes(key), _writes(key), x, value)

    none(cases())
