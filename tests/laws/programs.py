"""Random straight-line programs, whose text is the same for polyop and for PyTorch.

All values of a program have one shape, and stay near [-1, 1], so that any step
may follow any other and derivatives stay finite. A step is a function of the
library, two earlier values and a small number that chooses among variants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from tests.laws.operators import wave

import polyop
from polyop import Tensor

SHAPE = (2, 3)
Step = Callable[[Any, Any, Any, int], Any]
Program = Callable[[Any, Any], Any]


class Ours:
    """polyop, where its names differ from PyTorch's."""

    lib: Any = polyop
    wave: Any = staticmethod(wave)

    @staticmethod
    def ordered(a: Any, axis: int) -> Any:
        """Sort along an axis."""
        return polyop.sort(a, axis=axis)

    @staticmethod
    def flip(a: Any, axis: int) -> Any:
        """Turn an axis around."""
        return polyop.flip(a, axis=axis)


class Theirs:
    """PyTorch."""

    lib: Any = torch

    @staticmethod
    def wave(a: Any, b: Any) -> Any:
        """What the custom operator computes."""
        return torch.sin(a) * b

    @staticmethod
    def ordered(a: Any, axis: int) -> Any:
        """Sort along an axis."""
        return torch.sort(a, dim=axis).values

    @staticmethod
    def flip(a: Any, axis: int) -> Any:
        """Turn an axis around."""
        return torch.flip(a, (axis,))


def _reduced(x: Any, a: Any, b: Any, k: int) -> Any:
    axis = k % 2
    found = [
        lambda: a.sum(axis=axis, keepdims=True) / 3,
        lambda: a.mean(axis=axis, keepdims=True) * b,
        lambda: x.lib.amax(a, axis=axis, keepdims=True),
        lambda: x.lib.amin(a, axis=axis, keepdims=True) * 0.5,
        lambda: x.lib.logsumexp(a, axis=axis, keepdims=True) - 1.0,
        lambda: x.lib.var(a, axis=axis, correction=0, keepdims=True),
        lambda: a.prod(axis=axis, keepdims=True),
        lambda: (a * a).mean().reshape(1, 1),
    ]
    return found[k % 8]().expand(*SHAPE) * 0.5 + b * 0.5


def _viewed(x: Any, a: Any, b: Any, k: int) -> Any:
    found = [
        lambda: a.T.reshape(2, 3),
        lambda: a.reshape(6)[1:5].sum() * 0.25 + b,
        lambda: x.lib.cat([a[:, 1:], b[:, :1]], axis=1),
        lambda: x.lib.stack([a[1], b[0]], axis=0),
        lambda: a[:1].expand(2, 3) - b[:, 2:].expand(2, 3),
        lambda: x.flip(a, 1) + a.reshape(3, 2).T,
        lambda: x.lib.cat([a[::2], b[1:]], axis=0),
        lambda: a[None].expand(4, 2, 3).mean(axis=0) * b,
        lambda: a[..., k % 3].reshape(2, 1) * b,
        lambda: a.diagonal(0, 0, 1).reshape(2, 1) + b * b.diagonal(1, 0, 1)[:, None],
        lambda: x.lib.stack(list(a.unbind(1)), axis=1).permute(1, 0).reshape(2, 3),
        lambda: x.lib.cat(list(x.lib.chunk(a, 3, 1))[::-1], axis=1),
        lambda: x.lib.moveaxis(a.unsqueeze(0), 0, 2).squeeze(2),
        lambda: a.flatten().roll(k).reshape(2, 3),
        lambda: x.lib.tril(a) + x.lib.triu(b, 1),
        lambda: a[:, [2, 0, 0]] * 0.5 + a[[1, 0]] * 0.5,
    ]
    return found[k % 16]() * 0.5


def _unary(x: Any, a: Any, b: Any, k: int) -> Any:
    found = [
        a.sin, a.cos, a.tanh, a.sigmoid, lambda: (-a * a).exp(), lambda: a.abs() * 0.7,
        lambda: (a * a).log1p(), lambda: (a * a + 0.5).sqrt(), lambda: 1 / (a.cos() + 2.0),
        lambda: a.square(), lambda: (a * 0.5).expm1(), lambda: a.relu(), lambda: a.atan(),
        lambda: (a * a + 1.0).rsqrt(), lambda: x.lib.clip(a, -0.45, 0.55), lambda: -a,
    ]  # fmt: skip
    return found[k % 16]()


def _binary(x: Any, a: Any, b: Any, k: int) -> Any:
    found = [
        lambda: (a + b) * 0.5, lambda: (a - b) * 0.5, lambda: a * b, lambda: a / (b * b + 1.0),
        lambda: x.lib.maximum(a, b), lambda: x.lib.minimum(a, b * 0.9),
        lambda: x.lib.where(a > b, a.sin(), b * 0.8), lambda: x.lib.lerp(a, b, 0.3),
        lambda: x.lib.atan2(a, b * b + 1.0), lambda: x.lib.hypot(a, b * b + 0.5) * 0.5,
        lambda: (a * a + 1.0) ** (b * 0.5) - 1.0, lambda: x.lib.logaddexp(a, b) * 0.5,
        lambda: a.masked_fill(b > 0.2, 0.3), lambda: x.lib.addcmul(a * 0.5, a, b) * 0.7,
    ]  # fmt: skip
    return found[k % 14]()


def _scanned(x: Any, a: Any, b: Any, k: int) -> Any:
    axis = k % 2
    found = [
        lambda: x.lib.cumsum(a, axis=axis) * 0.4,
        lambda: x.lib.cumprod(a * 0.5 + 0.6, axis=axis) * b,
        lambda: x.lib.softmax(a, axis) - b * 0.3,
        lambda: x.lib.log_softmax(a, axis) * 0.3,
        lambda: x.ordered(a, axis),
        lambda: x.ordered(a.reshape(6), 0).reshape(2, 3) * b,
    ]
    return found[k % 6]()


def _multiplied(x: Any, a: Any, b: Any, k: int) -> Any:
    found = [
        lambda: a @ b.T @ a,
        lambda: a @ (b.T @ b) @ (a.T @ b),
        lambda: x.lib.outer(a[:, 0], b[1]),
        lambda: (a @ b[0]).reshape(2, 1) * b,
        lambda: (a[None].expand(2, 2, 3) @ b.T[None]).sum(axis=0) @ a,
        lambda: (a.reshape(6) @ b.reshape(6)) * a,
    ]
    return found[k % 6]() * 0.3


def _custom(x: Any, a: Any, b: Any, k: int) -> Any:
    return x.wave(a, b) if k % 2 else x.wave(a[0], b[:, :1]) * 0.5


def _written(x: Any, a: Any, b: Any, k: int) -> Any:
    """Write a fresh tensor, through views, views of views, and under its views."""
    y = (a + b) * 0.5
    rows, column, turned = y[1:], y[:, k % 3], y.T
    for i in (k, k // 3, k // 7):
        _WRITES[i % len(_WRITES)](x, y, (rows, column, turned), a)
    return y * 0.6 + turned.T * rows + column.reshape(2, 1) * 0.1


_WRITES: list[Callable[[Any, Any, Any, Any], Any]] = [
    lambda x, y, views, a: y.mul_(a),
    lambda x, y, views, a: views[0].add_(a[:1]),
    lambda x, y, views, a: views[1].mul_(a[:, 0]),
    lambda x, y, views, a: views[2][1:].copy_(a.T[:2]),
    lambda x, y, views, a: views[0].T[0].sub_(a[0, 1]),
    lambda x, y, views, a: y.diagonal(0, 0, 1).mul_(a[:, 1]),
    lambda x, y, views, a: y.cos_(),
    lambda x, y, views, a: y.__setitem__((0, slice(1, None)), a[1, :2]),
    lambda x, y, views, a: views[2][0].fill_(0.25),
    lambda x, y, views, a: y[:, 1].zero_(),
    lambda x, y, views, a: y.unsqueeze(0)[:, 0].sin_(),
]

#: By name: the steps, each with the number of its variants.
STEPS: dict[str, tuple[Step, int]] = {
    "unary": (_unary, 16),
    "binary": (_binary, 14),
    "reduced": (_reduced, 8),
    "viewed": (_viewed, 48),
    "scanned": (_scanned, 12),
    "multiplied": (_multiplied, 6),
    "custom": (_custom, 2),
    "written": (_written, 99),
}


#: Those that read both values in each variant.
BOTH = {"binary", "reduced", "multiplied", "custom", "written"}


def _same(x: Any, a: Any, k: int) -> Any:
    """Give a view of a whole value."""
    return (a.T.T, a.unsqueeze(1).squeeze(1), a[None][0], a[:, :])[k % 4]


class Call(NamedTuple):
    """One step: its name, the values that it reads, and its variant.

    Besides those in `STEPS` there are `alias`, a view of a whole value, and
    `poke`, which writes one value into another in place.
    """

    name: str
    i: int
    j: int
    k: int


def run(calls: Sequence[Call], x: Any, inputs: Sequence[Any]) -> Any:
    """Run a program in place, and give a mean of all its values."""
    values = list(inputs)
    for name, i, j, k in calls:
        if name == "alias":
            values.append(_same(x, values[i], k))
        elif name == "poke":
            _poke(values[i], values[j], k)
        else:
            values.append(STEPS[name][0](x, values[i], values[j], k))
    return sum(v * c for v, c in zip(values, _weights(len(values)), strict=True))


def _poke(target: Any, value: Any, k: int) -> None:
    (target.mul_, target.add_, target.copy_)[k % 3](value)


def _poked(target: Any, value: Any, k: int) -> Any:
    return (lambda: target * value, lambda: target + value, lambda: value * 1.0)[k % 3]()


def run_pure(calls: Sequence[Call], x: Any, inputs: Sequence[Any]) -> Any:
    """Run a program without writing shared values: what `run` has to give."""
    values = list(inputs)
    groups = [*range(len(values))]
    for name, i, j, k in calls:
        if name == "alias":
            values.append(values[i] * 1.0)
            groups.append(groups[i])
        elif name == "poke":
            new, group = _poked(values[i], values[j], k), groups[i]
            values = [new if g == group else v for g, v in zip(groups, values, strict=True)]
        else:
            values.append(STEPS[name][0](x, values[i], values[j], k))
            groups.append(len(groups) + 1000)
    return sum(v * c for v, c in zip(values, _weights(len(values)), strict=True))


def _weights(n: int) -> Any:
    return np.cos(np.arange(n)).tolist()


def ours(calls: Sequence[Call]) -> Program:
    """Give the program as a function of our tensors."""
    return lambda *inputs: run(calls, Ours, inputs)


def theirs(calls: Sequence[Call]) -> Program:
    """Give it as a function of PyTorch's."""
    return lambda *inputs: run_pure(calls, Theirs, inputs)


# -- generation ---------------------------------------------------------------


@st.composite
def programs(draw: Any, least: int = 5, most: int = 50, anywhere: bool = False) -> list[Call]:
    """Draw a program.

    Args:
        draw: of Hypothesis.
        least: the smallest number of calls.
        most: the largest.
        anywhere: whether calls may write any value, inputs among them.
    """
    names = [*STEPS, "alias", "poke"]
    made = Made(anywhere)
    for _ in range(draw(st.integers(least, most))):
        name = draw(st.sampled_from(names))
        n = len(made.reads)
        # Late values are read more often, so that programs are deep.
        i, j = (max(0, n - 1 - draw(st.integers(0, n - 1)) // (1 + e)) for e in (2, 0))
        made.add(Call(name, i, j, draw(st.integers(0, STEPS.get(name, (None, 12))[1] - 1))))
    return made.calls


class Made:
    """A program so far: for each value, which inputs it depends on and whose memory it is."""

    def __init__(self, anywhere: bool = False) -> None:
        self.anywhere = anywhere
        self.calls: list[Call] = []
        self.reads = [{0}, {1}]
        self.roots = [0, 1]

    def add(self, call: Call) -> None:
        """Add a call, unless it would write an input, or what some transform does not know.

        A gradient cannot follow a write to what does not depend on its input, and a map cannot
        write several samples into what is one.
        """
        name, i, j, _ = call
        if name == "poke":
            if not self.anywhere and (self.roots[i] < 2 or self.reads[i] != {0, 1}):
                return
        else:
            self.roots.append(self.roots[i] if name == "alias" else len(self.roots))
            self.reads.append(self.reads[i] | self.reads[j] if name in BOTH else self.reads[i])
        self.calls.append(call)


def data(seed: int, shape: Sequence[int] = SHAPE) -> Any:
    """Give numbers in [-1, 1] that no two of are equal."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, shape)


def as_theirs(array: Any) -> Any:
    """Give PyTorch's tensor of an array."""
    return torch.tensor(array)


def values_of(result: Any) -> Any:
    """Give the numbers of a result, of either library."""
    return result.numpy(force=True) if isinstance(result, Tensor) else result.numpy(force=True)
